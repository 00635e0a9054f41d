//! Tests which clients lose access because of a revocation list or a change of CAs.

use std::fs;

use rustls::CertificateError;
use rustls::pki_types::CertificateDer;

use super::pki::{Ca, Disk, Leaf, handshake};
use crate::tls::{Reload, Tls};

/// The error of a handshake with a client that has this certificate.
fn refusal(disk: &Disk, server_ca: &Ca, leaf: &Leaf) -> Option<rustls::Error> {
    handshake(disk.load().server_config(), &server_ca.client(Some(leaf))).err()
}

fn chain(leaf: &Leaf) -> [CertificateDer<'static>; 1] {
    [leaf.cert_der()]
}

/// Whether the signal has changed since the last call.
fn has_changed(changes: &mut tokio::sync::watch::Receiver<u64>) -> bool {
    let changed = changes.has_changed().unwrap();
    changes.mark_unchanged();
    changed
}

#[test]
fn only_the_revoked_client_is_refused() {
    let (server_ca, clients, without_list) = (Ca::new("server CA"), Ca::new("clients"), Ca::new("no list"));
    let (revoked, good, other) =
        (clients.leaf_numbered(7), clients.leaf_numbered(8), without_list.leaf_numbered(7));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[7], 4000));
    fs::write(disk.paths.client_ca_pem.as_ref().unwrap(), clients.pem() + &without_list.pem()).unwrap();
    assert_eq!(refusal(&disk, &server_ca, &revoked), Some(CertificateError::Revoked.into()));
    assert_eq!(refusal(&disk, &server_ca, &good), None);
    assert_eq!(refusal(&disk, &server_ca, &other), None, "its CA has no list");
    // The file may contain several lists.
    disk.put_crl(&(clients.crl(&[7], 4000) + &without_list.crl(&[7, 9], 4000)));
    assert_eq!(refusal(&disk, &server_ca, &other), Some(CertificateError::Revoked.into()));
    assert_eq!(refusal(&disk, &server_ca, &good), None);
}

#[test]
fn an_overdue_list_stays_in_use() {
    let (server_ca, clients) = (Ca::new("server CA"), Ca::new("clients"));
    let (revoked, good) = (clients.leaf_numbered(7), clients.leaf_numbered(8));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[7], 2002));
    assert_eq!(refusal(&disk, &server_ca, &revoked), Some(CertificateError::Revoked.into()));
    assert_eq!(refusal(&disk, &server_ca, &good), None);
    assert_eq!(disk.load().0.current.load().crl_end_seconds, Some(1_009_843_200));
}

#[test]
fn a_list_without_the_signature_of_its_ca_excludes_all_clients() {
    let (server_ca, clients, forger) = (Ca::new("server CA"), Ca::new("clients"), Ca::new("clients"));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&forger.crl(&[], 4000));
    assert!(refusal(&disk, &server_ca, &clients.leaf_numbered(8)).is_some());
}

#[test]
fn a_new_list_signals_a_change_of_trust() {
    let (server_ca, clients) = (Ca::new("server CA"), Ca::new("clients"));
    let (mallory, good) = (clients.leaf_numbered(7), clients.leaf_numbered(8));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&clients).and_revoked(&clients.crl(&[], 4000));
    let tls = disk.load();
    let mut changes = tls.client_trust_changes();
    assert!(tls.is_client_trusted(&chain(&mallory)) && tls.is_client_trusted(&chain(&good)));
    assert!(!tls.is_client_trusted(&[]), "no client without a certificate");

    disk.put_crl(&clients.crl(&[7], 4000));
    assert!(!has_changed(&mut changes), "it is not in use yet");
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    assert!(has_changed(&mut changes));
    assert!(!tls.is_client_trusted(&chain(&mallory)) && tls.is_client_trusted(&chain(&good)));
    let refused = handshake(tls.server_config(), &server_ca.client(Some(&mallory))).err();
    assert_eq!(refused, Some(CertificateError::Revoked.into()));
}

#[test]
fn trust_changes_only_with_the_cas_in_use() {
    let (server_ca, old, new) = (Ca::new("server CA"), Ca::new("old clients"), Ca::new("new clients"));
    let (old_client, new_client) = (old.leaf(), new.leaf());
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&old);
    let tls = disk.load();
    let clone = tls.clone();
    let (mut changes, mut clone_changes) = (tls.client_trust_changes(), clone.client_trust_changes());
    let mut reload = |tls: &Tls| {
        let outcome = tls.reload().ok();
        (outcome, has_changed(&mut changes))
    };

    assert_eq!(reload(&tls), (Some(Reload::Unchanged), false));
    disk.put(&server_ca.leaf());
    assert_eq!(reload(&tls), (Some(Reload::Changed), false), "only the server certificate changed");
    fs::write(disk.paths.client_ca_pem.as_ref().unwrap(), "no CA").unwrap();
    assert_eq!(reload(&tls), (None, false), "unusable files change nothing");
    assert!(tls.is_client_trusted(&chain(&old_client)));
    disk.put_client_ca(&new);
    assert_eq!(reload(&tls), (Some(Reload::Changed), true));
    assert!(!tls.is_client_trusted(&chain(&old_client)) && tls.is_client_trusted(&chain(&new_client)));
    assert_eq!(reload(&tls), (Some(Reload::Unchanged), false));
    assert!(has_changed(&mut clone_changes), "clones share one identity");
    drop(clone);
}

#[test]
fn without_client_cas_all_clients_are_trusted_and_no_list_is_read() {
    let ca = Ca::new("CA");
    let mut disk = Disk::with(&ca.leaf());
    disk.paths.client_crl_pem = Some(disk.path("not there"));
    let tls = disk.load();
    assert!(tls.is_client_trusted(&[]) && tls.is_client_trusted(&chain(&ca.leaf())));
}

#[test]
fn the_expiry_of_the_certificate_in_use_is_known() {
    let ca = Ca::new("CA");
    let disk = Disk::with(&ca.expired_leaf());
    let tls = disk.load();
    assert_eq!(tls.certificate_end_seconds(), Some(1_009_843_200), "1 January 2002");
    disk.put(&ca.leaf());
    tls.reload().unwrap();
    assert_eq!(tls.certificate_end_seconds(), Some(67_090_118_400), "1 January 4096");
}
