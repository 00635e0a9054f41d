//! The relay as a process of its own, which tests can stop, kill and restart.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::bench::procfs;
use crate::client::Client;
use crate::eventually;

/// The variable that sets the address of the metrics. Tests run the relay without one unless they
/// set it.
pub const ADMIN_ADDRESS: &str = "RELAY__ADMIN__ADDRESS";

/// A running relay process. It is killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: BufReader<ChildStdout>,
    /// The base URL of the public server.
    pub base_url: String,
}

/// The result of a process that has ended.
#[derive(Debug)]
pub struct ProcessOutput {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

impl Process {
    /// Starts `program` and waits until it prints its address. The system chooses the port unless
    /// the arguments contain `--address`.
    pub fn start(program: &str, arguments: &[&str]) -> io::Result<Self> {
        Self::spawn(program, arguments, &[], Stdio::null())
    }

    /// Like [`Process::start`], with these environment variables, and with standard error in the
    /// file `log`.
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
        let mut command = command(program);
        command
            // Several relays run at once on one machine, and only a test of metrics needs this
            // port.
            .env(ADMIN_ADDRESS, "")
            .args(address)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stderr(stderr);
        Self::from_command(command)
    }

    /// Starts a relay with a command, and waits until it prints its address.
    pub fn from_command(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let base_url = line.trim_end().strip_prefix("listening on ").unwrap_or_default().to_owned();
        if base_url.is_empty() {
            drop(child.kill());
            drop(child.wait());
            return Err(io::Error::other(format!("the process printed no address: {line:?}")));
        }
        Ok(Self { child, stdout, base_url })
    }

    /// Like [`Process::start`], with the store in `directory` and rate limits off.
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
    pub fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> io::Result<ProcessOutput> {
        let output = command(program).args(arguments).envs(environment.iter().copied()).output()?;
        Ok(ProcessOutput {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory now, in bytes, from `/proc`.
    pub fn memory_bytes(&self) -> io::Result<u64> {
        memory_bytes_of(self.id())
    }

    /// Its largest resident memory so far, in bytes, from `/proc`.
    pub fn memory_bytes_max(&self) -> io::Result<u64> {
        procfs::memory(self.id()).map(|memory| memory.peak)
    }

    /// The CPU time of all its threads so far, from `/proc`, in steps of 10 ms.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        procfs::cpu(self.id())
    }

    /// Opens a new connection.
    pub fn connect(&self) -> io::Result<Client> {
        Client::connect(&self.base_url)
    }

    /// Sends a signal, given as a name for `kill -s`.
    pub fn signal(&self, name: &str) -> io::Result<()> {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status()?;
        if sent.success() { Ok(()) } else { Err(io::Error::other("kill failed")) }
    }

    /// Kills the process with SIGKILL and waits for it. Nothing is finished or flushed.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Waits until the process ends.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Like [`Process::wait`], for as long as [`eventually`] waits.
    ///
    /// # Errors
    /// `TimedOut` when the process still runs then.
    pub fn wait_a_while(&mut self) -> io::Result<ExitStatus> {
        eventually(|| self.child.try_wait().transpose()).ok_or(io::ErrorKind::TimedOut)?
    }

    /// Reads what the process wrote to standard output after its address, up to its end.
    pub fn rest_of_stdout(&mut self) -> io::Result<String> {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest)?;
        Ok(rest)
    }
}

/// The resident memory of a process now, in bytes, from `/proc`.
pub fn memory_bytes_of(id: u32) -> io::Result<u64> {
    procfs::memory(id).map(|memory| memory.resident)
}

impl Drop for Process {
    fn drop(&mut self) {
        // The process may have ended already.
        drop(self.kill());
    }
}

/// A command whose environment has no settings of the relay.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    #[expect(clippy::disallowed_methods, reason = "tests must not depend on the caller's settings")]
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("RELAY__")) {
        command.env_remove(name);
    }
    // A service manager of the tests is none of the relay.
    for name in ["RUST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID"] {
        command.env_remove(name);
    }
    command
}
