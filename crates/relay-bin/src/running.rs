//! A relay that runs: binds the address, opens the store that the configuration names, serves until
//! it is told to stop. It serves while it opens, so that who comes early is told to come again.
//!
//! Every task that is started here ends with the server; none outlives [`RunningRelay::handle`].

use std::convert::Infallible;
use std::future::{Future, pending};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use relay_core::{MemoryRelay, Relay};
use relay_http::{AdminOptions, Metrics, Readiness, Transport};
use tokio::net::TcpSocket;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, timeout};

use crate::clock::WatchedClock;
use crate::config::{Mode, RelayConfig, StorageKind};
#[cfg(feature = "redb")]
use crate::control;
use crate::deferred_store::{DeferredStore, Progress, STORE_RELEASE_TIMEOUT};
use crate::error::RelayError;
use crate::key_file::KeyForStart;
use crate::wiring;

/// How many connections the system keeps for the relay until it takes them.
const LISTEN_BACKLOG: u32 = 1024;

/// How often the certificate files are looked at for changes.
#[cfg(feature = "tls")]
const CERTIFICATE_POLL: Duration = Duration::from_secs(2);

/// A relay that runs in the background of the runtime that it was started in.
#[derive(Debug)]
pub struct RunningRelay {
    /// Where it is reached, such as `http://127.0.0.1:7000`.
    pub base_url: String,
    /// Sending stops the relay: it sends new requests away, finishes what it accepted, and ends.
    /// Dropping this does nothing.
    pub shutdown: oneshot::Sender<()>,
    /// Resolves when the relay has ended, for whatever reason, and its store is closed.
    pub handle: JoinHandle<Result<(), RelayError>>,
}

/// Starts a relay on the store that the configuration names, and resolves when that is open. Until
/// then the port lets requests wait for it, up to `server.start_wait_seconds`, and tells then that
/// the relay is not ready. Needs a tokio runtime, of whichever kind.
///
/// # Errors
/// [`RelayError`], when the configuration has mistakes or something that it names cannot be used.
pub async fn start(config: RelayConfig) -> Result<RunningRelay, RelayError> {
    start_reloadable(config, Arc::default(), pending()).await
}

/// As [`start`], on a store that the caller brings. Of the configuration, `[storage]` is not looked
/// at, and of `[relay]` only `max_message_bytes`, which limits request bodies, and
/// `gc_interval_seconds`: the other limits are the store's business. A store that outlives the
/// process needs `privacy.key_path`, or else the cursors that clients keep are refused after a
/// restart.
///
/// # Errors
/// As [`start`].
pub async fn start_with_store<R: Relay>(store: R, config: RelayConfig) -> Result<RunningRelay, RelayError> {
    start_opening(|| Ok(store), config).await
}

/// As [`start_with_store`], on a store that may take long to open. That is done on a thread of its
/// own.
///
/// # Errors
/// As [`start`], and what `open` says.
pub async fn start_opening<R: Relay>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
    config: RelayConfig,
) -> Result<RunningRelay, RelayError> {
    warn_all(&config.validate()?);
    let key = KeyForStart::find(wiring::given_key_path(&config))?;
    serve(open, Box::new(|| None), config, key, Arc::default(), pending(), |_| pending()).await
}

/// As [`start`]; the certificates are read anew whenever `reload` is notified, and the relay is
/// also stopped when `told` resolves, even while its store is being opened: what comes back has
/// ended then.
pub(crate) async fn start_reloadable(
    config: RelayConfig,
    reload: Arc<Notify>,
    told: impl Future<Output = ()> + Send + 'static,
) -> Result<RunningRelay, RelayError> {
    warn_all(&config.validate()?);
    let (limits, clock) = (wiring::limits(&config.relay), Arc::new(WatchedClock::default()));
    match config.storage.kind {
        StorageKind::Memory => {
            let bytes_max = wiring::memory_bytes_max(config.storage.max_bytes);
            let open = move || Ok(MemoryRelay::new(limits, clock).with_bytes_max(bytes_max));
            let key = KeyForStart::find(wiring::given_key_path(&config))?;
            serve(open, Box::new(|| None), config, key, reload, told, |_| pending()).await
        }
        #[cfg(feature = "redb")]
        StorageKind::Redb => {
            let (path, key_path) = (config.storage.path.clone(), wiring::key_path(&config));
            let key = KeyForStart::find(Some(key_path.clone()))?;
            let (opened, progress) = (path.clone(), relay_store_redb::OpenProgress::default());
            let options = relay_store_redb::Options {
                progress: Some(progress.clone()),
                ..wiring::store_options(&config)
            };
            let open = move || Ok(relay_store_redb::RedbRelay::open(&opened, limits, clock, options)?);
            let ask = move |store: &relay_store_redb::RedbRelay| {
                control::listen(&path, key_path, store.snapshots())
            };
            serve(open, Box::new(move || progress.percent()), config, key, reload, told, ask).await
        }
        #[cfg(not(feature = "redb"))]
        StorageKind::Redb => unreachable!("validate refuses what is not built in"),
    }
}

/// Serves, and does meanwhile what the operator asks for: what `ask` makes of the store once it is
/// there.
async fn serve<R, A>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
    progress: Progress,
    config: RelayConfig,
    key: KeyForStart,
    reload: Arc<Notify>,
    told: impl Future<Output = ()> + Send + 'static,
    ask: impl FnOnce(&R) -> A + Send + 'static,
) -> Result<RunningRelay, RelayError>
where
    R: Relay,
    A: Future<Output = ()> + Send + 'static,
{
    let transport = transport(&config)?;
    let listener = listen(&config.address).await;
    let failed = |source| RelayError::Listen { address: config.address.clone(), source };
    let (listener, address) = listener.map_err(failed)?;
    let base_url = format!("{}://{address}", scheme(config.mode));
    let admin = listen_for_admin(&config.admin.address).await?;

    let metrics = Arc::new(Metrics::default());
    #[cfg(feature = "tls")]
    if let Transport::Tls(tls) = &transport {
        metrics.set_tls(tls.clone());
    }
    let (store, released) =
        DeferredStore::track(progress, Duration::from_secs(config.server.start_wait_seconds));
    let (shutdown, stopped) = oneshot::channel();
    let stop = stop(told, stopped, Arc::downgrade(&store));
    // The end waits for whoever holds the store, so this start does not.
    let (held, opening) = (Arc::clone(&store), Arc::downgrade(&store));
    let options = wiring::http_options(&config, address, key.root.cursors(), readiness(&store));
    let reloads = reload_certificates(&transport, reload);
    let sweeps = sweep_regularly(
        Arc::clone(&store),
        Duration::from_secs(config.relay.gc_interval_seconds),
        Arc::clone(&metrics),
    );
    let (tell, told) = oneshot::channel::<A>();
    let asked = async {
        match told.await {
            Ok(asked) => asked.await,
            Err(_) => pending().await,
        }
    };
    let admin = admin
        .map(|(listener, address)| (listener, wiring::admin_options(&config, address, readiness(&store))));
    let admin = serve_admin(admin, Arc::downgrade(&store), Arc::clone(&metrics))?;
    let serving =
        relay_http::serve(listener, store, options, transport, metrics, stop).map_err(RelayError::Serve)?;
    let mut server = Starting::new(async move {
        let ended = tokio::select! {
            ended = serving => ended.map_err(RelayError::Serve),
            error = held.ended() => Err(RelayError::Broken(error)),
            ended = admin => ended.map_err(RelayError::Serve),
            () = sweeps => Ok(()),
            () = reloads => Ok(()),
            () = asked => Ok(()),
        };
        // The last holder closes the store, which may wait for the disk.
        drop(tokio::task::spawn_blocking(move || drop(held)));
        released.wait().await;
        ended
    });
    let open = move || {
        let store = open()?;
        key.keep()?;
        Ok(store)
    };
    let Some(opened) = open_unless_ended(open, &mut server).await else {
        return Ok(RunningRelay { base_url, shutdown, handle: server.into_inner() });
    };
    match opened {
        Ok(opened) => {
            // Whoever is told that the relay serves can ask it at once. Should the server be gone,
            // nobody will.
            drop(tell.send(ask(&opened)));
            if let Some(opening) = opening.upgrade() {
                opening.set(opened);
            }
        }
        Err(error) => {
            let _: Result<(), ()> = shutdown.send(());
            // What the start failed by is what has to be told.
            drop(server.into_inner().await);
            return Err(error);
        }
    }
    let handle = server.into_inner();
    tracing::info!(url = base_url, store = ?config.storage.kind, version = env!("CARGO_PKG_VERSION"), "serving");
    Ok(RunningRelay { base_url, shutdown, handle })
}

/// Opens a store, and gives that up when the server ends before. It is `None` then.
async fn open_unless_ended<R: Relay>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
    server: &mut Starting,
) -> Option<Result<R, RelayError>> {
    let mut opened = pin!(open_aside(open));
    tokio::select! {
        opened = &mut opened => return Some(opened),
        () = server.ended() => {}
    }
    // A store that is nearly there is closed as it should be. To any other one, the end of the
    // process is a crash like all others.
    if let Ok(Ok(store)) = timeout(STORE_RELEASE_TIMEOUT, opened).await {
        drop(tokio::task::spawn_blocking(move || drop(store)).await);
    }
    None
}

/// Resolves when the relay is told to end, by `told` or by the other side of `shutdown`. Nobody
/// waits for its store from then on.
async fn stop<R: Relay>(
    told: impl Future<Output = ()>,
    shutdown: oneshot::Receiver<()>,
    opening: Weak<DeferredStore<R>>,
) {
    let shutdown = async {
        // A sender that was dropped will never stop us.
        if shutdown.await.is_err() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = told => {}
        () = shutdown => {}
    }
    if let Some(opening) = opening.upgrade() {
        opening.end();
    }
}

/// Opens a store where nobody waits for the thread.
async fn open_aside<R: Relay>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
) -> Result<R, RelayError> {
    let opened = tokio::task::spawn_blocking(open).await;
    opened.unwrap_or_else(|error| Err(RelayError::Serve(io::Error::other(error))))
}

/// What `/ready` is to tell of a store, for as long as there is one.
fn readiness<R: Relay>(store: &Arc<DeferredStore<R>>) -> Readiness {
    let store = Arc::downgrade(store);
    Readiness::new(move || store.upgrade().map_or(Ok(()), |store| store.readiness()))
}

/// Binds the first of the address's meanings that can be bound.
async fn listen(address: &str) -> io::Result<(TcpListener, SocketAddr)> {
    let mut failure = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    let mut meanings: Vec<SocketAddr> = tokio::net::lookup_host(address).await?.collect();
    meanings.dedup();
    for meaning in &meanings {
        match listen_on(*meaning) {
            Ok(listening) => {
                if meanings.len() > 1 {
                    tracing::warn!(
                        name = address, address = %listening.1,
                        "the name has several addresses, and one of them is listened on; name that, to choose"
                    );
                }
                return Ok(listening);
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Binds the address for whoever runs the relay, if there is to be one.
async fn listen_for_admin(address: &str) -> Result<Option<(TcpListener, SocketAddr)>, RelayError> {
    if address.is_empty() {
        return Ok(None);
    }
    let failed = |source| RelayError::ListenAdmin { address: address.to_owned(), source };
    let (listener, address) = listen(address).await.map_err(failed)?;
    tracing::info!(url = format!("http://{address}/metrics"), "serving metrics");
    Ok(Some((listener, address)))
}

/// Serves there until it is dropped.
fn serve_admin<R: Relay>(
    admin: Option<(TcpListener, AdminOptions)>,
    store: Weak<R>,
    metrics: Arc<Metrics>,
) -> Result<impl Future<Output = io::Result<()>> + Send + 'static, RelayError> {
    let serving = admin.map(|(listener, options)| relay_http::serve_admin(listener, store, metrics, options));
    let serving = serving.transpose().map_err(RelayError::Serve)?;
    Ok(async move {
        match serving {
            Some(serving) => serving.await,
            None => pending().await,
        }
    })
}

fn listen_on(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A relay that is restarted takes its port back although old connections linger.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    let listener = socket.listen(LISTEN_BACKLOG)?.into_std()?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

const fn scheme(mode: Mode) -> &'static str {
    match mode {
        Mode::Http => "http",
        Mode::Tls => "https",
    }
}

#[cfg(feature = "tls")]
fn transport(config: &RelayConfig) -> Result<Transport, RelayError> {
    match (config.mode, &config.tls) {
        (Mode::Tls, Some(tls)) => Ok(Transport::Tls(relay_http::tls::Tls::load(wiring::tls_paths(tls))?)),
        (Mode::Http, _) | (Mode::Tls, None) => Ok(Transport::Plain),
    }
}

#[cfg(not(feature = "tls"))]
fn transport(_: &RelayConfig) -> Result<Transport, RelayError> {
    Ok(Transport::Plain)
}

/// Keeps the certificates fresh; never resolves.
fn reload_certificates(
    transport: &Transport,
    reload: Arc<Notify>,
) -> impl Future<Output = ()> + Send + 'static {
    #[cfg(feature = "tls")]
    let tls = match transport {
        Transport::Tls(tls) => Some(tls.clone()),
        Transport::Plain => None,
    };
    #[cfg(not(feature = "tls"))]
    let _: &Transport = transport;
    async move {
        #[cfg(feature = "tls")]
        if let Some(tls) = tls {
            relay_http::tls::watch(tls, reload, CERTIFICATE_POLL).await;
        }
        #[cfg(not(feature = "tls"))]
        drop(reload);
        pending::<()>().await;
    }
}

/// Sweeps every `interval`; never resolves. What is due at the start waits for the first one:
/// nobody sees it.
async fn sweep_regularly<R: Relay>(store: Arc<DeferredStore<R>>, interval: Duration, metrics: Arc<Metrics>) {
    store.opened().await;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match store.sweep().await {
            Ok(swept) => {
                metrics.swept(swept.items);
                if swept.items > 0 {
                    tracing::info!(items = swept.items, "removed expired items");
                }
            }
            Err(error) => tracing::warn!(%error, "sweep failed; it will be retried"),
        }
    }
}

fn warn_all(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("configuration: {warning}");
    }
}

/// A server whose start is not over. It ends if nobody waits for that any more.
struct Starting {
    task: Option<JoinHandle<Result<(), RelayError>>>,
    /// Closed when the task is over.
    running: mpsc::Receiver<Infallible>,
}

impl Starting {
    fn new(server: impl Future<Output = Result<(), RelayError>> + Send + 'static) -> Self {
        let (runs, running) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            let _runs = runs;
            server.await
        });
        Self { task: Some(task), running }
    }

    /// Resolves when the server has ended, of which the handle tells more.
    async fn ended(&mut self) {
        while self.running.recv().await.is_some() {}
    }

    fn into_inner(mut self) -> JoinHandle<Result<(), RelayError>> {
        self.task.take().expect("it is taken once, here, by whoever owns it")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(server) = &self.task {
            server.abort();
        }
    }
}
