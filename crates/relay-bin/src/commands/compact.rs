//! `relay-bin compact`: removes expired items, compacts sparse segments, and rewrites the index.
//! With `--hash-recipients`, it first replaces the recipients of a plain store by hashes.

use relay_core::Relay as _;
use relay_store_redb::{Naming, RedbRelay};

use super::progress::Progress;
use super::{CommandError, Outcome, count, open_existing, wait_for};
use crate::config::RelayConfig;
use crate::key_file::KeyForStart;
use crate::lock_like::LockLikeNames;
use crate::wiring;

pub(super) fn run(config: &RelayConfig, hash_recipients: bool) -> Result<Outcome, CommandError> {
    let mut store = open_existing(config)?;
    let old_bytes = store.stats()?.file_bytes();
    let swept = wait_for(store.sweep())?;
    let mut lines = String::new();
    if hash_recipients {
        (store, lines) = hash(store, config)?;
    }
    wait_for(store.compact())?;
    let new_bytes = store.stats()?.file_bytes();
    let (path, items) = (config.storage.path.display(), count(swept.items, "expired item", "expired items"));
    Ok(Outcome::success(format!(
        "{lines}{path}: {items} reclaimed; {old_bytes} bytes before, {new_bytes} bytes after\n"
    )))
}

/// Hashes the recipients, unless they are hashed. Returns the store and a line about it.
fn hash(store: RedbRelay, config: &RelayConfig) -> Result<(RedbRelay, String), CommandError> {
    let path = config.storage.path.display();
    if let Naming::Hashed(id) = store.naming() {
        return Ok((store, format!("{path}: the recipients are already hashed, with key {id}\n")));
    }
    let mut names = LockLikeNames::default();
    store.each_recipient(|recipient| names.note(recipient))?;
    // The key must be durable before the first hash.
    let key_path = wiring::key_path(config);
    let key = KeyForStart::find(Some(key_path.clone()))?;
    let (id, hasher) = (key.root.id(), key.root.recipients());
    key.write_if_new()?;
    let total = store.contents()?.usage.items;
    let bar = Progress::of_items("hashing recipients", total);
    let mut copied = |items| bar.set(items, total);
    let hash = |recipient: &relay_core::Recipient| hasher.hash(recipient);
    wait_for(store.hash_recipients(&config.storage.path, id, &hash, &mut copied))?;
    let line = format!(
        "{path}: the recipients are hashed, with key {id}; keep a copy of {}: nobody can find a queue without it; earlier \
         backups and exports still contain recipients\n",
        key_path.display()
    );
    let names = if config.auth.locks { names.line("queues") } else { String::new() };
    Ok((open_existing(config)?, line + &names))
}
