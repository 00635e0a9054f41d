//! A server, its standbys, and what can happen to them.

use std::fs;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use crate::migrate::migrate;
use crate::options::{Durability, Options, ShardOptions, Tls};

use super::processes::{becomes, send, send_with_children};
use super::programs::{
    copy, execute, free_port, give_to_server, owned_directory, run, server_command, template,
};

/// How long a server may take to start: far longer than it should.
const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of all servers for tests.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
max_connections = 200
shared_buffers = 64MB
max_wal_size = 512MB
log_min_messages = fatal
wal_level = replica
hot_standby = on
max_wal_senders = 8
wal_keep_size = 64MB
";

/// A running server, with a directory of its own.
#[derive(Debug)]
pub struct Server {
    directory: TempDir,
    port: u16,
    process: Option<Child>,
    databases: AtomicU32,
}

impl Server {
    /// A new server without databases, with further lines for its configuration.
    ///
    /// # Errors
    /// Those of the system, and of the programs.
    pub fn start(settings: &str) -> io::Result<Self> {
        let directory = owned_directory()?;
        copy(&template()?, &directory.path().join("data"))?;
        Self::start_in(directory, settings)
    }

    /// A standby that follows this server, under a name for `synchronous_standby_names`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn standby(&self, name: &str, settings: &str) -> io::Result<Self> {
        let directory = owned_directory()?;
        let data = directory.path().join("data");
        run(
            &[
                "pg_basebackup",
                "--checkpoint=fast",
                "--no-sync",
                "--wal-method=stream",
                "--dbname",
                &self.admin_dsn(),
            ],
            &data,
        )?;
        fs::write(data.join("standby.signal"), "")?;
        give_to_server(&data.join("standby.signal"))?;
        let follows = format!(
            "{settings}\nprimary_conninfo = 'host=127.0.0.1 port={} user=relay application_name={name}'\n",
            self.port
        );
        Self::start_in(directory, &follows)
    }

    fn start_in(directory: TempDir, settings: &str) -> io::Result<Self> {
        let port = free_port()?;
        let (data, sockets) = (directory.path().join("data"), directory.path().display());
        let own = format!("port = {port}\nunix_socket_directories = '{sockets}'\n{SETTINGS}{settings}\n");
        let file = data.join("test.conf");
        fs::write(&file, own)?;
        give_to_server(&file)?;
        let mut server = Self { directory, port, process: None, databases: AtomicU32::new(0) };
        server.start_again()?;
        Ok(server)
    }

    /// Starts a server that has ended.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_again(&mut self) -> io::Result<()> {
        self.stop();
        let data = self.data();
        let mut command = server_command("postgres")?;
        command.arg("-D").arg(&data).stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(self.directory.path().join("log"))?);
        self.process = Some(command.spawn()?);
        let is_ready = || {
            let mut probe = server_command("pg_isready")?;
            probe.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
            Ok(probe.status()?.success())
        };
        if becomes(PATIENCE, is_ready)? {
            return Ok(());
        }
        let mut log = String::new();
        fs::File::open(self.directory.path().join("log"))?.read_to_string(&mut log)?;
        Err(io::Error::other(format!("the server does not start: {log}")))
    }

    /// Appends lines to the configuration, and has the server read it.
    ///
    /// # Errors
    /// Those of the system.
    pub fn configure(&self, lines: &str) -> io::Result<()> {
        let file = self.data().join("test.conf");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, format!("{text}{lines}\n"))?;
        self.signal("HUP")
    }

    /// Puts a line before those of the file that says who may connect.
    ///
    /// # Errors
    /// Those of the system.
    pub fn configure_access(&self, line: &str) -> io::Result<()> {
        let file = self.data().join("pg_hba.conf");
        let text = fs::read_to_string(&file)?;
        fs::write(&file, format!("{line}\n{text}"))?;
        self.signal("HUP")
    }

    /// Writes a file that only the server may read into its data. Returns the path.
    ///
    /// # Errors
    /// Those of the system.
    pub fn add_file(&self, name: &str, text: &str) -> io::Result<PathBuf> {
        let path = self.data().join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        give_to_server(&path)?;
        Ok(path)
    }

    /// Makes a standby the primary.
    ///
    /// # Errors
    /// Those of the system, and of `pg_ctl`.
    pub fn promote(&self) -> io::Result<()> {
        run(&["pg_ctl", "promote", "--wait", "--silent"], &self.data())
    }

    /// Kills the server and all its children at once.
    pub fn kill(&mut self) {
        drop(self.signal_all("KILL"));
        self.reap();
    }

    /// Stops all processes of the server, as when its machine hangs, until [`Self::resume`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn pause(&self) -> io::Result<()> {
        self.signal_all("STOP")
    }

    /// Continues after [`Self::pause`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn resume(&self) -> io::Result<()> {
        self.signal_all("CONT")
    }

    /// Stops the server as at the end of a machine's day.
    pub fn stop(&mut self) {
        drop(self.signal("INT"));
        self.reap();
    }

    /// A connection string for a new, empty database.
    ///
    /// # Errors
    /// Those of the system, and of `psql`.
    pub fn create_database(&self) -> io::Result<String> {
        let name = format!("relay{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.execute(&format!("CREATE DATABASE {name} TEMPLATE template0"))?;
        Ok(self.dsn(&name))
    }

    /// Options for a new database with the tables of a store, as they are on one server alone.
    ///
    /// # Errors
    /// Those of the system, of `psql`, and of the migration.
    pub fn create_store(&self) -> io::Result<Options> {
        let options = options(&self.create_database()?);
        migrate(&options).map_err(io::Error::other)?;
        Ok(options)
    }

    /// Executes statements in the database `postgres`. Returns what they answer.
    ///
    /// # Errors
    /// Those of the system, and of `psql`.
    pub fn execute(&self, statements: &str) -> io::Result<String> {
        execute(&self.admin_dsn(), statements)
    }

    /// The connection string of a database.
    #[must_use]
    pub fn dsn(&self, database: &str) -> String {
        format!("host=127.0.0.1 port={} user=relay dbname={database}", self.port)
    }

    /// The port, on 127.0.0.1.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The directory with its data.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn admin_dsn(&self) -> String {
        self.dsn("postgres")
    }

    fn signal(&self, signal: &str) -> io::Result<()> {
        match &self.process {
            Some(process) => send(signal, &[process.id()]),
            None => Ok(()),
        }
    }

    /// Signals the server and its children.
    fn signal_all(&self, signal: &str) -> io::Result<()> {
        match &self.process {
            Some(process) => send_with_children(signal, &[process.id()]),
            None => Ok(()),
        }
    }

    fn reap(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.wait());
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A paused one could not end.
        drop(self.resume());
        drop(self.signal("QUIT"));
        self.reap();
    }
}

/// Options for a database on one server alone.
#[must_use]
pub fn options(dsn: &str) -> Options {
    let shards = vec![ShardOptions::alone(dsn.to_owned())];
    Options { shards, tls: Tls::Off, durability: Durability::Single, ..Options::default() }
}
