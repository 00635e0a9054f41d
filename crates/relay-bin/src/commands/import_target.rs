//! The store of an import, and what becomes of the recipients of the export in it. Plain recipients
//! go into any store, and are hashed for one with hashes. Hashes only go into a store with the same
//! key, because nobody can turn them into those of another key.

use std::path::Path;

use relay_core::{ImportItem, Seq};
use relay_store_redb::{KeyId, Naming, RecipientNames, RedbRelay};

use super::{CommandError, open_with};
use crate::config::RelayConfig;
use crate::key_file::{KeyFileError, KeyFileFault, KeyForStart, RootKey};
use crate::recipients::RecipientHasher;
use crate::wiring;

/// An open store that takes the items of an export.
pub(super) struct Target {
    pub(super) store: RedbRelay,
    /// Hashes plain recipients, if the store contains hashes.
    hasher: Option<RecipientHasher>,
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
        target.store.raise_arrival_numbers(last);
        Ok(target)
    }

    fn for_plain(config: &RelayConfig) -> Result<Self, CommandError> {
        let key_path = wiring::key_path(config);
        let key = KeyForStart::find(Some(key_path.clone()))?;
        let (hasher, is_new) = (key.root.recipients(), key.is_new());
        let opened = open_with(config, wiring::recipient_names(config, &key.root));
        let store = opened.map_err(|error| wiring::open_error(error, &key_path, is_new))?;
        if store.naming() == Naming::Plain {
            return Ok(Self { store, hasher: None });
        }
        // The key must be durable before the first hash.
        key.write_if_new()?;
        Ok(Self { store, hasher: Some(hasher) })
    }

    fn for_hashes(config: &RelayConfig, id: KeyId, given: Option<&Path>) -> Result<Self, CommandError> {
        let key = key_of_export(&wiring::key_path(config), id, given)?;
        let store = open_with(config, RecipientNames::Keyed { id, hash_new: true })?;
        if store.naming() == Naming::Plain {
            return Err(CommandError::HashesIntoPlain { id });
        }
        key.write_if_new()?;
        Ok(Self { store, hasher: None })
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
