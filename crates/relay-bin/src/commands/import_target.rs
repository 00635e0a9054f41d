//! The store of an import, and what becomes of the recipients of the export in it. Plain recipients
//! go into any store, and are hashed for one with hashes. Hashes only go into a store with the same
//! key, because nobody can turn them into those of another key.

use std::path::Path;
#[cfg(feature = "postgres")]
use std::sync::Arc;

use relay_core::{ImportItem, Imported, Seq};
use relay_store_redb::{KeyId, Naming, RecipientNames, RedbRelay};

use super::{CommandError, open_with, wait_for};
#[cfg(feature = "postgres")]
use crate::clock::SystemClock;
use crate::config::RelayConfig;
#[cfg(feature = "postgres")]
use crate::config::StorageKind;
use crate::key_file::{KeyFileError, KeyFileFault, KeyForStart, RootKey};
use crate::recipients::RecipientHasher;
use crate::wiring;

/// An open store that takes the items of an export.
pub(super) struct Target {
    store: TargetStore,
    /// Hashes plain recipients, if the store contains hashes.
    hasher: Option<RecipientHasher>,
}

enum TargetStore {
    Redb(Box<RedbRelay>),
    #[cfg(feature = "postgres")]
    Postgres(Box<relay_store_postgres::PostgresRelay>),
}

impl TargetStore {
    /// Opens the store. A new one holds hashes with this key, or what the configuration says.
    fn open(config: &RelayConfig, id: KeyId, hash_new: bool) -> Result<Self, CommandError> {
        #[cfg(feature = "postgres")]
        if config.storage.kind == StorageKind::Postgres {
            let mut options = wiring::postgres_options(config, id.to_bytes())?;
            options.recipients.hash_new = hash_new;
            let (limits, clock) = (wiring::limits(&config.relay), Arc::new(SystemClock));
            let store = relay_store_postgres::PostgresRelay::open(options, limits, clock)?;
            return Ok(Self::Postgres(Box::new(store)));
        }
        Ok(Self::Redb(Box::new(open_with(config, RecipientNames::Keyed { id, hash_new })?)))
    }

    /// Whether it holds recipients as they are.
    fn is_plain(&self) -> bool {
        match self {
            Self::Redb(store) => store.naming() == Naming::Plain,
            #[cfg(feature = "postgres")]
            Self::Postgres(store) => !store.is_hashed(),
        }
    }
}

impl Target {
    /// Opens the store for an export with hashes by `exported`, or with plain recipients. `given`
    /// is the file with the key of the export, if the operator names one.
    pub(super) fn open(
        config: &RelayConfig,
        exported: Option<KeyId>,
        given: Option<&Path>,
        last: Seq,
    ) -> Result<Self, CommandError> {
        let target = match exported {
            None if given.is_some() => return Err(CommandError::KeyOfPlainExport),
            None => Self::for_plain(config)?,
            Some(id) => Self::for_hashes(config, id, given)?,
        };
        match &target.store {
            TargetStore::Redb(store) => store.raise_arrival_numbers(last),
            // Its arrival numbers are times, which are higher.
            #[cfg(feature = "postgres")]
            TargetStore::Postgres(_) => {}
        }
        Ok(target)
    }

    fn for_plain(config: &RelayConfig) -> Result<Self, CommandError> {
        let key_path = wiring::key_path(config);
        let key = KeyForStart::find(Some(key_path.clone()))?;
        // A database knows the key of its relays also if its recipients are plain.
        #[cfg(feature = "postgres")]
        let key = if config.storage.kind == StorageKind::Postgres { key.written()? } else { key };
        let (hasher, is_new) = (key.root.recipients(), key.is_new());
        let opened = TargetStore::open(config, key.root.id(), config.privacy.hash_recipients);
        let store = opened.map_err(|error| match error {
            CommandError::Open(error) => wiring::open_error(error, &key_path, is_new).into(),
            error => error,
        })?;
        if store.is_plain() {
            return Ok(Self { store, hasher: None });
        }
        // The key must be durable before the first hash.
        key.write_if_new()?;
        Ok(Self { store, hasher: Some(hasher) })
    }

    fn for_hashes(config: &RelayConfig, id: KeyId, given: Option<&Path>) -> Result<Self, CommandError> {
        let key = key_of_export(&wiring::key_path(config), id, given)?;
        let store = TargetStore::open(config, id, true)?;
        if store.is_plain() {
            return Err(CommandError::HashesIntoPlain { id });
        }
        key.write_if_new()?;
        Ok(Self { store, hasher: None })
    }

    /// Imports items, in their order.
    pub(super) fn import(&self, items: Vec<ImportItem>) -> Result<Imported, CommandError> {
        match &self.store {
            TargetStore::Redb(store) => wait_for(store.import(items)),
            #[cfg(feature = "postgres")]
            TargetStore::Postgres(store) => wait_for(store.import(items)),
        }
    }

    /// Makes all of it durable. The snapshot of a redb store also makes the raised arrival numbers
    /// durable, even if no item was stored.
    pub(super) fn finish(&self) -> Result<(), CommandError> {
        match &self.store {
            TargetStore::Redb(store) => wait_for(store.snapshots().take()).map(drop),
            #[cfg(feature = "postgres")]
            TargetStore::Postgres(_) => Ok(()),
        }
    }

    /// The item as the store takes it.
    pub(super) fn item(&self, mut item: ImportItem) -> ImportItem {
        if let Some(hasher) = &self.hasher {
            item.envelope.recipient = hasher.hash(&item.envelope.recipient);
        }
        item
    }
}

/// The key with this id: the one that the store's key file holds, or the given one, which then
/// becomes the store's.
fn key_of_export(path: &Path, id: KeyId, given: Option<&Path>) -> Result<KeyForStart, CommandError> {
    let existing = RootKey::read(path)?;
    let Some(given) = given else {
        return match existing {
            Some(key) if key.id() == id => Ok(KeyForStart::of(key, path)?),
            found => Err(CommandError::OtherExportKey { id, found: found.map(|key| key.id()) }),
        };
    };
    let missing = || KeyFileError { path: given.to_owned(), fault: KeyFileFault::Missing };
    let key = RootKey::read(given)?.ok_or_else(missing)?;
    if key.id() != id {
        return Err(CommandError::WrongKeyFile { path: given.to_owned(), id, found: key.id() });
    }
    if existing.is_some_and(|existing| existing != key) {
        return Err(CommandError::KeyInUse { path: path.to_owned(), given: given.to_owned() });
    }
    Ok(KeyForStart::of(key, path)?)
}
