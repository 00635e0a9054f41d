//! The connection ends while a commit is on its way, so that its outcome is unknown.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use relay_core::{Ack, Relay as _};

use super::support::{database, dsn, messages, name, open, pull_all, push, verify, with_dsn};

/// A way to a server that cuts connections after it has passed a commit on.
struct CuttingProxy {
    port: u16,
    /// How many further commits are to be cut.
    cuts: Arc<AtomicUsize>,
}

impl CuttingProxy {
    fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let cuts = Arc::<AtomicUsize>::default();
        let for_thread = Arc::clone(&cuts);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server_port)) else { return };
                let cuts = Arc::clone(&for_thread);
                let (from_server, to_client) = (server.try_clone().unwrap(), client.try_clone().unwrap());
                thread::spawn(move || drop(pass_on(&from_server, &to_client, |_| false)));
                thread::spawn(move || {
                    let is_cut = |bytes: &[u8]| {
                        let has_commit = bytes.windows(7).any(|window| window == b"COMMIT\0");
                        let take = |left: usize| left.checked_sub(1);
                        has_commit && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
                    };
                    drop(pass_on(&client, &server, is_cut));
                });
            }
        });
        Self { port, cuts }
    }
}

/// Passes bytes on until the end, or until `is_last` says so of those that were passed on last:
/// then the receiver gets them, and the sender no answer.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, is_last: impl Fn(&[u8]) -> bool) -> io::Result<()> {
    let mut bytes = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut bytes)?;
        let passed = bytes.get(..length).unwrap_or_default();
        if length == 0 {
            return to.shutdown(Shutdown::Both);
        }
        let is_last = is_last(passed);
        if is_last {
            from.shutdown(Shutdown::Both)?;
        }
        to.write_all(passed)?;
        if is_last {
            return to.shutdown(Shutdown::Write);
        }
    }
}

#[test]
fn a_commit_without_an_answer_is_found_by_the_next_attempt() {
    let Some((server, options)) = database() else { return };
    let proxy = CuttingProxy::to(server.port());
    let port = server.port().to_string();
    let through_proxy = with_dsn(&options, &dsn(&options).replace(&port, &proxy.port.to_string()));
    let relay = open(&through_proxy);
    for number in 0..10 {
        proxy.cuts.store(1, Ordering::SeqCst);
        assert!(push(&relay, "alice", number).unwrap().is_stored(), "{number}: an earlier attempt stored it");
        assert_eq!(proxy.cuts.load(Ordering::SeqCst), 0, "the connection was cut");
        assert!(!push(&relay, "alice", number).unwrap().is_stored());
    }
    assert_eq!(messages(&relay, "alice"), (0..10).collect::<Vec<u128>>());

    let ids: Vec<_> = pull_all(&relay, "alice").iter().map(relay_core::Item::id).collect();
    proxy.cuts.store(1, Ordering::SeqCst);
    let ack = Ack::new(name("alice"), ids[..6].to_vec()).unwrap();
    let outcome = pollster::block_on(relay.ack(ack)).unwrap();
    assert_eq!((outcome.deleted, outcome.missing, outcome.remaining), (6, 0, 4));
    // By name and by place at once; one of the names is not there.
    let unknown = relay_core::ItemId { chunk_index: 7, ..ids[6] };
    let ack = Ack::new(name("alice"), vec![ids[6], unknown]).unwrap();
    proxy.cuts.store(1, Ordering::SeqCst);
    let through = pull_all(&relay, "alice")[2].seq;
    let outcome = pollster::block_on(relay.ack(ack.and_through(through))).unwrap();
    assert_eq!((outcome.deleted, outcome.missing, outcome.remaining), (3, 1, 1));
    proxy.cuts.store(1, Ordering::SeqCst);
    let outcome = pollster::block_on(relay.ack(Ack::everything(name("alice")))).unwrap();
    assert_eq!((outcome.deleted, outcome.remaining), (1, 0));
    assert_eq!(verify(&options), Vec::<String>::new());
}
