//! The command line of `relay-bench`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use super::figure::Section;
use super::kills::Terms;
use super::lab::Lab;
use super::redis::SERVER_ARGUMENTS;
use super::{BARS, Bar, kills, machine, soak};

/// Measures the relay as a whole, on this machine, and shows each figure beside its bar.
///
/// It takes most of an hour and needs some ten GB of disk. Nothing else should run meanwhile.
#[derive(Debug, Parser)]
#[command(name = "relay-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only the bars whose name holds one of these: push, latency, pull, ack, large, written,
    /// growth, space, sweep, shapes, start
    filters: Vec<String>,
    /// Shorten everything, to see that it works; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Also write the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// What a section begins with.
const HEADING: &str = "\n## ";

#[derive(Debug, Subcommand)]
enum Command {
    /// Push and ack for a long time, and see whether memory, files and latencies stay as they are
    Soak {
        /// How long
        #[arg(long, default_value_t = 60.0)]
        minutes: f64,
        /// Also kill the relay about so often, in seconds, and make it fail in other ways, and
        /// audit everything it has answered
        #[arg(long, value_name = "SECONDS")]
        kill_every: Option<f64>,
        /// What decides when what happens to it; a random one, which is printed, when it is not
        /// given
        #[arg(long, requires = "kill_every")]
        seed: Option<u64>,
        /// Also write the table to the end of this file, as Markdown
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Where to draw what was seen
        #[arg(long, value_name = "FILE", default_value = "target/soak.svg")]
        svg: PathBuf,
    },
}

/// The program.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli { command: Some(Command::Soak { minutes, kill_every, seed, out, svg }), .. } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..));
            let terms = kill_every.map(|kill_every_seconds| Terms { minutes, kill_every_seconds, seed });
            run_soak(minutes, terms, out.as_deref(), &svg)
        }
        Cli { filters, quick, out, .. } => measure(&filters, quick, out.as_deref()).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Prints what was found as a section of Markdown, puts it at the end of the document, and tells
/// whether all is well.
fn run_soak(minutes: f64, kills: Option<Terms>, out: Option<&Path>, svg: &Path) -> anyhow::Result<bool> {
    let lab = Lab::open(false)?;
    let section = match kills {
        None => soak::measure(&lab, minutes, svg)?,
        Some(terms) => kills::measure(&lab, terms, svg)?,
    };
    println!("{section}");
    if let Some(path) = out {
        let document = std::fs::read_to_string(path)?;
        std::fs::write(path, with_soak(&document, &section))?;
    }
    Ok(section.is_met())
}

/// The document with this soak at its end, in place of the one before.
fn with_soak(document: &str, section: &Section) -> String {
    let (bars, soaks) = split_off_soaks(document);
    let mut document = bars.trim_end().to_owned();
    let others =
        soaks.split(HEADING).filter(|soak| soak.lines().next().is_some_and(|it| it != section.title()));
    for soak in others {
        document.push_str(&format!("\n{HEADING}{}", soak.trim_end()));
    }
    format!("{document}\n\n{section}")
}

/// The bars of a document, and the soaks at its end, which are run on their own.
fn split_off_soaks(document: &str) -> (&str, &str) {
    let soaks = document.find(&format!("{HEADING}Soak"));
    document.split_at(soaks.unwrap_or(document.len()))
}

/// Runs the bars, and writes the document anew after each, so that nothing is lost when a later one
/// takes too long.
fn measure(filters: &[String], is_quick: bool, out: Option<&Path>) -> anyhow::Result<()> {
    let lab = Lab::open(is_quick)?;
    let mut document = preface(is_quick);
    let before = out.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let (_, soaks) = split_off_soaks(&before);
    let mut show = |text: String| {
        println!("{text}");
        document.push_str(&text);
        document.push('\n');
        out.map_or(Ok(()), |path| std::fs::write(path, document.trim_end().to_owned() + "\n" + soaks))
    };
    show(machine::describe(&lab)?)?;
    for (name, bar) in selected(filters) {
        let section = bar(&lab).unwrap_or_else(|error| {
            Section::new("Failed", format!("The bar `{name}` could not be measured: {error:#}."))
        });
        show(section.to_string())?;
    }
    Ok(())
}

fn selected(filters: &[String]) -> impl Iterator<Item = Bar> {
    BARS.into_iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())))
}

fn preface(is_quick: bool) -> String {
    let warning = if is_quick { "**A quick run: the figures mean nothing.**\n\n" } else { "" };
    let redis: Vec<_> =
        SERVER_ARGUMENTS.iter().map(|argument| if argument.is_empty() { "''" } else { argument }).collect();
    format!(
        "# Benchmarks\n\n{warning}Written by `cargo xtask bench`, in one run on one machine: the relay as a process on a real disk, the load \
         generator beside it on the same processors. Ratios carry over to other machines, absolute figures do not; the soaks at the end are \
         runs of their own. A bar is what was asked for; a figure without one is for information. What stands in the way of those that are missed is in \
         [performance.md](performance.md).\n\n\
         Where nothing else is said, noisy figures are medians of 3 runs of 10 s, the relay has its shipped configuration \
         without rate limit and quotas, and the peer is Redis as\n\n\
         ```\nredis-server {}\nredis-benchmark --csv -P 1 -c 64 -n 200000 -r 100000 XADD stream:__rand_int__ '*' item <1 KiB>\n```\n\n",
        redis.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["relay-bench", "--quick", "push", "ack"]).unwrap();
        assert!(cli.quick && cli.command.is_none() && cli.filters == ["push", "ack"]);
        let cli = Cli::try_parse_from(["relay-bench", "soak", "--minutes", "0.5"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Soak { minutes: 0.5, kill_every: None, .. })));
        let cli = Cli::try_parse_from(["relay-bench", "soak", "--kill-every", "20", "--seed", "7"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Soak { kill_every: Some(20.0), seed: Some(7), .. })));
    }

    #[test]
    fn soaks_stand_behind_the_bars() {
        let (bars, soak) = ("# Benchmarks\n\n## Push\n", "\n## Soak with kills\n\nLong.\n");
        assert_eq!(split_off_soaks(&format!("{bars}{soak}")), (bars, soak));
        assert_eq!(split_off_soaks(bars), (bars, ""));
        let mut document = bars.to_owned();
        for (title, how) in [("Soak", "One."), ("Soak with kills", "Two."), ("Soak", "Three.")] {
            document = with_soak(&document, &Section::new(title, how));
        }
        assert_eq!(document, format!("{bars}\n## Soak with kills\n\nTwo.\n\n## Soak\n\nThree.\n\n"));
    }

    #[test]
    fn filters_choose_bars() {
        let names = |filters: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|&filter| filter.to_owned()).collect();
            selected(&filters).map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), BARS.len());
        assert_eq!(names(&["ack", "pu"]), ["push", "pull", "ack"]);
    }
}
