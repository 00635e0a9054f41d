//! Makes authorities, certificates, and the TLS files of a relay, all for one test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, date_time_ymd,
};
use relay_bin::config::TlsConfig;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;

/// An authority that signs certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM form.
pub(crate) struct Identity {
    pub(crate) cert: String,
    pub(crate) key: String,
}

/// The TLS files of one relay, in a temporary directory.
pub(crate) struct TlsFiles {
    directory: TempDir,
    pub(crate) cert: PathBuf,
    pub(crate) key: PathBuf,
    client_ca: Option<PathBuf>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        Self(CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap()).unwrap())
    }

    /// An intermediate authority, signed by this one.
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        Self(CertifiedIssuer::signed_by(authority(name), KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for loopback, with a new key.
    pub(crate) fn identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        Identity { cert: self.sign(loopback(), &key), key: key.serialize_pem() }
    }

    /// A certificate with this serial number.
    pub(crate) fn identity_numbered(&self, number: u64) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = loopback();
        params.serial_number = Some(number.into());
        Identity { cert: self.sign(params, &key), key: key.serialize_pem() }
    }

    /// A certificate with these URIs among its subject alternative names.
    pub(crate) fn identity_with(&self, uris: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = loopback();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        Identity { cert: self.sign(params, &key), key: key.serialize_pem() }
    }

    /// A list of revoked certificates with this serial number, in PEM form.
    pub(crate) fn crl(&self, number: u64) -> String {
        let [long_ago, never] = [2001, 4000].map(|year| date_time_ymd(year, 1, 1));
        let revoked = RevokedCertParams {
            serial_number: number.into(),
            revocation_time: long_ago,
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: long_ago,
            next_update: never,
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A certificate for an existing key.
    pub(crate) fn identity_of(&self, key_pem: &str) -> Identity {
        let der = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).unwrap();
        let key = KeyPair::try_from(der.secret_der()).unwrap();
        Identity { cert: self.sign(loopback(), &key), key: key_pem.to_owned() }
    }

    /// An expired certificate.
    pub(crate) fn expired_identity(&self) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = loopback();
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
        Identity { cert: self.sign(params, &key), key: key.serialize_pem() }
    }

    /// A client that trusts only this authority, and presents `identity` on request. It offers
    /// HTTP/1.1.
    pub(crate) fn client(&self, identity: Option<&Identity>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                builder.with_client_auth_cert(vec![identity.cert_der()], identity.key_der()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A resumed session would show the certificate of the first handshake.
        config.resumption = Resumption::disabled();
        Arc::new(config)
    }

    fn sign(&self, params: CertificateParams, key: &KeyPair) -> String {
        params.signed_by(key, &self.0).unwrap().pem()
    }
}

impl Identity {
    pub(crate) fn cert_der(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn key_der(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

impl TlsFiles {
    pub(crate) fn new(identity: &Identity) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["cert.pem", "key.pem"].map(|name| directory.path().join(name));
        let files = Self { directory, cert, key, client_ca: None };
        files.replace(identity);
        files
    }

    /// Requires client certificates of `authority`.
    pub(crate) fn with_clients_of(mut self, authority: &Authority) -> Self {
        self.client_ca = Some(self.add("client-ca.pem", &authority.pem()));
        self
    }

    /// Writes one file after the other, as a renewal does.
    pub(crate) fn replace(&self, identity: &Identity) {
        std::fs::write(&self.cert, &identity.cert).unwrap();
        std::fs::write(&self.key, &identity.key).unwrap();
    }

    /// Writes another file into the directory.
    pub(crate) fn add(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The lines of a configuration file that turn TLS on.
    pub(crate) fn lines(&self) -> String {
        let Self { cert, key, .. } = self;
        format!("mode = \"tls\"\ntls = {{ cert_pem_path = {cert:?}, key_pem_path = {key:?} }}\n")
    }

    pub(crate) fn config(&self) -> TlsConfig {
        TlsConfig {
            cert_pem_path: self.cert.clone(),
            key_pem_path: self.key.clone(),
            client_ca_pem_path: self.client_ca.clone(),
            client_crl_pem_path: None,
        }
    }
}

fn loopback() -> CertificateParams {
    CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}
