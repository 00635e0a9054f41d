//! Tests of certificate checks: clients check the relay, and a relay that requires client
//! certificates checks clients.

use super::handshake::{BOTH, https};
use super::openssl::openssl;
use super::pki::{Authority, Identity, TlsFiles};
use super::relay;
use super::wire::ask;

#[test]
fn a_client_accepts_only_a_relay_of_its_authority() {
    let (authority, other) = (Authority::new("authority"), Authority::new("stranger"));
    let identity = authority.identity();
    let relay = relay(&TlsFiles::new(&identity));
    assert_eq!(ask(&relay.base_url, &authority.client(None)).unwrap().certificate, identity.cert_der());
    let refused = ask(&relay.base_url, &other.client(None)).unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    assert!(ask(&relay.base_url, &authority.client(None)).unwrap().is_ok());

    let health = format!("{}/health", relay.base_url);
    let get = |client: reqwest::Client| relay.runtime().block_on(async { client.get(&health).send().await });
    assert_eq!(get(https(&authority, None, BOTH)).unwrap().status(), 200);
    assert!(get(https(&other, None, BOTH)).unwrap_err().is_connect());
}

#[test]
fn the_full_chain_through_an_intermediate_authority_is_sent() {
    let root = Authority::new("root");
    let middle = root.intermediate("middle");
    let mut identity = middle.identity();
    identity.cert.push_str(&middle.pem());
    let relay = relay(&TlsFiles::new(&identity));
    assert!(ask(&relay.base_url, &root.client(None)).unwrap().is_ok());
}

#[test]
fn only_clients_of_the_client_authority_are_accepted() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let relay = relay(&TlsFiles::new(&authority.identity()).with_clients_of(&clients));
    let good = clients.identity();
    let ask = |identity: Option<&Identity>| ask(&relay.base_url, &authority.client(identity));
    assert!(ask(Some(&good)).unwrap().is_ok());
    // The relay's own authority is not an authority for clients.
    let cases = [
        ("none", None),
        ("of the wrong authority", Some(authority.identity())),
        ("of an authority of the same name", Some(Authority::new("clients").identity())),
        ("expired", Some(clients.expired_identity())),
    ];
    for (name, identity) in cases {
        let refused = ask(identity.as_ref()).expect_err(name);
        assert!(refused.to_string().contains("received fatal alert"), "{name}: {refused}");
        assert!(ask(Some(&good)).unwrap().is_ok(), "after a client with a certificate {name}");
    }
}

#[test]
fn client_certificates_work_in_both_versions_of_http() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let relay = relay(&TlsFiles::new(&authority.identity()).with_clients_of(&clients));
    let health = format!("{}/health", relay.base_url);
    let good = clients.identity();
    for (identity, is_accepted) in
        [(Some(&good), true), (None, false), (Some(&clients.expired_identity()), false), (Some(&good), true)]
    {
        for alpn in [BOTH, &["http/1.1"]] {
            let client = https(&authority, identity, alpn);
            let response = relay.runtime().block_on(async { client.get(&health).send().await });
            assert_eq!(response.is_ok_and(|response| response.status() == 200), is_accepted);
        }
    }
}

#[test]
fn client_certificates_work_in_both_versions_of_tls() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let files = TlsFiles::new(&authority.identity()).with_clients_of(&clients);
    let good = clients.identity();
    let [cert, key] =
        [("client.pem", &good.cert), ("client.key", &good.key)].map(|(name, pem)| files.add(name, pem));
    let relay = relay(&files);
    let address = relay.base_url.trim_start_matches("https://");
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let certificate = ["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    for version in ["-tls1_2", "-tls1_3"] {
        for (presented, is_accepted) in [(certificate.as_slice(), true), (&[], false)] {
            let arguments = [&["s_client", "-connect", address, "-ign_eof", version], presented].concat();
            let Some(output) = openssl(&arguments, request) else { return };
            let received = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(
                received.contains("HTTP/1.1 200 OK"),
                is_accepted,
                "{version} {presented:?}: {received}"
            );
            assert_eq!(
                received.contains("SSL alert number 116") || received.contains("SSL alert number 40"),
                !is_accepted,
                "{received}"
            );
        }
    }
}
