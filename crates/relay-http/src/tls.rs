//! TLS for the listener: the certificate, key and client CAs from PEM files, replaced while the
//! relay serves.
//!
//! Everything in use is one value behind one pointer, which every new handshake reads. A reload
//! completes the next value before it replaces the pointer. So no handshake combines a new
//! certificate with an old key, and unusable files change nothing. This module brings its own
//! crypto provider: it never uses that of the process.

pub(crate) mod client;
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

/// Key exchange groups, best first. The hybrid group protects traffic that is recorded today
/// against future quantum computers. The list is explicit because the provider's order depends on a
/// cargo feature. rustls picks the first of these groups in the client's order.
const KX_GROUPS: [&dyn SupportedKxGroup; 4] =
    [kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1, kx_group::SECP384R1];

/// The paths of the PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsPaths {
    /// The certificate chain, the server's own certificate first.
    pub cert_pem: PathBuf,
    /// The private key of the first certificate: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key_pem: PathBuf,
    /// The CAs that sign client certificates. If set, every client must present such a certificate.
    pub client_ca_pem: Option<PathBuf>,
    /// The lists of client certificates that those CAs have revoked. Ignored without CAs.
    pub client_crl_pem: Option<PathBuf>,
}

/// The outcome of a successful reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// The files have new contents, which are in use now.
    Changed,
    /// The contents of the files are in use already.
    Unchanged,
}

/// The TLS identity of a listener. Clones share it, so a reload of one reloads all.
#[derive(Clone)]
pub struct Tls(Arc<TlsState>);

struct TlsState {
    paths: TlsPaths,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Material>,
    /// Locked during a whole reload, so that two simultaneous reloads cannot end with older files.
    seen: Mutex<FilesSeen>,
    fingerprints: RandomState,
    /// Counts the changes of CAs and revocation lists.
    client_trust: signal::Sender<u64>,
}

/// Fingerprints of file contents.
struct FilesSeen {
    /// Of the CAs and revocation lists in use.
    clients: u64,
    /// Of all files in use.
    loaded: u64,
    /// Of the files that were read last, usable or not.
    tried: u64,
}

/// Gives each handshake the current certificate and the current client CAs.
#[derive(Debug)]
struct CurrentMaterial(Tls);

impl Tls {
    /// Reads and checks the files. Blocks on disk.
    ///
    /// # Errors
    /// The first file that is unusable, and why.
    pub fn load(paths: TlsPaths) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let fingerprints = RandomState::new();
        let files = Files::read(&paths);
        let fingerprint = files.fingerprint(&fingerprints);
        let clients = files.clients_fingerprint(&fingerprints);
        let material = parse(files, &paths, &provider)?;
        Ok(Self(Arc::new(TlsState {
            paths,
            provider,
            current: ArcSwap::from_pointee(material),
            seen: Mutex::new(FilesSeen { clients, loaded: fingerprint, tried: fingerprint }),
            fingerprints,
            client_trust: signal::Sender::new(0),
        })))
    }

    /// Whether both are the same, so that one reload concerns both.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// A configuration for a listener: TLS 1.2 and 1.3, and HTTP/2 before HTTP/1.1 by ALPN. It
    /// follows every later [`reload`](Self::reload).
    pub fn server_config(&self) -> ServerConfig {
        let current = Arc::new(CurrentMaterial(self.clone()));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.0.provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .expect("the provider has cipher suites and key exchange groups for both versions")
            .with_client_cert_verifier(Arc::clone(&current) as Arc<dyn ClientCertVerifier>)
            .with_cert_resolver(current);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        if self.0.paths.client_ca_pem.is_some() {
            // A resumed session skips the check of the client's certificate. A client whose CA was
            // removed, or whose certificate has expired since, could still connect.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        config
    }

    /// Changes whenever other client CAs or revocation lists come into use. Existing connections
    /// may then belong to clients that are no longer trusted: see
    /// [`is_client_trusted`](Self::is_client_trusted). Subscribe before the handshake to miss no
    /// change. The number itself has no meaning.
    pub fn client_trust_changes(&self) -> signal::Receiver<u64> {
        self.0.client_trust.subscribe()
    }

    /// Whether the relay would now accept a client with this chain, whose own certificate comes
    /// first. Without client CAs it accepts every client, and with them none without a certificate.
    pub fn is_client_trusted(&self, chain: &[CertificateDer<'_>]) -> bool {
        let clients = Arc::clone(&self.0.current.load().clients);
        !clients.offer_client_auth()
            || chain.split_first().is_some_and(|(own, intermediates)| {
                clients.verify_client_cert(own, intermediates, UnixTime::now()).is_ok()
            })
    }

    /// When the certificate in use expires, in seconds since 1970. `None` if that cannot be parsed.
    pub fn certificate_end_seconds(&self) -> Option<i64> {
        self.0.current.load().certificate_end_seconds
    }

    /// Reads the files again. New and usable contents apply to all later handshakes. Existing
    /// connections continue, unless their owner ends them because of
    /// [`client_trust_changes`](Self::client_trust_changes). Blocks on disk.
    ///
    /// # Errors
    /// The first file that is unusable, and why. The contents in use stay in use.
    pub fn reload(&self) -> Result<Reload, TlsError> {
        self.reload_unless(|seen, fingerprint| fingerprint == seen.loaded)
    }

    /// Like [`reload`](Self::reload), but skips contents that were tried last time, so that it
    /// reports an error once.
    fn reload_if_new(&self) -> Result<Reload, TlsError> {
        self.reload_unless(|seen, fingerprint| fingerprint == seen.loaded || fingerprint == seen.tried)
    }

    fn reload_unless(&self, is_known: impl Fn(&FilesSeen, u64) -> bool) -> Result<Reload, TlsError> {
        let shared = &*self.0;
        // A panic cannot leave these numbers inconsistent in a way that matters.
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let files = Files::read(&shared.paths);
        let fingerprint = files.fingerprint(&shared.fingerprints);
        let is_known = is_known(&seen, fingerprint);
        seen.tried = fingerprint;
        if is_known {
            return Ok(Reload::Unchanged);
        }
        let clients = files.clients_fingerprint(&shared.fingerprints);
        let material = parse(files, &shared.paths, &shared.provider)?;
        shared.current.store(Arc::new(material));
        seen.loaded = fingerprint;
        if std::mem::replace(&mut seen.clients, clients) != clients {
            // Receivers must find the new material in use, so this comes last.
            shared.client_trust.send_modify(|changes| *changes = changes.wrapping_add(1));
        }
        Ok(Reload::Changed)
    }
}

/// Shows the paths, and nothing of the contents of the files.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("paths", &self.0.paths).finish_non_exhaustive()
    }
}

impl CurrentMaterial {
    fn clients(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::clone(&self.0.0.current.load().clients)
    }
}

impl ResolvesServerCert for CurrentMaterial {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.0.current.load().server))
    }
}

impl ClientCertVerifier for CurrentMaterial {
    fn offer_client_auth(&self) -> bool {
        self.clients().offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.clients().client_auth_mandatory()
    }

    /// No hints, because the borrow would have to outlive a value that a reload can replace. They
    /// are optional in the protocol: without them, a client presents the certificate that it has.
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

/// Checks the files. A key file that others may read is used, with a warning: the operator often
/// cannot choose how files are deployed.
fn parse(files: Files, paths: &TlsPaths, provider: &Arc<CryptoProvider>) -> Result<Material, TlsError> {
    let exposed_mode = files.exposed_key_mode();
    let material = Material::parse(files, paths, provider)?;
    if let Some(mode) = exposed_mode {
        let (path, mode) = (paths.key_pem.display(), format!("{mode:04o}"));
        tracing::warn!(%path, mode, "others than the owner may read the TLS key file; run chmod 600 on it");
    }
    Ok(material)
}

fn provider() -> CryptoProvider {
    CryptoProvider { kx_groups: KX_GROUPS.to_vec(), ..aws_lc_rs::default_provider() }
}
