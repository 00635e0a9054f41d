//! Three servers under Patroni, with one etcd, as processes on loopback. They use the shipped
//! configuration, and end with their owner.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::processes::{becomes, naming, send, send_with_children};
use super::programs::{as_server, execute, free_port, give_to_server, installed, owned_directory, programs};

const PATRONI: &str = include_str!("../../../../deploy/postgres/patroni.yaml");
const DATABASE: &str = include_str!("../../../../deploy/postgres/database.sql");
/// Where the configuration expects the second file.
const DATABASE_PATH: &str = "/etc/relay/database.sql";

/// All passwords.
const PASSWORD: &str = "secret";

/// How long a new cluster may take, or one that has lost a server, until it is whole.
const PATIENCE: Duration = Duration::from_secs(180);

/// How long all servers may take to end after they were killed.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// How long Patroni may take to answer.
const API_TIMEOUT: Duration = Duration::from_secs(2);

/// Servers of which one is the primary, and one of the others its synchronous standby.
#[derive(Debug)]
pub struct Cluster {
    nodes: [Node; 3],
    etcd: Child,
    directory: TempDir,
}

/// A server and its Patroni.
#[derive(Debug)]
struct Node {
    directory: PathBuf,
    port: u16,
    api_port: u16,
    etcd_port: u16,
    patroni: Option<Child>,
}

impl Cluster {
    /// Whether everything is installed that it needs.
    #[must_use]
    pub fn is_installed() -> bool {
        programs().is_some() && ["patroni", "etcd"].iter().all(|name| installed(name).is_some())
    }

    /// Starts a new cluster with an empty database, and waits until it is whole.
    ///
    /// # Errors
    /// Those of the system, or if it does not become whole in time.
    pub fn start() -> io::Result<Self> {
        let directory = owned_directory()?;
        let settings = directory.path().join("patroni.yaml");
        let database = directory.path().join("database.sql");
        fs::write(&settings, PATRONI.replace(DATABASE_PATH, &database.to_string_lossy()))?;
        fs::write(&database, DATABASE)?;
        let etcd_port = free_port()?;
        let mut nodes = Vec::new();
        for number in 1..=3 {
            let (port, api_port) = (free_port()?, free_port()?);
            let directory = directory.path().join(format!("pg{number}"));
            fs::create_dir(&directory)?;
            give_to_server(&directory)?;
            nodes.push(Node { directory, port, api_port, etcd_port, patroni: None });
        }
        let nodes = nodes.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        let etcd = etcd(&directory.path().join("etcd"), etcd_port)?;
        let mut cluster = Self { nodes, etcd, directory };
        cluster.nodes.iter_mut().try_for_each(Node::start)?;
        cluster.wait_until_whole()?;
        Ok(cluster)
    }

    /// The connection string of the database, with all hosts.
    #[must_use]
    pub fn dsn(&self, user: &str) -> String {
        let ports: Vec<_> = self.nodes.iter().map(|node| node.port.to_string()).collect();
        let hosts = ["127.0.0.1"; 3].join(",");
        format!("host={hosts} port={} user={user} password={PASSWORD} dbname=relay", ports.join(","))
    }

    /// Waits until there is a primary, and all other servers follow it, one of them in step with
    /// it. Returns the number of the primary.
    ///
    /// # Errors
    /// `TimedOut`, with what is missing.
    pub fn wait_until_whole(&self) -> io::Result<usize> {
        let mut last = self.whole();
        becomes(PATIENCE, || {
            last = self.whole();
            Ok(last.is_ok())
        })?;
        last.map_err(|missing| {
            io::Error::new(io::ErrorKind::TimedOut, format!("the cluster is not whole: {missing}"))
        })
    }

    fn whole(&self) -> io::Result<usize> {
        let primaries: Vec<_> = self.numbers().filter(|node| self.is_primary(*node)).collect();
        let [primary] = *primaries else {
            return Err(io::Error::other(format!("{} servers are a primary", primaries.len())));
        };
        let following = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
        let following = self.execute(primary, following)?;
        if following != (self.nodes.len() - 1).to_string() {
            return Err(io::Error::other(format!("{following} servers follow the primary")));
        }
        let state = self.node(primary)?.ask("/cluster")?;
        match state.matches("\"sync_standby\"").count() {
            1 => Ok(primary),
            count => Err(io::Error::other(format!("{count} servers are synchronous standbys"))),
        }
    }

    /// The numbers of the servers.
    pub fn numbers(&self) -> impl Iterator<Item = usize> + use<> {
        0..self.nodes.len()
    }

    /// Whether a server accepts writes. One that is paused does not answer.
    #[must_use]
    pub fn is_primary(&self, number: usize) -> bool {
        self.execute(number, "SELECT NOT pg_is_in_recovery()").is_ok_and(|answer| answer == "t")
    }

    /// Executes statements on one server, in the database `postgres`. Returns what they answer.
    ///
    /// # Errors
    /// Those of the system, and of `psql`.
    pub fn execute(&self, number: usize, statements: &str) -> io::Result<String> {
        let port = self.node(number)?.port;
        let dsn = format!(
            "host=127.0.0.1 port={port} user=postgres password={PASSWORD} dbname=postgres connect_timeout=2"
        );
        execute(&dsn, statements)
    }

    /// Kills a server and all its children at once. Its Patroni goes on.
    ///
    /// # Errors
    /// Those of the system.
    pub fn kill_server(&self, number: usize) -> io::Result<()> {
        self.node(number)?.signal_server("KILL")
    }

    /// Kills a server and its Patroni, as when their machine is lost.
    ///
    /// # Errors
    /// Those of the system.
    pub fn kill(&mut self, number: usize) -> io::Result<()> {
        let node = self.nodes.get_mut(number).ok_or(io::ErrorKind::NotFound)?;
        node.end_patroni();
        node.signal_server("KILL")
    }

    /// Starts what [`Self::kill`] has killed.
    ///
    /// # Errors
    /// Those of the system.
    pub fn start_again(&mut self, number: usize) -> io::Result<()> {
        self.nodes.get_mut(number).ok_or(io::ErrorKind::NotFound)?.start()
    }

    /// Stops a server and its Patroni, as when their machine hangs, until [`Self::resume`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn pause(&self, number: usize) -> io::Result<()> {
        let node = self.node(number)?;
        node.signal_patroni("STOP")?;
        node.signal_server("STOP")
    }

    /// Continues after [`Self::pause`]. The server does not know yet what has happened meanwhile.
    ///
    /// # Errors
    /// Those of the system.
    pub fn resume(&self, number: usize) -> io::Result<()> {
        let node = self.node(number)?;
        node.signal_server("CONT")?;
        node.signal_patroni("CONT")
    }

    /// The logs of all Patronis, which those of the servers are in.
    ///
    /// # Errors
    /// Those of the system.
    pub fn logs(&self) -> io::Result<String> {
        let mut text = String::new();
        for node in &self.nodes {
            let log = fs::read(node.directory.join("log"))?;
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{}:\n{}", node.directory.display(), String::from_utf8_lossy(&log));
        }
        Ok(text)
    }

    fn node(&self, number: usize) -> io::Result<&Node> {
        self.nodes.get(number).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            node.end_patroni();
        }
        drop(self.etcd.kill());
        drop(self.etcd.wait());
        // What a Patroni was just starting may show up later.
        drop(becomes(END_PATIENCE, || {
            let servers = naming(self.directory.path())?;
            send_with_children("KILL", &servers)?;
            Ok(servers.is_empty())
        }));
    }
}

impl Node {
    fn start(&mut self) -> io::Result<()> {
        self.end_patroni();
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("log"))?;
        let mut command = self.command()?;
        self.patroni = Some(command.stdout(log.try_clone()?).stderr(log).spawn()?);
        Ok(())
    }

    fn command(&self) -> io::Result<Command> {
        let missing = || io::Error::other("Patroni or PostgreSQL is not installed");
        let mut command = as_server(&installed("patroni").ok_or_else(missing)?);
        let address = |port| format!("127.0.0.1:{port}");
        command
            .arg(self.directory.with_file_name("patroni.yaml"))
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", &self.directory)
            .env("PATRONI_NAME", self.directory.file_name().unwrap_or_default())
            .env("PATRONI_ETCD_HOSTS", address(self.etcd_port))
            .env("PATRONI_RESTAPI_LISTEN", address(self.api_port))
            .env("PATRONI_RESTAPI_CONNECT_ADDRESS", address(self.api_port))
            .env("PATRONI_POSTGRESQL_LISTEN", address(self.port))
            .env("PATRONI_POSTGRESQL_CONNECT_ADDRESS", address(self.port))
            .env("PATRONI_POSTGRESQL_DATA_DIR", self.data())
            .env("PATRONI_POSTGRESQL_BIN_DIR", programs().ok_or_else(missing)?)
            .env("PATRONI_POSTGRESQL_PGPASS", self.directory.join("pgpass"))
            .env("PATRONI_SUPERUSER_USERNAME", "postgres")
            .env("PATRONI_REPLICATION_USERNAME", "replicator");
        let passwords = [
            "PATRONI_SUPERUSER_PASSWORD",
            "PATRONI_REPLICATION_PASSWORD",
            "RELAY_OWNER_PASSWORD",
            "RELAY_PASSWORD",
        ];
        command.envs(passwords.map(|name| (name, PASSWORD)));
        Ok(command)
    }

    fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// The answer of Patroni to a request.
    fn ask(&self, path: &str) -> io::Result<String> {
        let address = SocketAddr::from(([127, 0, 0, 1], self.api_port));
        let mut stream = TcpStream::connect_timeout(&address, API_TIMEOUT)?;
        stream.set_read_timeout(Some(API_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn signal_server(&self, signal: &str) -> io::Result<()> {
        send_with_children(signal, &naming(&self.data())?)
    }

    fn signal_patroni(&self, signal: &str) -> io::Result<()> {
        match &self.patroni {
            Some(patroni) => send(signal, &[patroni.id()]),
            None => Ok(()),
        }
    }

    fn end_patroni(&mut self) {
        if let Some(mut patroni) = self.patroni.take() {
            // It may have ended already.
            drop(patroni.kill());
            drop(patroni.wait());
        }
    }
}

/// Version 2 of its interface is on: over version 3, Patroni 3.0.2 takes the leader key back from a
/// new primary when the former one goes on.
fn etcd(data: &Path, port: u16) -> io::Result<Child> {
    let program = installed("etcd").ok_or_else(|| io::Error::other("etcd is not installed"))?;
    let (clients, peers) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{}", free_port()?));
    let mut command = as_server(&program);
    command.env_clear().arg("--data-dir").arg(data).arg("--enable-v2=true");
    command.args(["--initial-cluster", &format!("default={peers}")]);
    for (option, value) in [
        ("--listen-client-urls", &clients),
        ("--advertise-client-urls", &clients),
        ("--listen-peer-urls", &peers),
        ("--initial-advertise-peer-urls", &peers),
    ] {
        command.args([option, value]);
    }
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
