//! New files while connections are served, by hand.

use std::fs;

use rustls::CertificateError;

use super::pki::{Ca, Disk, handshake};
use crate::tls::Reload;

#[test]
fn a_reload_puts_the_new_pair_in_force_and_leaves_connections_alone() {
    let ca = Ca::new("CA");
    let (old, new) = (ca.leaf(), ca.leaf());
    let disk = Disk::with(&old);
    let tls = disk.load();
    let clone = tls.clone();
    let config = tls.server_config();
    let mut standing = handshake(config.clone(), &ca.client(None)).unwrap();
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);

    disk.put(&new);
    assert_eq!(clone.reload().unwrap(), Reload::Changed, "clones share one identity");
    assert_eq!(tls.reload().unwrap(), Reload::Unchanged);
    assert_eq!(handshake(config, &ca.client(None)).unwrap().server_cert(), new.cert_der());
    assert_eq!(standing.server_cert(), old.cert_der());
    assert!(standing.carries("still here"));
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
    let refused = handshake(config, &old_client).err().expect("its CA was taken away");
    assert_eq!(refused, CertificateError::UnknownIssuer.into());
}

#[test]
fn files_that_are_no_good_change_nothing() {
    let ca = Ca::new("CA");
    let (old, new) = (ca.leaf(), ca.leaf());
    let disk = Disk::with(&old).and_clients_of(&ca);
    let tls = disk.load();
    let client = ca.client(Some(&ca.leaf()));

    // A renewal in the order in which it may go wrong: half written, half done, done but for the
    // CAs.
    let half_written = || fs::write(&disk.paths.cert_pem, &new.cert[..100]).unwrap();
    let half_done = || fs::write(&disk.paths.cert_pem, &new.cert).unwrap();
    let no_cas = || {
        disk.put(&new);
        fs::write(disk.paths.client_ca_pem.as_ref().unwrap(), "").unwrap();
    };
    let steps: [(&dyn Fn(), _); 3] = [
        (&half_written, &disk.paths.cert_pem),
        (&half_done, &disk.paths.key_pem),
        (&no_cas, disk.paths.client_ca_pem.as_ref().unwrap()),
    ];
    for (step, blamed) in steps {
        step();
        assert_eq!(tls.reload().unwrap_err().path, *blamed);
        assert_eq!(handshake(tls.server_config(), &client).unwrap().server_cert(), old.cert_der());
    }

    disk.put_client_ca(&ca);
    assert_eq!(tls.reload().unwrap(), Reload::Changed);
    assert_eq!(handshake(tls.server_config(), &client).unwrap().server_cert(), new.cert_der());
}

#[test]
fn the_same_bad_contents_are_told_once_by_polling_and_each_time_on_demand() {
    let ca = Ca::new("CA");
    let disk = Disk::with(&ca.leaf());
    let tls = disk.load();
    assert_eq!(tls.reload_if_new().unwrap(), Reload::Unchanged, "what was loaded is not new");

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
fn a_step_back_to_what_is_in_force_forgets_the_bad_contents_between() {
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
