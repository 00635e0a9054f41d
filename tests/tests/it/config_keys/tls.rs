//! Tests of `mode` and `[tls]`.

use super::{connect, failure, quoted, relay};
use crate::tls::pki::{Authority, TlsFiles};
use crate::tls::wire::ask;

/// The keys of a relay that serves with these files.
fn tls_keys(files: &TlsFiles) -> Vec<(&'static str, String)> {
    vec![
        ("mode", "\"tls\"".to_owned()),
        ("tls.cert_pem_path", quoted(&files.cert)),
        ("tls.key_pem_path", quoted(&files.key)),
    ]
}

fn as_strs<'a>(keys: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    keys.iter().map(|(key, value)| (*key, value.as_str())).collect()
}

#[test]
pub(super) fn mode() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let mut keys = tls_keys(&files);
    let secure = relay(&as_strs(&keys));
    assert!(secure.base_url.starts_with("https://"));
    assert!(ask(&secure.base_url, &authority.client(None)).unwrap().is_ok());
    // A relay without TLS accepts no keys of TLS.
    keys = vec![("mode", "\"http\"".to_owned())];
    let plain = relay(&as_strs(&keys));
    assert!(plain.base_url.starts_with("http://"));
    assert_eq!(connect(&plain).get("/health").unwrap().status, 200);
}

#[test]
pub(super) fn tls_cert_pem_path() {
    let authority = Authority::new("authority");
    let identity = authority.identity();
    let files = TlsFiles::new(&identity);
    let mut keys = tls_keys(&files);
    let relay = relay(&as_strs(&keys));
    assert_eq!(ask(&relay.base_url, &authority.client(None)).unwrap().certificate, identity.cert_der());
    let elsewhere = files.path().join("elsewhere.pem");
    keys[1].1 = quoted(&elsewhere);
    assert!(failure(&as_strs(&keys)).to_string().contains(elsewhere.to_str().unwrap()));
}

#[test]
pub(super) fn tls_key_pem_path() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let other = files.add("other.pem", &authority.identity().key);
    let mut keys = tls_keys(&files);
    assert!(ask(&relay(&as_strs(&keys)).base_url, &authority.client(None)).unwrap().is_ok());
    keys[2].1 = quoted(&other);
    let error = failure(&as_strs(&keys)).to_string();
    assert!(error.contains(other.to_str().unwrap()) && error.contains("does not belong to"), "{error}");
}

#[test]
pub(super) fn tls_client_ca_pem_path() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let files = TlsFiles::new(&authority.identity());
    let mut keys = tls_keys(&files);
    keys.push(("tls.client_ca_pem_path", quoted(&files.add("clients.pem", &clients.pem()))));
    let relay = relay(&as_strs(&keys));
    assert!(ask(&relay.base_url, &authority.client(Some(&clients.identity()))).unwrap().is_ok());
    assert!(ask(&relay.base_url, &authority.client(None)).is_err());
}

#[test]
pub(super) fn tls_client_crl_pem_path() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let files = TlsFiles::new(&authority.identity());
    let mut keys = tls_keys(&files);
    keys.push(("tls.client_ca_pem_path", quoted(&files.add("clients.pem", &clients.pem()))));
    keys.push(("tls.client_crl_pem_path", quoted(&files.add("revoked.pem", &clients.crl(7)))));
    let relay = relay(&as_strs(&keys));
    let ask = |number| ask(&relay.base_url, &authority.client(Some(&clients.identity_numbered(number))));
    assert!(ask(8).unwrap().is_ok());
    assert!(ask(7).is_err());
}
