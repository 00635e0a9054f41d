//! Gateways behind https.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use relay_core::WakeFigures;
use relay_wake::testing::{Reply, TestGateway};
use relay_wake::{GatewayError, Wakes};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::support::{Machine, Waking, now, options};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A gateway with a certificate of `authority` for `name`.
fn gateway(authority: &Authority, name: &str) -> TestGateway {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    TestGateway::start_tls(certificate.der().clone(), key, |_| Reply::status("200 OK", "")).unwrap()
}

/// What became of one wake.
async fn once(gateway: &TestGateway, ca: Option<&Path>) -> WakeFigures {
    let mut options = options(&gateway.url());
    options.ca_path = ca.map(Path::to_owned);
    options.rules.attempts_max = NonZeroU32::MIN;
    let relay = Waking::start(&options);
    relay.push("alice", 1).await;
    relay.until(|figures| figures.pending == 0).await
}

#[tokio::test]
async fn only_a_certificate_of_the_authority_for_the_host_is_accepted() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (authority(), authority());
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, ours.pem()).unwrap();
    for (what, gateway, ca, is_accepted) in [
        ("ours", gateway(&ours, "localhost"), Some(&*ca), true),
        ("another authority", gateway(&other, "localhost"), Some(&*ca), false),
        ("another host", gateway(&ours, "example.org"), Some(&*ca), false),
        ("the authorities of the system", gateway(&ours, "localhost"), None, false),
    ] {
        let figures = once(&gateway, ca).await;
        assert_eq!(
            (figures.sent, figures.failed),
            (u64::from(is_accepted), u64::from(!is_accepted)),
            "{what}"
        );
        assert_eq!(gateway.requests(), usize::from(is_accepted), "{what}: nothing is sent before the check");
    }
}

#[tokio::test]
async fn a_gateway_without_tls_gets_nothing_by_https() {
    let plain = TestGateway::accepting().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority().pem()).unwrap();
    let mut options = options(&plain.url().replace("http://", "https://"));
    options.ca_path = Some(ca);
    options.rules.attempts_max = NonZeroU32::MIN;
    options.timeout = std::time::Duration::from_secs(2);
    let relay = Waking::start(&options);
    relay.push("alice", 1).await;
    relay.until(|figures| figures.failed == 1).await;
}

#[test]
fn files_that_are_no_authorities_are_refused_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let refused = |path: &Path| {
        let mut options = options("https://localhost/");
        options.ca_path = Some(path.to_owned());
        match Wakes::new(&options, Arc::new(Machine(now()))) {
            Err(GatewayError::Ca { reason, .. }) => reason,
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&path).starts_with("cannot be read: "));
    assert_eq!(refused(directory.path()), "is not a regular file");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (content, reason) in [
        (String::new(), "contains no certificate"),
        ("no PEM".to_owned(), "contains no certificate"),
        (KeyPair::generate().unwrap().serialize_pem(), "contains no certificate"),
        ("-----BEGIN CERTIFICATE-----\n!\n".to_owned(), "is not in PEM format"),
        (broken.to_owned(), "has a certificate that cannot be used"),
        ("x".repeat((1 << 20) + 1), "is larger than 1048576 bytes"),
    ] {
        std::fs::write(&path, &content).unwrap();
        assert_eq!(refused(&path), reason);
    }
}

#[test]
fn a_gateway_by_http_needs_no_authorities() {
    let mut options = options("http://127.0.0.1:9/");
    options.ca_path = Some("/nowhere/ca.pem".into());
    assert!(Wakes::new(&options, Arc::new(Machine(now()))).is_ok());
}
