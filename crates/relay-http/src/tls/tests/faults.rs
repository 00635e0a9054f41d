//! Tests the message of each fault of a TLS file.

use std::fs;

use super::pki::{Ca, Disk, Leaf};
use crate::tls::{Tls, TlsError, TlsFault};

const RSA_KEY: &str = include_str!("fixtures/rsa-pkcs1.test-key.pem");
const ENCRYPTED_PKCS8: &str = include_str!("fixtures/ec-encrypted-pkcs8.test-key.pem");
const ENCRYPTED_SEC1: &str = include_str!("fixtures/ec-encrypted-sec1.test-key.pem");

/// The file that a case overwrites.
#[derive(Clone, Copy)]
enum Target {
    Cert,
    Key,
    ClientCa,
    ClientCrl,
}

use Target::{Cert, ClientCa, ClientCrl, Key};

/// Overwrites one file at a time, and checks the error that loading reports about it.
fn check_faults(ca: &Ca, leaf: &Leaf, cases: &[(Target, &str, &str)]) {
    for (target, content, message) in cases {
        let disk = Disk::with(leaf).and_clients_of(ca).and_revoked(&ca.crl(&[7], 4000));
        let path = match target {
            Cert => disk.paths.cert_pem.clone(),
            Key => disk.paths.key_pem.clone(),
            ClientCa => disk.paths.client_ca_pem.clone().unwrap(),
            ClientCrl => disk.paths.client_crl_pem.clone().unwrap(),
        };
        fs::write(&path, content).unwrap();
        check(&Tls::load(disk.paths.clone()).unwrap_err(), &path.display().to_string(), message);
    }
}

fn first_lines(pem: &str) -> String {
    pem.lines().take(3).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_file_without_content_or_of_excessive_size_is_reported() {
    let ca = Ca::new("CA");
    let huge = "x".repeat((1 << 20) + 1);
    let cases = [Cert, Key, ClientCa, ClientCrl].map(|target| {
        [
            (target, "", "is empty"),
            (target, " \n\n", "is empty"),
            (target, huge.as_str(), "is larger than 1048576 bytes"),
        ]
    });
    check_faults(&ca, &ca.leaf(), cases.as_flattened());
}

#[test]
fn faults_of_certificates_are_reported() {
    let ca = Ca::new("CA");
    let leaf = ca.leaf();
    let truncated = first_lines(&leaf.cert);
    let not_base64 = leaf.cert.replace('M', "!");
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let second_is_bad = format!("{}{not_der}", ca.pem());
    let cases: &[(Target, &str, &str)] = &[
        (Cert, "hello\n", "contains no certificate"),
        (Cert, &leaf.key, "contains no certificate"),
        (ClientCa, &leaf.key, "contains no certificate"),
        (Cert, &truncated, "its END line is missing"),
        (ClientCa, &truncated, "its END line is missing"),
        (Cert, &not_base64, "its base64 is invalid"),
        (Cert, not_der, "contains a certificate, number 1, that is malformed"),
        (Cert, &second_is_bad, "contains a certificate, number 2, that is malformed"),
        (ClientCa, &second_is_bad, "contains a certificate, number 2, that is malformed"),
    ];
    check_faults(&ca, &leaf, cases);
}

#[test]
fn faults_of_keys_are_reported() {
    let ca = Ca::new("CA");
    let leaf = ca.leaf();
    let not_der = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let cases: &[(Target, &str, &str)] = &[
        (Key, "hello\n", "contains no private key"),
        (Key, &leaf.cert, "contains no private key"),
        (Key, not_der, "contains a private key that is malformed or not supported"),
        (Key, ENCRYPTED_PKCS8, "contains an encrypted private key"),
        (Key, ENCRYPTED_SEC1, "contains an encrypted private key"),
        (Key, &ca.leaf().key, "does not belong to the first certificate in"),
    ];
    check_faults(&ca, &leaf, cases);
}

#[test]
fn faults_of_revocation_lists_are_reported() {
    let ca = Ca::new("CA");
    let leaf = ca.leaf();
    let list = ca.crl(&[7], 4000);
    let truncated = first_lines(&list);
    let not_der = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let second_is_bad = format!("{list}{not_der}");
    let malformed = "contains a revocation list that is malformed or not supported: ";
    let cases: &[(Target, &str, &str)] = &[
        (ClientCrl, &leaf.cert, "contains no revocation list (no PEM block `BEGIN X509 CRL`)"),
        (ClientCrl, &truncated, "its END line is missing"),
        (ClientCrl, not_der, malformed),
        (ClientCrl, &second_is_bad, malformed),
    ];
    check_faults(&ca, &leaf, cases);
}

#[test]
fn a_missing_file_or_a_directory_is_named() {
    let ca = Ca::new("CA");
    let disk = Disk::with(&ca.leaf()).and_clients_of(&ca).and_revoked(&ca.crl(&[], 4000));
    let (missing, directory) = (disk.path("missing.pem"), disk.path(""));
    for (path, message) in [(missing, "cannot be read: No such file"), (directory, "is not a regular file")] {
        let mut variants = [(); 4].map(|()| disk.paths.clone());
        variants[0].cert_pem = path.clone();
        variants[1].key_pem = path.clone();
        variants[2].client_ca_pem = Some(path.clone());
        variants[3].client_crl_pem = Some(path.clone());
        for paths in variants {
            check(&Tls::load(paths).unwrap_err(), &path.display().to_string(), message);
        }
    }
}

#[test]
fn a_mismatch_names_both_files() {
    let ca = Ca::new("CA");
    let mut leaf = ca.leaf();
    leaf.cert = ca.leaf().cert;
    let disk = Disk::with(&leaf);
    let error = Tls::load(disk.paths.clone()).unwrap_err();
    assert!(matches!(&error.fault, TlsFault::KeyMismatch { cert_pem } if *cert_pem == disk.paths.cert_pem));
    assert_eq!(error.path, disk.paths.key_pem);
    assert!(error.to_string().contains(&disk.paths.cert_pem.display().to_string()), "{error}");
}

#[test]
fn a_key_without_line_breaks_is_not_quoted() {
    let ca = Ca::new("CA");
    let mut leaf = ca.leaf_for(RSA_KEY);
    let first_removed = RSA_KEY.replacen('\n', "", 1);
    let all_removed = RSA_KEY.replace('\n', "");
    for (key, message) in
        [(first_removed, "its BEGIN line is malformed"), (all_removed, "its END line is missing")]
    {
        leaf.key = key;
        let disk = Disk::with(&leaf);
        let error = Tls::load(disk.paths.clone()).unwrap_err();
        check(&error, &disk.paths.key_pem.display().to_string(), message);
        // `MII`, the begin of every RSA key, as text and as a list of bytes.
        let text = format!("{error} {error:?}");
        assert!(!text.contains("MII") && !text.contains("77, 73, 73"), "{text}");
    }
}

fn check(error: &TlsError, path: &str, message: &str) {
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("TLS file {path}: ")) && text.contains(message),
        "{text}\ndoes not contain: {message}"
    );
}
