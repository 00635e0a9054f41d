//! Random tokens, names, key sets and certificates.

use proptest::prelude::*;
use relay_auth::{CertifiedNames, Jwks, Operation};
use serde_json::json;

use crate::support::{ED, NOW, bearer, certificate, claims, claims_with, may, policy, pull};

/// Short names, so that some of them are equal.
const NAME: &str = "[a-c]{0,2}|sha256:[a-c]|.{0,8}";

fn encoded(name: &str) -> String {
    let escaped: String = name.bytes().map(|byte| format!("%{byte:02x}")).collect();
    format!("relay:{escaped}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_token_opens_what_it_lists_and_nothing_else(
        read in prop::collection::vec(NAME, 0..5),
        send in prop::option::of(prop::collection::vec(NAME, 0..5)),
        name in NAME,
    ) {
        let sends = send.as_ref().map_or(json!(true), |names| json!(names));
        let token = ED.token("ed", &claims_with(&json!({"relay": {"read": read, "send": sends}})));
        let policy = policy();
        let is_like_a_lock = name.starts_with("sha256:");
        let reads = read.contains(&name) && !is_like_a_lock;
        let sends = (send.is_none_or(|names| names.contains(&name)) || reads) && !is_like_a_lock;
        prop_assert_eq!(pull(&policy, &name, &token).is_ok(), reads);
        prop_assert_eq!(may(&policy, Operation::Push, &name, &token).is_ok(), sends);
    }

    #[test]
    fn a_changed_token_opens_nothing(at: prop::sample::Index, bit in 0..7_u32) {
        let mut bytes = ED.token("ed", &claims()).into_bytes();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let changed = String::from_utf8(bytes).unwrap();
        prop_assert!(pull(&policy(), "bob", &changed).is_err());
    }

    #[test]
    fn a_certificate_opens_its_names_and_nothing_else(
        certified in prop::collection::vec(NAME, 0..5),
        uris in prop::collection::vec("(relay:)?.{0,12}", 0..5),
        name in NAME,
    ) {
        let all: Vec<_> = certified.iter().map(|name| encoded(name)).collect();
        let names = certificate(&all.iter().map(String::as_str).collect::<Vec<_>>());
        let opened = policy().may_with_certificate(Operation::Pull, &name, &bearer("x"), &names, NOW * 1000);
        let is_listed = certified.contains(&name) && !name.is_empty() && !name.starts_with("sha256:");
        prop_assert_eq!(opened.is_ok(), is_listed);
        let _ = CertifiedNames::from_uris(uris.iter().map(String::as_str));
    }

    #[test]
    fn no_bytes_panic(value: Vec<u8>, text in ".{0,64}") {
        let _ = Jwks::parse(&value);
        let _ = Jwks::parse(format!(r#"{{"keys":[{{"kty":"RSA","n":"{text}","e":"AQAB"}}]}}"#).as_bytes());
        let _ = pull(&policy(), "bob", &text);
    }
}
