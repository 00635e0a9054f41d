//! Tests what the log says about changed TLS files.
//!
//! This is a separate test binary with one test: tracing decides per process whether a log line is
//! wanted, so another test could disable the lines of this one.

#![cfg(all(unix, feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_http::tls::{Tls, TlsPaths, watch};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

// Time is paused: it advances only while no task or blocking call has work to do.
#[tokio::test(start_paused = true)]
async fn changes_are_logged_once_and_each_reload_request_is_answered() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.subscriber());
    let dir = tempfile::tempdir().unwrap();
    let [cert_pem, key_pem] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let paths = TlsPaths { cert_pem, key_pem, client_ca_pem: None, client_crl_pem: None };
    renew(&paths);
    let (reload, requests) = mpsc::channel(1);
    let tls = Tls::load(paths.clone()).unwrap();
    let watching = tokio::spawn(watch(tls, requests, 10 * SECOND));
    let unusable = format!(
        "WARN new TLS files cannot be used; the old ones stay in use error=TLS file {}: contains no private key",
        paths.key_pem.display()
    );

    tokio::time::sleep(25 * SECOND).await;
    assert_eq!(log.lines(), [""; 0]);
    for bad in ["bad", "bad in another way"] {
        fs::write(&paths.key_pem, bad).unwrap();
        tokio::time::sleep(30 * SECOND).await;
        log.holds_only(&unusable);
    }
    for _ in 0..2 {
        request(&reload).await;
        log.holds_only(&unusable);
    }
    renew(&paths);
    tokio::time::sleep(30 * SECOND).await;
    log.holds_only("INFO new TLS files are in use for new connections");
    request(&reload).await;
    log.holds_only("INFO the TLS files have not changed");
    expired_certificates_and_exposed_keys_are_warned_about(&log, &paths, watching).await;
}

async fn expired_certificates_and_exposed_keys_are_warned_about(
    log: &Log,
    paths: &TlsPaths,
    watching: JoinHandle<()>,
) {
    // The warning appears once per certificate and day, however often the file is checked.
    renew_until(paths, 2002);
    tokio::time::sleep(60 * SECOND).await;
    log.holds(&[
        "INFO new TLS files are in use for new connections",
        "WARN the TLS certificate has expired; clients reject it",
    ]);
    watching.abort();
    renew(paths);
    expose(&paths.key_pem, 0o640);
    let exposed = format!(
        "WARN others than the owner may read the TLS key file; run chmod 600 on it path={} mode=\"0640\"",
        paths.key_pem.display()
    );
    let tls = Tls::load(paths.clone()).unwrap();
    log.holds_only(&exposed);
    renew_until(paths, 2002);
    expose(&paths.key_pem, 0o604);
    tls.reload().unwrap();
    log.holds_only(&exposed.replace("0640", "0604"));
    // At the start, the warning appears at once.
    let _watching = tokio::spawn(watch(tls, mpsc::channel::<()>(1).1, 1000 * SECOND));
    tokio::task::yield_now().await;
    log.holds_only("WARN the TLS certificate has expired; clients reject it");
}

/// Requests a reload, and waits until it is done.
async fn request(reload: &mpsc::Sender<mpsc::Sender<()>>) {
    let (done, mut pending) = mpsc::channel(1);
    reload.send(done).await.unwrap();
    assert_eq!(pending.recv().await, None);
}

fn renew(paths: &TlsPaths) {
    renew_until(paths, 4096);
}

/// Writes a new key and a certificate that ends at the beginning of `year`.
fn renew_until(paths: &TlsPaths, year: i32) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["relay.test".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    fs::write(&paths.cert_pem, params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(&paths.key_pem, key.serialize_pem()).unwrap();
    expose(&paths.key_pem, 0o600);
}

fn expose(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

impl Log {
    fn subscriber(&self) -> impl tracing::Subscriber + use<> {
        let log = self.clone();
        tracing_subscriber::fmt()
            .with_writer(move || log.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .finish()
    }

    /// Asserts that exactly one line was logged since the last check, and that it begins like this.
    fn holds_only(&self, beginning: &str) {
        self.holds(&[beginning]);
    }

    /// Asserts that exactly these lines were logged since the last check; each is the beginning of
    /// a line.
    fn holds(&self, beginnings: &[&str]) {
        let lines = self.lines();
        let all_match =
            lines.iter().zip(beginnings).all(|(line, begin)| line.trim_start().starts_with(begin));
        assert!(lines.len() == beginnings.len() && all_match, "{lines:#?}\n{beginnings:#?}");
    }

    /// Takes the lines that were logged since the last call.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
