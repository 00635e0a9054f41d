//! Tests of recipients in client certificates: `relay:NAME` among the subject alternative names.

use relay_bin::config::{PlainNames, PushPlain};
use relay_tests::{Relay, ack_body, eventually, pull_body, push_body};
use reqwest::Client;
use serde_json::Value;

use super::handshake::{BOTH, https};
use super::pki::{Authority, TlsFiles};
use super::relay_with;

/// A lock that nobody has the secret of.
const LOCKED: &str = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

struct Setup {
    authority: Authority,
    clients: Authority,
    files: TlsFiles,
    relay: Relay,
}

impl Setup {
    /// A relay that is closed to clients without a certificate for the name.
    fn new() -> Self {
        let (authority, clients) = (Authority::new("authority"), Authority::new("clients"));
        let files = TlsFiles::new(&authority.identity()).with_clients_of(&clients);
        let relay = relay_with(&files, |config| {
            config.auth.plain_names = PlainNames::Token;
            config.auth.push = PushPlain::Token;
        });
        Self { authority, clients, files, relay }
    }

    fn client(&self, uris: &[&str], alpn: &[&str]) -> Client {
        https(&self.authority, Some(&self.clients.identity_with(uris)), alpn)
    }

    /// The status, and the reason of a refusal.
    fn post(&self, client: &Client, path: &str, body: &Value) -> (u16, String) {
        self.relay.runtime().block_on(async {
            let response =
                client.post(format!("{}{path}", self.relay.base_url)).json(body).send().await.unwrap();
            let status = response.status().as_u16();
            let body: Value = response.json().await.unwrap();
            (status, body["error"]["details"]["reason"].as_str().unwrap_or_default().to_owned())
        })
    }

    fn pull(&self, client: &Client, name: &str) -> (u16, String) {
        self.post(client, "/pull", &pull_body(name, None, None))
    }
}

fn refused(status: u16, reason: &str) -> (u16, String) {
    (status, reason.to_owned())
}

#[test]
fn a_certificate_opens_its_names_in_both_versions_of_http() {
    let setup = Setup::new();
    for alpn in [BOTH, &["http/1.1"]] {
        let both =
            setup.client(&["relay:bob", "https://example.org/bob", "relay:J%C3%BCrgen%20%C3%9F"], alpn);
        for name in ["bob", "J\u{fc}rgen \u{df}"] {
            assert_eq!(setup.post(&both, "/push", &push_body(name, 1, b"x")), refused(200, ""));
            assert_eq!(setup.pull(&both, name), refused(200, ""));
            assert_eq!(setup.post(&both, "/ack", &ack_body(name, &[1])), refused(200, ""));
        }
        for name in ["carol", "J%C3%BCrgen%20%C3%9F", "relay:bob", "BOB", "https://example.org/bob"] {
            assert_eq!(setup.pull(&both, name), refused(403, "wrong_proof"), "{name}");
            assert_eq!(setup.post(&both, "/push", &push_body(name, 1, b"x")), refused(403, "wrong_proof"));
        }
        // A certificate without names, or with malformed ones, shows nothing.
        for uris in [&[][..], &["relay:%", "relay://bob", "RELAY:bob", "relay:%C0%AFbob", "relay:"]] {
            let client = setup.client(uris, alpn);
            assert_eq!(setup.pull(&client, "bob"), refused(401, "no_proof"), "{uris:?}");
        }
        let locked = setup.client(&[&format!("relay:{LOCKED}"), "relay:*"], alpn);
        assert_eq!(setup.pull(&locked, LOCKED), refused(401, "no_proof"));
        assert_eq!(setup.pull(&locked, "bob"), refused(403, "wrong_proof"));
    }
}

#[test]
fn more_names_than_a_certificate_may_have_open_nothing() {
    let setup = Setup::new();
    let uris: Vec<_> = (0..65).map(|number| format!("relay:{number}")).collect();
    let uris: Vec<_> = uris.iter().map(String::as_str).collect();
    assert_eq!(setup.pull(&setup.client(&uris[..64], BOTH), "63"), refused(200, ""));
    assert_eq!(setup.pull(&setup.client(&uris, BOTH), "63"), refused(401, "no_proof"));
}

/// The names go with the connection that the handshake was for, and end with the trust in it.
#[test]
fn a_removed_authority_ends_what_its_certificates_open() {
    let setup = Setup::new();
    let clients: Vec<_> = [BOTH, &["http/1.1"]].map(|alpn| setup.client(&["relay:bob"], alpn)).into();
    for client in &clients {
        assert_eq!(setup.pull(client, "bob"), refused(200, ""));
    }
    setup.files.add("client-ca.pem", &Authority::new("next").pem());
    let health = format!("{}/health", setup.relay.base_url);
    for client in &clients {
        let is_gone = || {
            let sent = setup.relay.runtime().block_on(async { client.get(&health).send().await });
            sent.is_err().then_some(())
        };
        assert!(eventually(is_gone).is_some(), "the former authority's client is still served");
    }
}
