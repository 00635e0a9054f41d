//! Sets of keys that can be used, and others.

use relay_auth::{JWKS_BYTES_MAX, Jwks, JwksError, KeyFault};
use serde_json::{Value, json};

use crate::support::{EC, ED, P384, RSA, encode, key_set};

fn parse(keys: &[Value]) -> Result<Vec<usize>, JwksError> {
    Jwks::parse(&key_set(keys)).map(|set| set.skipped().to_vec())
}

fn with(mut jwk: Value, changes: &Value) -> Value {
    jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    jwk
}

fn without(mut jwk: Value, name: &str) -> Value {
    jwk.as_object_mut().unwrap().remove(name).unwrap();
    jwk
}

/// The fault of a key that follows a good one.
fn fault(jwk: Value) -> Option<KeyFault> {
    match parse(&[ED.jwk("good"), jwk]) {
        Err(JwksError::Key { number: 2, fault }) => Some(fault),
        Ok(skipped) if skipped.is_empty() => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_of_other_kinds_are_skipped() {
    let ps256 = with(RSA.jwk("a"), &json!({"alg": "PS256"}));
    let x25519 = with(ED.jwk("b"), &json!({"crv": "X25519"}));
    let unknown = json!({"kty": "AKP", "alg": "ML-DSA-65", "kid": "c", "pub": "x"});
    let keys = [ps256, ED.jwk("ed"), P384.jwk("p384"), x25519, EC.jwk("ec"), unknown, RSA.jwk("rsa")];
    assert_eq!(parse(&keys), Ok(vec![1, 3, 4, 6]));
    assert_eq!(parse(&keys[..1]), Err(JwksError::NoKey));
    assert_eq!(parse(&[]), Err(JwksError::NoKey));
    for extra in
        [json!({"use": "sig"}), json!({"key_ops": ["verify"]}), json!({"x5c": ["x"], "x5t": "y", "z": [1]})]
    {
        assert_eq!(fault(with(EC.jwk("ec"), &extra)), None, "{extra}");
    }
    assert_eq!(fault(without(EC.jwk("ec"), "alg")), None);
}

#[test]
fn dangerous_and_unclear_keys_are_refused_by_their_position() {
    let oct = json!({"kty": "oct", "kid": "x", "k": encode([1; 32])});
    for private in [
        oct.clone(),
        without(oct, "k"),
        with(ED.jwk("x"), &json!({"d": encode([1; 32])})),
        with(RSA.jwk("x"), &json!({"p": "AQ"})),
        with(EC.jwk("x"), &json!({"k": "AQ"})),
        with(P384.jwk("x"), &json!({"d": 1})),
    ] {
        assert_eq!(fault(private), Some(KeyFault::NotPublic));
    }
    for other in
        [json!({"use": "enc"}), json!({"use": ""}), json!({"key_ops": ["encrypt"]}), json!({"key_ops": []})]
    {
        assert_eq!(fault(with(RSA.jwk("x"), &other)), Some(KeyFault::NotForSignatures), "{other}");
    }
    assert_eq!(fault(EC.jwk("good")), Some(KeyFault::RepeatedKid));
    assert_eq!(fault(without(EC.jwk("x"), "kid")), Some(KeyFault::NoKid));
    for malformed in [
        json!({"kid": "x"}),
        without(ED.jwk("x"), "x"),
        without(EC.jwk("x"), "y"),
        with(ED.jwk("x"), &json!({"x": 1})),
        with(ED.jwk("x"), &json!({"kid": 1})),
        with(ED.jwk("x"), &json!({"kty": ["OKP"]})),
        with(ED.jwk("x"), &json!({"alg": null})),
        with(ED.jwk("x"), &json!({"key_ops": "verify"})),
        with(ED.jwk("x"), &json!({"x": encode([1; 31])})),
        with(ED.jwk("x"), &json!({"x": "not base64url!"})),
        // The point of order 1, for which everybody can sign.
        with(ED.jwk("x"), &json!({"x": encode([&[1][..], &[0; 31]].concat())})),
        with(EC.jwk("x"), &json!({"x": encode([1; 33])})),
    ] {
        assert_eq!(fault(malformed.clone()), Some(KeyFault::Malformed), "{malformed}");
    }
    let text = parse(&[ED.jwk("secret-kid"), EC.jwk("secret-kid")]).unwrap_err().to_string();
    assert_eq!(text, "has a key, number 2, that has the kid of an earlier one");
}

#[test]
fn rsa_keys_have_usual_sizes() {
    let modulus = |bytes: usize, first: u8| encode([&[first][..], &vec![0xff; bytes - 1]].concat());
    let rsa = |n: String, e: &str| json!({"kty": "RSA", "kid": "x", "n": n, "e": e});
    for (key, expected) in [
        (rsa(modulus(256, 0x80), "AQAB"), None),
        (rsa(modulus(1024, 0xff), "AQAB"), None),
        (rsa(format!("AAAA{}", modulus(258, 0x80)), "AAAB"), Some(KeyFault::RsaSize)),
        (rsa(modulus(256, 0x7f), "AQAB"), Some(KeyFault::RsaSize)),
        (rsa(modulus(128, 0xff), "AQAB"), Some(KeyFault::RsaSize)),
        (rsa(modulus(1025, 0x01), "AQAB"), Some(KeyFault::RsaSize)),
        (rsa(String::new(), "AQAB"), Some(KeyFault::RsaSize)),
        (rsa(modulus(256, 0x80), "AQ"), Some(KeyFault::RsaSize)),
        (rsa(modulus(256, 0x80), ""), Some(KeyFault::RsaSize)),
        (rsa(modulus(256, 0x80), "AAAA"), Some(KeyFault::RsaSize)),
        (rsa(modulus(256, 0x80), "BA"), Some(KeyFault::RsaSize)),
        (rsa(modulus(256, 0x80), &encode([0xff; 5])), Some(KeyFault::RsaSize)),
    ] {
        assert_eq!(fault(key.clone()), expected, "{key}");
    }
}

#[test]
fn what_is_no_set_is_refused() {
    let good = ED.jwk("ed").to_string();
    for text in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":null}"#,
        r#"{"keys":[[]]}"#,
        r#"{"keys":["x"]}"#,
        "-----BEGIN PUBLIC KEY-----",
        &good,
        &format!("[[{good}]]"),
        &format!(r#"{{"keys":[{good}]}} x"#),
        &format!(r#"{{"keys":[{good}],"keys":[]}}"#),
        &format!(r#"{{"x":1,"keys":[{good}],"x":1}}"#),
        &format!(r#"{{"keys":[{},"kid":"ed"}}]}}"#, good.strip_suffix('}').unwrap()),
        &format!(r#"{{"keys":[{good}"#),
    ] {
        assert_eq!(Jwks::parse(text.as_bytes()).unwrap_err(), JwksError::Malformed, "{text}");
    }
    assert!(Jwks::parse(format!(r#" {{"x":1,"keys":[{good}]}} "#).as_bytes()).is_ok());
    let many: Vec<_> = (0..65).map(|number| ED.jwk(&number.to_string())).collect();
    assert_eq!(parse(&many[..64]), Ok(Vec::new()));
    assert_eq!(parse(&many), Err(JwksError::TooManyKeys));
    let padded = |bytes: usize| [key_set(&[ED.jwk("ed")]), vec![b' '; bytes]].concat();
    let rest = JWKS_BYTES_MAX - padded(0).len();
    assert!(Jwks::parse(&padded(rest)).is_ok());
    assert_eq!(Jwks::parse(&padded(rest + 1)).unwrap_err(), JwksError::TooLarge);
}
