//! Tests of `[auth]`.

use relay_tests::{pull_body, push_body};

use super::{connect, details, relay};

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
    for (value, status) in [("\"open\"", 200), ("\"deny\"", 403)] {
        let relay = relay(&[("auth.plain_names", value)]);
        let mut client = connect(&relay);
        assert_eq!(client.post("/push", &push_body("bob", 1, b"x")).unwrap().status, status, "{value}");
        assert_eq!(client.post("/pull", &pull_body("bob", None, None)).unwrap().status, status, "{value}");
    }
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
