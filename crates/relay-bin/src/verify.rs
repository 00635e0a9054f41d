//! `relay-bin verify`: recounts the store of a configuration while no relay uses it. It mends nothing, but opening a store replays its
//! journal, as a start does.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use relay_store_redb::{Contents, OpenError, RedbRelay};

use crate::clock::SystemClock;
use crate::config::RelayConfig;
use crate::error::RelayError;
use crate::wiring;

/// What a recount found.
pub(crate) struct Report {
    path: PathBuf,
    contents: Contents,
    /// What does not add up; nothing when all is well.
    pub(crate) findings: Vec<String>,
}

/// Opens the store and reads all of it.
///
/// # Errors
/// [`RelayError`] when there is no store, or it cannot be read at all.
pub(crate) fn verify(config: &RelayConfig) -> Result<Report, RelayError> {
    let path = config.storage.path.clone();
    if !path.is_dir() {
        // Opening would make it.
        return Err(OpenError::Directory { path, source: io::ErrorKind::NotFound.into() }.into());
    }
    let (limits, options) = (wiring::limits(&config.relay), wiring::store_options(config));
    let store = RedbRelay::open(&path, limits, Arc::new(SystemClock), options)?;
    let recounted = store.contents().and_then(|contents| Ok((contents, store.verify()?)));
    let (contents, findings) = recounted.map_err(|error| RelayError::Broken(error.into()))?;
    Ok(Report { path, contents, findings })
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        let Contents { queues, usage, acked } = self.contents;
        let (path, items, bytes, found) =
            (self.path.display(), usage.items, usage.bytes, self.findings.len());
        writeln!(
            f,
            "{path}: {queues} queues, {items} items of {bytes} bytes, {acked} acked names; {found} findings"
        )
    }
}
