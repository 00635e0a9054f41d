//! PgBouncer in front of a server, on loopback. It ends with its owner.

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use tempfile::TempDir;

use super::processes::becomes;
use super::programs::{as_server, free_port, give_to_server, installed, owned_directory};
use super::server::Server;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running PgBouncer.
#[derive(Debug)]
pub struct Pooler {
    process: Child,
    port: u16,
    _directory: TempDir,
}

impl Pooler {
    /// Whether PgBouncer is installed.
    #[must_use]
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Starts PgBouncer in front of a server, in this `pool_mode`.
    ///
    /// # Errors
    /// Those of the system, or if it does not start.
    pub fn start(server: &Server, pool_mode: &str) -> io::Result<Self> {
        let program = program().ok_or_else(|| io::Error::other("PgBouncer is not installed"))?;
        let (directory, port) = (owned_directory()?, free_port()?);
        let path = directory.path().to_owned();
        let file = |name: &str| path.join(name);
        let settings = format!(
            "[databases]\n\
             * = host=127.0.0.1 port={}\n\
             [pgbouncer]\n\
             listen_addr = 127.0.0.1\n\
             listen_port = {port}\n\
             unix_socket_dir =\n\
             auth_type = trust\n\
             auth_file = {}\n\
             pool_mode = {pool_mode}\n\
             default_pool_size = 50\n\
             server_login_retry = 1\n",
            server.port(),
            file("users").display()
        );
        for (name, text) in [("settings", &*settings), ("users", "\"relay\" \"\"\n")] {
            fs::write(file(name), text)?;
            give_to_server(&file(name))?;
        }
        let mut command = as_server(&program);
        let process = command.arg(file("settings")).stderr(fs::File::create(file("log"))?).spawn()?;
        let pooler = Self { process, port, _directory: directory };
        if becomes(PATIENCE, || Ok(TcpStream::connect(("127.0.0.1", port)).is_ok()))? {
            return Ok(pooler);
        }
        Err(io::Error::other(format!("it does not start: {}", fs::read_to_string(file("log"))?)))
    }

    /// The port, on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn program() -> Option<PathBuf> {
    installed("pgbouncer")
}
