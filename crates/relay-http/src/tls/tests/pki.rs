//! Makes certificate authorities, certificates and TLS files, and runs handshakes in memory.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, date_time_ymd,
};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};
use tempfile::TempDir;

use crate::tls::{Tls, TlsPaths};

pub(super) const SERVER_NAME: &str = "relay.test";

/// A certificate authority.
pub(super) struct Ca(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
pub(super) struct Leaf {
    pub(super) cert: String,
    pub(super) key: String,
}

/// The TLS files of one relay.
pub(super) struct Disk {
    dir: TempDir,
    pub(super) paths: TlsPaths,
}

/// Both ends of a connection.
pub(super) struct Pair {
    pub(super) client: ClientConnection,
    pub(super) server: ServerConnection,
}

impl Ca {
    pub(super) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub(super) fn pem(&self) -> String {
        self.0.pem()
    }

    pub(super) fn leaf(&self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        Leaf { cert: self.certify(&key, &leaf_params()), key: key.serialize_pem() }
    }

    /// A certificate with this serial number.
    pub(super) fn leaf_numbered(&self, number: u64) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params();
        params.serial_number = Some(number.into());
        Leaf { cert: self.certify(&key, &params), key: key.serialize_pem() }
    }

    /// A certificate with this serial number, these URIs, and this last year.
    pub(super) fn leaf_with(&self, number: u64, uris: &[&str], last_year: i32) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params();
        params.serial_number = Some(number.into());
        params.not_after = date_time_ymd(last_year, 12, 31);
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        Leaf { cert: self.certify(&key, &params), key: key.serialize_pem() }
    }

    /// A revocation list in PEM, whose next update is at the beginning of that year.
    pub(super) fn crl(&self, revoked: &[u64], next_update: i32) -> String {
        let revoked = revoked.iter().map(|number| RevokedCertParams {
            serial_number: (*number).into(),
            revocation_time: date_time_ymd(2001, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2001, 1, 1),
            next_update: date_time_ymd(next_update, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A certificate for an existing key.
    pub(super) fn leaf_for(&self, key_pem: &str) -> Leaf {
        let der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
        let key = KeyPair::try_from(der.secret_der()).unwrap();
        Leaf { cert: self.certify(&key, &leaf_params()), key: key_pem.to_owned() }
    }

    pub(super) fn expired_leaf(&self) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        Leaf { cert: self.certify(&key, &params), key: key.serialize_pem() }
    }

    /// An authority below this one.
    pub(super) fn intermediate(&self, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    /// A client that trusts this authority, and presents `leaf` if the server asks for it.
    pub(super) fn client(&self, leaf: Option<&Leaf>) -> ClientConfig {
        self.client_with(rustls::ALL_VERSIONS, leaf, aws_lc_rs::default_provider())
    }

    pub(super) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        leaf: Option<&Leaf>,
        provider: CryptoProvider,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => builder.with_client_auth_cert(vec![leaf.cert_der()], leaf.key_der()).unwrap(),
        }
    }

    fn certify(&self, key: &KeyPair, params: &CertificateParams) -> String {
        params.signed_by(key, &self.0).unwrap().pem()
    }
}

impl Leaf {
    pub(super) fn cert_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

impl Disk {
    pub(super) fn with(leaf: &Leaf) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [cert_pem, key_pem] = ["server.cert.pem", "server.key.pem"].map(|name| dir.path().join(name));
        let disk =
            Self { dir, paths: TlsPaths { cert_pem, key_pem, client_ca_pem: None, client_crl_pem: None } };
        disk.put(leaf);
        disk
    }

    /// Requires client certificates of `ca`.
    pub(super) fn and_clients_of(mut self, ca: &Ca) -> Self {
        self.paths.client_ca_pem = Some(self.path("clients.pem"));
        self.put_client_ca(ca);
        self
    }

    /// Revokes the certificates of this list.
    pub(super) fn and_revoked(mut self, crl: &str) -> Self {
        self.paths.client_crl_pem = Some(self.path("revoked.pem"));
        self.put_crl(crl);
        self
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn put(&self, leaf: &Leaf) {
        fs::write(&self.paths.cert_pem, &leaf.cert).unwrap();
        fs::write(&self.paths.key_pem, &leaf.key).unwrap();
    }

    pub(super) fn put_client_ca(&self, ca: &Ca) {
        fs::write(self.paths.client_ca_pem.as_ref().unwrap(), ca.pem()).unwrap();
    }

    pub(super) fn put_crl(&self, crl: &str) {
        fs::write(self.paths.client_crl_pem.as_ref().unwrap(), crl).unwrap();
    }

    pub(super) fn load(&self) -> Tls {
        Tls::load(self.paths.clone()).unwrap()
    }
}

impl Pair {
    /// The certificate that the server presented.
    pub(super) fn server_cert(&self) -> CertificateDer<'static> {
        self.client.peer_certificates().unwrap()[0].clone().into_owned()
    }

    /// Sends `line` to the server, and compares what arrives.
    pub(super) fn carries(&mut self, line: &str) -> bool {
        std::io::Write::write_all(&mut self.client.writer(), line.as_bytes()).unwrap();
        pump(&mut self.client, &mut self.server).unwrap();
        let mut received = vec![0; line.len()];
        self.server.reader().read_exact(&mut received).unwrap();
        received == line.as_bytes()
    }
}

/// Runs a handshake in memory, until it is complete or one end refuses.
pub(super) fn handshake(server: ServerConfig, client: &ClientConfig) -> Result<Pair, rustls::Error> {
    let name = ServerName::try_from(SERVER_NAME).unwrap();
    let mut client = ClientConnection::new(Arc::new(client.clone()), name)?;
    let mut server = ServerConnection::new(Arc::new(server))?;
    pump(&mut client, &mut server)?;
    assert!(
        !client.is_handshaking() && !server.is_handshaking(),
        "without an error, the handshake is complete"
    );
    Ok(Pair { client, server })
}

/// Moves bytes in both directions until neither end has more to send. Fails if the server refuses:
/// in TLS 1.3 the client completes before the server has checked its certificate.
fn pump(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), rustls::Error> {
    while client.wants_write() || server.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets()?;
        }
    }
    Ok(())
}

fn leaf_params() -> CertificateParams {
    CertificateParams::new(vec![SERVER_NAME.to_owned()]).unwrap()
}
