//! Tests with private keys in every format that certificate tools write.

use super::openssl::openssl;
use super::pki::{Authority, TlsFiles};
use super::relay;
use super::wire::ask;

/// Serves with a key that an `openssl` command makes. `begin` is the first line of its format.
fn assert_key_works(arguments: &[&str], begin: &str) {
    let Some(output) = openssl(arguments, "") else { return };
    let key = String::from_utf8(output.stdout).unwrap();
    assert!(key.starts_with(begin), "{arguments:?} made {key}");
    let authority = Authority::new("authority");
    let identity = authority.identity_of(&key);
    let relay = relay(&TlsFiles::new(&identity));
    let response = ask(&relay.base_url, &authority.client(None)).unwrap();
    assert!(response.is_ok(), "{response:?}");
    assert_eq!(response.certificate, identity.cert_der());
}

#[test]
fn pkcs_8_keys_work() {
    assert_key_works(
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "-----BEGIN PRIVATE KEY-----",
    );
    assert_key_works(
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "-----BEGIN PRIVATE KEY-----",
    );
    assert_key_works(&["genpkey", "-algorithm", "ED25519"], "-----BEGIN PRIVATE KEY-----");
}

#[test]
fn sec_1_keys_work() {
    let make = ["ecparam", "-name", "prime256v1", "-genkey", "-noout"];
    assert_key_works(&make, "-----BEGIN EC PRIVATE KEY-----");
    // With the curve parameters in a separate block before the key, which is the command's default.
    assert_key_works(&make[..4], "-----BEGIN EC PARAMETERS-----");
}

#[test]
fn pkcs_1_keys_work() {
    assert_key_works(&["genrsa", "-traditional", "2048"], "-----BEGIN RSA PRIVATE KEY-----");
}
