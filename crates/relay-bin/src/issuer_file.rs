//! The file with the public keys of the issuer, read again while the relay serves.
//!
//! Like the certificates, its contents are polled: whoever renews it may replace a link to it, and
//! network file systems send no events. It is never fetched over a network.

use std::hash::{BuildHasher as _, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relay_auth::{Issuer, JWKS_BYTES_MAX, Jwks, JwksError};
use tokio::task;
use tokio::time::timeout;

use crate::config::AuthConfig;
use crate::small_file;
use crate::supervision::ReloadRequests;

/// How often the file is read.
const POLL: Duration = Duration::from_secs(2);

/// The keys of the issuer cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("issuer's keys, file {}: {fault}", path.display())]
pub struct IssuerFileError {
    /// The key `auth.issuer_jwks_path`.
    pub path: PathBuf,
    /// The problem.
    pub fault: IssuerFileFault,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IssuerFileFault {
    /// The operating system returned an error.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// A directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Its contents are no usable set of keys.
    #[error(transparent)]
    Keys(JwksError),
}

/// An issuer, and the file that its keys come from.
pub(crate) struct IssuerFile {
    issuer: Issuer,
    path: PathBuf,
    fingerprints: RandomState,
    /// Of the contents that were read last, usable or not. It is unnecessary to keep them.
    seen: u64,
}

/// The contents of the file. An error is content too, so that it is logged once.
type Content = Result<Vec<u8>, IssuerFileFault>;

impl IssuerFile {
    /// Reads the keys of `auth.issuer`, if there is one. Blocks on disk.
    pub(crate) fn load(auth: &AuthConfig) -> Result<Option<Self>, IssuerFileError> {
        if auth.issuer.is_empty() {
            return Ok(None);
        }
        let (path, fingerprints) = (auth.issuer_jwks_path.clone(), RandomState::new());
        let content = read(&path);
        let seen = fingerprint(&fingerprints, &content);
        let keys = parse(content, &path)?;
        Ok(Some(Self { issuer: Issuer::new(&*auth.issuer, keys), path, fingerprints, seen }))
    }

    /// The issuer, whose keys [`watch`](Self::watch) replaces.
    pub(crate) fn issuer(&self) -> Issuer {
        self.issuer.clone()
    }

    /// Reads the file every two seconds and at each of `requests`, and uses new keys at once.
    /// Unusable contents change nothing and are logged once. Never resolves.
    pub(crate) async fn watch(mut self, mut requests: ReloadRequests) {
        loop {
            let request = timeout(POLL, requests.next()).await.ok();
            let path = self.path.clone();
            match task::spawn_blocking(move || read(&path)).await {
                Ok(content) => self.take(content, request.is_some()),
                Err(error) => {
                    tracing::error!(%error, "reload of the issuer's keys crashed; trying again");
                }
            }
        }
    }

    fn take(&mut self, content: Content, is_requested: bool) {
        let fingerprint = fingerprint(&self.fingerprints, &content);
        let is_new = std::mem::replace(&mut self.seen, fingerprint) != fingerprint;
        if !is_new && !is_requested {
            return;
        }
        match parse(content, &self.path) {
            Ok(_) if !is_new => tracing::info!("the issuer's keys have not changed"),
            Ok(keys) => {
                self.issuer.replace_keys(keys);
                tracing::info!("new keys of the issuer are in use");
            }
            Err(error) => {
                tracing::warn!(%error, "new keys of the issuer cannot be used; the old ones stay in use");
            }
        }
    }
}

fn parse(content: Content, path: &Path) -> Result<Jwks, IssuerFileError> {
    let keys = content.and_then(|json| Jwks::parse(&json).map_err(IssuerFileFault::Keys));
    let keys = keys.map_err(|fault| IssuerFileError { path: path.to_owned(), fault })?;
    if !keys.skipped().is_empty() {
        let (path, numbers) = (path.display(), keys.skipped());
        tracing::warn!(%path, ?numbers, "some of the issuer's keys are of kinds that the relay does not use");
    }
    Ok(keys)
}

/// Compares errors by their messages, because they do not implement `Hash`.
fn fingerprint(keyed: &RandomState, content: &Content) -> u64 {
    keyed.hash_one(content.as_deref().map_err(ToString::to_string))
}

fn read(path: &Path) -> Content {
    // One byte more shows that it is too large.
    let content = small_file::read(path, JWKS_BYTES_MAX as u64 + 1).map_err(IssuerFileFault::Unreadable)?;
    content.ok_or(IssuerFileFault::NotAFile)
}
