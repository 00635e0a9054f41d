//! Which authorities may sign the certificate of a server that the relay connects to: those of a
//! file, or of the system.

#![warn(missing_docs)]

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::WantsClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};

/// The largest file with authorities.
const CA_BYTES_MAX: u64 = 1 << 20;

/// The authorities that may sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorities<'a> {
    /// Nobody, for a configuration that no connection uses.
    Nobody,
    /// Those that the system trusts.
    System,
    /// Those in a file in PEM format.
    File(&'a Path),
    /// Those in this text in PEM format.
    Pem(&'a [u8]),
}

/// Why the authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// The file cannot be used.
    #[error("file {}: {reason}", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The text cannot be used.
    #[error("the certificate authorities: the text {0}")]
    Pem(String),
    /// The system trusts no authority.
    #[error("this system has no usable certificate authorities")]
    NoneOfSystem,
    /// TLS cannot be used.
    #[error("no TLS: {0}")]
    Tls(rustls::Error),
}

/// TLS 1.2 and 1.3 with servers whose certificates these authorities have signed, without a
/// certificate of the client. It never uses the crypto provider of the process. Blocks on disk.
///
/// # Errors
/// [`RootsError`].
pub fn client_config(authorities: Authorities<'_>) -> Result<ClientConfig, RootsError> {
    Ok(builder(authorities)?.with_no_client_auth())
}

/// Like [`client_config`], for a caller that may add a certificate of the client.
///
/// # Errors
/// [`RootsError`].
pub fn builder(
    authorities: Authorities<'_>,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, RootsError> {
    let roots = match authorities {
        Authorities::Nobody => RootCertStore::empty(),
        Authorities::System => of_system()?,
        Authorities::File(path) => {
            of_file(path).map_err(|reason| RootsError::File { path: path.to_owned(), reason })?
        }
        Authorities::Pem(pem) => of_pem(pem).map_err(RootsError::Pem)?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(RootsError::Tls)?;
    Ok(config.with_root_certificates(roots))
}

fn of_system() -> Result<RootCertStore, RootsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(RootsError::NoneOfSystem) } else { Ok(roots) }
}

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // Opening a pipe could block for ever.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("is not a regular file".to_owned());
    }
    let mut pem = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(CA_BYTES_MAX + 1).read_to_end(&mut pem).map_err(unreadable)?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(format!("is larger than {CA_BYTES_MAX} bytes"));
    }
    of_pem(&pem)
}

fn of_pem(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|_| "is not in PEM format".to_owned())?;
        roots.add(certificate).map_err(|_| "has a certificate that cannot be used".to_owned())?;
    }
    if roots.is_empty() { Err("contains no certificate".to_owned()) } else { Ok(roots) }
}
