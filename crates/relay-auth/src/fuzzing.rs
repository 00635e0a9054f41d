//! Entry points for fuzzers and their tests: arbitrary names, headers, key sets and certificates.
//! Compiled only with the feature `fuzzing`.

#[cfg(feature = "issuer")]
mod issuer;

#[cfg(feature = "issuer")]
pub use self::issuer::{issuer_token, jwks};

use relay_core::Operation;

use crate::certified_names::CertifiedNames;
use crate::name::{Locks, ReadLock};
use crate::policy::{Policy, Settings};
use crate::proof::Proof;

/// The time of all tokens in fuzz/corpus, in milliseconds since 1970.
const NOW_MS: u64 = 1_800_000_300_000;

/// A recipient's name. A name with a lock has one spelling.
pub fn lock(data: &[u8]) {
    let Ok(name) = str::from_utf8(data) else { return };
    let is_like_a_lock = name.starts_with("sha256:") || name.starts_with("ed25519:");
    match Locks::of(name) {
        Ok(Locks::NONE) => assert!(!is_like_a_lock, "a lock was taken for a plain name"),
        Ok(locks) => assert_eq!(locks.to_string(), name, "a lock has two spellings"),
        Err(_) => assert!(is_like_a_lock, "a plain name was refused"),
    }
}

/// A recipient's name and the value of `Authorization`, separated by a line feed. Only a proof for
/// this name opens it.
pub fn proof(data: &[u8]) {
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (Some(name), Some(value)) = (parts.next(), parts.next()) else { return };
    let Ok(name) = str::from_utf8(name) else { return };
    let proof = Proof::parse(std::iter::once(value));
    let audiences = vec!["https://relay.example.org".to_owned()];
    let policy = Policy::new(Settings { audiences, ..Settings::default() });
    let is_open = policy.may(Operation::Pull, name, &proof, NOW_MS).is_ok();
    assert_eq!(
        is_open,
        policy.may(Operation::Pull, name, &proof, NOW_MS).is_ok(),
        "the cache changes the answer"
    );
    let Ok(locks) = Locks::of(name) else { return assert!(!is_open) };
    let expected = match (&proof, locks.read) {
        (_, ReadLock::Plain) => true,
        (Proof::Secret(secret), ReadLock::Secret(lock)) => secret.read_digest() == lock,
        (Proof::ReadToken(token), ReadLock::Key(_)) => {
            token.name() == name && token.verify().is_ok() && is_open
        }
        _ => false,
    };
    assert_eq!(is_open, expected, "a name opened to a wrong proof, or not to its own");
}

/// The URIs of a certificate, one per line. What is read is what their encoding says, and every
/// name has an encoding.
pub fn certificate(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    let uris: Vec<_> = text.split('\n').collect();
    let Ok(names) = CertifiedNames::from_uris(uris.iter().copied()) else { return };
    for uri in uris {
        let Ok(alone) = CertifiedNames::from_uris([uri]) else { return };
        assert!(!alone.contains(""), "an empty name was read");
        match uri.strip_prefix("relay:") {
            None => assert!(alone.is_empty(), "another URI has a name"),
            Some(rest) if rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) && !rest.is_empty() => {
                assert!(names.contains(rest) && alone.contains(rest), "a simple name was not read");
            }
            Some(rest) => assert!(rest.is_ascii() || alone.is_empty(), "a URI has other characters"),
        }
    }
    if !text.is_empty() && text.len() <= 512 {
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let names = CertifiedNames::from_uris([&*format!("relay:{encoded}")]);
        assert!(names.is_ok_and(|names| names.contains(text)), "an encoded name reads back differently");
    }
}
