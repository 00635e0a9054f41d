//! Tests how the watching task finds new files.
//!
//! Time is paused: it advances to the next timer only while no task or blocking call has work to
//! do. A virtual second after a poll, its reload is over.

use std::fs;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::pki::{Ca, Disk};
use crate::tls::{Tls, watch};

/// Longer than any test, so that no poll happens.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn watch_finds_changed_files_and_survives_unusable_ones() {
    let ca = Ca::new("CA");
    let (old, new) = (ca.leaf(), ca.leaf());
    let disk = Disk::with(&old);
    let tls = disk.load();
    let watching = start(&tls, mpsc::channel(1).1, 2 * SECOND);

    fs::write(&disk.paths.cert_pem, &new.cert).unwrap();
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(presented(&tls), old.cert_der(), "the new key is missing");

    fs::write(&disk.paths.key_pem, &new.key).unwrap();
    assert_eq!(presented(&tls), old.cert_der(), "no poll yet");
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!(presented(&tls), new.cert_der());
    assert!(!watching.is_finished());
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn watch_follows_a_symbolic_link_to_another_directory() {
    use std::os::unix::fs::symlink;
    let ca = Ca::new("CA");
    let (old, new) = (ca.leaf(), ca.leaf());
    let mut disk = Disk::with(&old);
    for (name, leaf) in [("old", &old), ("new", &new)] {
        fs::create_dir(disk.path(name)).unwrap();
        fs::write(disk.path(name).join("cert.pem"), &leaf.cert).unwrap();
        fs::write(disk.path(name).join("key.pem"), &leaf.key).unwrap();
    }
    symlink("old", disk.path("current")).unwrap();
    disk.paths.cert_pem = disk.path("current").join("cert.pem");
    disk.paths.key_pem = disk.path("current").join("key.pem");
    let tls = disk.load();
    let _watching = start(&tls, mpsc::channel(1).1, 2 * SECOND);

    symlink("new", disk.path("next")).unwrap();
    fs::rename(disk.path("next"), disk.path("current")).unwrap();
    tokio::time::sleep(3 * SECOND).await;
    assert_eq!(presented(&tls), new.cert_der());
}

#[tokio::test(start_paused = true)]
async fn watch_reloads_on_request() {
    let ca = Ca::new("CA");
    let disk = Disk::with(&ca.leaf());
    let tls = disk.load();
    let (reload, requests) = mpsc::channel(1);
    let watching = start(&tls, requests, NEVER);
    for _ in 0..2 {
        let new = ca.leaf();
        disk.put(&new);
        let (done, mut dropped) = mpsc::channel::<()>(1);
        reload.send(done).await.unwrap();
        assert_eq!(dropped.recv().await, None);
        assert_eq!(presented(&tls), new.cert_der(), "a request is dropped when it is done");
    }
    assert!(!watching.is_finished());
}

fn start(tls: &Tls, requests: mpsc::Receiver<mpsc::Sender<()>>, every: Duration) -> JoinHandle<()> {
    tokio::spawn(watch(tls.clone(), requests, every))
}

/// The certificate that the relay would present to the next client.
fn presented(tls: &Tls) -> CertificateDer<'static> {
    tls.0.current.load().server.cert[0].clone()
}
