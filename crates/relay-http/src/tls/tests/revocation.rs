//! Which clients are let in no more: by a revocation list, or because other CAs or lists are in
//! force than when they came.

use std::fs;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;

use super::pki::{Ca, Disk, Leaf, handshake};
use crate::tls::{Reload, Tls};

/// A server that lets in clients of these CAs, and what a client with this certificate is told.
fn refusal(disk: &Disk, server_ca: &Ca, leaf: &Leaf) -> Option<rustls::Error> {
    handshake(disk.load().server_config(), &server_ca.client(Some(leaf))).err()
}

fn chain(leaf: &Leaf) -> [CertificateDer<'static>; 1] {
    [leaf.cert_der()]
}

/// Whether the signal has changed since it was asked last.
fn has_changed(changes: &mut tokio::sync::watch::Receiver<u64>) -> bool {
    let changed = changes.has_changed().unwrap();
    changes.mark_unchanged();
    changed
}

#[test]
fn a_revoked_client_is_refused_and_others_are_not() {
    let (server_ca, clients, without_list) = (Ca::new("server CA"), Ca::new("clients"), Ca::new("no list"));
    let (revoked, good, other) =
        (clients.leaf_numbered(7), clients.leaf_numbered(8), without_list.leaf_numbered(7));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[7], 4000));
    fs::write(disk.paths.client_ca_pem.as_ref().unwrap(), clients.pem() + &without_list.pem()).unwrap();
    assert_eq!(refusal(&disk, &server_ca, &revoked), Some(CertificateError::Revoked.into()));
    assert_eq!(refusal(&disk, &server_ca, &good), None);
    assert_eq!(refusal(&disk, &server_ca, &other), None, "its CA has no list");
    // Several lists may stand in the file.
    disk.put_crl(&(clients.crl(&[7], 4000) + &without_list.crl(&[7, 9], 4000)));
    assert_eq!(refusal(&disk, &server_ca, &other), Some(CertificateError::Revoked.into()));
    assert_eq!(refusal(&disk, &server_ca, &good), None);
}

#[test]
fn a_list_that_is_late_goes_on_being_used() {
    let (server_ca, clients) = (Ca::new("server CA"), Ca::new("clients"));
    let (revoked, good) = (clients.leaf_numbered(7), clients.leaf_numbered(8));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[7], 2002));
    assert_eq!(refusal(&disk, &server_ca, &revoked), Some(CertificateError::Revoked.into()));
    assert_eq!(refusal(&disk, &server_ca, &good), None);
    assert_eq!(disk.load().0.in_force.load().crl_end_seconds, Some(1_009_843_200));
}

#[test]
fn a_list_that_its_ca_did_not_sign_lets_nobody_in() {
    let (server_ca, clients, forger) = (Ca::new("server CA"), Ca::new("clients"), Ca::new("clients"));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&forger.crl(&[], 4000));
    assert!(refusal(&disk, &server_ca, &clients.leaf_numbered(8)).is_some());
}

#[test]
fn a_list_is_replaced_and_who_stands_is_told() {
    let (server_ca, clients) = (Ca::new("server CA"), Ca::new("clients"));
    let (mallory, good) = (clients.leaf_numbered(7), clients.leaf_numbered(8));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[], 4000));
    let tls = disk.load();
    let mut changes = tls.client_trust_changes();
    assert!(tls.is_client_trusted(&chain(&mallory)) && tls.is_client_trusted(&chain(&good)));
    assert!(!tls.is_client_trusted(&[]), "nobody without a certificate");

    disk.put_crl(&clients.crl(&[7], 4000));
    assert!(!has_changed(&mut changes), "it is not in force yet");
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    assert!(has_changed(&mut changes));
    assert!(!tls.is_client_trusted(&chain(&mallory)) && tls.is_client_trusted(&chain(&good)));
    let refused = handshake(tls.server_config(), &server_ca.client(Some(&mallory))).err();
    assert_eq!(refused, Some(CertificateError::Revoked.into()));
}

#[test]
fn trust_changes_with_the_cas_in_force_and_with_nothing_else() {
    let (server_ca, old, new) = (Ca::new("server CA"), Ca::new("old clients"), Ca::new("new clients"));
    let (old_client, new_client) = (old.leaf(), new.leaf());
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&old);
    let tls = disk.load();
    let clone = tls.clone();
    let (mut changes, mut of_a_clone) = (tls.client_trust_changes(), clone.client_trust_changes());
    let mut reload = |tls: &Tls| {
        let outcome = tls.reload().ok();
        (outcome, has_changed(&mut changes))
    };

    assert_eq!(reload(&tls), (Some(Reload::Unchanged), false));
    disk.put(&server_ca.leaf());
    assert_eq!(reload(&tls), (Some(Reload::Changed), false), "another certificate of the server");
    fs::write(disk.paths.client_ca_pem.as_ref().unwrap(), "no CA").unwrap();
    assert_eq!(reload(&tls), (None, false), "what cannot be used changes nothing");
    assert!(tls.is_client_trusted(&chain(&old_client)));
    disk.put_client_ca(&new);
    assert_eq!(reload(&tls), (Some(Reload::Changed), true));
    assert!(!tls.is_client_trusted(&chain(&old_client)) && tls.is_client_trusted(&chain(&new_client)));
    assert_eq!(reload(&tls), (Some(Reload::Unchanged), false));
    assert!(has_changed(&mut of_a_clone), "a reload of one is a reload of all");
    drop(clone);
}

#[test]
fn without_client_cas_everybody_is_trusted_and_no_list_is_read() {
    let ca = Ca::new("CA");
    let mut disk = Disk::with(&ca.leaf());
    disk.paths.client_crl_pem = Some(disk.path("not there"));
    let tls = disk.load();
    assert!(tls.is_client_trusted(&[]) && tls.is_client_trusted(&chain(&ca.leaf())));
}

#[test]
fn the_end_of_the_certificate_in_force_is_known() {
    let ca = Ca::new("CA");
    let disk = Disk::with(&ca.expired_leaf());
    let tls = disk.load();
    assert_eq!(tls.certificate_end_seconds(), Some(1_009_843_200), "the first of January 2002");
    disk.put(&ca.leaf());
    tls.reload().unwrap();
    assert_eq!(tls.certificate_end_seconds(), Some(67_090_118_400), "the first of January 4096");
}
