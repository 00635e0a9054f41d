//! What an operator may set: the types, and the three ways to a checked configuration (`load`,
//! `from_toml`, or a `RelayConfig` built by hand and `validate`).
//!
//! Opens no file but the one it is told, and reads neither the environment nor the command line:
//! whoever calls `load` hands them in. Nothing here panics on what an operator wrote, and nothing
//! is changed silently: a value is taken as it stands or refused in words.

mod check;
mod error;
mod keys;
mod print;
mod source;
mod value;

use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

pub use error::{ConfigErrors, Problem};
use source::Layer;

/// The shipped file: documentation for the operator and the lowest layer of every configuration.
const SHIPPED: &str = include_str!("../../../../deploy/relay.toml");

/// Where an embedded relay listens unless told otherwise: loopback, on a port the system chooses.
const LIBRARY_ADDRESS: &str = "127.0.0.1:0";

/// Several embedded relays may share a machine, so none takes a fixed port unasked.
const LIBRARY_ADMIN_ADDRESS: &str = "";

/// Everything a relay can be told. Plain data: any value can be built, `validate` says whether it
/// can work.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct RelayConfig {
    /// `host:port` to listen on; port 0 lets the system choose.
    pub address: String,
    /// Clear text or TLS.
    pub mode: Mode,
    /// Certificate files. Needed with [`Mode::Tls`], refused with [`Mode::Http`].
    pub tls: Option<TlsConfig>,
    /// Patience with connections, and how much of them there may be.
    pub server: ServerConfig,
    /// What is shown to whoever runs the relay.
    pub admin: AdminConfig,
    /// Where messages are kept.
    pub storage: StorageConfig,
    /// The relay's own secret.
    pub privacy: PrivacyConfig,
    /// Limits on messages, queues and answers.
    pub relay: RelayLimits,
    /// Limits on requests per address.
    pub rate_limit: RateLimitConfig,
    /// Which other web pages may ask, in a browser.
    pub cors: CorsConfig,
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// HTTP/1.1 in clear text.
    Http,
    /// HTTPS; needs the cargo feature `tls`.
    Tls,
}

/// Certificate files, all in PEM form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct TlsConfig {
    /// The certificate chain, the relay's own certificate first. Empty means not given.
    #[serde(default)]
    pub cert_pem_path: PathBuf,
    /// The private key of that certificate. Empty means not given.
    #[serde(default)]
    pub key_pem_path: PathBuf,
    /// When given, clients must show a certificate signed by one of these authorities (mTLS).
    #[serde(default)]
    pub client_ca_pem_path: Option<PathBuf>,
    /// Lists of the certificates that those authorities have revoked. Needs
    /// [`TlsConfig::client_ca_pem_path`].
    #[serde(default)]
    pub client_crl_pem_path: Option<PathBuf>,
}

/// Patience with connections, and how much of them there may be.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ServerConfig {
    /// Seconds that a shutdown waits for accepted requests; 0 does not wait.
    pub drain_seconds: u64,
    /// Seconds that a peer may take to send a request's head, and again its body.
    pub request_timeout_seconds: u64,
    /// Seconds that a connection may rest between two requests.
    pub keep_alive_seconds: u64,
    /// Seconds that a request waits for a store that is being opened; 0 does not wait.
    pub start_wait_seconds: u64,
    /// Most connections at once.
    pub max_connections: u64,
    /// Most connections of one address at once; 0: a twentieth of all, and at least 8.
    pub max_connections_per_address: u64,
    /// Seconds after which a connection is closed at its next quiet moment.
    pub max_connection_age_seconds: u64,
    /// Most bytes of bodies, payloads and answers in flight together.
    pub max_inflight_bytes: u64,
    /// Whether `/stats` and `/openapi.json` are there for everybody.
    pub public_stats: bool,
    /// Host names by which clients call the relay, `*` for any; empty: any, but from a browser
    /// those of loopback alone when `address` is loopback.
    pub allowed_hosts: Vec<String>,
}

/// What is shown to whoever runs the relay, on an address of its own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AdminConfig {
    /// `host:port` of `/metrics`, never the public one; empty: nowhere, which is the default of an
    /// embedded relay.
    pub address: String,
    /// Host names by which it may be called, `*` for any; empty: those of loopback when `address`
    /// is loopback, else any.
    pub allowed_hosts: Vec<String>,
}

/// Which other web pages may ask, in a browser.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CorsConfig {
    /// Origins as browsers write them, such as `https://app.example.org` or `tauri://localhost`.
    /// Empty: none.
    pub allowed_origins: Vec<String>,
}

/// Where messages are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StorageConfig {
    /// On disk or in memory.
    pub kind: StorageKind,
    /// The directory of the store; not used with [`StorageKind::Memory`].
    pub path: PathBuf,
    /// Bytes of memory for redb's page cache.
    pub cache_bytes: u64,
    /// Bytes that stay free on the file system; with less, pushes are refused. 0: none.
    pub min_free_bytes: u64,
    /// Bytes that the store's files may take together, or the whole store in memory; with more,
    /// pushes are refused. 0: no bound for files, and 256 MiB in memory.
    pub max_bytes: u64,
    /// The store begins with the time of the machine's clock, however much later that is than its
    /// own.
    pub trust_clock: bool,
}

/// The relay's own secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PrivacyConfig {
    /// The file with the key of the cursors, made at the first start. Empty: `relay.key` in the
    /// directory of a [`StorageKind::Redb`] store; a new key at each start with any other store.
    pub key_path: PathBuf,
}

/// The stores there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StorageKind {
    /// On disk, durable; needs the cargo feature `redb`.
    Redb,
    /// In memory: a restart loses everything.
    Memory,
}

/// Limits on messages, queues and answers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RelayLimits {
    /// Largest payload, in decoded bytes; one of exactly this size is accepted.
    pub max_message_bytes: u64,
    /// Payload bytes that may wait for one recipient.
    pub max_queue_bytes_per_user: u64,
    /// Items that may wait for one recipient.
    pub max_messages_per_user: u64,
    /// Seconds until an item that was not acknowledged is gone.
    pub message_ttl_seconds: u64,
    /// Seconds between two sweeps of expired items.
    pub gc_interval_seconds: u64,
    /// Most items in one answer to a pull.
    pub pull_batch_max: u64,
    /// Most payload bytes in one answer to a pull; one item is always sent.
    pub pull_bytes_max: u64,
    /// Seconds that an acknowledged item is remembered as a duplicate; 0 forgets it at once.
    pub dedup_window_seconds: u64,
}

/// Limits on requests per address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RateLimitConfig {
    /// Off: every request is answered.
    pub enabled: bool,
    /// Requests per second from one address, over all endpoints.
    pub per_ip_rps: u32,
    /// Requests that one address may send at once.
    pub burst: u32,
    /// Milliseconds that a request over its rate waits for its turn before it is refused; 0 refuses
    /// at once.
    pub max_wait_ms: u64,
    /// Bytes of pushes per second from one address; 0: no bound.
    pub push_bytes_per_second: u64,
    /// Pushes per second to one recipient; 0: no bound.
    pub push_per_recipient_rps: u32,
    /// Seconds that an address is shut out; 0 never shuts out.
    pub ban_seconds: u64,
    /// Seconds within one minute, each with more than four times the rate in it, before an address
    /// is shut out.
    pub ban_threshold: u32,
    /// Leading bits by which IPv6 addresses count as one, 1 to 128.
    pub ipv6_prefix: u8,
    /// Networks whose `X-Forwarded-For` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Networks that have no limits.
    pub exempt: Vec<IpNet>,
    /// Most addresses remembered at once.
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

/// Where a configuration comes from. The later field wins over the earlier; the shipped file lies
/// below all.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file given by `--config`.
    pub file: Option<PathBuf>,
    /// Environment variables as name and value. Names that do not start with `RELAY__` are passed
    /// over.
    pub env: Vec<(String, String)>,
    /// What the command line says.
    pub overrides: Overrides,
}

/// What the command line may say about the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--address`, for `address`.
    pub address: Option<String>,
    /// `--storage-path`, for `storage.path`.
    pub storage_path: Option<PathBuf>,
}

/// A configuration that can work.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What is in force.
    pub config: RelayConfig,
    /// What is odd about it, one line each, for the log.
    pub warnings: Vec<String>,
}

impl RelayConfig {
    /// Reads all sources and checks the result.
    ///
    /// # Errors
    /// Every mistake of every source at once, each with its key and where it stands.
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
    /// Every mistake at once, each with its key and its line.
    pub fn from_toml(text: &str) -> Result<Loaded, ConfigErrors> {
        let base = Layer::shipped().with_addresses(LIBRARY_ADDRESS, LIBRARY_ADMIN_ADDRESS);
        source::resolve(base, Layer::toml(text, "").map(Some), Vec::new())
    }

    /// Checks a configuration that was built by hand, by the rules of `load`. Returns what is odd,
    /// for the log.
    ///
    /// # Errors
    /// Every value that could never work, at once.
    pub fn validate(&self) -> Result<Vec<String>, ConfigErrors> {
        let findings = check::examine(self, check::Build::THIS);
        ConfigErrors::from_problems(findings.problems).map_or(Ok(findings.warnings), Err)
    }

    /// What is in force, as a configuration file that `load` reads back to the same values.
    #[must_use]
    pub fn to_toml(&self) -> String {
        print::to_toml(self)
    }

    fn shipped() -> Self {
        source::merge(&[Layer::shipped()]).expect("the shipped file is part of the build and holds every key")
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        let mut config = Self { address: LIBRARY_ADDRESS.to_owned(), ..Self::shipped() };
        LIBRARY_ADMIN_ADDRESS.clone_into(&mut config.admin.address);
        config
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        RelayConfig::shipped().server
    }
}

impl Default for AdminConfig {
    fn default() -> Self {
        RelayConfig::default().admin
    }
}

impl Default for StorageConfig {
    fn default() -> Self {
        RelayConfig::shipped().storage
    }
}

impl Default for PrivacyConfig {
    fn default() -> Self {
        RelayConfig::shipped().privacy
    }
}

impl Default for RelayLimits {
    fn default() -> Self {
        RelayConfig::shipped().relay
    }
}

impl Default for RateLimitConfig {
    fn default() -> Self {
        RelayConfig::shipped().rate_limit
    }
}

impl Default for CorsConfig {
    fn default() -> Self {
        RelayConfig::shipped().cors
    }
}

impl Default for EndpointRateLimit {
    fn default() -> Self {
        RelayConfig::shipped().rate_limit.endpoints
    }
}
