//! Reads the bytes of the TLS files, and computes a fingerprint that shows whether they changed.
//!
//! A read error counts as content, so a change from or to an unreadable file is a change.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::Read;
use std::path::Path;

use super::TlsFault;
use super::TlsPaths;

/// The size limit of one file. The CA bundle of an operating system is a fifth of this.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// The read permissions of the group and of all users.
const READABLE_BY_OTHERS: u32 = 0o044;

/// The bytes of a file, or why it could not be read.
pub(super) type FileContent = Result<Vec<u8>, TlsFault>;

/// The contents of all files, read together. No `Debug`, because one of them is a private key.
pub(super) struct Files {
    pub(super) cert: FileContent,
    pub(super) key: FileContent,
    pub(super) client_ca: Option<FileContent>,
    pub(super) client_crl: Option<FileContent>,
    /// The permissions of the key file, on Unix.
    key_mode: Option<u32>,
}

impl Files {
    pub(super) fn read(paths: &TlsPaths) -> Self {
        // Without CAs, no client presents a certificate that could be revoked.
        let client_crl = paths.client_ca_pem.as_ref().and(paths.client_crl_pem.as_deref());
        Self {
            cert: read(&paths.cert_pem),
            key: read(&paths.key_pem),
            client_ca: paths.client_ca_pem.as_deref().map(read),
            client_crl: client_crl.map(read),
            key_mode: mode(&paths.key_pem),
        }
    }

    /// The fingerprint of all contents. It makes it unnecessary to keep a copy of the private key
    /// for comparisons.
    pub(super) fn fingerprint(&self, keyed: &RandomState) -> u64 {
        let [cert, key] = [&self.cert, &self.key].map(comparable);
        keyed.hash_one((cert, key, self.clients_fingerprint(keyed)))
    }

    /// The fingerprint of the files that decide which clients are accepted.
    pub(super) fn clients_fingerprint(&self, keyed: &RandomState) -> u64 {
        keyed.hash_one([&self.client_ca, &self.client_crl].map(|content| content.as_ref().map(comparable)))
    }

    /// The permissions of the key file, if users other than its owner may read it.
    pub(super) fn exposed_key_mode(&self) -> Option<u32> {
        self.key_mode.filter(|mode| mode & READABLE_BY_OTHERS != 0)
    }
}

/// Compares errors by their messages, because they do not implement `Eq`.
fn comparable(content: &FileContent) -> Result<&[u8], String> {
    content.as_deref().map_err(ToString::to_string)
}

#[cfg(unix)]
fn mode(path: &Path) -> Option<u32> {
    use std::os::unix::fs::PermissionsExt as _;
    // `read` reports errors.
    fs::metadata(path).ok().map(|metadata| metadata.permissions().mode() & 0o7777)
}

#[cfg(not(unix))]
fn mode(_: &Path) -> Option<u32> {
    None
}

fn read(path: &Path) -> FileContent {
    // Opening a pipe could block for ever.
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
