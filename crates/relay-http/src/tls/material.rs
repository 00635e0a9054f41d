//! From the bytes of the TLS files to what handshakes need, every part checked before any of it is used.
//!
//! Parsing looks at nothing but the bytes. Whether a certificate has expired is the peer's to judge, so it is not
//! checked here: a relay that starts with an expired certificate still serves the clients that do not mind.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::files::{Content, Files};
use super::{TlsError, TlsFault, TlsPaths};

/// Marks of a key under a passphrase: PKCS#8's own block, and the header line of the older forms.
const ENCRYPTION_MARKS: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];

/// What a handshake needs. Made whole or not at all.
pub(super) struct Material {
    /// The certificate chain with its private key.
    pub(super) server: Arc<CertifiedKey>,
    /// Judges client certificates; asks for none if no client CA is configured.
    pub(super) clients: Arc<dyn ClientCertVerifier>,
}

impl Material {
    pub(super) fn parse(
        files: Files,
        paths: &TlsPaths,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, TlsError> {
        let chain = files.cert.and_then(|pem| server_chain(&pem)).map_err(in_file(&paths.cert_pem))?;
        let server = files
            .key
            .and_then(|pem| certified_key(chain, &pem, &paths.cert_pem, provider))
            .map_err(in_file(&paths.key_pem))?;
        let clients = match (files.client_ca, &paths.client_ca_pem) {
            (Some(content), Some(path)) => client_verifier(content, provider).map_err(in_file(path))?,
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        Ok(Self { server: Arc::new(server), clients })
    }
}

fn in_file(path: &Path) -> impl FnOnce(TlsFault) -> TlsError {
    |fault| TlsError { path: path.to_owned(), fault }
}

fn server_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let chain = certificates(pem)?;
    for (index, der) in chain.iter().enumerate() {
        ParsedCertificate::try_from(der).map_err(|error| bad_certificate(index, &error))?;
    }
    Ok(chain)
}

fn certified_key(
    chain: Vec<CertificateDer<'static>>,
    key_pem: &[u8],
    cert_path: &Path,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsFault> {
    let der = private_key(key_pem)?;
    let key = provider.key_provider.load_private_key(der).map_err(|_| TlsFault::BadKey)?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().map_err(|_| TlsFault::KeyMismatch { cert_pem: cert_path.to_owned() })?;
    Ok(certified)
}

fn client_verifier(
    content: Content,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let mut roots = RootCertStore::empty();
    for (index, der) in certificates(&content?)?.into_iter().enumerate() {
        roots.add(der).map_err(|error| bad_certificate(index, &error))?;
    }
    // Without revocation lists the only thing this can refuse is an empty set of CAs.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|_| TlsFault::NoCertificate)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsFault> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(broken_pem)?;
    if found.is_empty() { Err(TlsFault::NoCertificate) } else { Ok(found) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsFault> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
        _ if is_encrypted(pem) => TlsFault::EncryptedKey,
        pem::Error::NoItemsFound => TlsFault::NoKey,
        error => broken_pem(error),
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    ENCRYPTION_MARKS.iter().any(|mark| pem.windows(mark.len()).any(|window| window == *mark))
}

/// In words of our own: the library's quote the line, and in a key file without line breaks that line is the key.
fn broken_pem(error: pem::Error) -> TlsFault {
    TlsFault::BrokenPem(match error {
        pem::Error::MissingSectionEnd { .. } => {
            "its END line is missing (is the file cut short, or has it lost its line breaks?)"
        }
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "its base64 is invalid",
        _ => "it cannot be decoded",
    })
}

fn bad_certificate(index: usize, error: &rustls::Error) -> TlsFault {
    // rustls speaks of a peer's certificate; this one is the operator's.
    let reason = match error {
        rustls::Error::InvalidCertificate(reason) => reason.to_string(),
        other => other.to_string(),
    };
    TlsFault::BadCertificate { number: index + 1, reason }
}
