//! What the operator finds in the log about TLS files that change.
//!
//! A test binary of its own, with one test: tracing decides for a whole process whether a log line is wanted, and a
//! test next door that has no use for it would decide for this one.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relay_http::tls::{Tls, TlsPaths, watch};
use tokio::sync::Notify;

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
    let paths = TlsPaths { cert_pem, key_pem, client_ca_pem: None };
    renew(&paths);
    let demand = Arc::new(Notify::new());
    let tls = Tls::load(paths.clone()).unwrap();
    let _watching = tokio::spawn(watch(tls, Arc::clone(&demand), 10 * SECOND));
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
}

fn renew(paths: &TlsPaths) {
    let made = rcgen::generate_simple_self_signed(["relay.test".to_owned()]).unwrap();
    fs::write(&paths.cert_pem, made.cert.pem()).unwrap();
    fs::write(&paths.key_pem, made.signing_key.serialize_pem()).unwrap();
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
        let lines = self.lines();
        assert!(lines.len() == 1 && lines[0].trim_start().starts_with(beginning), "{lines:#?}\n{beginning}");
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
