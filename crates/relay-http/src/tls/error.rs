//! The faults of TLS files, as messages for the operator.
//!
//! The messages go to the log and the terminal. They contain paths, so they never go into an HTTP
//! response. They never contain a byte of a key.

use std::io;
use std::path::PathBuf;

use super::files::FILE_BYTES_MAX;

/// A TLS file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS file {}: {fault}", path.display())]
pub struct TlsError {
    /// The file to check first.
    pub path: PathBuf,
    /// The problem.
    pub fault: TlsFault,
}

/// Why a TLS file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The operating system returned an error.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// A directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// The file exceeds the size limit.
    #[error("is larger than {FILE_BYTES_MAX} bytes; check the path")]
    TooLarge,
    /// The file has no content but white space.
    #[error("is empty")]
    Empty,
    /// A malformed PEM block.
    #[error("contains a malformed PEM block: {0}")]
    BrokenPem(&'static str),
    /// The file contains no certificate.
    #[error("contains no certificate (no PEM block `BEGIN CERTIFICATE`)")]
    NoCertificate,
    /// A certificate that does not parse.
    #[error("contains a certificate, number {number}, that is malformed or not supported: {reason}")]
    BadCertificate {
        /// Its position in the file, from 1.
        number: usize,
        /// The message of the parser.
        reason: String,
    },
    /// The file contains no revocation list.
    #[error(
        "contains no revocation list (no PEM block `BEGIN X509 CRL`); \
         to use none, remove the key from the configuration"
    )]
    NoCrl,
    /// A revocation list that does not parse, or is not supported.
    #[error("contains a revocation list that is malformed or not supported: {reason}")]
    BadCrl {
        /// The message of the parser.
        reason: String,
    },
    /// The file contains no private key.
    #[error(
        "contains no private key (no PEM block `BEGIN PRIVATE KEY`, `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY`)"
    )]
    NoKey,
    /// A private key with a passphrase.
    #[error(
        "contains an encrypted private key, and the relay cannot ask for the passphrase; \
         decrypt it with `openssl pkey -in ENCRYPTED -out PLAIN` and protect it by file permissions"
    )]
    EncryptedKey,
    /// A private key that does not parse, or of an algorithm that is not supported.
    #[error("contains a private key that is malformed or not supported (RSA, ECDSA and Ed25519 are)")]
    BadKey,
    /// The private key belongs to another certificate.
    #[error(
        "contains a private key that does not belong to the first certificate in {}; \
         the relay's own certificate must come first there, and both files must be of the same renewal",
        cert_pem.display()
    )]
    KeyMismatch {
        /// The certificate file.
        cert_pem: PathBuf,
    },
}
