//! The names in the certificate of a connected client.

use std::fmt;

use relay_auth::CertifiedNames;
use rustls::pki_types::{CertificateDer, UnixTime};
use tokio::sync::watch::Receiver;
use x509_parser::extensions::GeneralName;

use super::Tls;

/// A client whose certificate has names. The handshake has verified the certificate.
pub(crate) struct CertifiedClient {
    names: CertifiedNames,
    /// When the certificate expires, in seconds since 1970.
    end_seconds: i64,
    chain: Vec<CertificateDer<'static>>,
    tls: Tls,
    /// From before the handshake.
    trust_changes: Receiver<u64>,
}

impl CertifiedClient {
    /// Reads the chain of a completed handshake. `trust_changes` are those of `tls`, from before
    /// it. Returns `None` if the client's certificate names nothing.
    pub(crate) fn new(
        tls: &Tls,
        trust_changes: Receiver<u64>,
        chain: Option<&[CertificateDer<'static>]>,
    ) -> Option<Self> {
        let chain = chain?;
        let (names, end_seconds) = names(chain.first()?)?;
        Some(Self { names, end_seconds, chain: chain.to_vec(), tls: tls.clone(), trust_changes })
    }

    /// Its names, as long as the certificate is valid. After a change of CAs or revocation lists
    /// the connection ends; until then, each request has the certificate verified again.
    pub(crate) fn names(&self) -> &CertifiedNames {
        const NONE: &CertifiedNames = &CertifiedNames::NONE;
        let is_expired = i64::try_from(UnixTime::now().as_secs()).is_ok_and(|now| now > self.end_seconds);
        let is_unchanged = self.trust_changes.has_changed().is_ok_and(|is_changed| !is_changed);
        let is_valid = !is_expired && (is_unchanged || self.tls.is_client_trusted(&self.chain));
        if is_valid { &self.names } else { NONE }
    }
}

/// Hidden: the names are recipients.
impl fmt::Debug for CertifiedClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CertifiedClient(..)")
    }
}

/// The names in a certificate, and when it expires. `None` if it has no names.
fn names(certificate: &CertificateDer<'_>) -> Option<(CertifiedNames, i64)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    // An error means that the extension is malformed or repeated.
    let alternatives = certificate.subject_alternative_name().ok()??;
    let uris = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let names = CertifiedNames::from_uris(uris)
        .inspect_err(|error| tracing::debug!(%error, "a client's certificate names nothing"))
        .ok()
        .filter(|names| !names.is_empty())?;
    Some((names, certificate.validity().not_after.timestamp()))
}
