//! The steps that a change must pass, cheapest first. What a step checks is configured where its
//! tool expects it.
//!
//! The steps that build everything share one profile and one set of features, so that each crate is
//! compiled once to be checked and once to be run. The smaller feature sets are only checked, never
//! linked.

use clap::Args;
use xshell::{Shell, cmd};

use crate::{
    fuzz, project_root,
    steps::{Step, run_all},
};

/// How much to run.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Leave out the slow tests.
    #[arg(long)]
    fast: bool,
}

/// # Errors
/// The first step that fails, with the command that repeats it.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let nextest =
        cmd!(shell, "cargo nextest --version").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    let deny = cmd!(shell, "cargo deny --version").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    if !deny {
        println!(
            "skipped: cargo-deny, which checks licenses and bans, is not installed (cargo install cargo-deny --locked)"
        );
    }
    let tools = Tools { nextest, deny, fuzz: fuzz::is_installed(&shell) };
    run_all(&shell, &steps(flags, &tools))
}

/// Which optional tools are installed.
#[derive(Debug)]
struct Tools {
    nextest: bool,
    deny: bool,
    fuzz: bool,
}

fn steps(flags: &Flags, tools: &Tools) -> Vec<Step> {
    let mut steps = CHECKS.to_vec();
    steps.extend(tools.deny.then_some(DENY));
    steps.extend(tests(tools.nextest).iter().map(|&(name, args)| {
        let env: &[_] = if flags.fast { &[] } else { &[("RUN_SLOW_TESTS", "1")] };
        Step { name, env, args }
    }));
    steps.push(DOCUMENTATION);
    // Without cargo-fuzz, the tests have run the same code on the seed inputs.
    steps.extend((tools.fuzz && !flags.fast).then_some(FUZZ));
    steps.extend((!flags.fast).then_some(SCHEMATHESIS));
    steps
}

const CHECKS: &[Step] = &[
    Step { name: "format", env: &[], args: "fmt --all --check" },
    Step { name: "tidy", env: &[], args: "xtask tidy" },
    Step { name: "clippy", env: &[], args: "clippy --workspace --all-targets --all-features -- -D warnings" },
    Step {
        name: "clippy, no features",
        env: &[],
        args: "clippy -p relay-http -p relay-bin --no-default-features -- -D warnings",
    },
    Step {
        name: "clippy, only redb",
        env: &[],
        args: "clippy -p relay-bin --no-default-features --features redb -- -D warnings",
    },
    Step {
        name: "clippy, only tls",
        env: &[],
        args: "clippy -p relay-bin --no-default-features --features tls -- -D warnings",
    },
];

/// Its configuration is deny.toml.
const DENY: Step = Step {
    name: "cargo-deny",
    env: &[],
    args: "deny --all-features check --hide-inclusion-graph bans licenses sources",
};

const DOCUMENTATION: Step = Step {
    name: "documentation",
    env: &[("RUSTDOCFLAGS", "-D warnings")],
    args: "doc --workspace --no-deps --all-features",
};

/// Where schemathesis cannot be installed, this step prints that it is skipped.
const SCHEMATHESIS: Step = Step { name: "schemathesis", env: &[], args: "xtask schemathesis" };

const FUZZ: Step = Step { name: "fuzz", env: &[], args: "xtask fuzz --seconds 60" };

/// Nextest runs no doctests; plain `cargo test` runs everything.
fn tests(nextest: bool) -> &'static [(&'static str, &'static str)] {
    if nextest {
        &[
            ("tests", "nextest run --profile ci --workspace --all-features"),
            ("doctests", "test --doc --workspace --all-features"),
        ]
    } else {
        &[("tests", "test --no-fail-fast --workspace --all-features")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOLS: Tools = Tools { nextest: true, deny: true, fuzz: true };

    fn commands(fast: bool, nextest: bool) -> Vec<String> {
        steps(&Flags { fast }, &Tools { nextest, ..TOOLS }).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn slow_tests_run_without_the_flag_fast() {
        for nextest in [false, true] {
            assert!(
                commands(false, nextest).iter().any(|line| line.starts_with("RUN_SLOW_TESTS='1' cargo "))
            );
            assert!(commands(true, nextest).iter().all(|line| !line.contains("RUN_SLOW_TESTS")));
        }
    }

    #[test]
    fn doctests_run_with_and_without_nextest() {
        assert!(commands(true, true).contains(&"cargo test --doc --workspace --all-features".to_owned()));
        let without = commands(true, false);
        assert!(without.contains(&"cargo test --no-fail-fast --workspace --all-features".to_owned()));
        assert!(without.iter().all(|line| !line.contains("nextest")));
    }

    #[test]
    fn cargo_fuzz_runs_where_it_is_installed_and_slow_tests_run() {
        let has_fuzz = |fast, fuzz| steps(&Flags { fast }, &Tools { fuzz, ..TOOLS }).contains(&FUZZ);
        assert!(has_fuzz(false, true));
        assert!(!has_fuzz(true, true) && !has_fuzz(false, false));
        assert!(!steps(&Flags { fast: true }, &TOOLS).contains(&SCHEMATHESIS));
    }

    #[test]
    fn cargo_deny_runs_where_it_is_installed() {
        for deny in [false, true] {
            assert_eq!(steps(&Flags { fast: true }, &Tools { deny, ..TOOLS }).contains(&DENY), deny);
        }
    }

    /// A different set of features would build the dependencies once more.
    #[test]
    fn steps_over_the_workspace_use_the_same_features() {
        for line in commands(true, true).iter().filter(|line| line.contains("--workspace")) {
            assert!(line.contains("--all-features"), "{line}");
        }
    }
}
