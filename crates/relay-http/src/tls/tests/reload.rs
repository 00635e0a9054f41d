//! Tests explicit reloads while connections exist.

use std::fs;

use rustls::CertificateError;

use super::pki::{Ca, Disk, handshake};
use crate::tls::Reload;

#[test]
fn a_reload_applies_to_new_connections_only() {
    let ca = Ca::new("CA");
    let (old, new) = (ca.leaf(), ca.leaf());
    let disk = Disk::with(&old);
    let tls = disk.load();
    let clone = tls.clone();
    let config = tls.server_config();
    let mut existing = handshake(config.clone(), &ca.client(None)).unwrap();
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);

    disk.put(&new);
    assert_eq!(clone.reload().unwrap(), Reload::Changed, "clones share one identity");
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);
    assert_eq!(handshake(config, &ca.client(None)).unwrap().server_cert(), new.cert_der());
    assert_eq!(existing.server_cert(), old.cert_der());
    assert!(existing.carries("still open"));
}

#[test]
fn a_reload_replaces_the_client_cas() {
    let (server_ca, old, new) = (Ca::new("server CA"), Ca::new("old clients"), Ca::new("new clients"));
    let disk = Disk::with(&server_ca.leaf()).and_clients_of(&old);
    let tls = disk.load();
    let config = tls.server_config();
    let (old_client, new_client) = (server_ca.client(Some(&old.leaf())), server_ca.client(Some(&new.leaf())));
    assert!(handshake(config.clone(), &old_client).is_ok());

    disk.put_client_ca(&new);
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    assert!(handshake(config.clone(), &new_client).is_ok());
    let refused = handshake(config, &old_client).err().expect("its CA was removed");
    assert_eq!(refused, CertificateError::UnknownIssuer.into());
}

#[test]
fn unusable_files_change_nothing() {
    let ca = Ca::new("CA");
    let (old, new) = (ca.leaf(), ca.leaf());
    let disk = Disk::with(&old).and_clients_of(&ca);
    let tls = disk.load();
    let client = ca.client(Some(&ca.leaf()));

    // A renewal that stops in the middle of the first file, after it, and before the CAs.
    let partly_written = || fs::write(&disk.paths.cert_pem, &new.cert[..100]).unwrap();
    let only_certificate = || fs::write(&disk.paths.cert_pem, &new.cert).unwrap();
    let no_cas = || {
        disk.put(&new);
        fs::write(disk.paths.client_ca_pem.as_ref().unwrap(), "").unwrap();
    };
    let steps: [(&dyn Fn(), _); 3] = [
        (&partly_written, &disk.paths.cert_pem),
        (&only_certificate, &disk.paths.key_pem),
        (&no_cas, disk.paths.client_ca_pem.as_ref().unwrap()),
    ];
    for (step, faulty) in steps {
        step();
        assert_eq!(tls.reload().unwrap_err().path, *faulty);
        assert_eq!(handshake(tls.server_config(), &client).unwrap().server_cert(), old.cert_der());
    }

    disk.put_client_ca(&ca);
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    assert_eq!(handshake(tls.server_config(), &client).unwrap().server_cert(), new.cert_der());
}

#[test]
fn polling_reports_unusable_contents_once_and_each_request_reports_them_again() {
    let ca = Ca::new("CA");
    let disk = Disk::with(&ca.leaf());
    let tls = disk.load();
    assert_eq!(tls.reload_if_new().unwrap(), Reload::Unchanged, "the loaded contents are not new");

    fs::write(&disk.paths.key_pem, "bad").unwrap();
    assert!(tls.reload_if_new().is_err());
    assert_eq!(tls.reload_if_new().unwrap(), Reload::Unchanged);
    assert!(tls.reload().is_err());
    assert!(tls.reload().is_err());

    fs::write(&disk.paths.key_pem, "bad in another way").unwrap();
    assert!(tls.reload_if_new().is_err());
    fs::remove_file(&disk.paths.key_pem).unwrap();
    assert!(tls.reload_if_new().is_err());
    assert_eq!(tls.reload_if_new().unwrap(), Reload::Unchanged);

    disk.put(&ca.leaf());
    assert_eq!(tls.reload_if_new().unwrap(), Reload::Changed);
}

#[test]
fn unusable_contents_are_reported_again_after_a_return_to_the_ones_in_use() {
    let ca = Ca::new("CA");
    let leaf = ca.leaf();
    let disk = Disk::with(&leaf);
    let tls = disk.load();
    for _ in 0..2 {
        fs::write(&disk.paths.key_pem, "bad").unwrap();
        assert!(tls.reload_if_new().is_err());
        disk.put(&leaf);
        assert_eq!(tls.reload_if_new().unwrap(), Reload::Unchanged);
    }
}
