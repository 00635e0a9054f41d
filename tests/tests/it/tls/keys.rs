//! Private keys in every form that certificate tools write.

use super::openssl::openssl;
use super::pki::{Authority, Files};
use super::relay;
use super::wire::ask;

/// Serves with a key that a command makes, in a form that is known by its first line.
fn serves_with(arguments: &[&str], begin: &str) {
    let Some(made) = openssl(arguments, "") else { return };
    let key = String::from_utf8(made.stdout).unwrap();
    assert!(key.starts_with(begin), "{arguments:?} made {key}");
    let authority = Authority::new("authority");
    let identity = authority.identity_of(&key);
    let relay = relay(&Files::new(&identity));
    let heard = ask(&relay.base_url, &authority.client(None)).unwrap();
    assert!(heard.is_ok(), "{heard:?}");
    assert_eq!(heard.certificate, identity.cert_der());
}

#[test]
fn pkcs_8_serves() {
    serves_with(
        &["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"],
        "-----BEGIN PRIVATE KEY-----",
    );
    serves_with(
        &["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        "-----BEGIN PRIVATE KEY-----",
    );
    serves_with(&["genpkey", "-algorithm", "ED25519"], "-----BEGIN PRIVATE KEY-----");
}

#[test]
fn sec_1_serves() {
    let make = ["ecparam", "-name", "prime256v1", "-genkey", "-noout"];
    serves_with(&make, "-----BEGIN EC PRIVATE KEY-----");
    // With its parameters in a block of their own before the key, as the command writes it unless
    // told otherwise.
    serves_with(&make[..4], "-----BEGIN EC PARAMETERS-----");
}

#[test]
fn pkcs_1_serves() {
    serves_with(&["genrsa", "-traditional", "2048"], "-----BEGIN RSA PRIVATE KEY-----");
}
