//! TLS for the listener: certificate, key and client CAs out of PEM files, replaced while the relay
//! serves.
//!
//! What is in force is one value behind one pointer, read by every new handshake. A reload builds
//! the next value completely before it moves the pointer, so a handshake never meets a new
//! certificate with an old key, and files that are no good change nothing. Whoever holds a
//! connection is told when other clients are trusted than before. This module opens no socket,
//! handles no signal and never uses the crypto provider of the process: it brings its own.

mod ends;
mod error;
mod files;
mod material;
#[cfg(test)]
mod tests;
mod watch;

use std::fmt;
use std::hash::RandomState;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::aws_lc_rs::{self, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme};
use tokio::sync::watch as signal;

pub use self::error::{TlsError, TlsFault};
use self::files::Files;
use self::material::Material;
pub use self::watch::{POLL_INTERVAL, watch};

/// Key exchange groups, best first. The hybrid keeps traffic that is recorded today closed to a
/// quantum computer of tomorrow. Spelled out because the provider's own order hangs on a cargo
/// feature. Among these the client's order decides, as rustls does it.
const KX_GROUPS: [&dyn SupportedKxGroup; 4] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// The PEM files that TLS is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// The certificate chain, the server's own certificate first.
    pub cert_pem: PathBuf,
    /// The private key of the first certificate: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key_pem: PathBuf,
    /// The CAs that sign client certificates. If set, every client must show such a certificate.
    pub client_ca_pem: Option<PathBuf>,
    /// The lists of client certificates that those CAs have revoked. Not read without CAs.
    pub client_crl_pem: Option<PathBuf>,
}

/// What a reload that did not fail has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files held something new, and it is in force.
    Changed,
    /// The files hold what is in force already.
    Unchanged,
}

/// The TLS identity of a listener. Clones share it: a reload of one is a reload of all.
#[derive(Clone)]
pub struct Tls(Arc<TlsState>);

struct TlsState {
    paths: TlsPaths,
    provider: Arc<CryptoProvider>,
    in_force: ArcSwap<Material>,
    /// Held through a whole reload, so that two at once cannot put the older files over the newer.
    seen: Mutex<FilesSeen>,
    fingerprints: RandomState,
    /// Counts how often other CAs or revocation lists came into force.
    client_trust: signal::Sender<u64>,
}

/// Fingerprints of file contents.
struct FilesSeen {
    /// That of the CAs and revocation lists in force.
    clients: u64,
    /// Those in force.
    loaded: u64,
    /// Those looked at last, good or bad.
    tried: u64,
}

/// Answers the questions of each handshake from what is in force at that moment.
#[derive(Debug)]
struct InForce(Tls);

impl Tls {
    /// Reads and checks the files. Blocks on disk.
    ///
    /// # Errors
    /// The first file that is no good, and why.
    pub fn load(paths: TlsPaths) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let fingerprints = RandomState::new();
        let files = Files::read(&paths);
        let fingerprint = files.fingerprint(&fingerprints);
        let clients = files.clients_fingerprint(&fingerprints);
        let exposed = files.exposed_key_mode();
        let material = Material::parse(files, &paths, &provider)?;
        warn_of_exposure(&paths, exposed);
        Ok(Self(Arc::new(TlsState {
            paths,
            provider,
            in_force: ArcSwap::from_pointee(material),
            seen: Mutex::new(FilesSeen { clients, loaded: fingerprint, tried: fingerprint }),
            fingerprints,
            client_trust: signal::Sender::new(0),
        })))
    }

    /// A configuration for a listener, which follows every later [`reload`](Self::reload): TLS 1.2
    /// and 1.3, HTTP/2 before HTTP/1.1 by ALPN.
    pub fn server_config(&self) -> ServerConfig {
        let in_force = Arc::new(InForce(self.clone()));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.0.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has cipher suites and key exchange groups for both versions")
            .with_client_cert_verifier(Arc::clone(&in_force) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(in_force);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.0.paths.client_ca_pem.is_some() {
            // A resumed session skips the client's certificate: a client whose CA was taken away,
            // or whose certificate has expired since, would still get in.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        config
    }

    /// Changes whenever other client CAs or revocation lists are in force than before: connections
    /// that stand may then be of clients that are trusted no more, which
    /// [`is_client_trusted`](Self::is_client_trusted) tells. Nobody misses a change who subscribes
    /// before the handshake. The number itself means nothing.
    pub fn client_trust_changes(&self) -> signal::Receiver<u64> {
        self.0.client_trust.subscribe()
    }

    /// Whether a client with this chain, its own certificate first, would be let in now. Without
    /// client CAs everybody is, and with them nobody without a certificate.
    pub fn is_client_trusted(&self, chain: &[CertificateDer<'_>]) -> bool {
        let clients = Arc::clone(&self.0.in_force.load().clients);
        let judged = |own, others| clients.verify_client_cert(own, others, UnixTime::now()).is_ok();
        !clients.offer_client_auth() || chain.split_first().is_some_and(|(own, others)| judged(own, others))
    }

    /// When the certificate that is shown to clients ends, in seconds since 1970; none when it does
    /// not say so in a way that is understood.
    pub fn certificate_end_seconds(&self) -> Option<i64> {
        self.0.in_force.load().certificate_end_seconds
    }

    /// Reads the files anew and, if they hold something new and it is good, puts it in force for
    /// all handshakes to come. Connections that stand go on as they are, unless who holds them ends
    /// them by [`client_trust_changes`](Self::client_trust_changes). Blocks on disk.
    ///
    /// # Errors
    /// The first file that is no good, and why; what was in force stays in force.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        self.reload_unless(|seen, fingerprint| fingerprint == seen.loaded)
    }

    /// As [`reload`](Self::reload), but contents that were tried last time are not tried again: an
    /// error is told once.
    fn reload_if_new(&self) -> Result<Reload, TlsError> {
        self.reload_unless(|seen, fingerprint| fingerprint == seen.loaded || fingerprint == seen.tried)
    }

    fn reload_unless(&self, known: impl Fn(&FilesSeen, u64) -> bool) -> Result<Reload, TlsError> {
        let shared = &*self.0;
        // Two numbers cannot be left half changed in a way that matters, so a poisoned lock is as
        // good as any.
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&shared.paths);
        let fingerprint = files.fingerprint(&shared.fingerprints);
        let known = known(&seen, fingerprint);
        seen.tried = fingerprint;
        if known {
            return Ok(Reload::Unchanged);
        }
        let clients = files.clients_fingerprint(&shared.fingerprints);
        let exposed = files.exposed_key_mode();
        let material = Material::parse(files, &shared.paths, &shared.provider)?;
        warn_of_exposure(&shared.paths, exposed);
        shared.in_force.store(Arc::new(material));
        seen.loaded = fingerprint;
        if std::mem::replace(&mut seen.clients, clients) != clients {
            // Whoever hears of it finds the new ones in force.
            shared.client_trust.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
        Ok(Reload::Changed)
    }
}

/// Names the files and nothing of what is in them.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("paths", &self.0.paths).finish_non_exhaustive()
    }
}

impl InForce {
    fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0.0.in_force.load().clients)
    }
}

impl ResolvesServerCert for InForce {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0.in_force.load().server))
    }
}

impl ClientCertVerifier for InForce {
    fn offer_client_auth(&self) -> bool {
        self.clients().offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients().client_auth_mandatory()
    }

    /// No hints: they would have to be borrowed from a value that can be replaced at any moment.
    /// The protocol lets a server leave them out, and a client then shows the certificate that it
    /// has.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.clients().verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.clients().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients().supported_verify_schemes()
    }
}

/// A key that others read is no secret. It is used all the same: how files are handed out is often
/// not the relay's to choose.
fn warn_of_exposure(paths: &TlsPaths, mode: Option<u32>) {
    if let Some(mode) = mode {
        let (path, mode) = (paths.key_pem.display(), format!("{mode:04o}"));
        tracing::warn!(%path, mode, "the TLS key file may be read by others than its owner; run chmod 600 on it");
    }
}

fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: KX_GROUPS.to_vec(), ..aws_lc_rs::default_provider() }
}
