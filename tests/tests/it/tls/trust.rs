//! Who is let in: the relay by its clients, and clients by a relay that asks for their
//! certificates.

use super::handshake::{BOTH, https};
use super::openssl::openssl;
use super::pki::{Authority, Files, Identity};
use super::relay;
use super::wire::ask;

#[test]
fn a_client_takes_the_relay_by_its_authority_alone() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let identity = authority.identity();
    let relay = relay(&Files::new(&identity));
    assert_eq!(ask(&relay.base_url, &authority.client(None)).unwrap().certificate, identity.cert_der());
    let refused = ask(&relay.base_url, &stranger.client(None)).unwrap_err();
    assert!(refused.to_string().contains("invalid peer certificate"), "{refused}");
    assert!(ask(&relay.base_url, &authority.client(None)).unwrap().is_ok());

    let health = format!("{}/health", relay.base_url);
    let get = |client: reqwest::Client| relay.runtime().block_on(async { client.get(&health).send().await });
    assert_eq!(get(https(&authority, None, BOTH)).unwrap().status(), 200);
    assert!(get(https(&stranger, None, BOTH)).unwrap_err().is_connect());
}

#[test]
fn a_chain_through_an_intermediate_authority_is_shown_whole() {
    let root = Authority::new("root");
    let middle = root.intermediate("middle");
    let mut identity = middle.identity();
    identity.cert.push_str(&middle.pem());
    let relay = relay(&Files::new(&identity));
    assert!(ask(&relay.base_url, &root.client(None)).unwrap().is_ok());
}

#[test]
fn clients_are_taken_by_their_authority_if_the_relay_asks() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let relay = relay(&Files::new(&authority.identity()).with_clients_of(&clients));
    let good = clients.identity();
    let ask = |identity: Option<&Identity>| ask(&relay.base_url, &authority.client(identity));
    assert!(ask(Some(&good)).unwrap().is_ok());
    // The relay's own authority does not speak for clients.
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
fn applications_show_their_certificate_too() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let relay = relay(&Files::new(&authority.identity()).with_clients_of(&clients));
    let health = format!("{}/health", relay.base_url);
    let good = clients.identity();
    for (identity, is_let_in) in
        [(Some(&good), true), (None, false), (Some(&clients.expired_identity()), false), (Some(&good), true)]
    {
        for alpn in [BOTH, &["http/1.1"]] {
            let client = https(&authority, identity, alpn);
            let answer = relay.runtime().block_on(async { client.get(&health).send().await });
            assert_eq!(answer.is_ok_and(|answer| answer.status() == 200), is_let_in);
        }
    }
}

#[test]
fn openssl_shows_its_certificate_in_either_version_of_tls() {
    let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
    let files = Files::new(&authority.identity()).with_clients_of(&clients);
    let good = clients.identity();
    let [cert, key] =
        [("client.pem", &good.cert), ("client.key", &good.key)].map(|(name, pem)| files.add(name, pem));
    let relay = relay(&files);
    let address = relay.base_url.trim_start_matches("https://");
    let request = "GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let certificate = ["-cert", cert.to_str().unwrap(), "-key", key.to_str().unwrap()];
    for version in ["-tls1_2", "-tls1_3"] {
        for (shown, is_let_in) in [(certificate.as_slice(), true), (&[], false)] {
            let arguments = [&["s_client", "-connect", address, "-ign_eof", version], shown].concat();
            let Some(output) = openssl(&arguments, request) else { return };
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert_eq!(said.contains("HTTP/1.1 200 OK"), is_let_in, "{version} {shown:?}: {said}");
            assert_eq!(
                said.contains("SSL alert number 116") || said.contains("SSL alert number 40"),
                !is_let_in,
                "{said}"
            );
        }
    }
}
