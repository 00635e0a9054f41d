//! `relay-bin restore DIR`: copies a backup to the storage directory, with the key file if the
//! backup has one, and verifies the copy. It reports if the key that the store needs is missing.

use std::ops::ControlFlow;
use std::path::Path;

use super::progress::Progress;
use super::{CommandError, Outcome, open, verify};
use crate::config::RelayConfig;
use crate::key_file::{self, RootKey};
use crate::wiring;

pub(super) fn run(config: &RelayConfig, backup: &Path) -> Result<Outcome, CommandError> {
    let key = key_to_restore(&backup.join(key_file::FILE_NAME), &wiring::key_path(config))?;
    copy(config, backup)?;
    if let Some(key) = key {
        key.write_new(&wiring::key_path(config))?;
    }
    let outcome = verify::verify(config)?;
    let missing = missing_key(config)?;
    let success = outcome.success && missing.is_empty();
    Ok(Outcome { text: missing + &outcome.text, success, ..outcome })
}

/// A line about the key that the restored store needs, if it is not in its place.
fn missing_key(config: &RelayConfig) -> Result<String, CommandError> {
    let Some(id) = open(config)?.naming().key_id() else { return Ok(String::new()) };
    let path = wiring::key_path(config);
    let found = match RootKey::read(&path)?.map(|key| key.id()) {
        Some(found) if found == id => return Ok(String::new()),
        Some(found) => format!("holds key {found}"),
        None => "does not exist".to_owned(),
    };
    let path = path.display();
    Ok(format!(
        "this store needs key {id}, and {path} {found}; put the key file there before the relay starts\n"
    ))
}

/// The key of the backup, unless the configured key file already contains it.
fn key_to_restore(backup: &Path, path: &Path) -> Result<Option<RootKey>, CommandError> {
    let Some(key) = RootKey::read(backup)? else { return Ok(None) };
    match RootKey::read(path)? {
        None => Ok(Some(key)),
        Some(existing) if existing == key => Ok(None),
        Some(_) => Err(CommandError::OtherKey { path: path.to_owned(), backup: backup.to_owned() }),
    }
}

fn copy(config: &RelayConfig, backup: &Path) -> Result<(), CommandError> {
    let bar = Progress::of_bytes("restoring", 0);
    relay_store_redb::restore(backup, &config.storage.path, &mut |progress| {
        bar.set(progress.done_bytes, progress.total_bytes);
        ControlFlow::Continue(())
    })?;
    Ok(())
}
