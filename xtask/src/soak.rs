//! Runs the relay under steady load for a long time. relay-bench measures it, and fails when
//! memory, files or latencies grow.

use clap::Args;
use xshell::Shell;

use crate::{
    bench::{DOCUMENT, relay_bench},
    project_root,
};

/// Duration and output.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Minutes under load.
    #[arg(long, default_value_t = 60.0)]
    minutes: f64,
    /// Also kill the relay about this often, inject other faults, and audit every response.
    #[arg(long, value_name = "SECONDS")]
    kill_every: Option<f64>,
    /// Repeat the plan of an earlier run with kills.
    #[arg(long, requires = "kill_every")]
    seed: Option<u64>,
    /// The plot of the measurements.
    #[arg(long, value_name = "FILE", default_value = "target/soak.svg")]
    svg: String,
}

/// # Errors
/// If it does not build, a request fails, memory, files or latencies grow, or a promise was
/// broken.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    relay_bench(&shell, &flags.arguments())
}

impl Flags {
    /// The arguments of relay-bench.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            "soak".to_owned(),
            format!("--minutes={}", self.minutes),
            format!("--svg={}", self.svg),
            format!("--out={DOCUMENT}"),
        ];
        arguments.extend(self.kill_every.map(|seconds| format!("--kill-every={seconds}")));
        arguments.extend(self.seed.map(|seed| format!("--seed={seed}")));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_run_with_kills_has_a_seed() {
        let arguments = |kill_every, seed| {
            Flags { minutes: 1.0, kill_every, seed, svg: "x.svg".to_owned() }.arguments().join(" ")
        };
        assert_eq!(arguments(None, None), "soak --minutes=1 --svg=x.svg --out=docs/benchmarks.md");
        assert_eq!(
            arguments(Some(20.0), Some(7)),
            "soak --minutes=1 --svg=x.svg --out=docs/benchmarks.md --kill-every=20 --seed=7"
        );
    }
}
