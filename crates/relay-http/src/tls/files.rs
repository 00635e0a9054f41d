//! The bytes of the TLS files, read in one go, and a fingerprint to tell whether they have changed.
//!
//! A file that cannot be read is a content like any other here: it, too, can be seen to change. Nothing is parsed.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;

use super::{TlsFault, TlsPaths};

/// Limit for one file. The CA bundle of a whole operating system is a fifth of this.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a file holds, or why that is not known. Without `Debug`: one of them is a private key.
pub(super) type Content = Result<Vec<u8>, TlsFault>;

/// What the files held at one look.
pub(super) struct Files {
    pub(super) cert: Content,
    pub(super) key: Content,
    pub(super) client_ca: Option<Content>,
}

impl Files {
    pub(super) fn read(paths: &TlsPaths) -> Self {
        Self {
            cert: read(&paths.cert_pem),
            key: read(&paths.key_pem),
            client_ca: paths.client_ca_pem.as_deref().map(read),
        }
    }

    /// Stands for the contents, so that a look need not keep a copy of the private key for the next to compare with.
    pub(super) fn fingerprint(&self, keyed: &RandomState) -> u64 {
        let [cert, key] = [&self.cert, &self.key].map(comparable);
        keyed.hash_one((cert, key, self.client_ca.as_ref().map(comparable)))
    }
}

/// Errors carry no equality of their own; their words serve.
fn comparable(content: &Content) -> Result<&[u8], String> {
    content.as_deref().map_err(ToString::to_string)
}

fn read(path: &Path) -> Content {
    // Opening a pipe would wait for its other end, perhaps for ever.
    if !fs::metadata(path).map_err(TlsFault::Unreadable)?.is_file() {
        return Err(TlsFault::NotAFile);
    }
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(TlsFault::Unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(TlsFault::Unreadable)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsFault::TooLarge);
    }
    if bytes.trim_ascii().is_empty() {
        return Err(TlsFault::Empty);
    }
    Ok(bytes)
}
