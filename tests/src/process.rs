//! The relay as a process of its own, to be stopped, killed and restarted.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::bench::procfs;
use crate::client::Client;
use crate::eventually;

/// The variable for where the relay shows its metrics: nowhere, unless a test says where.
pub const ADMIN_ADDRESS: &str = "RELAY__ADMIN__ADDRESS";

/// A running relay process. It is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// Where it is reached.
    pub base_url: String,
}

/// What is left of a process that has ended by itself.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `program` with these arguments, on a port of the system's choice unless they say
    /// where, and waits until it says where it serves.
    pub fn start(program: &str, arguments: &[&str]) -> io::Result<Self> {
        Self::spawn(program, arguments, &[], Stdio::null())
    }

    /// As [`Process::start`], in this environment besides; what it writes to standard error goes to
    /// the file `log`.
    pub fn start_logging(
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        log: &Path,
    ) -> io::Result<Self> {
        Self::spawn(program, arguments, environment, File::create(log)?.into())
    }

    fn spawn(
        program: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
        stderr: Stdio,
    ) -> io::Result<Self> {
        let address: &[&str] =
            if arguments.contains(&"--address") { &[] } else { &["--address", "127.0.0.1:0"] };
        let mut child = command(program)
            // Several relays run at once on one machine, and no test but its own cares for this
            // port.
            .env(ADMIN_ADDRESS, "")
            .args(address)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let base_url = line.trim_end().strip_prefix("listening on ").unwrap_or_default().to_owned();
        if base_url.is_empty() {
            drop(child.kill());
            drop(child.wait());
            return Err(io::Error::other(format!("it did not say where it serves: {line:?}")));
        }
        Ok(Self { child, stdout, base_url })
    }

    /// As [`Process::start`], with the store in `directory` and rate limits off.
    pub fn start_on(program: &str, directory: &Path, arguments: &[&str]) -> io::Result<Self> {
        let config = directory.join("relay.toml");
        std::fs::write(&config, "[rate_limit]\nenabled = false\n")?;
        let store = directory.join("store");
        let (config, store) = (config.to_string_lossy(), store.to_string_lossy());
        let mut all = vec!["--config", &*config, "--storage-path", &*store];
        all.extend(arguments);
        Self::start(program, &all)
    }

    /// Runs `program` to its end.
    pub fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> io::Result<Ended> {
        let output = command(program).args(arguments).envs(environment.iter().copied()).output()?;
        Ok(Ended {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Its number in the system.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The memory that it has now, in bytes, as `/proc` tells.
    pub fn memory_bytes(&self) -> io::Result<u64> {
        procfs::memory(self.id()).map(|memory| memory.resident)
    }

    /// The most memory that it ever had, in bytes, as `/proc` tells.
    pub fn memory_bytes_max(&self) -> io::Result<u64> {
        procfs::memory(self.id()).map(|memory| memory.peak)
    }

    /// The CPU time of all its threads so far, in steps of 10 ms, as `/proc` tells.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        procfs::cpu(self.id())
    }

    /// A new connection to it.
    pub fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.base_url)
    }

    /// Sends it a signal, by the name that `kill` knows.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
    }

    /// Kills it as a power failure would: nothing is finished, nothing is flushed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Waits for its end for as long as [`eventually`] does.
    ///
    /// # Errors
    /// Also when it still runs then.
    pub fn wait_a_while(&mut self) -> io::Result<ExitStatus> {
        eventually(|| self.child.try_wait().transpose()).ok_or(io::ErrorKind::TimedOut)?
    }

    /// What it wrote to standard output after the line that says where it serves, until its end.
    pub fn rest_of_stdout(&mut self) -> io::Result<String> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        Ok(rest)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.kill());
    }
}

/// A command without the caller's own settings in its environment.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    #[expect(clippy::disallowed_methods, reason = "tests must not depend on the settings of who runs them")]
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("RELAY__")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}
