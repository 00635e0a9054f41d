//! The commands that look after a store: what the operator does by hand. All but `backup` and
//! `restore` need the store for themselves, and say so when a relay has it.

mod backup;
mod compact;
mod error;
mod export;
mod import;
mod lines;
mod progress;
mod restore;
mod stats;
mod verify;

use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use relay_store_redb::{OpenError, RedbRelay, StoreError};

pub(crate) use self::error::CommandError;
use crate::clock::SystemClock;
use crate::config::RelayConfig;
use crate::wiring;

/// A command on a store.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum StoreCommand {
    /// Check the whole store and list every inconsistency, while no relay uses it
    Verify,
    /// Print store statistics, while no relay uses the store
    Stats {
        /// One JSON object instead of lines for people
        #[arg(long)]
        json: bool,
    },
    /// Copy the store consistently to a new directory; a running relay makes the copy and continues
    Backup {
        /// The directory, which is made, or is empty
        dir: PathBuf,
        /// Copy the key file as well, so that clients' cursors stay good after a restore; keep that
        /// backup secret
        #[arg(long)]
        with_key: bool,
    },
    /// Restore a backup to a place that has no store yet
    Restore {
        /// The directory of the backup
        dir: PathBuf,
    },
    /// Write every live item to a file, one JSON object a line, while no relay uses the store
    Export {
        /// The file, which must not be there yet; a pipe; or - for standard output
        file: PathBuf,
    },
    /// Append the items of such a file to their queues, while no relay uses the store; safe to
    /// repeat
    Import {
        /// The file; a pipe; or - for standard input
        file: PathBuf,
    },
    /// Remove expired items and free all unused disk space, while no relay uses the store
    Compact,
}

/// What a command has to say.
pub(crate) struct Outcome {
    /// For standard output.
    pub(crate) text: String,
    /// Whether all is well.
    pub(crate) is_good: bool,
    /// Standard output has something else to carry, and the text goes to standard error.
    pub(crate) is_aside: bool,
}

impl Outcome {
    fn good(text: String) -> Self {
        Self { text, is_good: true, is_aside: false }
    }

    /// Lists what was found, and it is good only if that is nothing.
    fn with_findings(findings: &[String], text: &str) -> Self {
        let mut all: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
        all.push_str(text);
        Self { text: all, is_good: findings.is_empty(), is_aside: false }
    }

    fn aside(self) -> Self {
        Self { is_aside: true, ..self }
    }
}

/// Runs a command to its end.
///
/// # Errors
/// [`CommandError`], in words for the operator.
pub(crate) fn run(command: StoreCommand, config: &RelayConfig) -> Result<Outcome, CommandError> {
    let outcome = match command {
        StoreCommand::Verify => verify::run(config),
        StoreCommand::Stats { json } => stats::run(config, json),
        StoreCommand::Backup { dir, with_key } => backup::run(config, &dir, with_key),
        StoreCommand::Restore { dir } => restore::run(config, &dir),
        StoreCommand::Export { file } => export::run(config, &file),
        StoreCommand::Import { file } => import::run(config, &file),
        StoreCommand::Compact => compact::run(config),
    };
    outcome.map_err(|error| error.of(&config.storage.path))
}

/// Opens the store, which must be there: opening would make it.
fn open_existing(config: &RelayConfig) -> Result<RedbRelay, OpenError> {
    let path = &config.storage.path;
    if !path.is_dir() {
        return Err(no_directory(path));
    }
    open(config)
}

fn no_directory(path: &Path) -> OpenError {
    OpenError::Directory { path: path.to_owned(), source: io::ErrorKind::NotFound.into() }
}

fn open(config: &RelayConfig) -> Result<RedbRelay, OpenError> {
    let (limits, options) = (wiring::limits(&config.relay), wiring::store_options(config));
    RedbRelay::open(&config.storage.path, limits, Arc::new(SystemClock), options)
}

/// Waits for what the store has to do, on a runtime of its own.
fn wait_for<T, E: Into<CommandError>>(future: impl Future<Output = Result<T, E>>) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.map_err(|error| CommandError::Store(StoreError::from(error)))?;
    runtime.block_on(future).map_err(Into::into)
}

/// One thing, or many of it.
fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
