//! Parses the bytes of the TLS files, and checks all of them before any is used.
//!
//! It accepts expired certificates, because the peers check that: a relay that starts with one
//! still serves the clients that accept it.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;

use super::TlsError;
use super::TlsFault;
use super::TlsPaths;
use super::files::Files;

/// Marks of an encrypted key: a PEM block of PKCS#8, and a header line of the older formats.
const ENCRYPTION_MARKS: [&[u8]; 2] = [b"-----BEGIN ENCRYPTED PRIVATE KEY-----", b"Proc-Type: 4,ENCRYPTED"];

/// Everything that a handshake needs.
pub(super) struct Material {
    /// The certificate chain with its private key.
    pub(super) server: Arc<CertifiedKey>,
    /// Verifies client certificates; requests none if no client CA is configured.
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    /// When the first certificate of the chain expires, in seconds since 1970. `None` if that
    /// cannot be parsed.
    pub(super) certificate_end_seconds: Option<i64>,
    /// The earliest next update of a revocation list, likewise.
    pub(super) crl_end_seconds: Option<i64>,
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
        let crls = match (files.client_crl, &paths.client_crl_pem) {
            (Some(content), Some(path)) => content.and_then(|pem| crls(&pem)).map_err(in_file(path))?,
            _ => Vec::new(),
        };
        let crl_end_seconds = crls.iter().filter_map(crl_end).min();
        let clients = match (files.client_ca, &paths.client_ca_pem) {
            (Some(content), Some(path)) => {
                let roots = content.and_then(|pem| client_roots(&pem)).map_err(in_file(path))?;
                let crl_path = paths.client_crl_pem.as_ref().unwrap_or(path);
                client_verifier(roots, crls, provider).map_err(in_file(crl_path))?
            }
            _ => WebPkiClientVerifier::no_client_auth(),
        };
        let certificate_end_seconds = server.cert.first().and_then(certificate_end);
        Ok(Self { server: Arc::new(server), clients, certificate_end_seconds, crl_end_seconds })
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

fn client_roots(pem: &[u8]) -> Result<RootCertStore, TlsFault> {
    let mut roots = RootCertStore::empty();
    for (index, der) in certificates(pem)?.into_iter().enumerate() {
        roots.add(der).map_err(|error| bad_certificate(index, &error))?;
    }
    Ok(roots)
}

/// Verifies clients by the CAs and the revocation lists. It accepts a certificate whose CA has no
/// list. A list past its next update stays in use: revoked clients stay revoked, and an overdue
/// list does not exclude all clients.
fn client_verifier(
    roots: RootCertStore,
    crls: Vec<CertificateRevocationListDer<'static>>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    // There is a CA, so only a revocation list can cause an error.
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .with_crls(crls)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| TlsFault::BadCrl { reason: error.to_string() })
}

fn crls(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsFault> {
    let found: Vec<_> =
        CertificateRevocationListDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(broken_pem)?;
    if found.is_empty() { Err(TlsFault::NoCrl) } else { Ok(found) }
}

fn certificate_end(der: &CertificateDer<'static>) -> Option<i64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some(certificate.validity().not_after.timestamp())
}

fn crl_end(der: &CertificateRevocationListDer<'static>) -> Option<i64> {
    let (_, crl) = x509_parser::parse_x509_crl(der).ok()?;
    crl.next_update().map(|end| end.timestamp())
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

/// Does not use the messages of the library. They quote the line, and in a key file without line
/// breaks that line is the key.
fn broken_pem(error: pem::Error) -> TlsFault {
    TlsFault::BrokenPem(match error {
        pem::Error::MissingSectionEnd { .. } => {
            "its END line is missing (the file may be truncated, or have lost its line breaks)"
        }
        pem::Error::IllegalSectionStart { .. } => "its BEGIN line is malformed",
        pem::Error::Base64Decode(_) => "its base64 is invalid",
        _ => "it cannot be decoded",
    })
}

fn bad_certificate(index: usize, error: &rustls::Error) -> TlsFault {
    // The full message of rustls speaks of a peer's certificate.
    let reason = match error {
        rustls::Error::InvalidCertificate(reason) => reason.to_string(),
        other => other.to_string(),
    };
    TlsFault::BadCertificate { number: index + 1, reason }
}
