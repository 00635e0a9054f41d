//! The authorities that may sign the certificate of a gateway: those of a file, or of the system.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::GatewayError;
use crate::options::Options;

/// The largest file with authorities.
const CA_BYTES_MAX: u64 = 1 << 20;

/// TLS 1.2 and 1.3 with these authorities. It never uses the crypto provider of the process.
pub(super) fn client_config(options: &Options) -> Result<ClientConfig, GatewayError> {
    let roots = match &options.ca_path {
        // No connection needs them.
        _ if !options.url.is_https() => RootCertStore::empty(),
        Some(path) => of_file(path).map_err(|reason| GatewayError::Ca { path: path.clone(), reason })?,
        None => of_system()?,
    };
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| GatewayError::Tls(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn of_system() -> Result<RootCertStore, GatewayError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err(GatewayError::NoAuthorities) } else { Ok(roots) }
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
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| "is not in PEM format".to_owned())?;
        roots.add(certificate).map_err(|_| "has a certificate that cannot be used".to_owned())?;
    }
    if roots.is_empty() { Err("contains no certificate".to_owned()) } else { Ok(roots) }
}
