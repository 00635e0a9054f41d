//! The certificate of a relay under test, and clients that trust it.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};

const CERT: &str = "cert.pem";
const KEY: &str = "key.pem";

/// Writes a certificate for loopback and its key into `home`.
pub(super) fn make(home: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    std::fs::write(home.join(CERT), cert.pem())?;
    std::fs::write(home.join(KEY), signing_key.serialize_pem())?;
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone())?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Each client is another one.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// The lines of a configuration that serves with it. They precede all tables.
pub(super) fn settings(home: &Path) -> String {
    let [cert, key] = [CERT, KEY].map(|name| home.join(name));
    format!("mode = \"tls\"\ntls = {{ cert_pem_path = {cert:?}, key_pem_path = {key:?} }}\n")
}
