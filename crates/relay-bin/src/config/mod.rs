//! The configuration: its types, and three ways to a checked one (`load`, `from_toml`, or a
//! `RelayConfig` built by hand and `validate`).
//!
//! The caller of `load` passes the environment and the command line. Invalid input never panics,
//! and no value changes silently: it applies as written, or is refused with a message.

mod address;
mod auth;
mod check;
mod error;
mod keys;
mod listen;
mod log;
mod peer;
mod postgres;
mod print;
mod reload;
mod source;
mod value;
mod wake;

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

pub(crate) use address::{ListenAddress, socket_mode};
pub use auth::{AuthConfig, PlainNames, PushPlain};
pub use error::{ConfigErrors, Problem};
pub use listen::ListenConfig;
pub use log::{AccessAddresses, AccessLog, LogConfig};
pub use peer::PeerNetwork;
pub use postgres::{PostgresConfig, PostgresDurability, PostgresShard, PostgresTls};
pub use reload::Changes;
use source::Layer;
pub use wake::WakeConfig;

/// The shipped file: documentation for the operator and the lowest layer of every configuration.
const SHIPPED: &str = include_str!("../../../../deploy/relay.toml");

/// The default address of an embedded relay: loopback, on a port that the system chooses.
const LIBRARY_ADDRESS: &str = "127.0.0.1:0";

/// Several embedded relays may share a machine, so none uses a fixed port by default.
const LIBRARY_ADMIN_ADDRESS: &str = "";

/// All settings of a relay. Any value can be built; [`RelayConfig::validate`] checks it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RelayConfig {
    /// `host:port`, where the system chooses a port for 0; `unix:` and an absolute path; or
    /// `systemd:` and the name of a socket that the service manager passes to the program.
    pub address: String,
    /// The permissions of Unix sockets, in octal digits.
    pub socket_mode: String,
    /// Proxies whose connections to `address` begin with a header of the PROXY protocol.
    pub proxy_protocol: Vec<PeerNetwork>,
    /// Further addresses, beside `address`, which may then be empty.
    pub listen: Vec<ListenConfig>,
    /// Clear text or TLS.
    pub mode: Mode,
    /// Certificate files. Required with [`Mode::Tls`], refused with [`Mode::Http`].
    pub tls: Option<TlsConfig>,
    /// Timeouts and limits of connections.
    pub server: ServerConfig,
    /// The server for operators.
    pub admin: AdminConfig,
    /// What the log contains.
    pub log: LogConfig,
    /// Where the relay stores messages.
    pub storage: StorageConfig,
    /// The relay's key file.
    pub privacy: PrivacyConfig,
    /// Who may read and who may send.
    pub auth: AuthConfig,
    /// Limits on messages, queues and responses.
    pub relay: RelayLimits,
    /// Limits on requests per address.
    pub rate_limit: RateLimitConfig,
    /// Which web pages of other origins may use the relay.
    pub cors: CorsConfig,
    /// The gateway that wakes clients which sleep.
    pub wake: WakeConfig,
}

/// The protocol of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP/1.1 in clear text.
    Http,
    /// HTTPS; needs the cargo feature `tls`.
    Tls,
}

/// Certificate files, all in PEM form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct TlsConfig {
    /// The certificate chain, the relay's own certificate first. Empty means not set.
    #[serde(default)]
    pub cert_pem_path: PathBuf,
    /// The private key of that certificate. Empty means not set.
    #[serde(default)]
    pub key_pem_path: PathBuf,
    /// If set, clients need a certificate that one of these authorities has signed (mTLS).
    #[serde(default)]
    pub client_ca_pem_path: Option<PathBuf>,
    /// Lists of the certificates that those authorities have revoked. Requires
    /// [`TlsConfig::client_ca_pem_path`].
    #[serde(default)]
    pub client_crl_pem_path: Option<PathBuf>,
}

/// Timeouts and limits of connections.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerConfig {
    /// Seconds that a shutdown waits for accepted requests; 0 does not wait.
    pub drain_seconds: u64,
    /// Seconds that a peer has to send a request's head, and again for its body.
    pub request_timeout_seconds: u64,
    /// Seconds that a connection may be idle between two requests.
    pub keep_alive_seconds: u64,
    /// The most milliseconds that a pull of an empty queue may wait for an item; 0: none waits.
    pub pull_wait_max_ms: u64,
    /// Seconds that a request waits until the store is open; 0 does not wait.
    pub start_wait_seconds: u64,
    /// The most connections at once.
    pub max_connections: u64,
    /// The most connections of one address at once; 0: a twentieth of all, and at least 8.
    pub max_connections_per_address: u64,
    /// Seconds after which a connection closes as soon as it is idle.
    pub max_connection_age_seconds: u64,
    /// The most bytes of request bodies, payloads and responses in flight together.
    pub max_inflight_bytes: u64,
    /// Whether all clients may read `/stats` and `/openapi.json`.
    pub public_stats: bool,
    /// Host names by which clients call the relay, `*` for any. Empty allows any name, but browsers
    /// may only use loopback names if `address` is loopback.
    pub allowed_hosts: Vec<String>,
}

/// The longest path that an address of a socket can hold.
pub(crate) const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The server for operators, on an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AdminConfig {
    /// `host:port` of `/metrics`, never the public address. Empty turns it off, which is the
    /// default of an embedded relay.
    pub address: String,
    /// Host names by which operators call it, `*` for any. Empty allows loopback names if `address`
    /// is loopback, else any.
    pub allowed_hosts: Vec<String>,
    /// The control socket. Empty: in the storage directory, or none if there is no such directory.
    pub control_path: PathBuf,
}

/// Which web pages of other origins may use the relay.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CorsConfig {
    /// Origins as browsers write them, such as `https://app.example.org` or `tauri://localhost`.
    /// Empty: none.
    pub allowed_origins: Vec<String>,
}

/// Where the relay stores messages.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StorageConfig {
    /// On disk or in memory.
    pub kind: StorageKind,
    /// The directory of the store; unused with [`StorageKind::Memory`].
    pub path: PathBuf,
    /// Bytes of memory for redb's page cache.
    pub cache_bytes: u64,
    /// Bytes that stay free on the file system. With less, the relay refuses pushes.
    pub min_free_bytes: u64,
    /// The most bytes of the store's files, or of the store in memory. Beyond, the relay refuses
    /// pushes. 0: no bound for files, and 256 MiB in memory.
    pub max_bytes: u64,
    /// Whether the store starts with the time of the machine's clock, no matter how far ahead of
    /// its own time that is.
    pub trust_clock: bool,
    /// The database of [`StorageKind::Postgres`].
    pub postgres: PostgresConfig,
}

/// The relay's key file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PrivacyConfig {
    /// The file with the key for cursors and recipients, which the first start creates. Empty:
    /// `relay.key` in the directory of a [`StorageKind::Redb`] store, and a new key at each start
    /// for other stores.
    pub key_path: PathBuf,
    /// Whether a new [`StorageKind::Redb`] store contains hashes in place of recipients. Other
    /// stores do not depend on it.
    pub hash_recipients: bool,
}

/// The kinds of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// On disk, durable; needs the cargo feature `redb`.
    Redb,
    /// In a PostgreSQL database, which several relays may share; needs the cargo feature
    /// `postgres`.
    Postgres,
    /// In memory: a restart loses everything.
    Memory,
}

/// Limits on messages, queues and responses.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RelayLimits {
    /// The largest payload, in decoded bytes, inclusive.
    pub max_message_bytes: u64,
    /// The most payload bytes in one batch of pushes.
    pub max_batch_bytes: u64,
    /// Payload bytes that may wait for one recipient.
    pub max_queue_bytes_per_user: u64,
    /// Items that may wait for one recipient.
    pub max_messages_per_user: u64,
    /// Seconds until an item expires that was not acknowledged.
    pub message_ttl_seconds: u64,
    /// Seconds between two sweeps of expired items.
    pub gc_interval_seconds: u64,
    /// The most items in one response to a pull.
    pub pull_batch_max: u64,
    /// The most payload bytes in one response to a pull, which always has at least one item.
    pub pull_bytes_max: u64,
    /// Seconds that the relay recognizes an acknowledged item as a duplicate; 0 forgets it at once.
    pub dedup_window_seconds: u64,
}

impl RelayLimits {
    /// The most payload bytes in one batch: not more than its items may have together.
    pub(crate) fn batch_bytes(&self) -> u64 {
        self.max_batch_bytes.min(self.max_message_bytes.saturating_mul(relay_http::BATCH_ITEMS_MAX as u64))
    }
}

/// Limits on requests per address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RateLimitConfig {
    /// Whether any limit applies.
    pub enabled: bool,
    /// Requests per second from one address, over all endpoints.
    pub per_ip_rps: u32,
    /// Requests that one address may send at once.
    pub burst: u32,
    /// Milliseconds that a request over its rate waits before it is refused; 0 refuses it at once.
    pub max_wait_ms: u64,
    /// Bytes of pushes per second from one address; 0: no bound.
    pub push_bytes_per_second: u64,
    /// Items in batches of pushes per second from one address; 0: no bound.
    pub push_items_per_second: u64,
    /// Pushes per second to one recipient; 0: no bound.
    pub push_per_recipient_rps: u32,
    /// Requests per second of a client that has proven a name, which do not count by its address.
    pub per_name_rps: u32,
    /// How many names of one address count on their own; 0: none.
    pub names_per_address: u32,
    /// Seconds that a ban of an address lasts; 0 turns bans off.
    pub ban_seconds: u64,
    /// How many seconds within a minute need more than four times the rate for a ban.
    pub ban_threshold: u32,
    /// IPv6 addresses with the same leading bits count as one; 1 to 128 bits.
    pub ipv6_prefix: u8,
    /// Peers whose `X-Forwarded-For` and `Forwarded` headers the relay trusts.
    pub trusted_proxies: Vec<PeerNetwork>,
    /// Networks without limits.
    pub exempt: Vec<IpNet>,
    /// The most addresses that the relay tracks at once.
    pub max_tracked_addresses: u64,
    /// Limits per endpoint.
    pub endpoints: EndpointRateLimit,
}

/// Requests per second from one address to one endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct EndpointRateLimit {
    /// `POST /push`.
    pub push_rps: u32,
    /// `POST /pull`.
    pub pull_rps: u32,
    /// `POST /ack`.
    pub ack_rps: u32,
}

/// The sources of a configuration. Later fields override earlier ones, and all override the shipped
/// file.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file given by `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables as name and value. Names without the prefix `RELAY__` are ignored.
    pub env: Vec<(String, String)>,
    /// Options of the command line.
    pub overrides: Overrides,
}

/// The keys that the command line can override.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--address`, for `address`.
    pub address: Option<String>,
    /// `--storage-path`, for `storage.path`.
    pub storage_path: Option<PathBuf>,
}

/// A valid configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// The resulting configuration.
    pub config: RelayConfig,
    /// Valid but unusual settings, one line each, for the log.
    pub warnings: Vec<String>,
}

impl RelayConfig {
    /// Reads all sources and checks the result.
    ///
    /// # Errors
    /// All mistakes of all sources, each with its key and its location.
    pub fn load(sources: Sources) -> Result<Loaded, ConfigErrors> {
        let file = sources.file.map(|path| Layer::file(&path)).transpose();
        source::resolve(
            Layer::shipped(),
            file,
            vec![Layer::environment(&sources.env), Layer::overrides(sources.overrides)],
        )
    }

    /// Reads a configuration from TOML text, over the defaults of an embedded relay
    /// ([`RelayConfig::default`]).
    ///
    /// # Errors
    /// All mistakes, each with its key and its line.
    pub fn from_toml(text: &str) -> Result<Loaded, ConfigErrors> {
        let base = Layer::shipped().with_addresses(LIBRARY_ADDRESS, LIBRARY_ADMIN_ADDRESS);
        source::resolve(base, Layer::toml(text, "").map(Some), Vec::new())
    }

    /// Checks a configuration that was built by hand, by the rules of `load`. Returns warnings for
    /// the log.
    ///
    /// # Errors
    /// All invalid values.
    pub fn validate(&self) -> Result<Vec<String>, ConfigErrors> {
        let findings = check::examine(self, check::Build::THIS);
        ConfigErrors::from_problems(findings.problems).map_or(Ok(findings.warnings), Err)
    }

    /// Formats this as a configuration file, which `load` reads back to the same values.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }

    fn shipped() -> Self {
        source::merge(&[Layer::shipped()]).expect("the shipped file has every key")
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        let mut config = Self { address: LIBRARY_ADDRESS.to_owned(), ..Self::shipped() };
        LIBRARY_ADMIN_ADDRESS.clone_into(&mut config.admin.address);
        config
    }
}

/// Each part of a configuration has the same defaults alone as within a [`RelayConfig`].
macro_rules! default_as_part {
    ($($part:ty: $($field:ident).+;)+) => {$(
        impl Default for $part {
            fn default() -> Self {
                RelayConfig::default().$($field).+
            }
        }
    )+};
}

default_as_part! {
    ServerConfig: server;
    AdminConfig: admin;
    LogConfig: log;
    StorageConfig: storage;
    PrivacyConfig: privacy;
    AuthConfig: auth;
    RelayLimits: relay;
    RateLimitConfig: rate_limit;
    EndpointRateLimit: rate_limit.endpoints;
    CorsConfig: cors;
    WakeConfig: wake;
}
