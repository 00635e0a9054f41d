//! A server in a process of its own, and what can be measured of it from outside.

use std::io::{self, BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::eventually;
use crate::load::command::address;

use super::procfs;

/// A running server. It is killed when it is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    /// Keeps the pipe open, so that the server can write.
    _stdout: Option<BufReader<ChildStdout>>,
}

impl Server {
    /// Starts a program that prints `listening on` and a URL as its first line, and waits for that
    /// line.
    pub(super) fn start(command: &mut Command) -> anyhow::Result<Self> {
        // The caller's environment must not configure the server.
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let mut server = Self { child, address: SocketAddr::from(([127, 0, 0, 1], 0)), _stdout: None };
        let mut stdout =
            BufReader::new(server.child.stdout.take().context("the process has no standard output")?);
        let mut line = String::new();
        stdout.read_line(&mut line)?;
        let url = line.trim_end().strip_prefix("listening on ");
        let url = url.with_context(|| format!("{command:?} printed {line:?}"))?;
        server.address = address(url.strip_prefix("https://").unwrap_or(url))?;
        server._stdout = Some(stdout);
        Ok(server)
    }

    /// Starts a program that listens on `address`, and waits until it does.
    pub(super) fn start_on(address: SocketAddr, command: &mut Command) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let server = Self { child, address, _stdout: None };
        let connected = eventually(|| TcpStream::connect(address).ok());
        connected.map(|_| server).ok_or_else(|| io::ErrorKind::TimedOut.into())
    }

    pub(super) fn memory(&self) -> io::Result<procfs::Memory> {
        procfs::memory(self.child.id())
    }

    pub(super) fn written_bytes(&self) -> io::Result<u64> {
        procfs::written_bytes(self.child.id())
    }

    pub(super) fn cpu(&self) -> io::Result<Duration> {
        procfs::cpu(self.child.id())
    }

    /// Like [`Server::cpu`], for CPU times of milliseconds.
    pub(super) fn cpu_of_threads(&self) -> io::Result<Duration> {
        procfs::cpu_of_threads(self.child.id())
    }

    /// Kills the server with SIGKILL. Nothing is finished or flushed.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }

    /// Sends SIGTERM and waits for the end.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.signal("TERM")?;
        self.child.wait().map(drop)
    }

    /// Sends a signal, given as a name for `kill -s`.
    pub(super) fn signal(&self, name: &str) -> io::Result<()> {
        Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().map(drop)
    }

    /// Forbids the server to open more files than it has open. Returns the previous limit.
    pub(super) fn forbid_new_files(&self) -> io::Result<Rlimit> {
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))?.count() as u64;
        // The server inherits its hard limit from this process. A lower one could not be raised
        // again.
        let maximum = getrlimit(Resource::Nofile).maximum;
        Ok(prlimit(self.pid(), Resource::Nofile, Rlimit { current: Some(open), maximum })?)
    }

    /// Restores the limit on open files.
    pub(super) fn set_file_limit(&self, limit: Rlimit) -> io::Result<()> {
        Ok(prlimit(self.pid(), Resource::Nofile, limit).map(drop)?)
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.kill());
    }
}

/// A loopback address that nobody listens on at the moment.
pub(super) fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
