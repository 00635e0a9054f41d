//! The authorities that may sign the certificate of the database: those of a file, or of the
//! system.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use crate::error::PostgresError;
use crate::options::Options;

/// The largest file with authorities.
const CA_BYTES_MAX: u64 = 1 << 20;

/// TLS 1.2 and 1.3. It never uses the crypto provider of the process.
pub(crate) fn client_config(options: &Options) -> Result<ClientConfig, PostgresError> {
    let roots = match &options.ca_path {
        Some(path) => of_file(path),
        None => of_system(),
    };
    let roots = roots.map_err(PostgresError::Authorities)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| PostgresError::Authorities(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn of_system() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if usable == 0 { Err("the system has none; set storage.postgres.ca_path".to_owned()) } else { Ok(roots) }
}

fn of_file(path: &Path) -> Result<RootCertStore, String> {
    let wrong = |reason: &dyn std::fmt::Display| format!("{}: {reason}", path.display());
    // Opening a pipe could block for ever.
    if !fs::metadata(path).map_err(|error| wrong(&error))?.is_file() {
        return Err(wrong(&"it is not a regular file"));
    }
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| wrong(&error))?;
    file.take(CA_BYTES_MAX + 1).read_to_end(&mut pem).map_err(|error| wrong(&error))?;
    if pem.len() as u64 > CA_BYTES_MAX {
        return Err(wrong(&format!("it is larger than {CA_BYTES_MAX} bytes")));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| wrong(&"it is not in PEM format"))?;
        roots.add(certificate).map_err(|_| wrong(&"it has a certificate that cannot be used"))?;
    }
    if roots.is_empty() { Err(wrong(&"it contains no certificate")) } else { Ok(roots) }
}
