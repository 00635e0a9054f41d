//! Attempts to open a name with a token that is not valid.

use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use crate::support::{
    AUDIENCE, EC, ED, ISSUER, Key, NOW, P384, RSA, bearer, claims, claims_with, encode, issuer, key_set,
    policy, policy_of, pull,
};
use relay_auth::{Issuer, Jwks, Operation, PlainNames, Policy, Proof, PushPlain, Settings};

#[test]
fn claims_that_are_not_valid_open_nothing() {
    for (changes, expected) in [
        (json!({}), Ok(())),
        (json!({"exp": NOW - 60}), Ok(())),
        (json!({"exp": NOW - 61}), Err("token_expired")),
        (json!({"exp": 0}), Err("token_expired")),
        (json!({"exp": u64::MAX}), Ok(())),
        (json!({"nbf": NOW + 60}), Ok(())),
        (json!({"nbf": NOW + 61}), Err("token_not_valid_yet")),
        (json!({"nbf": u64::MAX}), Err("token_not_valid_yet")),
        (json!({"aud": ["x", AUDIENCE]}), Ok(())),
        (json!({"aud": []}), Err("wrong_audience")),
        (json!({"aud": ""}), Err("wrong_audience")),
        (json!({"aud": format!("{AUDIENCE}/")}), Err("wrong_audience")),
        (json!({"aud": [AUDIENCE.to_uppercase()]}), Err("wrong_audience")),
        (json!({"iss": "https://accounts.example.org/"}), Err("wrong_issuer")),
        (json!({"iss": ""}), Err("wrong_issuer")),
        (json!({"iss": "bob"}), Err("wrong_issuer")),
        (json!({"relay": null}), Err("wrong_proof")),
        (json!({"relay": {}}), Err("wrong_proof")),
        (json!({"relay": {"read": []}}), Err("wrong_proof")),
        (json!({"relay": {"send": true}}), Err("wrong_proof")),
        (json!({"scope": {"a": [1, 2.5, null]}, "iat": 1.5, "jti": "x", "typ": "Bearer"}), Ok(())),
    ] {
        assert_eq!(pull(&policy(), "bob", &ED.token("ed", &claims_with(&changes))), expected, "{changes}");
    }
    let settings = Settings { plain_names: PlainNames::Token, issuer: Some(issuer()), ..Settings::default() };
    assert_eq!(pull(&Policy::new(settings), "bob", &ED.token("ed", &claims())), Err("no_audience"));
}

#[test]
fn malformed_claims_open_nothing() {
    let bob = json!(["bob"]);
    for changes in [
        json!({"exp": null}),
        json!({"exp": "1900000000"}),
        json!({"exp": 1_900_000_000.5}),
        json!({"exp": -1}),
        json!({"nbf": "0"}),
        json!({"nbf": 0.5}),
        json!({"iss": null}),
        json!({"iss": [ISSUER]}),
        json!({"aud": null}),
        json!({"aud": {AUDIENCE: 1}}),
        json!({"aud": [AUDIENCE, 1]}),
        json!({"aud": true}),
        json!({"relay": bob}),
        json!({"relay": [bob, []]}),
        json!({"relay": "bob"}),
        json!({"relay": true}),
        json!({"relay": {"read": "bob"}}),
        json!({"relay": {"read": true}}),
        json!({"relay": {"read": {"bob": true}}}),
        json!({"relay": {"read": [bob]}}),
        json!({"relay": {"read": ["bob", null]}}),
        json!({"relay": {"read": bob, "admin": true}}),
        json!({"relay": {"read": bob, "send": false}}),
        json!({"relay": {"read": bob, "send": "bob"}}),
        json!({"relay": {"read": bob, "send": 1}}),
        json!({"relay": {"read": bob, "send": {}}}),
        json!({"relay": {"relay": {"read": bob}}}),
    ] {
        let token = ED.token("ed", &claims_with(&changes));
        assert_eq!(pull(&policy(), "bob", &token), Err("malformed_proof"), "{changes}");
    }
}

#[test]
fn repeated_and_null_members_open_nothing() {
    let head = json!({"alg": "EdDSA", "kid": "ed"}).to_string();
    let base = claims().to_string();
    let inside = base.strip_suffix('}').unwrap();
    for extra in [
        r#""iss":"x""#,
        r#""aud":"https://relay.example.org""#,
        r#""exp":1900000000"#,
        r#""relay":{"read":["bob"]}"#,
        r#""\u0065xp":1900000000"#,
        r#""sub":"2""#,
        r#""nbf":0,"nbf":0"#,
        r#""x":1,"x":1"#,
        r#""nbf":null"#,
    ] {
        let token = ED.sign(&head, &format!("{inside},{extra}}}"));
        assert_eq!(pull(&policy(), "bob", &token), Err("malformed_proof"), "{extra}");
    }
    for relay in
        [r#"{"read":["bob"],"read":["bob"]}"#, r#"{"read":["bob"],"send":null}"#, r#"{"read":null}"#, "null"]
    {
        let claims = claims_with(&json!({"relay": null})).to_string();
        let token = ED.sign(&head, &format!("{},\"relay\":{relay}}}", claims.strip_suffix('}').unwrap()));
        assert_eq!(pull(&policy(), "bob", &token), Err("malformed_proof"), "{relay}");
    }
    let list = json!([ISSUER, AUDIENCE, NOW + 600, null, {"read": ["bob"]}]).to_string();
    for claims in [list.as_str(), "", "null", "[]", "{}", "\"x\""] {
        assert_eq!(pull(&policy(), "bob", &ED.sign(&head, claims)), Err("malformed_proof"), "{claims}");
    }
}

/// The usual header with more members, or others.
fn header(more: &Value) -> String {
    let mut all = json!({"alg": "EdDSA", "kid": "ed"});
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    all.to_string()
}

fn pull_with(header: &str) -> Result<(), &'static str> {
    pull(&policy(), "bob", &ED.sign(header, &claims().to_string()))
}

#[test]
fn the_header_names_a_key() {
    for (more, expected) in [
        (json!({}), Ok(())),
        (json!({"kid": null}), Err("malformed_proof")),
        (json!({"kid": 1}), Err("malformed_proof")),
        (json!({"kid": "nobody"}), Err("unknown_key")),
        (json!({"kid": ""}), Err("unknown_key")),
        (json!({"kid": "ED"}), Err("unknown_key")),
        (json!({"kid": "../../../dev/null"}), Err("unknown_key")),
        (json!({"kid": "ed' OR '1'='1"}), Err("unknown_key")),
        (json!({"kid": "x".repeat(2000)}), Err("unknown_key")),
    ] {
        assert_eq!(pull_with(&header(&more)), expected, "{more}");
    }
    for header in [
        r#"{"kid":"ed"}"#,
        r#"{"alg":"EdDSA","alg":"EdDSA","kid":"ed"}"#,
        r#"{"alg":"EdDSA","kid":"ed","kid":"ed"}"#,
        r#"{"alg":"EdDSA","kid":"ed","\u006bid":"ed"}"#,
        r#"["EdDSA",null,"ed"]"#,
        "{}",
        "",
    ] {
        assert_eq!(pull_with(header), Err("malformed_proof"), "{header}");
    }
    assert_eq!(pull_with(r#"{"alg":"EdDSA"}"#), Err("unknown_key"), "there are three");
}

#[test]
fn the_header_says_nothing_else() {
    let mine = Key::generate(Algorithm::EdDSA);
    for more in [
        json!({}),
        json!({"typ": "jwt"}),
        json!({"typ": "application/at+jwt"}),
        json!({"x5t": "abc", "x5t#S256": "abc"}),
    ] {
        assert_eq!(pull_with(&header(&more)), Ok(()), "{more}");
    }
    for more in [
        json!({"typ": "relay-read+jwt"}),
        json!({"typ": "Relay-Read+JWT"}),
        json!({"typ": "application/relay-read+jwt"}),
        json!({"typ": "logout+jwt"}),
        json!({"typ": ""}),
        json!({"typ": null}),
        json!({"typ": ["JWT"]}),
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({"alg": "eddsa"}),
        json!({"alg": {"EdDSA": null}}),
        json!({"alg": "ES384"}),
        json!({"alg": "PS256"}),
        json!({"alg": "RS512"}),
        json!({"jwk": mine.jwk("ed")}),
        json!({"jku": "https://evil.example.org/keys"}),
        json!({"x5u": "https://evil.example.org/cert"}),
        json!({"x5c": []}),
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"b64": false}),
        json!({"cty": "JWT"}),
        json!({"zip": "DEF"}),
    ] {
        let header = header(&more);
        assert_eq!(pull_with(&header), Err("malformed_proof"), "{header}");
        // Whoever brings a key gets no further.
        let brought = mine.sign(&header, &claims().to_string());
        assert_eq!(pull(&policy(), "bob", &brought), Err("malformed_proof"), "{header}");
    }
}

/// The public keys are public: nothing that is computed from them opens a name.
#[test]
fn a_public_key_is_no_shared_secret() {
    for (key, kid) in [(&*ED, "ed"), (&*EC, "ec"), (&*RSA, "rsa")] {
        let jwk = key.jwk(kid);
        let coordinate = |name: &str| jwk[name].as_str().unwrap_or("x").as_bytes().to_vec();
        let secrets = [
            key.pem.clone().into_bytes(),
            key.der.clone(),
            jwk.to_string().into_bytes(),
            coordinate("x"),
            coordinate("n"),
        ];
        for secret in secrets {
            for alg in ["HS256", "EdDSA", "ES256", "RS256"] {
                let header = json!({"alg": alg, "kid": kid}).to_string();
                let signed = format!("{}.{}", encode(header), encode(claims().to_string()));
                let hmac = jsonwebtoken::crypto::sign(
                    signed.as_bytes(),
                    &EncodingKey::from_secret(&secret).unwrap(),
                    Algorithm::HS256,
                );
                assert!(
                    pull(&policy(), "bob", &format!("{signed}.{}", hmac.unwrap())).is_err(),
                    "{kid} {alg}"
                );
            }
        }
    }
}

#[test]
fn the_algorithm_is_that_of_the_key() {
    let kids = [(&*ED, "ed"), (&*EC, "ec"), (&*RSA, "rsa")];
    for (signer, own) in kids {
        for (_, kid) in kids {
            for alg in ["EdDSA", "ES256", "RS256"] {
                let token = signer.sign(&json!({"alg": alg, "kid": kid}).to_string(), &claims().to_string());
                let is_right = kid == own && alg == format!("{:?}", signer.algorithm);
                let outcome = pull(&policy(), "bob", &token);
                assert_eq!(outcome.is_ok(), is_right, "{own} {kid} {alg}");
                assert!(
                    outcome.is_ok() || matches!(outcome, Err("unknown_key" | "wrong_signature")),
                    "{outcome:?}"
                );
            }
        }
    }
    let es384 = P384.sign(&json!({"alg": "ES256", "kid": "ec"}).to_string(), &claims().to_string());
    assert_eq!(pull(&policy(), "bob", &es384), Err("wrong_signature"));
}

#[test]
fn a_signature_is_for_its_own_token() {
    let policy = policy();
    for (key, kid) in [(&*ED, "ed"), (&*EC, "ec"), (&*RSA, "rsa")] {
        let (good, other) = (key.token(kid, &claims()), key.token(kid, &claims_with(&json!({"sub": "2"}))));
        assert_eq!(pull(&policy, "bob", &good), Ok(()));
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let (_, others) = other.rsplit_once('.').unwrap();
        let swapped = format!("{signed}.{others}");
        let stranger = Key::generate(key.algorithm).token(kid, &claims());
        let zeros = format!("{signed}.{}", encode([0; 64]));
        for token in [&*swapped, &stranger, &zeros, &format!("{signed}.")] {
            assert_eq!(pull(&policy, "bob", token), Err("wrong_signature"), "{kid}");
        }
        for token in [
            signed.to_owned(),
            format!("{good}."),
            format!(".{good}"),
            format!("{good}.{signature}"),
            format!("{good}="),
            good.replace('.', " . "),
            good.replace('.', ".."),
            ".".to_owned(),
            "..".to_owned(),
            "a.b.c".to_owned(),
        ] {
            assert_eq!(pull(&policy, "bob", &token), Err("malformed_proof"), "{token}");
        }
    }
    let huge = ED.token("ed", &claims_with(&json!({"x": "x".repeat(4096)})));
    assert_eq!(pull(&policy, "bob", &huge), Err("malformed_proof"));
    let deep = format!(
        "{},\"x\":{}{}}}",
        claims().to_string().strip_suffix('}').unwrap(),
        "[".repeat(800),
        "]".repeat(800)
    );
    let _ = pull(&policy, "bob", &ED.sign(r#"{"alg":"EdDSA","kid":"ed"}"#, &deep));
}

#[test]
fn a_verified_token_still_expires() {
    let (policy, token) = (policy(), bearer(&ED.token("ed", &claims())));
    let at =
        |now: u64| policy.may(Operation::Pull, "bob", &token, now * 1000).map_err(|refusal| refusal.reason());
    assert!(at(NOW).is_ok() && at(NOW + 660).is_ok());
    assert_eq!(at(NOW + 661), Err("token_expired"));
}

/// Verified tokens are remembered, but not beyond their key.
#[test]
fn a_token_ends_with_its_key() {
    let (old, new) = (Key::generate(Algorithm::EdDSA), Key::generate(Algorithm::EdDSA));
    let keys = |keys: &[Value]| Jwks::parse(&key_set(keys)).unwrap();
    let issuer = Issuer::new(ISSUER, keys(&[old.jwk("1"), EC.jwk("ec")]));
    let policy = policy_of(PlainNames::Token, PushPlain::Token, Some(issuer.clone()));
    let token = old.token("1", &claims());
    assert_eq!(pull(&policy, "bob", &token), Ok(()));
    issuer.replace_keys(keys(&[EC.jwk("ec"), old.jwk("1"), new.jwk("2")]));
    assert_eq!(pull(&policy, "bob", &token), Ok(()), "the key is still there");
    issuer.replace_keys(keys(&[EC.jwk("ec"), new.jwk("2")]));
    assert_eq!(pull(&policy, "bob", &token), Err("unknown_key"));
    issuer.replace_keys(keys(&[EC.jwk("ec"), new.jwk("1")]));
    assert_eq!(pull(&policy, "bob", &token), Err("wrong_signature"), "another key has its kid");
    assert_eq!(pull(&policy, "bob", &new.token("1", &claims())), Ok(()));
    // A token without a kid means the only key.
    let nameless = new.sign(r#"{"alg":"EdDSA"}"#, &claims().to_string());
    assert_eq!(pull(&policy, "bob", &nameless), Err("unknown_key"));
    let mut jwk = new.jwk("x");
    jwk.as_object_mut().unwrap().remove("kid");
    issuer.replace_keys(keys(&[jwk]));
    assert_eq!(pull(&policy, "bob", &nameless), Ok(()));
    assert_eq!(pull(&policy, "bob", &new.token("x", &claims())), Err("unknown_key"));
    assert!(matches!(bearer(&nameless), Proof::IssuerToken(_)));
}
