//! The relay as a process with its own store, configured for benchmarks: quotas that nothing
//! reaches, and no rate limit unless it is what is measured.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use rustls::ClientConfig;
use tempfile::TempDir;

use crate::client::Client;

use super::files::DiskUsage;
use super::server::{Server, free_address};
use super::tls;

/// Bytes of memory for the store's cache: the shipped default.
pub(super) const CACHE_BYTES: u64 = 128 * 1024 * 1024;

/// How long a pull may wait, in milliseconds: longer than it takes until many wait.
pub(super) const WAIT_MS_MAX: u64 = 600_000;

/// What tokens are for.
pub(super) const AUDIENCE: &str = "https://relay.example.org";

/// Settings that differ between benchmarks. All others are the shipped configuration.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) ttl_seconds: u64,
    pub(super) gc_interval_seconds: u64,
    pub(super) dedup_window_seconds: u64,
    pub(super) connections_max: u64,
    /// Whether the benchmark reads metrics.
    pub(super) has_metrics: bool,
    /// Whether clients connect with TLS.
    pub(super) has_tls: bool,
    /// Whether tokens for [`AUDIENCE`] are valid.
    pub(super) has_tokens: bool,
    pub(super) rate_limit: RateLimit,
}

/// What a relay does with requests above the shipped rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RateLimit {
    /// It has no rates.
    Off,
    /// It delays, refuses and bans, as shipped.
    Shipped,
    /// It refuses at once and bans nobody, so that a refusal can be measured alone.
    Immediate,
}

/// A PostgreSQL database for relays.
#[derive(Clone, Debug)]
pub(super) struct Database {
    pub(super) dsn: String,
    /// The value of `storage.postgres.durability`.
    pub(super) durability: &'static str,
    /// The file with the key that the relays of a database share.
    pub(super) key_path: PathBuf,
}

/// A running relay. It is killed when it is dropped, and its files are removed.
#[derive(Debug)]
pub(super) struct BenchRelay {
    pub(super) server: Server,
    /// How clients connect, if that is with TLS.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The address of the metrics, if they are read.
    metrics: Option<SocketAddr>,
    home: TempDir,
    program: PathBuf,
    database: Option<Database>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl_seconds: 1_209_600,
            gc_interval_seconds: 60,
            dedup_window_seconds: 300,
            connections_max: 10_000,
            has_metrics: false,
            has_tls: false,
            has_tokens: false,
            rate_limit: RateLimit::Off,
        }
    }
}

impl BenchRelay {
    /// Starts the relay on an empty store in `home`.
    pub(super) fn start(program: PathBuf, home: TempDir, settings: Settings) -> anyhow::Result<Self> {
        Self::start_on(program, home, settings, None)
    }

    /// Starts the relay on a database, or on an empty store in `home`.
    pub(super) fn start_on(
        program: PathBuf,
        home: TempDir,
        settings: Settings,
        database: Option<Database>,
    ) -> anyhow::Result<Self> {
        let metrics = settings.has_metrics.then(free_address).transpose()?;
        let tls = settings.has_tls.then(|| tls::make(home.path())).transpose()?;
        let server = serve(&program, &home, settings, metrics, database.as_ref())?;
        Ok(Self { server, tls, metrics, home, program, database })
    }

    /// Starts the relay again on the same store.
    pub(super) fn start_again(&mut self, settings: Settings) -> anyhow::Result<()> {
        self.server = serve(&self.program, &self.home, settings, self.metrics, self.database.as_ref())?;
        Ok(())
    }

    /// The value of a metric without labels.
    pub(super) fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let address = self.metrics.context("the relay has no metrics")?.to_string();
        let metrics = Client::connect(&address)?.get("/metrics")?;
        let text = String::from_utf8_lossy(&metrics.body);
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = line.and_then(|number| number.parse().ok());
        number.with_context(|| format!("no {name} in the metrics"))
    }

    /// The disk space of the store.
    pub(super) fn disk_usage(&self) -> io::Result<DiskUsage> {
        DiskUsage::read(&self.store())
    }

    /// The directory of the store.
    pub(super) fn store(&self) -> PathBuf {
        store(&self.home)
    }

    /// A command on the same store. With redb, the relay must not run.
    pub(super) fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().arg(name).arg("--config").arg(config(&self.home));
        command.arg("--storage-path").arg(self.store());
        command
    }
}

fn serve(
    program: &PathBuf,
    home: &TempDir,
    settings: Settings,
    metrics: Option<SocketAddr>,
    database: Option<&Database>,
) -> anyhow::Result<Server> {
    let config = config(home);
    let tls = if settings.has_tls { tls::settings(home.path()) } else { String::new() };
    std::fs::write(&config, tls + &settings.to_toml(metrics, database))?;
    let log = File::create(home.path().join("log"))?;
    let mut command = Command::new(program);
    command.arg("--config").arg(config).arg("--storage-path").arg(store(home)).stderr(log);
    Server::start(&mut command)
}

fn config(home: &TempDir) -> PathBuf {
    home.path().join("relay.toml")
}

fn store(home: &TempDir) -> PathBuf {
    home.path().join("store")
}

impl Settings {
    fn to_toml(self, metrics: Option<SocketAddr>, database: Option<&Database>) -> String {
        let Self { ttl_seconds, gc_interval_seconds, dedup_window_seconds, connections_max, .. } = self;
        let metrics = metrics.map(|address| address.to_string()).unwrap_or_default();
        let audiences = if self.has_tokens { format!("\"{AUDIENCE}\"") } else { String::new() };
        let (kind, postgres) = match database {
            Some(Database { dsn, durability, key_path }) => (
                "kind = \"postgres\"\n",
                format!(
                    "[storage.postgres]\ndsn = {dsn:?}\ntls = \"off\"\ndurability = {durability:?}\n[privacy]\nkey_path = {key_path:?}\n"
                ),
            ),
            None => ("", String::new()),
        };
        let rate_limit = match self.rate_limit {
            RateLimit::Off => "enabled = false",
            RateLimit::Shipped => "enabled = true",
            RateLimit::Immediate => "max_wait_ms = 0\nban_seconds = 0",
        };
        format!(
            "address = \"127.0.0.1:0\"\n[server]\nmax_connections = {connections_max}\nmax_connections_per_address = {connections_max}\npull_wait_max_ms = {WAIT_MS_MAX}\n[admin]\naddress = \"{metrics}\"\n[auth]\naudiences = [{audiences}]\n[rate_limit]\n{rate_limit}\n[storage]\n{kind}cache_bytes = {CACHE_BYTES}\n{postgres}[relay]\n\
             max_queue_bytes_per_user = 1_000_000_000_000\nmax_messages_per_user = 1_000_000_000\n\
             message_ttl_seconds = {ttl_seconds}\ngc_interval_seconds = {gc_interval_seconds}\n\
             dedup_window_seconds = {dedup_window_seconds}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use relay_bin::config::RelayConfig;

    use super::*;

    #[test]
    fn the_configuration_is_valid() {
        for rate_limit in [RateLimit::Shipped, RateLimit::Immediate] {
            let settings = Settings { rate_limit, has_tokens: true, ..Settings::default() };
            let config = RelayConfig::from_toml(&settings.to_toml(None, None)).unwrap().config;
            assert!(config.rate_limit.enabled);
            assert_eq!(config.auth.audiences, [AUDIENCE]);
        }
        let loaded = RelayConfig::from_toml(&Settings::default().to_toml(None, None)).unwrap();
        assert_eq!(loaded.config.storage.cache_bytes, CACHE_BYTES);
        assert_eq!(loaded.config.relay.message_ttl_seconds, RelayConfig::default().relay.message_ttl_seconds);
    }
}
