//! Tests of `[auth]`.

use relay_tests::{pull_body, push_body};

use serde_json::json;

use super::{connect, details, failure, quoted, relay};
use crate::issuer::{AUDIENCE, ISSUER, Issuer, outcome, post};

const LOCKED: &str = "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const KEY: &str = "ed25519:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
pub(super) fn locks() {
    for (value, status) in [("true", 401), ("false", 200)] {
        let relay = relay(&[("auth.locks", value)]);
        let mut client = connect(&relay);
        assert_eq!(
            client.post("/push", &push_body(LOCKED, 1, b"x")).unwrap().status,
            200,
            "anybody may push"
        );
        assert_eq!(client.post("/pull", &pull_body(LOCKED, None, None)).unwrap().status, status, "{value}");
    }
}

#[test]
pub(super) fn plain_names() {
    let issuer = Issuer::new();
    let closed = relay(&issuer_keys(&issuer).each_ref().map(|(key, value)| (*key, value.as_str())));
    let mut client = connect(&closed);
    let pull = pull_body("bob", None, None);
    assert_eq!(client.post("/push", &push_body("bob", 1, b"x")).unwrap().status, 200, "a key of its own");
    assert_eq!(client.post("/pull", &pull).unwrap().status, 401);
    assert_eq!(post(&mut client, "/pull", &pull, &issuer.reader("bob")).status, 200);
    for (value, status) in [("\"open\"", 200), ("\"deny\"", 403)] {
        let relay = relay(&[("auth.plain_names", value)]);
        let mut client = connect(&relay);
        assert_eq!(client.post("/push", &push_body("bob", 1, b"x")).unwrap().status, status, "{value}");
        assert_eq!(client.post("/pull", &pull_body("bob", None, None)).unwrap().status, status, "{value}");
    }
}

/// The keys of a relay with an issuer.
fn issuer_keys(issuer: &Issuer) -> [(&'static str, String); 4] {
    [
        ("auth.audiences", format!("[{AUDIENCE:?}]")),
        ("auth.issuer", format!("{ISSUER:?}")),
        ("auth.issuer_jwks_path", quoted(&issuer.path())),
        ("auth.plain_names", "\"token\"".to_owned()),
    ]
}

#[test]
pub(super) fn push() {
    let issuer = Issuer::new();
    let keys = issuer_keys(&issuer);
    let token = issuer.token(&Issuer::claims(json!({"send": ["bob"]})));
    for (value, status) in [("\"open\"", 200), ("\"token\"", 401)] {
        let mut keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        keys.push(("auth.push", value));
        let relay = relay(&keys);
        let mut client = connect(&relay);
        assert_eq!(post(&mut client, "/push", &push_body("bob", 1, b"x"), "").status, status, "{value}");
        assert_eq!(post(&mut client, "/push", &push_body("bob", 2, b"x"), &token).status, 200);
    }
}

#[test]
pub(super) fn issuer() {
    let issuer = Issuer::new();
    let mut keys = issuer_keys(&issuer);
    for (value, expected) in [(ISSUER, (200, "")), ("https://x", (403, "wrong_issuer"))] {
        keys[1].1 = format!("{value:?}");
        let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let relay = relay(&keys);
        let mut client = connect(&relay);
        let response = post(&mut client, "/pull", &pull_body("bob", None, None), &issuer.reader("bob"));
        assert_eq!(outcome(&response), (expected.0, expected.1.to_owned()), "{value}");
    }
}

#[test]
pub(super) fn issuer_jwks_path() {
    let (issuer, other) = (Issuer::new(), Issuer::new().with_key(8, "other"));
    other.publish(&[other.jwk()]);
    let mut keys = issuer_keys(&issuer);
    for (of, expected) in [(&issuer, (200, "")), (&other, (403, "unknown_key"))] {
        keys[2].1 = quoted(&of.path());
        let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let relay = relay(&keys);
        let mut client = connect(&relay);
        let response = post(&mut client, "/pull", &pull_body("bob", None, None), &issuer.reader("bob"));
        assert_eq!(outcome(&response), (expected.0, expected.1.to_owned()));
    }
    keys[2].1 = quoted(&issuer.directory().join("elsewhere.json"));
    let keys: Vec<_> = keys.iter().map(|(key, value)| (*key, value.as_str())).collect();
    assert!(failure(&keys).to_string().contains("elsewhere.json"));
}

/// A token for the zero key, which has signed nothing: it shows whether the relay accepts tokens.
#[test]
pub(super) fn audiences() {
    let header = "eyJhbGciOiJFZERTQSIsInR5cCI6InJlbGF5LXJlYWQrand0In0";
    let claims = format!(r#"{{"iss":"{KEY}","aud":"me","iat":0,"exp":0}}"#);
    let encode =
        |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let token = format!("Bearer {header}.{}.{}", encode(claims.as_bytes()), encode(&[0; 64]));
    for (value, status, reason) in [
        ("[]", 401, "no_audience"),
        ("[\"you\"]", 403, "wrong_audience"),
        ("[\"you\", \"me\"]", 403, "token_expired"),
    ] {
        let relay = relay(&[("auth.audiences", value)]);
        let headers = [("content-type", "application/json"), ("authorization", &*token)];
        let body = pull_body(KEY, None, None).to_string();
        let response = connect(&relay).post_bytes("/pull", &headers, body.as_bytes()).unwrap();
        assert_eq!(details(&response, status)["reason"], reason, "{value}");
    }
}
