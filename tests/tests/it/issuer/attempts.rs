//! Attempts over a socket.

use relay_tests::{Relay, ack_body, pull_body, push_body};
use serde_json::{Value, json};

use super::{AUDIENCE, Issuer, encode, now, outcome, post};

#[test]
fn a_token_opens_the_names_that_it_lists() {
    let issuer = Issuer::new();
    let relay = Relay::with(|config| issuer.configure(config));
    let mut client = relay.connect().unwrap();
    let reader = issuer.reader("bob");
    let sender = issuer.token(&Issuer::claims(json!({"send": true})));
    let (push, pull) = (push_body("bob", 1, b"x"), pull_body("bob", None, None));
    assert_eq!(outcome(&post(&mut client, "/push", &push, "")), (401, "no_proof".to_owned()));
    let pushed = post(&mut client, "/push", &push, &sender);
    // A sender does not learn how full the queue is, and the reader does.
    assert_eq!((pushed.status, &pushed.json()["queue_len"]), (200, &json!(0)));
    let pushed = post(&mut client, "/push", &push_body("bob", 2, b"x"), &reader);
    assert_eq!((pushed.status, &pushed.json()["queue_len"]), (200, &json!(2)));
    assert_eq!(outcome(&post(&mut client, "/pull", &pull, &sender)), (403, "wrong_proof".to_owned()));
    let pulled = post(&mut client, "/pull", &pull, &reader);
    assert_eq!(pulled.json()["items"].as_array().unwrap().len(), 2);
    assert_eq!(post(&mut client, "/ack", &ack_body("bob", &[1, 2]), &reader).json()["deleted"], 2);
    let other = issuer.reader("carol");
    for (path, body) in [("/push", push), ("/pull", pull), ("/ack", ack_body("bob", &[1]))] {
        let refused = post(&mut client, path, &body, &other);
        assert_eq!(outcome(&refused), (403, "wrong_proof".to_owned()));
        let refused = post(&mut client, path, &body, "");
        assert_eq!(outcome(&refused), (401, "no_proof".to_owned()));
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
}

/// Changed claims or headers, and the refusal.
fn attempts() -> Vec<(Value, Value, (u16, &'static str))> {
    let claims = |changes: Value| (json!({}), changes);
    let header = |changes: Value| (changes, json!({}));
    let public = json!({"kty": "OKP", "crv": "Ed25519", "x": encode([1; 32])});
    [
        (claims(json!({"exp": now() - 120})), (403, "token_expired")),
        (claims(json!({"nbf": now() + 120})), (403, "token_not_valid_yet")),
        (claims(json!({"aud": "https://other.example.org"})), (403, "wrong_audience")),
        (claims(json!({"aud": [AUDIENCE, "x"]})), (200, "")),
        (claims(json!({"iss": "https://other.example.org"})), (403, "wrong_issuer")),
        (claims(json!({"exp": null})), (401, "malformed_proof")),
        (claims(json!({"relay": ["bob"]})), (401, "malformed_proof")),
        (claims(json!({"relay": null})), (401, "malformed_proof")),
        (claims(json!({"relay": {"read": ["*"]}})), (403, "wrong_proof")),
        (claims(json!({"relay": {"read": ["carol"], "send": true}})), (403, "wrong_proof")),
        (header(json!({"alg": "none"})), (401, "malformed_proof")),
        (header(json!({"alg": "HS256"})), (401, "malformed_proof")),
        (header(json!({"alg": "ES384"})), (401, "malformed_proof")),
        (header(json!({"alg": "RS256"})), (403, "unknown_key")),
        (header(json!({"typ": "relay-read+jwt"})), (401, "malformed_proof")),
        (header(json!({"typ": "RELAY-READ+JWT"})), (401, "malformed_proof")),
        (header(json!({"kid": "second"})), (403, "unknown_key")),
        (header(json!({"kid": "x".repeat(1000)})), (403, "unknown_key")),
        (header(json!({"jwk": public})), (401, "malformed_proof")),
        (header(json!({"jku": "http://127.0.0.1:9/keys"})), (401, "malformed_proof")),
        (header(json!({"crit": ["exp"]})), (401, "malformed_proof")),
        (header(json!({"x5c": ["x".repeat(4096)]})), (401, "malformed_proof")),
    ]
    .map(|((header, claims), expected)| (header, claims, expected))
    .into()
}

fn with(mut value: Value, changes: Value) -> Value {
    value.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    value
}

#[test]
fn a_token_that_is_not_valid_opens_nothing_and_tells_nothing_of_the_queue() {
    let issuer = Issuer::new();
    let relay = Relay::with(|config| issuer.configure(config));
    let mut client = relay.connect().unwrap();
    let sender = issuer.token(&Issuer::claims(json!({"send": true})));
    assert_eq!(post(&mut client, "/push", &push_body("bob", 1, b"x"), &sender).status, 200);
    let read = json!({"relay": {"read": ["bob", "empty"]}});
    for (header, changes, (status, reason)) in attempts() {
        let header = with(json!({"alg": "EdDSA", "kid": issuer.kid}), header);
        let claims = with(with(Issuer::claims(json!({})), read.clone()), changes);
        let token = issuer.sign(&header, &claims);
        let [existing, missing] = ["bob", "empty"].map(|name| {
            let response = post(&mut client, "/pull", &pull_body(name, None, None), &token);
            let mut body = response.json();
            if let Some(error) = body["error"].as_object_mut() {
                error.remove("request_id");
                error["details"]["server_ms"].take();
            }
            (outcome(&response), body)
        });
        assert_eq!(existing.0, (status, reason.to_owned()), "{header} {claims}");
        assert!(status == 200 || existing == missing, "{existing:?} {missing:?}");
    }
    let forged = Issuer::new().with_key(8, "first").reader("bob");
    let refused = post(&mut client, "/pull", &pull_body("bob", None, None), &forged);
    assert_eq!(outcome(&refused), (403, "wrong_signature".to_owned()));
}

#[test]
fn an_open_relay_ignores_what_plain_names_do_not_need() {
    let issuer = Issuer::new();
    let relay = Relay::with(|config| {
        issuer.configure(config);
        config.auth.plain_names = relay_bin::config::PlainNames::Open;
        config.auth.push = relay_bin::config::PushPlain::Open;
    });
    let mut client = relay.connect().unwrap();
    for proof in ["", "x", "a.b.c", &issuer.reader("carol")] {
        assert_eq!(post(&mut client, "/push", &push_body("bob", 1, b"x"), proof).status, 200, "{proof}");
        assert_eq!(post(&mut client, "/pull", &pull_body("bob", None, None), proof).status, 200, "{proof}");
    }
}
