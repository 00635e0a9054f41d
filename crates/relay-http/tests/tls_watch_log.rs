//! What the operator finds in the log about TLS files that change.
//!
//! A test binary of its own, with one test: tracing decides for a whole process whether a log line
//! is wanted, and a test next door that has no use for it would decide for this one.

#![cfg(all(unix, feature = "tls"))]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_http::tls::{Tls, TlsPaths, watch};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const SECOND: Duration = Duration::from_secs(1);

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

// Time is paused: it stands still while any task or blocking call has work to do.
#[tokio::test(start_paused = true)]
async fn each_new_content_is_told_once_and_each_demand_is_answered() {
    let log = Log::default();
    let _logging = tracing::subscriber::set_default(log.subscriber());
    let dir = tempfile::tempdir().unwrap();
    let [cert_pem, key_pem] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    let paths = TlsPaths { cert_pem, key_pem, client_ca_pem: None, client_crl_pem: None };
    renew(&paths);
    let demand = Arc::new(Notify::new());
    let tls = Tls::load(paths.clone()).unwrap();
    let watching = tokio::spawn(watch(tls, Arc::clone(&demand), 10 * SECOND));
    let unusable = format!(
        "WARN new TLS files cannot be used; the old ones stay in force error=TLS file {}: holds no private key",
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
        demand.notify_one();
        tokio::time::sleep(SECOND).await;
        log.holds_only(&unusable);
    }
    renew(&paths);
    tokio::time::sleep(30 * SECOND).await;
    log.holds_only("INFO new TLS files are in force for new connections");
    demand.notify_one();
    tokio::time::sleep(SECOND).await;
    log.holds_only("INFO TLS files have not changed");
    what_ends_or_is_exposed_is_warned_of(&log, &paths, watching).await;
}

async fn what_ends_or_is_exposed_is_warned_of(log: &Log, paths: &TlsPaths, watching: JoinHandle<()>) {
    // Once for each certificate and day, however often it is looked at.
    renew_until(paths, 2002);
    tokio::time::sleep(60 * SECOND).await;
    log.holds(&[
        "INFO new TLS files are in force for new connections",
        "WARN the TLS certificate has expired; clients refuse it",
    ]);
    watching.abort();
    renew(paths);
    expose(&paths.key_pem, 0o640);
    let exposed = format!(
        "WARN the TLS key file may be read by others than its owner; run chmod 600 on it path={} mode=\"0640\"",
        paths.key_pem.display()
    );
    let tls = Tls::load(paths.clone()).unwrap();
    log.holds_only(&exposed);
    renew_until(paths, 2002);
    expose(&paths.key_pem, 0o604);
    tls.reload().unwrap();
    log.holds_only(&exposed.replace("0640", "0604"));
    // At the start it is told at once.
    let _watching = tokio::spawn(watch(tls, Arc::default(), 1000 * SECOND));
    tokio::task::yield_now().await;
    log.holds_only("WARN the TLS certificate has expired; clients refuse it");
}

fn renew(paths: &TlsPaths) {
    renew_until(paths, 4096);
}

/// A new certificate, which ends at the begin of that year, and its key.
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

    /// One line, which begins so; and forgets it.
    fn holds_only(&self, beginning: &str) {
        self.holds(&[beginning]);
    }

    /// As many lines, which begin so; and forgets them.
    fn holds(&self, beginnings: &[&str]) {
        let lines = self.lines();
        let begin_so = lines.iter().zip(beginnings).all(|(line, begin)| line.trim_start().starts_with(begin));
        assert!(lines.len() == beginnings.len() && begin_so, "{lines:#?}\n{beginnings:#?}");
    }

    /// Takes the lines that were logged since the last time.
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
