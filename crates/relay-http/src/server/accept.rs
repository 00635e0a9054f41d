//! Takes connections from a listener and deals them out to worker threads. It decides who gets in:
//! not more than there may be, not more than an address may have, and nobody who is shut out.
//!
//! A worker is a thread with a runtime of its own; a connection stays on its worker, so nothing of
//! it is shared between threads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};

use crate::limits::admission::{Admission, Entry, WhyRefused};
use crate::limits::open_connections::{OpenConnection, OpenConnections, Opened};
use crate::metrics::Metrics;
use crate::monotonic;

/// How long nothing is accepted after the system could give no descriptor.
const PAUSE: Duration = Duration::from_millis(100);

/// So many connections are taken at once, before anything else gets its turn.
const BATCH: usize = 64;

/// How long nothing is accepted after some had to be turned away: to take twenty at a time costs
/// less than to be woken for each, and who is let in does not notice.
const COLLECT: Duration = Duration::from_millis(2);

/// What may lie in the system's buffer and is not on its way yet. More would be memory that no
/// limit counts, and the pace of a slow client could not be seen.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 * 1024;

/// A connection that was let in.
pub(crate) struct Accepted {
    pub(crate) tcp: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) open: OpenConnection,
    /// It is told once that its address is shut out.
    pub(crate) is_shut_out: bool,
}

/// The threads that accept and serve. They end when this is dropped, and with them every connection
/// that is still open.
pub(crate) struct Threads {
    inboxes: Vec<mpsc::UnboundedSender<Accepted>>,
    stop: watch::Sender<()>,
}

/// Who gets in.
pub(crate) struct Door<D> {
    pub(crate) connections: OpenConnections,
    pub(crate) decide: D,
    pub(crate) metrics: Arc<Metrics>,
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

    /// Accepts whom the door lets in, until `paused` is told, or its sender is gone.
    ///
    /// # Errors
    /// When the listener is of no use, or there is no thread.
    pub(crate) fn accept<D>(
        &self,
        listener: std::net::TcpListener,
        door: Door<D>,
        mut paused: oneshot::Receiver<()>,
    ) -> io::Result<()>
    where
        D: Fn(SocketAddr) -> Admission + Send + 'static,
    {
        listener.set_nonblocking(true)?;
        let inboxes = self.inboxes.clone();
        self.spawn("relay-accept", move || async move {
            let accepting = async {
                let listeners =
                    listener.try_clone().and_then(|same| Ok((TcpListener::from_std(listener)?, same)));
                match listeners {
                    Ok((first, more)) => accept(&first, &more, &door, &inboxes).await,
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
        let mut stopped = self.stop.subscribe();
        let (made, is_made) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            // A local runtime belongs to the thread that makes it.
            let runtime =
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(made.send(Err(error))),
                };
            drop(made.send(Ok(())));
            runtime.block_on(async {
                tokio::select! {
                    () = work() => {}
                    // It is never told anything: it goes.
                    _ = stopped.changed() => {}
                }
            });
            // What a blocking thread still does, nobody waits for.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        is_made.recv().unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
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

/// Waits for a connection with the first handle of the listener, and takes those that are there
/// already with the second: it is not known to the runtime, and nor are they, which is most of what
/// one costs that is turned away.
async fn accept<D: Fn(SocketAddr) -> Admission>(
    listener: &TcpListener,
    more: &std::net::TcpListener,
    door: &Door<D>,
    workers: &[mpsc::UnboundedSender<Accepted>],
) {
    let mut turns = workers.iter().cycle();
    loop {
        let mut next = listener.accept().await.and_then(|(tcp, peer)| Ok((tcp.into_std()?, peer)));
        let mut is_flood = false;
        for taken in 1.. {
            match next {
                Ok((tcp, peer)) => match door.let_in(tcp, peer).await {
                    // A worker that is gone takes the connection with it.
                    Some(accepted) => drop(turns.next().map(|worker| worker.send(accepted))),
                    None => is_flood = true,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if is_flood {
                        // The thread itself sleeps, which does nothing else: its runtime would wake
                        // up for each that comes.
                        std::thread::sleep(COLLECT);
                    }
                    break;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted; trying again");
                    tokio::time::sleep(PAUSE).await;
                    break;
                }
            }
            if taken == BATCH {
                break;
            }
            next = more.accept();
        }
    }
}

impl<D: Fn(SocketAddr) -> Admission> Door<D> {
    async fn let_in(&self, tcp: std::net::TcpStream, peer: SocketAddr) -> Option<Accepted> {
        let Admission { entry, mut address, ban_began } = (self.decide)(peer);
        self.metrics.note_ban(ban_began);
        let is_shut_out = match entry {
            Entry::Open => false,
            Entry::RefuseOnce => {
                self.metrics.connection_refused(WhyRefused::Ban);
                true
            }
            Entry::Closed(why) => return self.turn_away(&tcp, why),
        };
        let open = loop {
            match self.connections.open(address, monotonic::now()) {
                Opened::Yes(open) => break open,
                Opened::AddressIsFull => return self.turn_away(&tcp, WhyRefused::Address),
                Opened::Full(again) => address = again,
            }
            self.connections.one_closed().await;
        };
        tcp.set_nonblocking(true).ok()?;
        // That small packets are sent at once is a matter of speed alone, and the other is one of
        // several bounds.
        let _ = tcp.set_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT_BYTES);
        Some(Accepted { tcp, peer, open, is_shut_out })
    }

    /// Closes without a word, and without the system remembering anything of it.
    fn turn_away<T>(&self, tcp: &std::net::TcpStream, why: WhyRefused) -> Option<T> {
        self.metrics.connection_refused(why);
        let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        None
    }
}

/// Whether the error is about one connection that is gone already, and not about the listener or
/// the process.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
