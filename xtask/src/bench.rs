//! Runs the criterion benchmarks. It keeps no results and compares none: criterion does both, under `target/criterion`.

use clap::Args;
use xshell::{Shell, cmd};

use crate::project_root;

/// Which benchmarks to run.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Run only the benchmarks whose name matches one of these regular expressions.
    filters: Vec<String>,
}

/// # Errors
/// If a benchmark does not build or fails.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let filter = filter(&flags.filters);
    // Only the bench targets: the test harness of a library knows none of criterion's flags.
    cmd!(shell, "cargo bench --workspace --all-features --bench * -- {filter...}").run()?;
    Ok(())
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
}
