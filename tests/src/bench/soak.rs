//! Pushes and acks at one rate for a long time. Rate, latency, memory and files must stay flat.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::load::{ItemIds, Kind, Mixed, Pace, Plan, Report, Stop, now, run};

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::plot::{self, Series};
use super::relay::{BenchRelay, Settings};

/// The title of the section.
const TITLE: &str = "Soak";

const SAMPLE: Duration = Duration::from_secs(5);
const LAG_ITEMS: u64 = 20_000;
const BATCH: usize = 100;
pub(super) const MIB: f64 = 1024.0 * 1024.0;

/// How much a series may grow from its first third to its last.
const GROWTH_MAX: f64 = 1.2;
const LATENCY_GROWTH_MAX: f64 = 2.0;

/// A smaller increase, in the unit of the series, is no growth: a file of a few pages doubles
/// quickly.
const GROWTH_MIN: f64 = 8.0;

/// Runs for `minutes`, draws the plot, and reports what stayed flat.
pub(super) fn measure(lab: &Lab, minutes: f64, svg: &Path) -> anyhow::Result<Section> {
    // Acked item ids are forgotten within a sample or two, so the store reaches its size soon.
    let settings = Settings { gc_interval_seconds: 5, dedup_window_seconds: 5, ..Settings::default() };
    let relay = lab.relay(settings)?;
    let mut mixed = Mixed::new(ItemIds::new(1, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX, LAG_ITEMS, BATCH);
    let address = relay.server.address;
    let plan = |pace| Plan {
        address,
        connections: CONNECTIONS,
        pace,
        stop: Stop { time: Some(SAMPLE), ..Stop::default() },
    };
    let rate = run(&mut mixed, &plan(Pace::Closed))?.rate() / 2.0;
    println!("{} requests, half of what was reached in the first seconds", quantity(rate, "/s"));
    let mut series = Vec::new();
    let start = now();
    while now() - start < Duration::from_secs_f64(minutes * 60.0) {
        let report = run(&mut mixed, &plan(Pace::PerSecond(rate)))?;
        record(&mut series, sample(&report, &relay)?);
        print_last(&series, now() - start);
    }
    plot::write(svg, &series)?;
    println!("the plot is in {}", svg.display());
    let mut section = Section::new(
        TITLE,
        format!(
            "`cargo xtask soak --minutes {minutes}`: pushes of 1 KiB to random ones of 100,000 recipients, each item acked when {} more were \
             pushed, together {}, half of what was reached in the first seconds (open loop, {CONNECTIONS} connections). A sweep runs every \
             5 s, and acked names are forgotten after 5 s. Medians of samples of {} s, without the first tenth.",
            quantity(LAG_ITEMS as f64, ""),
            quantity(rate, "requests/s"),
            SAMPLE.as_secs(),
        ),
    );
    compare(&mut section, &series);
    Ok(section)
}

/// One value per series, by name.
fn sample(report: &Report, relay: &BenchRelay) -> io::Result<Vec<(String, f64)>> {
    let pushes = report.tally(Kind::Push);
    let mut values = vec![
        ("requests /s".to_owned(), report.rate()),
        ("push p50 ms".to_owned(), pushes.latency_ms(0.5)),
        ("push p99 ms".to_owned(), pushes.latency_ms(0.99)),
        ("push max ms".to_owned(), pushes.latency_ms(1.0)),
        ("memory MiB".to_owned(), relay.server.memory()?.resident as f64 / MIB),
    ];
    for (kind, bytes) in relay.disk_usage()?.0 {
        values.push((format!("files .{kind} MiB"), bytes as f64 / MIB));
    }
    Ok(values)
}

/// Appends a sample. Series that are new, or have no value any more, count as zero there.
pub(super) fn record(series: &mut Vec<Series>, values: Vec<(String, f64)>) {
    let samples = series.first().map_or(0, |first| first.values.len());
    for (name, value) in values {
        let index = series.iter().position(|one| one.name == name).unwrap_or_else(|| {
            series.push(Series { name, values: vec![0.0; samples] });
            series.len() - 1
        });
        if let Some(one) = series.get_mut(index) {
            one.values.push(value);
        }
    }
    series.iter_mut().for_each(|one| one.values.resize(samples + 1, 0.0));
}

fn print_last(series: &[Series], elapsed: Duration) {
    let values = series
        .iter()
        .map(|one| format!("{} {}", one.name, quantity(one.values.last().copied().unwrap_or_default(), "")));
    println!("{:>6.0} s  {}", elapsed.as_secs_f64(), values.collect::<Vec<_>>().join(", "));
}

/// Adds the first and the last third of each series, and how far it may grow.
pub(super) fn compare(section: &mut Section, series: &[Series]) {
    for one in series {
        let (first, last) = one.thirds();
        let bar = growth_max(&one.name).map(|limit| Bar::Below((first * limit).max(first + GROWTH_MIN)));
        section.add(format!("{}, first third", one.name), first, "", Bar::None);
        section.add(format!("{}, last third", one.name), last, "", bar.unwrap_or(Bar::None));
    }
}

/// The largest ratio of last to first third that counts as flat.
fn growth_max(name: &str) -> Option<f64> {
    if name.starts_with("memory") || name.starts_with("files") {
        Some(GROWTH_MAX)
    } else if name.contains("p99") {
        Some(LATENCY_GROWTH_MAX)
    } else {
        None
    }
}

impl Series {
    /// The medians of the first and the last third, without the first tenth, in which caches fill.
    pub(super) fn thirds(&self) -> (f64, f64) {
        let settled = self.values.get(self.values.len().div_ceil(10)..).unwrap_or_default();
        let third = settled.len().div_ceil(3);
        let first = settled.get(..third).unwrap_or_default();
        let last = settled.get(settled.len() - third..).unwrap_or_default();
        (median(first), median(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, value: impl Fn(u32) -> f64) -> Series {
        Series { name: name.to_owned(), values: (0..100).map(value).collect() }
    }

    fn is_flat(series: &Series) -> bool {
        let mut section = Section::new(TITLE, "");
        compare(&mut section, std::slice::from_ref(series));
        section.is_met()
    }

    #[test]
    fn growth_is_not_flat() {
        assert!(is_flat(&series("memory MiB", |_| 100.0)) && is_flat(&series("requests /s", f64::from)));
        assert!(is_flat(&series("files .x MiB", |at| 100.0 + f64::from(at % 10))));
        assert!(!is_flat(&series("files .x MiB", |at| 100.0 + f64::from(at))));
        assert!(is_flat(&series("push p99 ms", |at| if at < 50 { 10.0 } else { 19.0 })));
        assert!(!is_flat(&series("push p99 ms", |at| if at < 50 { 10.0 } else { 21.0 })));
        assert!(is_flat(&series("files .x MiB", |at| if at < 50 { 1.0 } else { 5.0 })));
        // Caches may fill at the beginning.
        assert!(is_flat(&series("memory MiB", |at| if at < 10 { 1.0 } else { 100.0 })));
    }

    #[test]
    fn a_series_may_appear_and_disappear() {
        let mut series = Vec::new();
        record(&mut series, vec![("a".to_owned(), 1.0)]);
        record(&mut series, vec![("a".to_owned(), 2.0), ("b".to_owned(), 3.0)]);
        record(&mut series, vec![("b".to_owned(), 4.0)]);
        let values: Vec<_> = series.iter().map(|one| one.values.clone()).collect();
        assert_eq!(values, [[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]]);
    }
}
