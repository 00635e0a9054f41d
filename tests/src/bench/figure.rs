//! Figures beside their bars, printed as a Markdown table that is also readable on a terminal.

use std::fmt;

use crate::load::{Kind, Report};

/// The requirement for a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Bar {
    /// No requirement; the figure is for information.
    None,
    AtLeast(f64),
    Below(f64),
    AtMost(f64),
}

/// One measured number.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    what: String,
    measured: f64,
    unit: &'static str,
    bar: Bar,
}

/// The figures of one experiment.
#[derive(Clone, Debug)]
pub(super) struct Section {
    title: &'static str,
    /// What was done, so that others can repeat it.
    how: String,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl Bar {
    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::None => true,
            Self::AtLeast(bar) => measured >= bar,
            Self::Below(bar) => measured < bar,
            Self::AtMost(bar) => measured <= bar,
        }
    }

    fn verdict(self, measured: f64) -> &'static str {
        match self {
            Self::None => "",
            bar if bar.is_met(measured) => "PASS",
            _ => "MISS",
        }
    }
}

impl Section {
    pub(super) fn new(title: &'static str, how: impl Into<String>) -> Self {
        Self { title, how: how.into(), figures: Vec::new(), notes: Vec::new() }
    }

    /// Adds a number.
    pub(super) fn add(&mut self, what: impl Into<String>, measured: f64, unit: &'static str, bar: Bar) {
        self.figures.push(Figure { what: what.into(), measured, unit, bar });
    }

    /// Adds a sentence.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(super) const fn title(&self) -> &'static str {
        self.title
    }

    /// Whether every figure meets its bar.
    pub(super) fn is_met(&self) -> bool {
        self.figures.iter().all(|figure| figure.bar.is_met(figure.measured))
    }

    /// Adds a note if requests of a run have failed.
    pub(super) fn note_failures(&mut self, what: &str, report: &Report) {
        for kind in Kind::ALL {
            let failed = report.tally(kind).failed();
            if failed > 0 {
                self.note(format!("{what}: {failed} responses to a {} were not 200.", kind.name()));
            }
        }
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## {}\n\n{}\n", self.title, self.how)?;
        if !self.figures.is_empty() {
            writeln!(f, "| | measured | bar | |\n|---|---:|---:|---|")?;
        }
        for Figure { what, measured, unit, bar } in &self.figures {
            let verdict = bar.verdict(*measured);
            let bar = match bar {
                Bar::None => String::new(),
                Bar::AtLeast(bar) => format!("≥ {}", quantity(*bar, unit)),
                Bar::Below(bar) => format!("< {}", quantity(*bar, unit)),
                Bar::AtMost(bar) => format!("≤ {}", quantity(*bar, unit)),
            };
            writeln!(f, "| {what} | {} | {bar} | {verdict} |", quantity(*measured, unit))?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

/// The middle value; of two, the greater one. 0 if there are none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Formats a number with its unit and three digits, or all digits before the point.
pub(super) fn quantity(number: f64, unit: &str) -> String {
    if number < 0.0 {
        return format!("-{}", quantity(-number, unit));
    }
    let digits = if number >= 1000.0 {
        thousands(&format!("{number:.0}"))
    } else if number >= 100.0 {
        format!("{number:.0}")
    } else if number >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    };
    format!("{digits} {unit}").trim_end().to_owned()
}

fn thousands(digits: &str) -> String {
    let groups = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_beside_their_bars() {
        let mut section = Section::new("Push", "Pushes.");
        section.add("rate", 1_234_567.8, "/s", Bar::AtLeast(1_000_000.0));
        section.add("ratio", 0.444, "", Bar::AtLeast(0.45));
        section.add("p99", 50.0, "ms", Bar::Below(50.0));
        section.add("memory", 49.94, "MiB", Bar::Below(50.0));
        section.add("disk", 999.0, "MB/s", Bar::None);
        section.note("Redis: skipped.");
        let expected = "## Push\n\nPushes.\n\n| | measured | bar | |\n|---|---:|---:|---|\n\
                        | rate | 1,234,568 /s | ≥ 1,000,000 /s | PASS |\n| ratio | 0.44 | ≥ 0.45 | MISS |\n\
                        | p99 | 50.0 ms | < 50.0 ms | MISS |\n| memory | 49.9 MiB | < 50.0 MiB | PASS |\n\
                        | disk | 999 MB/s |  |  |\n\nRedis: skipped.\n";
        assert_eq!(section.to_string(), expected);
    }

    #[test]
    fn the_median_is_the_middle_value() {
        assert_eq!(
            [median(&[]), median(&[2.0]), median(&[3.0, 1.0, 2.0]), median(&[2.0, 1.0])],
            [0.0, 2.0, 2.0, 2.0]
        );
    }
}
