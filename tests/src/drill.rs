//! The relay from its Debian package on, as an operator has it: installed, supervised as its unit
//! says, upgraded, removed; and, for a night, in all kinds of trouble.
//!
//! It runs in namespaces of its own, in a copy of this machine's root that ends with it. So it
//! needs root, and changes nothing outside. It never uses the network.

mod clients;
mod lifecycle;
mod night;
mod root;
mod supervisor;
mod transcript;
mod unit;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use clap::Args;

use root::Root;

/// What to drill.
#[derive(Debug, Args)]
pub struct Options {
    /// The Debian package.
    #[arg(long, value_name = "DEB")]
    package: PathBuf,
    /// A package of a higher version.
    #[arg(long, value_name = "DEB")]
    newer: PathBuf,
    /// Only install, start, upgrade, remove and purge.
    #[arg(long)]
    lifecycle: bool,
    /// Seconds of load before each trouble.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Put all commands and their output between the markers of this document.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The namespaces are there already.
    #[arg(long, hide = true)]
    inside: bool,
}

/// The first program that is missing here, of those that not every Debian machine has.
#[must_use]
pub fn missing_program() -> Option<&'static str> {
    let is_missing = |name: &&str| !runs(Command::new("sh").args(["-c", &format!("command -v {name}")]));
    ["adduser", "curl", "dpkg-deb", "ip", "setpriv", "strip", "unshare"].into_iter().find(is_missing)
}

/// Whether it may mount, as root may outside of most containers.
#[must_use]
pub fn may_mount() -> bool {
    let mounts = "cd \"$(mktemp -d)\" && mount -t tmpfs tmpfs . && mkdir upper work root \
                  && mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root";
    runs(namespaces().args(["sh", "-c", mounts]))
}

fn runs(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|it| it.success())
}

/// Runs a command with mounts, a network and process ids of its own. All its processes end with it.
fn namespaces() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["--propagation", "private"]);
    command
}

/// Runs the drill.
///
/// # Errors
/// The first thing that is not as it should be.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if !options.inside {
        let program = std::env::current_exe()?;
        let status = namespaces().arg(program).args(std::env::args_os().skip(1)).arg("--inside").status()?;
        anyhow::ensure!(status.success(), "the drill failed");
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let mut root = Root::mount(directory.path())?;
    root.take("relay.deb", &options.package)?;
    root.take("relay-newer.deb", &options.newer)?;
    if options.lifecycle {
        lifecycle::run(&mut root)?;
    } else {
        night::run(&mut root, options.seconds)?;
    }
    if let Some(out) = &options.out {
        let document = std::fs::read_to_string(out).with_context(|| out.display().to_string())?;
        std::fs::write(out, root.transcript.put_into(&document)?)?;
    }
    Ok(())
}
