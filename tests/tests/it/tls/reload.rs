//! Tests of certificates that are renewed while the relay serves: by a change of the files, and by
//! SIGHUP. No client notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use relay_tests::{Process, eventually};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::handshake::{BOTH, https};
use super::pki::{Authority, Identity, TlsFiles};
use super::relay;
use super::wire::ask;
use crate::PROGRAM;

/// The certificate in a new handshake, which must succeed.
fn shown(base_url: &str, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let response = ask(base_url, client).unwrap();
    assert!(response.is_ok(), "{response:?}");
    response.certificate
}

/// Waits until new handshakes show this identity. All handshakes until then must succeed.
fn await_shown(base_url: &str, client: &Arc<ClientConfig>, identity: &Identity) {
    let is_shown = || (shown(base_url, client) == identity.cert_der()).then_some(());
    assert!(eventually(is_shown).is_some(), "the new certificate is not in force after ten seconds");
}

/// Sends requests without pause, on new connections and on a persistent one, until stopped. Returns
/// the number of requests.
fn send_requests(
    base_url: &str,
    authority: &Authority,
    runtime: &tokio::runtime::Runtime,
    stop: &AtomicBool,
) -> usize {
    let request_count = AtomicUsize::new(0);
    let client = authority.client(None);
    let persistent = https(authority, None, BOTH);
    let health = format!("{base_url}/health");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                shown(base_url, &client);
                request_count.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            runtime.block_on(async {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(persistent.get(&health).send().await.unwrap().status(), 200);
                    request_count.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
    });
    request_count.into_inner()
}

#[test]
fn a_renewal_during_traffic_breaks_no_request() {
    let authority = Authority::new("authority");
    let files = TlsFiles::new(&authority.identity());
    let relay = relay(&files);
    let stop = AtomicBool::new(false);
    let request_count = thread::scope(|scope| {
        let sender = scope.spawn(|| send_requests(&relay.base_url, &authority, relay.runtime(), &stop));
        // The other thread must end even if this one panics.
        let guard = StopOnDrop(&stop);
        for _ in 0..2 {
            let renewed = authority.identity();
            files.replace(&renewed);
            await_shown(&relay.base_url, &authority.client(None), &renewed);
        }
        drop(guard);
        sender.join().unwrap()
    });
    assert!(request_count > 0);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_renewal_by_a_replaced_link_is_noticed() {
    let authority = Authority::new("authority");
    let [old, new] = [authority.identity(), authority.identity()];
    let files = TlsFiles::new(&old);
    let directory = files.path();
    // As in Kubernetes: the files are links through a link to a directory, and a renewal replaces
    // only that link.
    for (name, identity) in [("old", &old), ("new", &new)] {
        std::fs::create_dir(directory.join(name)).unwrap();
        std::fs::write(directory.join(name).join("cert.pem"), &identity.cert).unwrap();
        std::fs::write(directory.join(name).join("key.pem"), &identity.key).unwrap();
    }
    link(Path::new("old"), &directory.join("data"));
    for name in ["cert.pem", "key.pem"] {
        link(&Path::new("data").join(name), &directory.join(name));
    }
    let relay = relay(&files);
    assert_eq!(shown(&relay.base_url, &authority.client(None)), old.cert_der());
    link(Path::new("new"), &directory.join("data"));
    await_shown(&relay.base_url, &authority.client(None), &new);
}

/// Replaces `at` by a symbolic link, in one step.
fn link(to: &Path, at: &Path) {
    let new = at.with_extension("new");
    std::os::unix::fs::symlink(to, &new).unwrap();
    std::fs::rename(&new, at).unwrap();
}

#[test]
fn clients_of_a_new_authority_are_accepted_after_a_renewal() {
    let (authority, former, next) =
        (Authority::new("authority"), Authority::new("former"), Authority::new("next"));
    let files = TlsFiles::new(&authority.identity()).with_clients_of(&former);
    let relay = relay(&files);
    let [former_client, next_client] = [&former, &next].map(|of| authority.client(Some(&of.identity())));
    assert!(ask(&relay.base_url, &former_client).unwrap().is_ok());
    assert!(ask(&relay.base_url, &next_client).is_err());
    files.add("client-ca.pem", &next.pem());
    assert!(eventually(|| ask(&relay.base_url, &next_client).ok()).unwrap().is_ok());
    assert!(ask(&relay.base_url, &former_client).is_err());
}

/// A process that serves with these files and writes a log.
struct LoggedProcess {
    process: Process,
    log: std::path::PathBuf,
}

impl LoggedProcess {
    fn start(files: &TlsFiles) -> Self {
        let config = files.add(
            "relay.toml",
            &format!("{}storage.kind = \"memory\"\nrate_limit.enabled = false", files.lines()),
        );
        let log = files.path().join("log");
        let arguments = ["--config", config.to_str().unwrap()];
        let process = Process::start_logging(PROGRAM, &arguments, &[], &log).unwrap();
        Self { process, log }
    }

    /// Sends SIGHUP, and waits until the log contains `words` once more.
    fn hang_up_and_await(&self, words: &str) {
        let count = || std::fs::read_to_string(&self.log).unwrap().matches(words).count();
        let before = count();
        self.process.signal("HUP").unwrap();
        let was_logged = eventually(|| (count() > before).then_some(()));
        assert!(was_logged.is_some(), "{words}: {}", std::fs::read_to_string(&self.log).unwrap());
    }
}

#[test]
fn sighup_reloads_the_files_and_logs_the_result() {
    let authority = Authority::new("authority");
    let (client, old, new) = (authority.client(None), authority.identity(), authority.identity());
    let files = TlsFiles::new(&old);
    let mut relay = LoggedProcess::start(&files);
    let base_url = relay.process.base_url.clone();
    assert_eq!(shown(&base_url, &client), old.cert_der());
    // The relay logs that nothing has changed only after SIGHUP.
    relay.hang_up_and_await("TLS files have not changed");
    relay.hang_up_and_await("TLS files have not changed");

    files.replace(&new);
    relay.process.signal("HUP").unwrap();
    await_shown(&base_url, &client, &new);

    relay.process.signal("TERM").unwrap();
    assert_eq!(relay.process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn unusable_files_leave_the_old_ones_in_force() {
    let authority = Authority::new("authority");
    let (client, old, new) = (authority.client(None), authority.identity(), authority.identity());
    let files = TlsFiles::new(&old);
    let relay = LoggedProcess::start(&files);
    let base_url = relay.process.base_url.as_str();
    let mismatched = Identity { cert: new.cert.clone(), key: old.key.clone() };
    let garbage = Identity { cert: "no certificate".to_owned(), key: new.key.clone() };
    for broken in [mismatched, garbage] {
        files.replace(&broken);
        relay.hang_up_and_await("new TLS files cannot be used; the old ones stay in use");
        assert_eq!(shown(base_url, &client), old.cert_der());
    }
    std::fs::remove_file(&files.cert).unwrap();
    relay.hang_up_and_await("new TLS files cannot be used; the old ones stay in use");
    assert_eq!(shown(base_url, &client), old.cert_der());

    files.replace(&new);
    await_shown(base_url, &client, &new);
}
