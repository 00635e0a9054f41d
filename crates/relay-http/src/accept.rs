//! Takes connections from a listener and deals them out to worker threads. It decides who gets in: not more than there may be, not
//! more than an address may have, and nobody who is shut out.
//!
//! A worker is a thread with a runtime of its own; a connection stays on its worker, so nothing of it is shared between threads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::LocalSet;

use crate::addresses::Address;
use crate::guard::Entry;
use crate::monotonic;
use crate::open_connections::{OpenConnection, OpenConnections, Opened};

/// How long nothing is accepted after the system could give no descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// What may lie in the system's buffer and is not on its way yet. More would be memory that no limit counts, and the pace of a slow client
/// could not be seen.
const UNSENT_BYTES: u32 = 128 * 1024;

/// A connection that was let in.
pub(crate) struct Accepted {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) open: OpenConnection,
    /// It is told once that its address is shut out.
    pub(crate) is_shut_out: bool,
}

/// The threads that accept and serve. They end when this is dropped, and with them every connection that is still open.
pub(crate) struct Threads {
    inboxes: Vec<mpsc::UnboundedSender<Accepted>>,
    stop: watch::Sender<()>,
}

/// What is to become of a connection, before anything of it is read.
pub(crate) struct Verdict {
    pub(crate) entry: Entry,
    /// The address that it counts for, unless it is exempt.
    pub(crate) address: Option<Address>,
}

impl Threads {
    /// Starts so many workers. Each makes with `begin` what it serves connections with.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub(crate) fn start<B, M, S, F>(number: NonZeroUsize, begin: B) -> io::Result<Self>
    where
        B: Fn() -> M + Clone + Send + 'static,
        M: Future<Output = Option<S>>,
        S: Fn(Accepted) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let mut threads = Self { inboxes: Vec::new(), stop: watch::channel(()).0 };
        for number in 0..number.get() {
            let (inbox, accepted) = mpsc::unbounded_channel();
            let begin = begin.clone();
            threads.spawn(&format!("relay-http-{number}"), move || work(begin, accepted))?;
            threads.inboxes.push(inbox);
        }
        Ok(threads)
    }

    /// Accepts what `decide` lets in, until `paused` is told, or its sender is gone.
    ///
    /// # Errors
    /// When the listener is of no use, or there is no thread.
    pub(crate) fn accept<D>(
        &self,
        listener: std::net::TcpListener,
        connections: OpenConnections,
        decide: D,
        mut paused: oneshot::Receiver<()>,
    ) -> io::Result<()>
    where
        D: Fn(SocketAddr) -> Verdict + Send + 'static,
    {
        listener.set_nonblocking(true)?;
        let inboxes = self.inboxes.clone();
        self.spawn("relay-accept", move || async move {
            let accepting = async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(&listener, &connections, &decide, &inboxes).await,
                    Err(error) => tracing::error!(%error, "no connection can be accepted"),
                }
            };
            tokio::select! {
                () = accepting => {}
                _ = &mut paused => {}
            }
        })
    }

    /// Runs `work` on a thread of its own until it ends or is told to.
    fn spawn<W, F>(&self, name: &str, work: W) -> io::Result<()>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut stopped = self.stop.subscribe();
        let run = move || {
            let tasks = LocalSet::new();
            tasks.block_on(&runtime, async {
                tokio::select! {
                    () = work() => {}
                    // It is never told anything: it goes.
                    _ = stopped.changed() => {}
                }
            });
            drop(tasks);
            // What a blocking thread still does, nobody waits for.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run).map(drop)
    }
}

/// Serves what comes in.
async fn work<B, M, S, F>(begin: B, mut accepted: mpsc::UnboundedReceiver<Accepted>)
where
    B: Fn() -> M,
    M: Future<Output = Option<S>>,
    S: Fn(Accepted) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let Some(serve) = begin().await else { return };
    while let Some(connection) = accepted.recv().await {
        tokio::task::spawn_local(serve(connection));
    }
    // Nothing more is accepted, and what is open goes on.
    std::future::pending::<()>().await;
}

async fn accept(
    listener: &TcpListener,
    connections: &OpenConnections,
    decide: &impl Fn(SocketAddr) -> Verdict,
    workers: &[mpsc::UnboundedSender<Accepted>],
) {
    let mut turns = workers.iter().cycle();
    loop {
        match listener.accept().await {
            Ok((tcp, peer)) => {
                if let Some(accepted) = let_in(tcp, peer, connections, decide).await
                    && let Some(worker) = turns.next()
                {
                    // A worker that is gone takes the connection with it.
                    let _ = worker.send(accepted);
                }
            }
            Err(error) if is_of_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn let_in(
    tcp: TcpStream,
    peer: SocketAddr,
    connections: &OpenConnections,
    decide: &impl Fn(SocketAddr) -> Verdict,
) -> Option<Accepted> {
    let Verdict { entry, mut address } = decide(peer);
    let is_shut_out = match entry {
        Entry::Open => false,
        Entry::RefuseOnce => true,
        Entry::Closed => return reset(&tcp),
    };
    let open = loop {
        match connections.open(address, monotonic::now()) {
            Opened::Yes(open) => break open,
            Opened::AddressIsFull => return reset(&tcp),
            Opened::Full(again) => address = again,
        }
        connections.one_closed().await;
    };
    // That small packets are sent at once is a matter of speed alone, and the other is one of several bounds.
    let _ = tcp.set_nodelay(true);
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES);
    Some(Accepted { tcp: tcp.into_std().ok()?, peer, open, is_shut_out })
}

/// Closes without a word, and without the system remembering anything of it.
fn reset<T>(tcp: &TcpStream) -> Option<T> {
    let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
    None
}

/// Whether the error is about one connection that is gone already, and not about the listener or the process.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
