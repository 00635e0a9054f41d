//! Each way in which a file can be no good, and the words that the operator reads.

use std::fs;

use super::pki::{Ca, Disk};
use crate::tls::{Tls, TlsError, TlsFault};

const RSA_KEY: &str = include_str!("fixtures/rsa-pkcs1.test-key.pem");
const ENCRYPTED_PKCS8: &str = include_str!("fixtures/ec-encrypted-pkcs8.test-key.pem");
const ENCRYPTED_SEC1: &str = include_str!("fixtures/ec-encrypted-sec1.test-key.pem");

/// Which of the four files a case spoils.
#[derive(Clone, Copy)]
enum Spoilt {
    Cert,
    Key,
    ClientCa,
    ClientCrl,
}

#[test]
fn every_fault_names_the_file_and_what_is_wrong() {
    use Spoilt::{Cert, ClientCa, ClientCrl, Key};
    let ca = Ca::new("CA");
    let leaf = ca.leaf();
    let key_of_another = ca.leaf().key;
    let cut_short = leaf.cert.lines().take(3).collect::<Vec<_>>().join("\n");
    let damaged = leaf.cert.replace('M', "!");
    let not_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let second_is_bad = format!("{}{not_der}", ca.pem());
    let not_a_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let list = ca.crl(&[7], 4000);
    let cut_list = list.lines().take(3).collect::<Vec<_>>().join("\n");
    let not_a_list = "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n";
    let second_list_is_bad = format!("{list}{not_a_list}");
    let huge = "x".repeat((1 << 20) + 1);
    let cases: [(Spoilt, &str, &str); 27] = [
        (Cert, "", "is empty"),
        (Key, " \n\n", "is empty"),
        (ClientCa, "", "is empty"),
        (Cert, "hello\n", "holds no certificate"),
        (Cert, &leaf.key, "holds no certificate"),
        (ClientCa, &leaf.key, "holds no certificate"),
        (Cert, &cut_short, "its END line is missing"),
        (ClientCa, &cut_short, "its END line is missing"),
        (Cert, &damaged, "its base64 is invalid"),
        (Cert, not_der, "certificate number 1 in it is damaged"),
        (Cert, &second_is_bad, "certificate number 2 in it is damaged"),
        (ClientCa, &second_is_bad, "certificate number 2 in it is damaged"),
        (Key, "hello\n", "holds no private key"),
        (Key, &leaf.cert, "holds no private key"),
        (Key, not_a_key, "holds a private key that is damaged or of a kind that is not supported"),
        (Key, ENCRYPTED_PKCS8, "holds an encrypted private key"),
        (Key, ENCRYPTED_SEC1, "holds an encrypted private key"),
        (Key, &key_of_another, "does not belong to the first certificate in"),
        (Cert, &huge, "is larger than 1048576 bytes"),
        (Key, &huge, "is larger than 1048576 bytes"),
        (ClientCa, &huge, "is larger than 1048576 bytes"),
        (ClientCrl, "", "is empty"),
        (ClientCrl, &leaf.cert, "holds no revocation list (no PEM block `BEGIN X509 CRL`)"),
        (ClientCrl, &cut_list, "its END line is missing"),
        (
            ClientCrl,
            not_a_list,
            "holds a revocation list that is damaged or of a kind that is not supported: ",
        ),
        (
            ClientCrl,
            &second_list_is_bad,
            "holds a revocation list that is damaged or of a kind that is not supported: ",
        ),
        (ClientCrl, &huge, "is larger than 1048576 bytes"),
    ];
    for (spoilt, content, words) in cases {
        let disk = Disk::with(&leaf).and_clients_of(&ca).and_revoked(&list);
        let path = match spoilt {
            Cert => disk.paths.cert_pem.clone(),
            Key => disk.paths.key_pem.clone(),
            ClientCa => disk.paths.client_ca_pem.clone().unwrap(),
            ClientCrl => disk.paths.client_crl_pem.clone().unwrap(),
        };
        fs::write(&path, content).unwrap();
        check(&Tls::load(disk.paths.clone()).unwrap_err(), &path.display().to_string(), words);
    }
}

#[test]
fn a_file_that_is_missing_or_a_directory_is_named() {
    let ca = Ca::new("CA");
    let whole = Disk::with(&ca.leaf()).and_clients_of(&ca).and_revoked(&ca.crl(&[], 4000));
    let (missing, directory) = (whole.path("missing.pem"), whole.path(""));
    for (path, words) in [(missing, "cannot be read: No such file"), (directory, "is not a regular file")] {
        let mut spoilt = [(); 4].map(|()| whole.paths.clone());
        spoilt[0].cert_pem = path.clone();
        spoilt[1].key_pem = path.clone();
        spoilt[2].client_ca_pem = Some(path.clone());
        spoilt[3].client_crl_pem = Some(path.clone());
        for paths in spoilt {
            check(&Tls::load(paths).unwrap_err(), &path.display().to_string(), words);
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
fn a_key_that_lost_its_line_breaks_is_not_quoted() {
    let ca = Ca::new("CA");
    let mut leaf = ca.leaf_for(RSA_KEY);
    let first_lost = RSA_KEY.replacen('\n', "", 1);
    let all_lost = RSA_KEY.replace('\n', "");
    for (key, words) in [(first_lost, "its BEGIN line is malformed"), (all_lost, "its END line is missing")] {
        leaf.key = key;
        let disk = Disk::with(&leaf);
        let error = Tls::load(disk.paths.clone()).unwrap_err();
        check(&error, &disk.paths.key_pem.display().to_string(), words);
        // As text and as a list of bytes: `MII`, with which every RSA key begins.
        let told = format!("{error} {error:?}");
        assert!(!told.contains("MII") && !told.contains("77, 73, 73"), "{told}");
    }
}

fn check(error: &TlsError, path: &str, words: &str) {
    let text = error.to_string();
    assert!(
        text.starts_with(&format!("TLS file {path}: ")) && text.contains(words),
        "{text}\nlacks: {words}"
    );
}
