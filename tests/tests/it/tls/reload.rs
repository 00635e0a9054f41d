//! Certificates that are renewed while the relay serves: by a change of the files, and by SIGHUP.
//! Nobody notices.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use relay_tests::{Process, eventually};
use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::handshake::{BOTH, https};
use super::pki::{Authority, Files, Identity};
use super::relay;
use super::wire::ask;
use crate::PROGRAM;

/// The certificate of a new handshake, which must not fail.
fn shown(base_url: &str, client: &Arc<ClientConfig>) -> CertificateDer<'static> {
    let heard = ask(base_url, client).unwrap();
    assert!(heard.is_ok(), "{heard:?}");
    heard.certificate
}

/// Waits until new handshakes show this identity. None of the handshakes until then may fail.
fn await_shown(base_url: &str, client: &Arc<ClientConfig>, identity: &Identity) {
    let is_shown = || (shown(base_url, client) == identity.cert_der()).then_some(());
    assert!(eventually(is_shown).is_some(), "the new certificate is in force before long");
}

/// Asks without pause, on new connections and on one that stands, until it is told to stop. Returns
/// how often it asked.
fn hammer(
    base_url: &str,
    authority: &Authority,
    runtime: &tokio::runtime::Runtime,
    stop: &AtomicBool,
) -> usize {
    let asked = AtomicUsize::new(0);
    let client = authority.client(None);
    let standing = https(authority, None, BOTH);
    let health = format!("{base_url}/health");
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::SeqCst) {
                shown(base_url, &client);
                asked.fetch_add(1, Ordering::SeqCst);
            }
        });
        scope.spawn(|| {
            runtime.block_on(async {
                while !stop.load(Ordering::SeqCst) {
                    assert_eq!(standing.get(&health).send().await.unwrap().status(), 200);
                    asked.fetch_add(1, Ordering::SeqCst);
                }
            });
        });
    });
    asked.into_inner()
}

#[test]
fn a_renewal_in_the_middle_of_traffic_is_noticed_by_nobody() {
    let authority = Authority::new("authority");
    let files = Files::new(&authority.identity());
    let relay = relay(&files);
    let stop = AtomicBool::new(false);
    let asked = thread::scope(|scope| {
        let hammering = scope.spawn(|| hammer(&relay.base_url, &authority, relay.runtime(), &stop));
        // Also when this thread fails, the other has to end.
        let guard = StopOnDrop(&stop);
        for _ in 0..2 {
            let renewed = authority.identity();
            files.replace(&renewed);
            await_shown(&relay.base_url, &authority.client(None), &renewed);
        }
        drop(guard);
        hammering.join().unwrap()
    });
    assert!(asked > 0);
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_renewal_by_a_turned_link_is_seen() {
    let authority = Authority::new("authority");
    let [old, new] = [authority.identity(), authority.identity()];
    let files = Files::new(&old);
    let directory = files.path();
    // As Kubernetes keeps secrets: the files are links through a link to a directory, and only that
    // one is turned.
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

/// A symbolic link that takes the place of what is there in one step.
fn link(to: &Path, at: &Path) {
    let new = at.with_extension("new");
    std::os::unix::fs::symlink(to, &new).unwrap();
    std::fs::rename(&new, at).unwrap();
}

#[test]
fn clients_of_a_new_authority_are_let_in_after_a_renewal() {
    let (authority, former, next) =
        (Authority::new("authority"), Authority::new("former"), Authority::new("next"));
    let files = Files::new(&authority.identity()).with_clients_of(&former);
    let relay = relay(&files);
    let [former_client, next_client] = [&former, &next].map(|of| authority.client(Some(&of.identity())));
    assert!(ask(&relay.base_url, &former_client).unwrap().is_ok());
    assert!(ask(&relay.base_url, &next_client).is_err());
    files.add("client-ca.pem", &next.pem());
    assert!(eventually(|| ask(&relay.base_url, &next_client).ok()).unwrap().is_ok());
    assert!(ask(&relay.base_url, &former_client).is_err());
}

/// A process that serves with these files and writes a log.
struct Logged {
    process: Process,
    log: std::path::PathBuf,
}

impl Logged {
    fn start(files: &Files) -> Self {
        let config = files.add(
            "relay.toml",
            &format!(
                "mode = \"tls\"\nstorage.kind = \"memory\"\nrate_limit.enabled = false\n\
                 tls = {{ cert_pem_path = {:?}, key_pem_path = {:?} }}",
                files.cert, files.key
            ),
        );
        let log = files.path().join("log");
        let arguments = ["--config", config.to_str().unwrap()];
        let process = Process::start_logging(PROGRAM, &arguments, &[], &log).unwrap();
        Self { process, log }
    }

    /// Asks for a reload, and waits until the log says this once more than before.
    fn hang_up_and_await(&self, words: &str) {
        let count = || std::fs::read_to_string(&self.log).unwrap().matches(words).count();
        let before = count();
        self.process.signal("HUP").unwrap();
        let said = eventually(|| (count() > before).then_some(()));
        assert!(said.is_some(), "{words}: {}", std::fs::read_to_string(&self.log).unwrap());
    }
}

#[test]
fn sighup_reads_the_files_and_says_what_came_of_it() {
    let authority = Authority::new("authority");
    let (client, old, new) = (authority.client(None), authority.identity(), authority.identity());
    let files = Files::new(&old);
    let mut relay = Logged::start(&files);
    let base_url = relay.process.base_url.clone();
    assert_eq!(shown(&base_url, &client), old.cert_der());
    // Only a demand is answered when there is nothing new.
    relay.hang_up_and_await("TLS files have not changed");
    relay.hang_up_and_await("TLS files have not changed");

    files.replace(&new);
    relay.process.signal("HUP").unwrap();
    await_shown(&base_url, &client, &new);

    relay.process.signal("TERM").unwrap();
    assert_eq!(relay.process.wait_a_while().unwrap().code(), Some(0));
}

#[test]
fn files_that_are_no_good_leave_in_force_what_was() {
    let authority = Authority::new("authority");
    let (client, old, new) = (authority.client(None), authority.identity(), authority.identity());
    let files = Files::new(&old);
    let relay = Logged::start(&files);
    let base_url = relay.process.base_url.as_str();
    let mismatched = Identity { cert: new.cert.clone(), key: old.key.clone() };
    let garbage = Identity { cert: "no certificate".to_owned(), key: new.key.clone() };
    for broken in [mismatched, garbage] {
        files.replace(&broken);
        relay.hang_up_and_await("new TLS files cannot be used; the old ones stay in force");
        assert_eq!(shown(base_url, &client), old.cert_der());
    }
    std::fs::remove_file(&files.cert).unwrap();
    relay.hang_up_and_await("new TLS files cannot be used; the old ones stay in force");
    assert_eq!(shown(base_url, &client), old.cert_der());

    files.replace(&new);
    await_shown(base_url, &client, &new);
}
