//! What a proof costs a request: to read the header, to find its owner for the rate limit, and to
//! decide. `cargo bench -p relay-auth`.

#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use ed25519_dalek::{Signer as _, SigningKey};
use relay_auth::{CertifiedNames, Locks, Operation, Policy, Settings, Verification, keygen};

const NOW: u64 = 1_800_000_000;
const AUDIENCE: &str = "https://relay.example.org";

fn policy() -> Policy {
    Policy::new(Settings { audiences: vec![AUDIENCE.to_owned()], ..Settings::default() })
}

/// One request, as relay-http asks.
fn request(policy: &Policy, name: &str, header: Option<&str>) -> bool {
    let proof = policy.proof(header.iter().map(|header| header.as_bytes()));
    let known =
        policy.owner(Operation::Pull, &proof, &CertifiedNames::NONE, NOW * 1000, Verification::Earlier);
    let granted = policy.may(Operation::Pull, name, &proof, NOW * 1000).is_ok();
    let proven = policy.owner(Operation::Pull, &proof, &CertifiedNames::NONE, NOW * 1000, Verification::Now);
    granted && known == proven
}

fn token(name: &str, key: &SigningKey, number: u64) -> String {
    let (from, until) = (NOW - number % 300, NOW + 200);
    let claims = format!(r#"{{"iss":"{name}","aud":"{AUDIENCE}","iat":{from},"exp":{until}}}"#);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","typ":"relay-read+jwt"}"#);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
    format!("Bearer {signed}.{signature}")
}

fn proofs(criterion: &mut Criterion) {
    let policy = policy();
    criterion
        .bench_function("plain name, no proof", |bencher| bencher.iter(|| request(&policy, "alice", None)));
    let (read, secret) = keygen::secret_lock(&[7; 32]);
    let (name, header) = (Locks { read, send: None }.to_string(), format!("Bearer {secret}"));
    assert!(request(&policy, &name, Some(&header)));
    criterion.bench_function("secret", |bencher| bencher.iter(|| request(&policy, &name, Some(&header))));
    let (read, _) = keygen::key_lock(&[7; 32]);
    let (name, key) = (Locks { read, send: None }.to_string(), SigningKey::from_bytes(&[7; 32]));
    let header = token(&name, &key, 0);
    assert!(!request(&policy, &name, Some(&header)) && request(&policy, &name, Some(&header)));
    criterion.bench_function("token, verified earlier", |bencher| {
        bencher.iter(|| request(&policy, &name, Some(&header)));
    });
    let forged = token(&name, &SigningKey::from_bytes(&[8; 32]), 0);
    criterion.bench_function("token, wrong signature", |bencher| {
        bencher.iter(|| request(&policy, &name, Some(&forged)));
    });
}

criterion_group!(benches, proofs);
criterion_main!(benches);
