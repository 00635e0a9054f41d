//! Runs the benchmark of the whole system, which writes `docs/benchmarks.md`, or the criterion
//! benchmarks of single parts, which keep their results under `target/criterion`. It measures
//! nothing itself.

use clap::Args;
use xshell::{Shell, cmd};

use crate::project_root;

/// The document of a whole run.
pub(crate) const DOCUMENT: &str = "docs/benchmarks.md";

/// The tables of a partial run, which must not replace the document.
const PARTIAL: &str = "target/benchmarks.md";

/// Which benchmarks to run.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Only the bars whose name holds one of these, or, with --criterion, the benchmarks whose name
    /// matches one of these regular expressions.
    filters: Vec<String>,
    /// The criterion benchmarks instead of the whole system.
    #[arg(long)]
    criterion: bool,
    /// Shorten everything, to see whether it works. The figures mean nothing.
    #[arg(long, conflicts_with = "criterion")]
    quick: bool,
}

/// # Errors
/// If something does not build or fails. A bar that is missed fails nothing.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    if flags.criterion {
        let filter = filter(&flags.filters);
        // Only the bench targets: the test harness of a library rejects criterion's flags.
        cmd!(shell, "cargo bench --workspace --all-features --bench * -- {filter...}").run()?;
        return Ok(());
    }
    relay_bench(&shell, &flags.arguments())
}

/// Builds the release programs and runs the benchmark with these arguments.
///
/// # Errors
/// If it does not build, or the benchmark fails.
pub(crate) fn relay_bench(shell: &Shell, arguments: &[String]) -> anyhow::Result<()> {
    // It starts the other programs, so all are built.
    cmd!(shell, "cargo build --release --package relay-tests --bins").run()?;
    cmd!(shell, "cargo run --quiet --release --package relay-tests --bin relay-bench -- {arguments...}")
        .run()?;
    Ok(())
}

impl Flags {
    /// The arguments of relay-bench.
    fn arguments(&self) -> Vec<String> {
        let is_whole = self.filters.is_empty() && !self.quick;
        let mut arguments = vec!["--out".to_owned(), if is_whole { DOCUMENT } else { PARTIAL }.to_owned()];
        arguments.extend(self.quick.then(|| "--quick".to_owned()));
        arguments.extend(self.filters.iter().cloned());
        arguments
    }
}

/// Criterion takes one expression at most, so several become alternatives of one.
fn filter(filters: &[String]) -> Option<String> {
    (!filters.is_empty()).then(|| filters.join("|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_alternatives() {
        assert_eq!(filter(&[]), None);
        assert_eq!(filter(&["push".into(), "pull/1".into()]).as_deref(), Some("push|pull/1"));
    }

    #[test]
    fn only_a_full_run_becomes_the_document() {
        let arguments = |filters: &[&str], quick| {
            let filters = filters.iter().map(|&filter| filter.to_owned()).collect();
            Flags { filters, quick, criterion: false }.arguments().join(" ")
        };
        assert_eq!(arguments(&[], false), "--out docs/benchmarks.md");
        assert_eq!(arguments(&["push", "ack"], false), "--out target/benchmarks.md push ack");
        assert_eq!(arguments(&[], true), "--out target/benchmarks.md --quick");
    }
}
