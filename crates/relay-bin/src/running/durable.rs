//! Opens the durable store with the key that its recipients need. A store whose key is lost or was
//! exchanged does not open: it would serve empty queues.

use std::path::Path;
use std::sync::Arc;

use relay_core::{Clock, Limits};
use relay_store_redb::{LockedDirectory, Naming, OpenProgress, Options, RedbRelay};

use crate::config::RelayConfig;
use crate::error::RelayError;
use crate::key_file::KeyForStart;
use crate::recipients::HashedRecipients;
use crate::running::older_names;
use crate::wiring;

/// Returns a function that opens the store of this configuration. It calls `locked` once it has the
/// lock of the storage directory.
pub(super) fn opening<F: FnOnce() + Send + 'static>(
    config: &RelayConfig,
    key: &KeyForStart,
    limits: Limits,
    clock: Arc<dyn Clock>,
    progress: OpenProgress,
    locked: F,
) -> impl FnOnce() -> Result<HashedRecipients<RedbRelay>, RelayError> + Send + use<F> {
    let (path, key_path) = (config.storage.path.clone(), wiring::key_path(config));
    let names = wiring::recipient_names(config, &key.root);
    let options = Options { progress: Some(progress), ..wiring::store_options(config, names) };
    let (hasher, is_new) = (key.root.recipients(), key.is_new());
    let (wants_hashes, has_locks) = (config.privacy.hash_recipients, config.auth.locks);
    move || {
        let opened = LockedDirectory::lock(&path).and_then(|directory| {
            locked();
            directory.open(limits, clock, options)
        });
        let store = opened.map_err(|error| wiring::open_error(error, &key_path, is_new))?;
        let hasher = match store.naming() {
            Naming::Hashed(_) => Some(hasher),
            Naming::Plain => None,
        };
        if has_locks && hasher.is_none() {
            older_names::check_once(&store, &path);
        } else if !has_locks {
            older_names::forget(&path);
        }
        log_naming(hasher.is_some(), wants_hashes, &path, &key_path);
        Ok(HashedRecipients::new(store, hasher))
    }
}

fn log_naming(is_hashed: bool, wants_hashes: bool, storage: &Path, key_path: &Path) {
    if is_hashed && is_in_directory(key_path, storage) {
        tracing::warn!(
            path = %key_path.display(),
            "the key file lies in the storage directory, so whoever copies the directory can test it for names; \
             set privacy.key_path to a file elsewhere, and move it there"
        );
    }
    if wants_hashes && !is_hashed {
        tracing::warn!(
            path = %storage.display(),
            "this store holds recipients in plain text; stop the relay and run `relay-bin compact --hash-recipients` to hash them, \
             or set privacy.hash_recipients = false to keep them"
        );
    }
}

/// Whether a file lies in a directory, or in one below it.
fn is_in_directory(file: &Path, directory: &Path) -> bool {
    let parent = file.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let real = (parent.canonicalize(), directory.canonicalize());
    matches!(real, (Ok(parent), Ok(directory)) if parent.starts_with(&directory))
}
