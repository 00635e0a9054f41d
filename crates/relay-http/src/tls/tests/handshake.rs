//! Tests which clients can connect, and with which cryptography.

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, Error, HandshakeKind, NamedGroup, ProtocolVersion};

use super::pki::{Ca, Disk, Leaf, Pair, handshake};

#[test]
fn supports_tls_1_3_and_1_2() {
    let ca = Ca::new("server CA");
    let tls = Disk::with(&ca.leaf()).load();
    for (offered, expected) in [(&TLS13, ProtocolVersion::TLSv1_3), (&TLS12, ProtocolVersion::TLSv1_2)] {
        let client = ca.client_with(&[offered], None, aws_lc_rs::default_provider());
        let pair = handshake(tls.server_config(), &client).unwrap();
        assert_eq!(pair.server.protocol_version(), Some(expected));
    }
}

#[test]
fn prefers_http_2_to_http_1_1_and_accepts_a_client_without_alpn() {
    let ca = Ca::new("server CA");
    let tls = Disk::with(&ca.leaf()).load();
    let cases: [(&[&str], Option<&str>); 3] =
        [(&["http/1.1", "h2"], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)];
    for (offered, chosen) in cases {
        let mut client = ca.client(None);
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let pair = handshake(tls.server_config(), &client).unwrap();
        assert_eq!(pair.client.alpn_protocol(), chosen.map(str::as_bytes));
    }
}

#[test]
fn key_exchange_is_hybrid_if_the_client_supports_it() {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let cases: [(&[&dyn SupportedKxGroup], NamedGroup); 4] = [
        (&[X25519MLKEM768, X25519], NamedGroup::X25519MLKEM768),
        (&[X25519], NamedGroup::X25519),
        (&[SECP256R1], NamedGroup::secp256r1),
        (&[SECP384R1], NamedGroup::secp384r1),
    ];
    let ca = Ca::new("server CA");
    let tls = Disk::with(&ca.leaf()).load();
    for (offered, expected) in cases {
        let provider = CryptoProvider { kx_groups: offered.to_vec(), ..aws_lc_rs::default_provider() };
        let pair = handshake(tls.server_config(), &ca.client_with(&[&TLS13], None, provider)).unwrap();
        assert_eq!(pair.server.negotiated_key_exchange_group().unwrap().name(), expected);
    }
}

#[test]
fn groups_are_in_order_of_preference() {
    let names: Vec<_> = crate::tls::provider().kx_groups.iter().map(|group| group.name()).collect();
    let expected =
        [NamedGroup::X25519MLKEM768, NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1];
    assert_eq!(names, expected);
}

#[test]
fn reads_keys_in_all_three_encodings() {
    let ca = Ca::new("server CA");
    let leaves = [
        ("PRIVATE KEY", ca.leaf()),
        ("RSA PRIVATE KEY", ca.leaf_for(include_str!("fixtures/rsa-pkcs1.test-key.pem"))),
        ("EC PRIVATE KEY", ca.leaf_for(include_str!("fixtures/ec-sec1.test-key.pem"))),
    ];
    for (encoding, leaf) in leaves {
        assert!(leaf.key.contains(&format!("-----BEGIN {encoding}-----")), "{encoding}");
        let tls = Disk::with(&leaf).load();
        let pair = handshake(tls.server_config(), &ca.client(None)).unwrap();
        assert_eq!(pair.server_cert(), leaf.cert_der(), "{encoding}");
    }
}

#[test]
fn sends_the_whole_chain_and_ignores_text_around_it() {
    let root = Ca::new("root CA");
    let intermediate = root.intermediate("intermediate CA");
    let mut leaf = intermediate.leaf();
    leaf.cert = format!("subject=relay\n{}\nissuer of the above\n{}", leaf.cert, intermediate.pem());
    leaf.key = format!("Bag Attributes\n    friendlyName: relay\n{}", leaf.key);
    let tls = Disk::with(&leaf).load();
    assert!(handshake(tls.server_config(), &root.client(None)).is_ok());
}

#[test]
fn certificate_and_key_may_share_a_file() {
    let ca = Ca::new("server CA");
    let mut leaf = ca.leaf();
    let both = format!("{}{}", leaf.key, leaf.cert);
    (leaf.cert, leaf.key) = (both.clone(), both);
    let tls = Disk::with(&leaf).load();
    assert!(handshake(tls.server_config(), &ca.client(None)).is_ok());
}

#[test]
fn without_client_cas_no_certificate_is_requested() {
    let ca = Ca::new("server CA");
    let tls = Disk::with(&ca.leaf()).load();
    // This client would present its certificate on request.
    let pair = handshake(tls.server_config(), &ca.client(Some(&ca.leaf()))).unwrap();
    assert_eq!(pair.server.peer_certificates(), None);
}

#[test]
fn with_client_cas_only_their_clients_connect() {
    let (server_ca, client_ca, stranger) = (Ca::new("server CA"), Ca::new("client CA"), Ca::new("other CA"));
    let tls = Disk::with(&server_ca.leaf()).and_clients_of(&client_ca).load();
    for version in rustls::ALL_VERSIONS {
        let connect = |leaf: Option<&Leaf>| {
            let client = server_ca.client_with(&[version], leaf, aws_lc_rs::default_provider());
            handshake(tls.server_config(), &client)
        };
        let accepted = client_ca.leaf();
        let pair = connect(Some(&accepted)).unwrap();
        assert_eq!(pair.server.peer_certificates().unwrap(), [accepted.cert_der()]);

        assert_eq!(refusal(connect(None)), Error::NoCertificatesPresented);
        assert_eq!(refusal(connect(Some(&stranger.leaf()))), CertificateError::UnknownIssuer.into());
        let expired = refusal(connect(Some(&client_ca.expired_leaf())));
        assert!(
            matches!(expired, Error::InvalidCertificate(CertificateError::ExpiredContext { .. })),
            "{expired:?}"
        );
    }
}

#[test]
fn sessions_are_resumed_only_without_client_cas() {
    let ca = Ca::new("CA");
    let leaf = ca.leaf();
    let [open, mutual] = [Disk::with(&leaf), Disk::with(&leaf).and_clients_of(&ca)].map(|disk| disk.load());
    for version in rustls::ALL_VERSIONS {
        for (tls, second) in [(&open, HandshakeKind::Resumed), (&mutual, HandshakeKind::Full)] {
            let config = tls.server_config();
            let client = ca.client_with(&[version], Some(&leaf), aws_lc_rs::default_provider());
            let kinds = [(); 2]
                .map(|()| handshake(config.clone(), &client).unwrap().server.handshake_kind().unwrap());
            assert_eq!(kinds, [HandshakeKind::Full, second], "{version:?}");
        }
    }
}

#[test]
fn debug_shows_paths_and_no_contents() {
    let ca = Ca::new("server CA");
    let leaf = ca.leaf();
    let disk = Disk::with(&leaf).and_clients_of(&ca);
    let tls = disk.load();
    assert_eq!(format!("{tls:?}"), format!("Tls {{ paths: {:?}, .. }}", disk.paths));
    let config = format!("{:?}", tls.server_config());
    assert!(config.contains("CurrentMaterial(Tls {") && !config.contains("CertifiedKey"), "{config}");
}

fn refusal(outcome: Result<Pair, Error>) -> Error {
    outcome.err().expect("the handshake must fail")
}
