//! What can be wrong with a TLS file, in words for the operator who has to mend it.
//!
//! The words go to logs and to the terminal. They name files, so they never go into an HTTP answer,
//! and they never hold a byte of a key.

use std::io;
use std::path::PathBuf;

use super::files::FILE_BYTES_MAX;

/// A TLS file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("TLS file {}: {fault}", path.display())]
pub struct TlsError {
    /// The file to look at first.
    pub path: PathBuf,
    /// What is wrong with it.
    pub fault: TlsFault,
}

/// Why a TLS file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// The operating system does not hand it out.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// A directory, a pipe or a device.
    #[error("is not a regular file")]
    NotAFile,
    /// Over the limit for one file.
    #[error("is larger than {FILE_BYTES_MAX} bytes; this cannot be the file that was meant")]
    TooLarge,
    /// Nothing in it but white space.
    #[error("is empty")]
    Empty,
    /// A PEM block that does not hold together.
    #[error("holds a damaged PEM block: {0}")]
    BrokenPem(&'static str),
    /// No certificate in it.
    #[error("holds no certificate (no PEM block `BEGIN CERTIFICATE`)")]
    NoCertificate,
    /// A certificate that does not parse.
    #[error("certificate number {number} in it is damaged or of a kind that is not supported: {reason}")]
    BadCertificate {
        /// Which one, counted from 1.
        number: usize,
        /// What the parser says.
        reason: String,
    },
    /// No revocation list in it.
    #[error(
        "holds no revocation list (no PEM block `BEGIN X509 CRL`); \
         to go without one, leave the key out of the configuration"
    )]
    NoCrl,
    /// A revocation list that does not parse, or of a kind that is not supported.
    #[error("holds a revocation list that is damaged or of a kind that is not supported: {reason}")]
    BadCrl {
        /// What the parser says.
        reason: String,
    },
    /// No private key in it.
    #[error(
        "holds no private key (no PEM block `BEGIN PRIVATE KEY`, `BEGIN RSA PRIVATE KEY` or `BEGIN EC PRIVATE KEY`)"
    )]
    NoKey,
    /// A private key under a passphrase.
    #[error(
        "holds an encrypted private key, and the relay has no way to ask for the passphrase; \
         decrypt it once with `openssl pkey -in ENCRYPTED -out PLAIN` and protect it by file permissions"
    )]
    EncryptedKey,
    /// A private key that does not parse, or of an algorithm that is not supported.
    #[error(
        "holds a private key that is damaged or of a kind that is not supported (RSA, ECDSA and Ed25519 are)"
    )]
    BadKey,
    /// Key and certificate do not belong together.
    #[error(
        "holds a private key that does not belong to the first certificate in {}; \
         the server's own certificate must stand first there, and both files must come from the same renewal",
        cert_pem.display()
    )]
    KeyMismatch {
        /// The certificate file.
        cert_pem: PathBuf,
    },
}
