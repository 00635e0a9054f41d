//! Runs the relay under a steady load for a long time. It measures nothing itself: relay-bench does, and fails when
//! something did not stay as it was.

use clap::Args;
use xshell::Shell;

use crate::{bench::relay_bench, project_root};

/// How long, and where the plot goes.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Minutes under load.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// The plot of what was seen.
    #[arg(long, value_name = "FILE", default_value = "target/soak.svg")]
    svg: String,
}

/// # Errors
/// If it does not build, a request fails, or memory, files or latencies grew.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let Flags { minutes, svg } = flags;
    relay_bench(&shell, &["soak", "--minutes", &minutes.to_string(), "--svg", svg].map(str::to_owned))
}
