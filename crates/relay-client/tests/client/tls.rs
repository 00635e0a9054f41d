//! TLS and HTTP/2, with a client certificate that opens a recipient.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use relay_auth::{PlainNames, Settings};
use relay_client::{Client, Credentials, Identity, Options, Pull, Roots, Transport};
use relay_core::Limits;
use relay_http::tls::{Tls, TlsPaths};

use crate::real::start;
use crate::support::{next, options};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate for loopback and a recipient, and its key.
fn identity(authority: &Authority) -> Identity {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("relay:alice".try_into().unwrap()));
    let certificate = params.signed_by(&key, authority).unwrap();
    Identity { certificate_pem: certificate.pem().into_bytes(), key_pem: key.serialize_pem().into_bytes() }
}

/// A relay that asks for certificates. Returns its address, and the directory of its files.
fn relay(authority: &Authority) -> (String, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    let paths = TlsPaths {
        cert_pem: path("cert.pem"),
        key_pem: path("key.pem"),
        client_ca_pem: Some(path("ca.pem")),
        client_crl_pem: None,
    };
    let Identity { certificate_pem, key_pem } = identity(authority);
    std::fs::write(&paths.cert_pem, certificate_pem).unwrap();
    std::fs::write(&paths.key_pem, key_pem).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    let transport = relay_http::Transport::Tls(Tls::load(paths).unwrap());
    let settings = Settings { plain_names: PlainNames::Token, ..Settings::default() };
    (format!("https://{}", start(transport, Limits::default(), settings)), directory)
}

#[tokio::test]
async fn a_certificate_opens_the_recipient_that_it_names() {
    let authority = authority();
    let (url, directory) = relay(&authority);
    for roots in [Roots::Pem(authority.pem().into_bytes()), Roots::File(directory.path().join("ca.pem"))] {
        let options = Options { roots, identity: Some(identity(&authority)), ..options() };
        let client = Client::new(&url, options).unwrap();
        client.push("alice", vec![7; 600 << 10]).await.unwrap();
        for transport in [Transport::Wait, Transport::Stream] {
            let mut deliveries = client.deliveries("alice", Credentials::none(), transport);
            let message = next(&mut deliveries).await;
            assert_eq!(message.payload.len(), 600 << 10);
            if transport == Transport::Stream {
                message.ack().await.unwrap();
            }
        }
        let error = client.pull("bob", &Credentials::none(), &Pull::default()).await.unwrap_err();
        assert_eq!(error.code(), "forbidden");
    }
}

#[tokio::test]
async fn a_relay_of_another_authority_is_not_reached() {
    let authority = authority();
    let (url, _directory) = relay(&authority);
    let other = Roots::Pem(self::authority().pem().into_bytes());
    let push_timeout = std::time::Duration::from_millis(200);
    let client = Client::new(&url, Options { roots: other, push_timeout, ..options() }).unwrap();
    assert_eq!(client.info().await.unwrap_err().code(), "unreachable");
}

#[test]
fn files_that_cannot_be_used_are_told() {
    let identity = identity(&authority());
    let nothing = Identity { certificate_pem: Vec::new(), ..identity.clone() };
    let other = Identity { key_pem: self::identity(&authority()).key_pem, ..identity };
    for options in [
        Options { roots: Roots::Pem(b"no".to_vec()), ..options() },
        Options { roots: Roots::File("/nowhere".into()), ..options() },
        Options { identity: Some(nothing), ..options() },
        Options { identity: Some(other), ..options() },
    ] {
        assert_eq!(Client::new("https://127.0.0.1", options).unwrap_err().code(), "invalid_input");
    }
}
