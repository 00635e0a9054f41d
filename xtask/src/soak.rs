//! Runs the relay under steady load for a long time, or loses the primary of its database again and
//! again, or goes through a night of troubles from its package on. relay-bench measures it, and
//! fails when memory, files, tables or latencies grow, or a promise is broken.

use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    bench::{DOCUMENT, relay_bench},
    package, project_root,
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
    /// What the relay stores in: redb, or postgres for one PostgreSQL server.
    #[arg(long, default_value = "redb", conflicts_with = "kill_every")]
    store: String,
    /// Instead: lose the primary of three PostgreSQL servers under Patroni this often, and audit
    /// every response. Needs patroni and etcd.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["minutes", "kill_every", "store", "svg"])]
    failovers: Option<usize>,
    /// Instead: install the Debian package in a root of its own, and go through the troubles of an
    /// operator, each with an audit. Needs root.
    #[arg(long, conflicts_with_all = ["minutes", "kill_every", "store", "failovers", "svg"])]
    night: bool,
    /// With --night: the programs of a debug build.
    #[arg(long, requires = "night")]
    debug: bool,
    /// With --night: seconds of load before each trouble.
    #[arg(long, requires = "night", default_value_t = 60)]
    seconds: u64,
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
    if flags.night { night(&shell, flags) } else { relay_bench(&shell, &flags.arguments()) }
}

/// The document that shows the last run.
const NIGHT_DOCUMENT: &str = "docs/operations.md";

/// Makes the same package in two versions, and drills with them.
fn night(shell: &Shell, flags: &Flags) -> anyhow::Result<()> {
    let out = project_root().join("target/drill");
    shell.create_dir(&out)?;
    let [package, newer] =
        [1, 2].map(|revision| package::debian_package(shell, flags.debug, revision, &[], &out));
    let (package, newer, seconds) = (package?, newer?, flags.seconds.to_string());
    let profile = (!flags.debug).then_some("--release");
    cmd!(
        shell,
        "cargo run --quiet {profile...} --package relay-tests --bin relay-bench -- drill
         --package {package} --newer {newer} --seconds {seconds} --out {NIGHT_DOCUMENT}"
    )
    .run()?;
    Ok(())
}

impl Flags {
    /// The arguments of relay-bench.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["soak".to_owned(), format!("--out={DOCUMENT}")];
        if let Some(count) = self.failovers {
            arguments.push(format!("--failovers={count}"));
            return arguments;
        }
        arguments.extend([format!("--minutes={}", self.minutes), format!("--svg={}", self.svg)]);
        match self.kill_every {
            Some(seconds) => arguments.push(format!("--kill-every={seconds}")),
            None => arguments.push(format!("--store={}", self.store)),
        }
        arguments.extend(self.seed.map(|seed| format!("--seed={seed}")));
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_run_has_its_arguments() {
        let arguments = |kill_every, seed, failovers| {
            let (svg, store) = ("x.svg".to_owned(), "redb".to_owned());
            let (night, debug, seconds) = (false, false, 60);
            Flags { minutes: 1.0, kill_every, seed, store, failovers, night, debug, seconds, svg }
                .arguments()
                .join(" ")
        };
        let begins = "soak --out=docs/benchmarks.md";
        assert_eq!(arguments(None, None, None), format!("{begins} --minutes=1 --svg=x.svg --store=redb"));
        assert_eq!(
            arguments(Some(20.0), Some(7), None),
            format!("{begins} --minutes=1 --svg=x.svg --kill-every=20 --seed=7")
        );
        assert_eq!(arguments(None, None, Some(10)), format!("{begins} --failovers=10"));
    }
}
