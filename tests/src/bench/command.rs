//! The command line of `relay-bench`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::drill;

use super::figure::Section;
use super::kills::KillOptions;
use super::lab::Lab;
use super::redis::SERVER_ARGUMENTS;
use super::soak::Store;
use super::{BENCHMARKS, Benchmark, failovers, kills, machine, soak};

/// Measure the relay as a whole on this machine, and show each figure beside its bar.
///
/// It takes more than an hour and needs some 10 GB of disk. Nothing else should run meanwhile.
#[derive(Debug, Parser)]
#[command(name = "relay-bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run only the benchmarks whose name contains one of these: push, latency, batch, delivery,
    /// pull, ack, large, written, growth, space, sweep, shapes, start, auth, flood, timing
    filters: Vec<String>,
    /// Shorten everything to check that it works; the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Also write the tables to this file, as Markdown
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The beginning of a section.
const HEADING: &str = "\n## ";

#[derive(Debug, Subcommand)]
enum Command {
    /// Install the relay from its package, and go through the troubles of an operator
    Drill(drill::Options),
    /// Push and ack for a long time, and check whether memory, files and latencies stay flat
    Soak(SoakOptions),
}

/// What kind of soak.
#[derive(Debug, Args)]
struct SoakOptions {
    /// Length of the run in minutes
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Kill the relay about this often, in seconds, inject other faults, and audit everything
    /// that it has answered
    #[arg(long, value_name = "SECONDS")]
    kill_every: Option<f64>,
    /// Seed of the fault plan; by default a random one, which is printed
    #[arg(long, requires = "kill_every")]
    seed: Option<u64>,
    /// What the relay stores in
    #[arg(long, value_enum, default_value_t, conflicts_with = "kill_every")]
    store: Store,
    /// Instead: lose the primary of three PostgreSQL servers under Patroni this often, and
    /// audit everything that two relays have answered
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["minutes", "kill_every", "store", "svg"])]
    failovers: Option<usize>,
    /// Also write the table to the end of this file, as Markdown
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// File for the plot
    #[arg(long, value_name = "FILE", default_value = "target/soak.svg")]
    svg: PathBuf,
}

/// The program.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli { command: Some(Command::Drill(options)), .. } => drill::run(&options).map(|()| true),
        Cli { command: Some(Command::Soak(options)), .. } => run_soak(options),
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

/// Prints the results as a section of Markdown and puts it at the end of the document. Returns
/// whether every figure meets its bar.
fn run_soak(options: SoakOptions) -> anyhow::Result<bool> {
    let SoakOptions { minutes, kill_every, seed, store, failovers, out, svg } = options;
    let lab = Lab::open(false)?;
    let section = match (failovers, kill_every) {
        (Some(count), _) => failovers::measure(&lab, count)?,
        (None, Some(kill_every_seconds)) => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..));
            kills::measure(&lab, KillOptions { minutes, kill_every_seconds, seed }, &svg)?
        }
        (None, None) => soak::measure(&lab, minutes, store, &svg)?,
    };
    println!("{section}");
    if let Some(path) = out {
        let document = std::fs::read_to_string(&path)?;
        std::fs::write(path, with_soak(&document, &section))?;
    }
    Ok(section.is_met())
}

/// Returns the document with this soak at its end, in place of an earlier one with the same title.
fn with_soak(document: &str, section: &Section) -> String {
    let (benchmarks, soaks) = split_off_soaks(document);
    let mut document = benchmarks.trim_end().to_owned();
    let others =
        soaks.split(HEADING).filter(|soak| soak.lines().next().is_some_and(|it| it != section.title()));
    for soak in others {
        document.push_str(&format!("\n{HEADING}{}", soak.trim_end()));
    }
    format!("{document}\n\n{section}")
}

/// Splits a document into the benchmarks and the soaks at its end, which are separate runs.
fn split_off_soaks(document: &str) -> (&str, &str) {
    let soaks = document.find(&format!("{HEADING}Soak"));
    document.split_at(soaks.unwrap_or(document.len()))
}

/// Runs the benchmarks. Writes the document after each, so that nothing is lost when a later one
/// takes too long.
fn measure(filters: &[String], is_quick: bool, out: Option<&Path>) -> anyhow::Result<()> {
    let lab = Lab::open(is_quick)?;
    let mut document = preface(is_quick);
    let previous = out.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    let (_, soaks) = split_off_soaks(&previous);
    let mut show = |text: String| {
        println!("{text}");
        document.push_str(&text);
        document.push('\n');
        out.map_or(Ok(()), |path| std::fs::write(path, document.trim_end().to_owned() + "\n" + soaks))
    };
    show(machine::describe(&lab)?)?;
    for (name, benchmark) in selected(filters) {
        let section = benchmark(&lab).unwrap_or_else(|error| {
            Section::new("Failed", format!("The benchmark `{name}` failed: {error:#}."))
        });
        show(section.to_string())?;
    }
    Ok(())
}

fn selected(filters: &[String]) -> impl Iterator<Item = Benchmark> {
    BENCHMARKS
        .into_iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str())))
}

fn preface(is_quick: bool) -> String {
    let warning = if is_quick { "**A quick run: the figures mean nothing.**\n\n" } else { "" };
    let redis: Vec<_> =
        SERVER_ARGUMENTS.iter().map(|argument| if argument.is_empty() { "''" } else { argument }).collect();
    format!(
        "# Benchmarks\n\n{warning}Written by `cargo xtask bench`, in one run on one machine: the relay as a process on a real disk, the load \
         generator beside it on the same processors. Ratios carry over to other machines, absolute figures do not; the soaks at the end are \
         runs of their own. A bar is the requirement for a figure; a figure without one is for information. The causes of missed bars are in \
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
        assert!(matches!(
            cli.command,
            Some(Command::Soak(SoakOptions { minutes: 0.5, kill_every: None, .. }))
        ));
        let cli = Cli::try_parse_from(["relay-bench", "soak", "--kill-every", "20", "--seed", "7"]).unwrap();
        assert!(matches!(
            cli.command,
            Some(Command::Soak(SoakOptions { kill_every: Some(20.0), seed: Some(7), .. }))
        ));
        let cli = Cli::try_parse_from(["relay-bench", "soak", "--store", "postgres"]).unwrap();
        assert!(matches!(
            cli.command,
            Some(Command::Soak(SoakOptions { store: Store::Postgres, failovers: None, .. }))
        ));
        let cli = Cli::try_parse_from(["relay-bench", "soak", "--failovers", "10"]).unwrap();
        assert!(matches!(cli.command, Some(Command::Soak(SoakOptions { failovers: Some(10), .. }))));
    }

    #[test]
    fn soaks_follow_the_benchmarks() {
        let (benchmarks, soak) = ("# Benchmarks\n\n## Push\n", "\n## Soak with kills\n\nLong.\n");
        assert_eq!(split_off_soaks(&format!("{benchmarks}{soak}")), (benchmarks, soak));
        assert_eq!(split_off_soaks(benchmarks), (benchmarks, ""));
        let mut document = benchmarks.to_owned();
        for (title, how) in [("Soak", "One."), ("Soak with kills", "Two."), ("Soak", "Three.")] {
            document = with_soak(&document, &Section::new(title, how));
        }
        assert_eq!(document, format!("{benchmarks}\n## Soak with kills\n\nTwo.\n\n## Soak\n\nThree.\n\n"));
    }

    #[test]
    fn filters_select_benchmarks() {
        let names = |filters: &[&str]| {
            let filters: Vec<_> = filters.iter().map(|&filter| filter.to_owned()).collect();
            selected(&filters).map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[]).len(), BENCHMARKS.len());
        assert_eq!(names(&["ack", "pu"]), ["push", "pull", "ack"]);
    }
}
