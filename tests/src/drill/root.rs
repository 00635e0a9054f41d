//! A root directory that looks like this machine's and forgets all changes, and the commands that
//! an operator gives in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use crate::eventually;

use super::transcript::Transcript;

/// Where commands are found, as for root on Debian.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The root directory.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// The layer with all changes.
    upper: PathBuf,
    /// What was shown.
    pub(super) transcript: Transcript,
}

impl Root {
    /// Lays a layer in memory over this machine's root, below `directory`. The namespace of mounts
    /// must be one of its own.
    pub(super) fn mount(directory: &Path) -> anyhow::Result<Self> {
        mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs"], directory)?;
        for name in ["upper", "work", "root"] {
            std::fs::create_dir(directory.join(name))?;
        }
        let path = directory.join("root");
        let [upper, work] = ["upper", "work"].map(|name| directory.join(name));
        let options = format!("lowerdir=/,upperdir={},workdir={}", upper.display(), work.display());
        mount(&["-t", "overlay", "overlay", "-o", &options], &path)?;
        mount(&["--rbind", "/dev"], &path.join("dev"))?;
        mount(&["-t", "proc", "proc"], &path.join("proc"))?;
        // No systemd runs in it, whatever runs outside.
        mount(&["-t", "tmpfs", "-o", "mode=0755", "tmpfs"], &path.join("run"))?;
        mount(&["-t", "tmpfs", "-o", "mode=1777", "tmpfs"], &path.join("tmp"))?;
        succeed(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        let root = Self { path, upper, transcript: Transcript::default() };
        if root.path("/var/lib/relay").exists() || root.path("/usr/bin/relay-bin").exists() {
            bail!("a relay is installed on this machine");
        }
        Ok(root)
    }

    /// The path outside of a path inside.
    pub(super) fn path(&self, inside: &str) -> PathBuf {
        self.path.join(inside.trim_start_matches('/'))
    }

    /// Lists the files with such a name that were made or changed and are still there.
    pub(super) fn changes(&self, name: &str) -> anyhow::Result<String> {
        // A deleted file of the lower layer is a character device in the upper one.
        let find = Command::new("find").arg(&self.upper).args(["-name", name, "!", "-type", "c"]).output()?;
        Ok(String::from_utf8_lossy(&find.stdout).into_owned())
    }

    /// Copies a file to /tmp/NAME.
    pub(super) fn take(&self, name: &str, file: &Path) -> anyhow::Result<()> {
        std::fs::copy(file, self.path("/tmp").join(name)).with_context(|| file.display().to_string())?;
        Ok(())
    }

    /// A command that will run inside, as root, with nothing of this process's environment.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("chroot");
        command.arg(&self.path).arg(program).stdin(Stdio::null());
        command.env_clear().envs([
            ("PATH", PATH),
            ("LC_ALL", "C.UTF-8"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ]);
        command
    }

    /// Runs a line of shell, and returns whether it succeeded, and all of its output.
    pub(super) fn try_run(&self, line: &str) -> anyhow::Result<(bool, String)> {
        let output = self.command("sh").args(["-c", &format!("exec 2>&1; {line}")]).output()?;
        Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Runs a line of shell, and returns its output.
    ///
    /// # Errors
    /// If it fails.
    pub(super) fn run(&self, line: &str) -> anyhow::Result<String> {
        let (is_success, output) = self.try_run(line)?;
        if !is_success {
            bail!("{line} failed:\n{output}");
        }
        Ok(output)
    }

    /// Like [`Root::run`], and shows the command and its output.
    pub(super) fn show(&mut self, line: &str) -> anyhow::Result<String> {
        let output = self.run(line)?;
        self.transcript.command(line, &output);
        Ok(output)
    }

    /// Runs a line of shell that prints this and nothing else.
    ///
    /// # Errors
    /// If it fails, or prints something else.
    pub(super) fn expect(&mut self, line: &str, expected: &str) -> anyhow::Result<()> {
        let output = self.show(line)?;
        if output.trim_end() != expected {
            bail!("{line} printed\n{output}and should print\n{expected}");
        }
        Ok(())
    }
}

/// Asks for up to a minute, since a drill runs on machines that have more to do.
///
/// # Errors
/// If there is no answer until then.
pub(super) fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> anyhow::Result<T> {
    (0..6).find_map(|_| eventually(&mut ask)).with_context(|| format!("waited too long until {what}"))
}

fn mount(arguments: &[&str], at: &Path) -> anyhow::Result<()> {
    succeed(Command::new("mount").args(arguments).arg(at))
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?} failed");
    Ok(())
}
