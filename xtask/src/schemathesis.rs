//! Runs [schemathesis](https://schemathesis.readthedocs.io) against a relay. It generates requests
//! from the OpenAPI document, and checks that no response is a 5xx and each matches the document.
//! It leaves out `/stream`, whose responses do not end, and writes no CBOR: it skips media types
//! that it cannot write, and warns that it does not check their responses. It is installed from
//! PyPI into an environment below `target`; where that fails, it is skipped.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};
use cargo_metadata::MetadataCommand;
use clap::Args;
use xshell::{Shell, cmd};

use crate::project_root;

/// The pinned version: another one finds other things.
const PACKAGE: &str = "schemathesis==4.32.5";

/// The Python environment, below the project.
const ENVIRONMENT: &str = "target/schemathesis";

/// How much to test, and with which seed.
#[derive(Debug, Args)]
pub(crate) struct Flags {
    /// Seed of the generator.
    #[arg(long, default_value_t = 1)]
    seed: u32,
    /// Maximum requests for each operation in each phase.
    #[arg(long, default_value_t = 200)]
    examples: u32,
    /// Maximum duration in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

/// The relay under test. Dropping this kills it.
struct Relay {
    process: Child,
    base_url: String,
}

/// # Errors
/// If a response does not match the document, or the relay does not start.
pub(crate) fn run(flags: &Flags) -> anyhow::Result<()> {
    let shell = Shell::new()?;
    shell.change_dir(project_root());
    let environment = project_root().join(ENVIRONMENT);
    let Some(program) = install(&shell, &environment) else {
        println!("skipped: {PACKAGE} cannot be installed (it needs python3 with venv, and PyPI)");
        return Ok(());
    };
    cmd!(shell, "cargo build --package relay-bin").run()?;
    let store = environment.join("store");
    shell.remove_path(&store)?;
    let relay = Relay::start(&store)?;
    let document = format!("{}/openapi.json", relay.base_url);
    let [seed, examples, seconds] =
        [flags.seed, flags.examples, flags.seconds].map(|number| number.to_string());
    println!("seed {seed}");
    let settings = project_root().join("xtask/schemathesis.toml");
    // It leaves its state in the current directory.
    shell.change_dir(&environment);
    cmd!(
        shell,
        "{program} --no-color --config-file {settings} run {document} --exclude-path /stream --seed {seed} --max-examples {examples} --max-time {seconds} --suppress-health-check all"
    )
    .run()?;
    drop(relay);
    Ok(())
}

/// The program, if it is or can be installed.
fn install(shell: &Shell, environment: &Path) -> Option<PathBuf> {
    let program = environment.join("bin/schemathesis");
    let pip = environment.join("bin/pip");
    // Needs no network if it is already installed.
    let installed =
        || cmd!(shell, "{pip} install --quiet --disable-pip-version-check {PACKAGE}").quiet().run().is_ok();
    if !pip.exists() {
        cmd!(shell, "python3 -m venv {environment}").quiet().run().ok()?;
    }
    installed().then_some(program)
}

impl Relay {
    /// On a free port, with its own store, without rate limits and without long waits.
    fn start(store: &Path) -> anyhow::Result<Self> {
        let target = MetadataCommand::new().current_dir(project_root()).no_deps().exec()?.target_directory;
        let program = target.join("debug/relay-bin");
        let mut process = Command::new(&program)
            .args(["--address", "127.0.0.1:0", "--storage-path"])
            .arg(store)
            .env("RELAY__RATE_LIMIT__ENABLED", "false")
            .env("RELAY__SERVER__PULL_WAIT_MAX_MS", "100")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        let mut line = String::new();
        let stdout = process.stdout.take().context("no output of the relay")?;
        BufReader::new(stdout).read_line(&mut line)?;
        let base_url = line.trim_end().strip_prefix("listening on ").unwrap_or_default().to_owned();
        let relay = Self { process, base_url };
        if relay.base_url.is_empty() {
            bail!("the relay did not print its address: {line:?}");
        }
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have exited already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
