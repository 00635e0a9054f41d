//! Feeds arbitrary bytes to every decoder, and to the store on a failing disk: with cargo-fuzz,
//! which searches for inputs that reach new code, or else with the tests that run the same targets
//! on a stable toolchain.

use anyhow::{Context as _, bail};
use clap::Args;
use xshell::{Shell, cmd};

use crate::project_root;

/// The directory for builds and findings of cargo-fuzz.
const WORK: &str = "target/fuzz";

/// The largest input, in bytes.
const INPUT_BYTES_MAX: u32 = 4096;

/// An input that takes longer counts as a hang.
const INPUT_SECONDS_MAX: u32 = 120;

/// What to fuzz, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Only this target, one of fuzz/fuzz_targets.
    target: Option<String>,
    /// Seconds for all targets together, not counting the build.
    #[arg(long, default_value_t = 600)]
    seconds: u32,
    /// Run the tests on the stable toolchain even if cargo-fuzz is installed.
    #[arg(long)]
    stable: bool,
}

/// # Errors
/// If the target does not exist or build, or an input makes it panic.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let targets = targets(&shell, flags.target.as_deref())?;
    let seconds = f64::from(flags.seconds) / f64::from(u32::try_from(targets.len())?);
    if !flags.stable && is_installed(&shell) {
        return guided(&shell, &targets, seconds);
    }
    println!(
        "cargo-fuzz needs a nightly toolchain and `cargo install cargo-fuzz`; running the tests of the same targets instead"
    );
    by_tests(&shell, flags.target.as_deref(), seconds)
}

/// Whether cargo-fuzz is installed.
pub(crate) fn is_installed(shell: &Shell) -> bool {
    let asked = cmd!(shell, "rustup run nightly cargo fuzz --version");
    asked.quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

fn targets(shell: &Shell, only: Option<&str>) -> anyhow::Result<Vec<String>> {
    let files = shell.read_dir("fuzz/fuzz_targets").context("fuzz/fuzz_targets")?;
    let names = files.iter().filter_map(|file| file.file_stem()?.to_str());
    let mut targets: Vec<_> = names.map(str::to_owned).collect();
    targets.sort();
    if let Some(only) = only {
        if !targets.iter().any(|target| target == only) {
            bail!("unknown target {only}; the targets are {}", targets.join(", "));
        }
        targets.retain(|target| target == only);
    }
    Ok(targets)
}

fn guided(shell: &Shell, targets: &[String], seconds: f64) -> anyhow::Result<()> {
    let work = project_root().join(WORK);
    let [built, found, crashes] = ["build", "corpus", "artifacts"].map(|name| work.join(name));
    shell.create_dir(&crashes)?;
    // One after the other, so targets share what was built.
    for target in targets {
        cmd!(shell, "rustup run nightly cargo fuzz build --target-dir {built} {target}").run()?;
    }
    let limits = [
        format!("-max_total_time={}", seconds.ceil()),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
    ];
    for target in targets {
        // New inputs go to the first directory; the committed ones are only read.
        let own = found.join(target);
        shell.create_dir(&own)?;
        let limits = &limits;
        let prefix = format!("-artifact_prefix={}/{target}-", crashes.display());
        let run = cmd!(
            shell,
            "rustup run nightly cargo fuzz run --target-dir {built} {target} {own} fuzz/corpus/{target} -- {limits...} {prefix} -verbosity=0 -print_final_stats=1"
        );
        let failed = format!(
            "target {target} failed on an input in {WORK}/artifacts; fix the bug, then move the input to fuzz/corpus/{target}"
        );
        run.run().context(failed)?;
    }
    Ok(())
}

fn by_tests(shell: &Shell, target: Option<&str>, seconds: f64) -> anyhow::Result<()> {
    let filter = format!("fuzz::{}", target.map(|target| format!("{target}::")).unwrap_or_default());
    cmd!(shell, "cargo test --package relay-tests --all-features --test it -- {filter}")
        .env("FUZZ_SECONDS", seconds.to_string())
        .run()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_refused() {
        let shell = Shell::new().unwrap();
        shell.change_dir(project_root());
        assert!(targets(&shell, None).unwrap().contains(&"cursor".to_owned()));
        assert_eq!(targets(&shell, Some("cursor")).unwrap(), ["cursor"]);
        assert!(targets(&shell, Some("cursors")).unwrap_err().to_string().contains("unknown target cursors"));
    }
}
