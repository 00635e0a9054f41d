//! The bytes of the TLS files, read in one go, and a fingerprint to tell whether they have changed.
//!
//! A file that cannot be read is a content like any other here: it, too, can be seen to change.
//! Nothing is parsed.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;

use super::TlsFault;
use super::TlsPaths;

/// Limit for one file. The CA bundle of a whole operating system is a fifth of this.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// By the group, and by everybody.
const READABLE_BY_OTHERS: u32 = 0o044;

/// What a file holds, or why that is not known. Without `Debug`: one of them is a private key.
pub(super) type FileContent = Result<Vec<u8>, TlsFault>;

/// What the files held at one look.
pub(super) struct Files {
    pub(super) cert: FileContent,
    pub(super) key: FileContent,
    pub(super) client_ca: Option<FileContent>,
    pub(super) client_crl: Option<FileContent>,
    /// The permissions of the key file, where files have such.
    key_mode: Option<u32>,
}

impl Files {
    pub(super) fn read(paths: &TlsPaths) -> Self {
        // Without CAs nobody shows a certificate that could be revoked.
        let client_crl = paths.client_ca_pem.as_ref().and(paths.client_crl_pem.as_deref());
        Self {
            cert: read(&paths.cert_pem),
            key: read(&paths.key_pem),
            client_ca: paths.client_ca_pem.as_deref().map(read),
            client_crl: client_crl.map(read),
            key_mode: mode(&paths.key_pem),
        }
    }

    /// Stands for the contents, so that a look need not keep a copy of the private key for the next
    /// to compare with.
    pub(super) fn fingerprint(&self, keyed: &RandomState) -> u64 {
        let [cert, key] = [&self.cert, &self.key].map(comparable);
        keyed.hash_one((cert, key, self.clients_fingerprint(keyed)))
    }

    /// Stands for what decides which clients are let in.
    pub(super) fn clients_fingerprint(&self, keyed: &RandomState) -> u64 {
        keyed.hash_one([&self.client_ca, &self.client_crl].map(|content| content.as_ref().map(comparable)))
    }

    /// The permissions of the key file, if others than its owner may read it.
    pub(super) fn exposed_key_mode(&self) -> Option<u32> {
        self.key_mode.filter(|mode| mode & READABLE_BY_OTHERS != 0)
    }
}

/// Errors carry no equality of their own; their words serve.
fn comparable(content: &FileContent) -> Result<&[u8], String> {
    content.as_deref().map_err(ToString::to_string)
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    // Why it cannot be read is told by reading it.
    fs::metadata(path).ok().map(|found| found.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

fn read(path: &Path) -> FileContent {
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
