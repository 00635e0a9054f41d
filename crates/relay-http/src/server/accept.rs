//! Accepts connections and distributes them to worker threads. It enforces the limits on
//! connections: in total, per address, and for banned addresses.
//!
//! Each worker is a thread with its own runtime. A connection stays on its worker, so its state is
//! not shared between threads.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

use crate::limits::admission::{Admission, Entry, WhyRefused};
use crate::limits::open_connections::{OpenConnection, OpenConnections, Opened};
use crate::limits::peer::Peers;
use crate::liveness::Liveness;
use crate::metrics::Metrics;
use crate::monotonic;
use crate::server::socket::{ClientSocket, ListeningSocket, WatchedSocket};

/// The pause after a failure of the system, such as a lack of file descriptors.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How many connections are accepted before other tasks of the thread run.
const BATCH: usize = 64;

/// The pause after connections were refused. Accepting twenty at once is cheaper than waking up for
/// each, and accepted clients do not notice the delay.
const FLOOD_PAUSE: Duration = Duration::from_millis(2);

/// How many unsent bytes the socket buffer may hold. More would be memory that no limit counts, and
/// would hide how slowly a client reads.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BYTES: u32 = 128 * 1024;

/// A connection that may be served.
pub(super) struct AcceptedConnection {
    pub(super) socket: ClientSocket,
    pub(super) peer: SocketAddr,
    pub(super) open: OpenConnection,
    /// The address is banned; the connection gets one refusal.
    pub(super) is_shut_out: bool,
    /// The number of the listener.
    pub(super) listener: usize,
    /// Whether the connection begins with a header, in which a proxy names its client.
    pub(super) has_proxy_header: bool,
}

/// The threads that accept and serve connections. Dropping this ends them, and closes all
/// connections.
pub(super) struct ServerThreads {
    workers: Vec<mpsc::UnboundedSender<AcceptedConnection>>,
    liveness: Liveness,
    stop: watch::Sender<()>,
}

/// Decides which connections of a listener are served.
pub(super) struct ConnectionFilter<A> {
    /// The number of the listener.
    pub(super) listener: usize,
    /// Whose connections begin with a header of the PROXY protocol.
    pub(super) proxies: Peers,
    pub(super) connections: OpenConnections,
    pub(super) admit: A,
    pub(super) metrics: Arc<Metrics>,
}

impl ServerThreads {
    /// Starts `number` workers. Each calls `prepare` for the function that serves its connections.
    ///
    /// # Errors
    /// If a thread or its runtime cannot be started.
    pub(super) fn start<P, M, S, F>(number: NonZeroUsize, liveness: Liveness, prepare: P) -> io::Result<Self>
    where
        P: Fn() -> M + Clone + Send + 'static,
        M: Future<Output = Option<S>>,
        S: Fn(AcceptedConnection) -> F + 'static,
        F: Future<Output = ()> + 'static,
    {
        let mut threads = Self { workers: Vec::new(), liveness, stop: watch::channel(()).0 };
        for number in 0..number.get() {
            let (worker, accepted) = mpsc::unbounded_channel();
            let prepare = prepare.clone();
            threads.spawn(&format!("relay-http-{number}"), move || run_worker(prepare, accepted))?;
            threads.workers.push(worker);
        }
        Ok(threads)
    }

    /// Accepts connections until `stop` holds true or its sender is dropped.
    ///
    /// # Errors
    /// If the listener is unusable, or the thread cannot be started.
    pub(super) fn accept<A>(
        &self,
        listener: ListeningSocket,
        filter: ConnectionFilter<A>,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()>
    where
        A: Fn(SocketAddr) -> Admission + Send + 'static,
    {
        listener.set_nonblocking()?;
        let workers = self.workers.clone();
        self.spawn("relay-accept", move || async move {
            let accepting = async {
                let listeners = listener.try_clone().and_then(|clone| Ok((listener.watch()?, clone)));
                match listeners {
                    Ok((first, more)) => accept(&first, &more, &filter, &workers).await,
                    Err(error) => tracing::error!(%error, "cannot accept connections"),
                }
            };
            tokio::select! {
                () = accepting => {}
                _ = stop.wait_for(|is_stopped| *is_stopped) => {}
            }
        })
    }

    /// Runs `work` on a new thread, until it ends or this is dropped.
    fn spawn<W, F>(&self, name: &str, work: W) -> io::Result<()>
    where
        W: FnOnce() -> F + Send + 'static,
        F: Future<Output = ()>,
    {
        let (mut stopped, answering) = (self.stop.subscribe(), self.liveness.add_thread());
        let (started_sender, started) = std::sync::mpsc::sync_channel(1);
        let run = move || {
            // A local runtime has to be built on its own thread.
            let runtime =
                match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                    Ok(runtime) => runtime,
                    Err(error) => return drop(started_sender.send(Err(error))),
                };
            drop(started_sender.send(Ok(())));
            runtime.block_on(async {
                tokio::task::spawn_local(answering);
                tokio::select! {
                    () = work() => {}
                    // Resolves when the sender is dropped.
                    _ = stopped.changed() => {}
                }
            });
            // Does not wait for blocking tasks.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(run)?;
        started.recv().unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }
}

async fn run_worker<P, M, S, F>(prepare: P, mut accepted: mpsc::UnboundedReceiver<AcceptedConnection>)
where
    P: Fn() -> M,
    M: Future<Output = Option<S>>,
    S: Fn(AcceptedConnection) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let Some(serve) = prepare().await else { return };
    while let Some(connection) = accepted.recv().await {
        tokio::task::spawn_local(serve(connection));
    }
    // No new connections come, but existing ones continue.
    std::future::pending::<()>().await;
}

/// Waits for a connection with `listener`, then accepts all pending ones with `more`, a clone. The
/// runtime does not know the clone or its sockets, which saves most of the cost of a refused
/// connection.
async fn accept<A: Fn(SocketAddr) -> Admission>(
    listener: &WatchedSocket,
    more: &ListeningSocket,
    filter: &ConnectionFilter<A>,
    workers: &[mpsc::UnboundedSender<AcceptedConnection>],
) {
    let mut next_workers = workers.iter().cycle();
    loop {
        let mut next = listener.accept().await;
        let mut has_refused = false;
        for accepted in 1.. {
            match next {
                Ok((socket, peer)) => match filter.filter(socket, peer).await {
                    // If the worker is gone, this drops the connection.
                    Some(connection) => drop(next_workers.next().map(|worker| worker.send(connection))),
                    None => has_refused = true,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if has_refused {
                        // Blocks the thread, which has no other task. Its runtime would wake up for
                        // each new connection.
                        std::thread::sleep(FLOOD_PAUSE);
                    }
                    break;
                }
                Err(error) if is_of_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections; trying again");
                    tokio::time::sleep(RETRY_PAUSE).await;
                    break;
                }
            }
            if accepted == BATCH {
                break;
            }
            next = more.accept();
        }
    }
}

impl<A: Fn(SocketAddr) -> Admission> ConnectionFilter<A> {
    async fn filter(&self, socket: ClientSocket, peer: SocketAddr) -> Option<AcceptedConnection> {
        let has_proxy_header = self.proxies.contain(&peer.ip().to_canonical());
        // What a proxy opens counts for its client, who is not known yet.
        let placed = if has_proxy_header {
            let open = self.connections.open_unnamed(monotonic::now());
            open.map(|open| (open, false)).ok_or(WhyRefused::Unnamed)
        } else {
            self.place(peer).await
        };
        let (open, is_shut_out) = match placed {
            Ok(placed) => placed,
            Err(why) => return self.refuse(&socket, why),
        };
        let options = socket.options();
        options.set_nonblocking(true).ok()?;
        // Failures of these two are harmless: the first only affects speed, and other limits also
        // bound what the second bounds. Unix sockets have neither.
        let _ = options.set_tcp_nodelay(true);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let _ = options.set_tcp_notsent_lowat(UNSENT_BYTES);
        let listener = self.listener;
        Some(AcceptedConnection { socket, peer, open, is_shut_out, listener, has_proxy_header })
    }

    /// The place of a connection of this peer, and whether it gets one refusal. Waits for a place.
    async fn place(&self, peer: SocketAddr) -> Result<(OpenConnection, bool), WhyRefused> {
        let Admission { entry, mut address, ban_began } = (self.admit)(peer);
        self.metrics.count_ban(ban_began);
        let is_shut_out = match entry {
            Entry::Open => false,
            Entry::RefuseOnce => {
                self.metrics.connection_refused(WhyRefused::Ban);
                true
            }
            Entry::Closed(why) => return Err(why),
        };
        loop {
            match self.connections.open(address, monotonic::now()) {
                Opened::Yes(open) => return Ok((open, is_shut_out)),
                Opened::AddressIsFull => return Err(WhyRefused::Address),
                Opened::Full(unused) => address = unused,
            }
            self.connections.one_closed().await;
        }
    }

    /// Closes the connection without a response. The system keeps no state of it.
    fn refuse<T>(&self, socket: &ClientSocket, why: WhyRefused) -> Option<T> {
        self.metrics.connection_refused(why);
        let _ = socket.options().set_linger(Some(Duration::ZERO));
        None
    }
}

/// Whether the error concerns one connection, not the listener or the process.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn a_thread_that_is_stuck_does_not_answer() {
        let (entered_sender, entered) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Arc::new(std::sync::Mutex::new(released));
        let liveness = Liveness::default();
        let prepare = move || {
            let (entered, released) = (entered_sender.clone(), Arc::clone(&released));
            async move {
                Some(move |_: AcceptedConnection| {
                    entered.send(()).unwrap();
                    // Blocks the thread.
                    let _ = released.lock().unwrap().recv();
                    std::future::ready(())
                })
            }
        };
        let two = NonZeroUsize::new(2).unwrap();
        let threads = ServerThreads::start(two, liveness.clone(), prepare).unwrap();
        let runtime = Builder::new_current_thread().build().unwrap();
        assert!(runtime.block_on(liveness.answered()));

        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let Opened::Yes(open) = OpenConnections::new(1, 1, monotonic::now()).open(None, monotonic::now())
        else {
            panic!("the table is empty");
        };
        let connection = AcceptedConnection {
            socket: ClientSocket::Tcp(tcp),
            peer: listener.local_addr().unwrap(),
            open,
            is_shut_out: false,
            listener: 0,
            has_proxy_header: false,
        };
        assert!(threads.workers[1].send(connection).is_ok());
        entered.recv().unwrap();
        let mut answered = pin!(liveness.answered());
        // Only the first thread can answer, so no time is long enough.
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(answered.as_mut().poll(&mut cx), Poll::Pending);
        release.send(()).unwrap();
        assert!(runtime.block_on(answered));
        drop(threads);
        // The threads end soon after, and then do not count as working.
        while runtime.block_on(liveness.answered()) {}
    }
}
