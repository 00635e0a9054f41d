//! The operator's commands on a store, and on the relay that uses it. `status`, `stats`, `verify`
//! and `backup` ask a running relay; `restore`, `export`, `import` and `compact` need the store
//! alone.

mod backup;
mod compact;
mod drain;
mod error;
mod export;
mod exported;
mod header;
mod human;
mod import;
mod import_target;
mod lines;
mod log_level;
#[cfg(feature = "postgres")]
mod postgres;
mod progress;
mod restore;
mod running;
mod stats;
mod status;
mod verify;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_store_redb::{OpenError, RecipientNames, RedbRelay, StoreError};

pub use self::backup::BackupArgs;
pub(crate) use self::error::CommandError;
#[cfg(feature = "postgres")]
pub(crate) use self::postgres::migrate;
use crate::clock::SystemClock;
use crate::config::RelayConfig;
#[cfg(feature = "postgres")]
use crate::config::StorageKind;
use crate::wiring;

/// A command on a store, or on the relay that uses it.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum StoreCommand {
    /// Print what the running relay does: its state, version, address, store and disk
    #[command(after_help = "Example:\n  relay-bin status --json | jq -r .state")]
    Status {
        /// Print one JSON object instead of human-readable lines
        #[arg(long)]
        json: bool,
    },
    /// Stop the running relay as SIGTERM does, and wait until its store is closed
    #[command(after_help = "Example:\n  relay-bin drain && relay-bin compact")]
    Drain,
    /// Show or change what the running relay logs, until its next start
    #[command(after_help = "Example:\n  relay-bin log-level relay_http=debug,info")]
    LogLevel {
        /// The new filter, as in RUST_LOG; without one, the current filter is printed
        filter: Option<String>,
    },
    /// Check the whole store and list every inconsistency; a running relay checks its own
    #[command(after_help = "Example:\n  relay-bin verify --config /etc/relay/relay.toml")]
    Verify {
        /// Print one JSON object instead of human-readable lines
        #[arg(long)]
        json: bool,
    },
    /// Print what the store holds and takes; a running relay reports its own
    #[command(after_help = "Example:\n  relay-bin stats --json | jq .items")]
    Stats {
        /// Print one JSON object instead of human-readable lines
        #[arg(long)]
        json: bool,
    },
    /// Copy the store consistently to a new directory; a running relay makes the copy and continues
    #[command(after_help = "Example:\n  relay-bin backup --base /srv/backup/monday /srv/backup/tuesday")]
    Backup(BackupArgs),
    /// Restore a backup to a directory without a store
    Restore {
        /// The directory of the backup
        dir: PathBuf,
    },
    /// Write every live item to a file, one JSON object per line, while no relay uses the store
    Export {
        /// The file, which must not exist yet; a pipe; or - for standard output
        file: PathBuf,
    },
    /// Append the items of an export to their queues, while no relay uses the store; safe to repeat
    Import {
        /// The file; a pipe; or - for standard input
        file: PathBuf,
        /// The key file of the relay that wrote the export, if it contains hashed recipients; a new
        /// store then uses this key
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Remove expired items and free all unused disk space, while no relay uses the store
    Compact {
        /// First replace all recipients in the store by hashes, as in a new store; needs free space
        /// for a second copy
        #[arg(long)]
        hash_recipients: bool,
    },
}

/// The result of a command that ran to its end.
pub(crate) struct Outcome {
    pub(crate) text: String,
    /// False if the command found problems.
    pub(crate) success: bool,
    /// Whether the text goes to standard error, because standard output has the data.
    pub(crate) to_stderr: bool,
}

impl Outcome {
    fn success(text: String) -> Self {
        Self::with_findings(&[], text)
    }

    /// Lists the findings before the text. The command succeeds if there are none.
    fn with_findings(findings: &[String], text: String) -> Self {
        let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        Self { text: lines + &text, success: findings.is_empty(), to_stderr: false }
    }
}

/// Runs a command.
///
/// # Errors
/// [`CommandError`], if the command cannot run to its end.
pub(crate) fn run(command: StoreCommand, config: &RelayConfig) -> Result<Outcome, CommandError> {
    #[cfg(feature = "postgres")]
    if config.storage.kind == StorageKind::Postgres {
        return postgres::run(command, config);
    }
    let outcome = match command {
        StoreCommand::Status { json } => status::run(config, json),
        StoreCommand::Drain => drain::run(config),
        StoreCommand::LogLevel { filter } => log_level::run(config, filter),
        StoreCommand::Verify { json } => verify::run(config, json),
        StoreCommand::Stats { json } => stats::run(config, json),
        StoreCommand::Backup(arguments) => backup::run(config, &arguments),
        StoreCommand::Restore { dir } => restore::run(config, &dir),
        StoreCommand::Export { file } => export::run(config, &file),
        StoreCommand::Import { file, key } => import::run(config, &file, key.as_deref()),
        StoreCommand::Compact { hash_recipients } => compact::run(config, hash_recipients),
    };
    outcome.map_err(|error| error.in_store(&config.storage.path))
}

/// Opens a store that must exist, since `open` would create it.
fn open_existing(config: &RelayConfig) -> Result<RedbRelay, OpenError> {
    check_exists(&config.storage.path)?;
    open(config)
}

fn check_exists(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    Err(OpenError::Directory { path: path.to_owned(), source: io::ErrorKind::NotFound.into() })
}

/// Opens a store for a command that works on it as a whole, and so needs no key.
fn open(config: &RelayConfig) -> Result<RedbRelay, OpenError> {
    open_with(config, RecipientNames::AsStored)
}

fn open_with(config: &RelayConfig, recipients: RecipientNames) -> Result<RedbRelay, OpenError> {
    let (limits, options) = (wiring::limits(&config.relay), wiring::store_options(config, recipients));
    RedbRelay::open(&config.storage.path, limits, Arc::new(SystemClock), options)
}

/// Waits for a future of the store, on a runtime of its own.
fn wait_for<T, E: Into<CommandError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| CommandError::Store(StoreError::from(error)))?;
    runtime.block_on(future).map_err(Into::into)
}

fn count(number: u64, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}

/// Names and values, for people, one pair on each line.
fn rows(rows: &[(&str, String)]) -> String {
    rows.iter().map(|(name, value)| format!("{name:<24}{value}\n")).collect()
}

/// One JSON object in a line, for scripts.
fn to_json(value: &impl serde::Serialize) -> String {
    // The values of commands have only text as keys, so this cannot fail.
    serde_json::to_string(value).unwrap_or_default() + "\n"
}
