//! Runs a relay: binds the address, opens the store, and serves until it is stopped. The relay
//! serves while the store opens, so early clients get an answer.
//!
//! All tasks of the relay end with the server, before [`RunningRelay::handle`] resolves.

#[cfg(feature = "redb")]
mod controlled;
#[cfg(not(feature = "redb"))]
#[path = "running/uncontrolled.rs"]
mod controlled;
#[cfg(feature = "redb")]
mod durable;
mod listen;
#[cfg(feature = "redb")]
mod older_names;
mod reloading;
mod reloads;
#[cfg(feature = "postgres")]
mod replicated;
#[cfg(unix)]
mod socket_file;
mod starting;
mod transport;
mod waking;

use std::future::{Future, pending};
use std::io;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use relay_core::{MemoryRelay, Relay};
use relay_http::{CursorKey, Liveness, Metrics, Readiness};
use relay_wake::WakingRelay;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, timeout};

use self::controlled::{ControlEnd, ControlPlan};
use self::listen::{Bound, Listeners};
use self::reloading::Parts;
use self::reloads::reload_files;
use self::starting::Starting;
use crate::clock::WatchedClock;
use crate::config::{RelayConfig, StorageKind};
#[cfg(feature = "redb")]
use crate::control;
use crate::deferred_store::{DeferredStore, ReplayPercent, STORE_RELEASE_TIMEOUT};
use crate::error::RelayError;
use crate::issuer_file::IssuerFile;
use crate::key_file::KeyForStart;
use crate::supervision::{Monitor, Supervision};
use crate::wiring;

/// A relay that runs in the background of the tokio runtime that started it.
#[derive(Debug)]
pub struct RunningRelay {
    /// The URL of the relay, such as `http://127.0.0.1:7000`, or its `address` if that is a Unix
    /// socket.
    pub base_url: String,
    /// Sending stops the relay: it rejects new requests, finishes the accepted ones, and ends.
    /// Dropping this does nothing.
    pub shutdown: oneshot::Sender<()>,
    /// Resolves when the relay has ended, for any reason, and its store is closed.
    pub handle: JoinHandle<Result<(), RelayError>>,
}

/// Starts a relay on the store in the configuration, and resolves when the store is open. Until
/// then, requests wait up to `server.start_wait_seconds`, and then fail because the relay is not
/// ready. Needs a tokio runtime of any kind.
///
/// # Errors
/// [`RelayError`], if the configuration has mistakes or names something that cannot be used.
pub async fn start(config: RelayConfig) -> Result<RunningRelay, RelayError> {
    start_supervised(config, Supervision::none(), pending()).await
}

/// Like [`start`], with the caller's store. It ignores `[storage]`, and in `[relay]` all keys but
/// `max_message_bytes`, which limits request bodies, and `gc_interval_seconds`: the store enforces
/// the other limits. A store that outlives the process needs `privacy.key_path`. Otherwise the
/// relay rejects the clients' cursors after a restart. The store gets recipients as clients send
/// them: `privacy.hash_recipients` applies to the store of [`start`] only.
///
/// # Errors
/// As [`start`].
pub async fn start_with_store<R: Relay>(store: R, config: RelayConfig) -> Result<RunningRelay, RelayError> {
    start_opening(|| Ok(store), config).await
}

/// Like [`start_with_store`], with a store that may take long to open. `open` runs on a thread of
/// its own.
///
/// # Errors
/// As [`start`], and the errors of `open`.
pub async fn start_opening<R: Relay>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
    config: RelayConfig,
) -> Result<RunningRelay, RelayError> {
    log_warnings(&config.validate()?);
    let key = KeyForStart::find(wiring::configured_key_path(&config))?;
    serve(open, Box::new(|| None), config, key, Supervision::none(), pending(), ControlPlan::none()).await
}

/// Like [`start`], and reloads the configuration, the certificates and the issuer's keys when the
/// supervisor requests it. The relay also stops when `stop` resolves. If that happens before the
/// store is open, the returned relay has ended.
pub(crate) async fn start_supervised(
    config: RelayConfig,
    supervision: Supervision,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<RunningRelay, RelayError> {
    log_warnings(&config.validate()?);
    let (limits, clock) = (wiring::limits(&config.relay), Arc::new(WatchedClock::default()));
    match config.storage.kind {
        StorageKind::Memory => {
            let bytes_max = wiring::memory_bytes_max(config.storage.max_bytes);
            let open = move || Ok(MemoryRelay::new(limits, clock).with_bytes_max(bytes_max));
            let key = KeyForStart::find(wiring::configured_key_path(&config))?;
            let (control, _) = ControlPlan::new(&config, supervision.log.clone())?;
            serve(open, Box::new(|| None), config, key, supervision, stop, control).await
        }
        #[cfg(feature = "redb")]
        StorageKind::Redb => {
            let key = KeyForStart::find(Some(wiring::key_path(&config)))?;
            let progress = relay_store_redb::OpenProgress::default();
            let (control, binding) = ControlPlan::new(&config, supervision.log.clone())?;
            let bind = move || binding.map_or((), control::Binding::bind_in_locked_directory);
            let open = durable::opening(&config, &key, limits, clock, progress.clone(), bind);
            serve(open, Box::new(move || progress.percent()), config, key, supervision, stop, control).await
        }
        #[cfg(feature = "postgres")]
        StorageKind::Postgres => {
            // The key must be in its file before the database knows its id.
            let key = KeyForStart::find(wiring::configured_key_path(&config))?.written()?;
            let (control, _) = ControlPlan::new(&config, supervision.log.clone())?;
            let open = replicated::opening(&config, &key, limits)?;
            serve(open, Box::new(|| None), config, key, supervision, stop, control).await
        }
        #[cfg(not(feature = "postgres"))]
        StorageKind::Postgres => unreachable!("validate refuses a store that is not built in"),
        #[cfg(not(feature = "redb"))]
        StorageKind::Redb => unreachable!("validate refuses a store that is not built in"),
    }
}

/// Starts the servers and tasks, then opens the store.
async fn serve<R: Relay>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
    replay_percent: ReplayPercent,
    config: RelayConfig,
    key: KeyForStart,
    mut supervision: Supervision,
    stop: impl Future<Output = ()> + Send + 'static,
    control: ControlPlan<R>,
) -> Result<RunningRelay, RelayError> {
    let listeners = Listeners::bind(&config, std::mem::take(&mut supervision.sockets)).await?;
    let wakes = waking::wakes(&config.wake)?;
    let base_url = listeners.base_url.clone();
    let start_wait = Duration::from_secs(config.server.start_wait_seconds);
    let (store, released) = DeferredStore::track(replay_percent, start_wait);
    // The end waits until all others have released the store, so this start keeps no reference.
    let opening = Arc::downgrade(&store);
    let (shutdown, stopped) = oneshot::channel();
    let stop = either(stop, stopped);
    let running = run(&config, listeners, key.root.cursors(), store, supervision, stop, control)?;
    let mut server = Starting::new(async move {
        let (outcome, control) = running.await;
        control.closing();
        released.wait().await;
        control.ended(&outcome).await;
        outcome
    });
    match open_unless_ended(open, key, &mut server).await {
        None => {}
        Some(Ok(store)) => {
            if let Some(opening) = opening.upgrade() {
                opening.set(WakingRelay::new(store, wakes));
            }
            tracing::info!(url = base_url, store = ?config.storage.kind, version = env!("CARGO_PKG_VERSION"), "serving");
        }
        Some(Err(error)) => {
            let _: Result<(), ()> = shutdown.send(());
            // The error of the start matters, not that of the server.
            drop(server.into_inner().await);
            return Err(error);
        }
    }
    Ok(RunningRelay { base_url, shutdown, handle: server.into_inner() })
}

/// Runs the servers and tasks until one of them ends, and then releases the store. Resolves with
/// the outcome, and with the commands that wait for it.
fn run<R: Relay, S: Future<Output = ()> + Send + 'static>(
    config: &RelayConfig,
    listeners: Listeners,
    cursor_key: CursorKey,
    store: Arc<DeferredStore<WakingRelay<R>>>,
    supervision: Supervision,
    stop: S,
    control: ControlPlan<R>,
) -> Result<impl Future<Output = (Result<(), RelayError>, ControlEnd)> + Send + use<R, S>, RelayError> {
    let Listeners { public, admin, files, base_url } = listeners;
    let metrics = Arc::new(Metrics::default());
    let issuer_file = IssuerFile::load(&config.auth)?;
    let issuer = issuer_file.as_ref().map(IssuerFile::issuer);
    let (rereads, configuration) = reload_files(&public, issuer_file, &metrics, supervision.reloads);
    let (sweep_interval, interval) = watch::channel(Duration::from_secs(config.relay.gc_interval_seconds));
    let sweeps = sweep_regularly(Arc::clone(&store), interval, Arc::clone(&metrics));
    let waking = waking::wake(Arc::clone(&store));
    let control = control.start(config, &base_url, &store);
    let stop = stop_requested(stop, control.drain_requested(), Arc::downgrade(&store));
    let (control, control_end) = control.serve();
    let admin = serve_admin(config, admin, &store, Arc::clone(&metrics))?;
    let liveness = Liveness::default();
    // Nobody may want to observe the relay.
    drop(supervision.monitor.send(monitor(&store, &metrics, &liveness)));
    let ready = readiness(&store);
    let options = move |config: &RelayConfig| relay_http::Options {
        liveness: liveness.clone(),
        ..wiring::http_options(config, cursor_key.clone(), ready.clone(), issuer.clone())
    };
    let (relay, public_options) = (Arc::clone(&store), options(config));
    let public = relay_http::serve_reloadable(public, relay, public_options, metrics, stop);
    let (public, http) = public.map_err(RelayError::Serve)?;
    let parts = Parts {
        in_force: config.clone(),
        http,
        options: Box::new(options),
        store: Arc::clone(&store),
        sweep_interval,
    };
    let reloads = reloading::run(supervision.configuration, parts, configuration);
    Ok(async move {
        let outcome = tokio::select! {
            ended = public => ended.map_err(RelayError::Serve),
            error = store.ended() => Err(RelayError::Broken(error)),
            ended = admin => ended.map_err(RelayError::Serve),
            () = sweeps => Ok(()),
            () = rereads => Ok(()),
            () = reloads => Ok(()),
            () = waking => Ok(()),
            () = control => Ok(()),
        };
        drop(files);
        // Dropping the last reference closes the store, which may wait for the disk.
        drop(tokio::task::spawn_blocking(move || drop(store)));
        (outcome, control_end)
    })
}

/// Opens a store on a blocking thread and writes a new key. Returns `None` if the server ends
/// earlier.
async fn open_unless_ended<R: Relay>(
    open: impl FnOnce() -> Result<R, RelayError> + Send + 'static,
    key: KeyForStart,
    server: &mut Starting,
) -> Option<Result<R, RelayError>> {
    let opening = tokio::task::spawn_blocking(move || {
        let store = open()?;
        key.write_if_new()?;
        Ok(store)
    });
    let mut opened =
        pin!(async { opening.await.unwrap_or_else(|error| Err(RelayError::Serve(io::Error::other(error)))) });
    tokio::select! {
        opened = &mut opened => return Some(opened),
        () = server.ended() => {}
    }
    // A store that is almost open is closed properly. For any other, the end of the process is like
    // a crash.
    if let Ok(Ok(store)) = timeout(STORE_RELEASE_TIMEOUT, opened).await {
        drop(tokio::task::spawn_blocking(move || drop(store)).await);
    }
    None
}

/// Resolves when `stop` does, or when the other side of `shutdown` sends.
async fn either(stop: impl Future<Output = ()>, shutdown: oneshot::Receiver<()>) {
    let shutdown = async {
        // A dropped sender never stops the relay.
        if shutdown.await.is_err() {
            pending::<()>().await;
        }
    };
    tokio::select! {
        () = stop => {}
        () = shutdown => {}
    }
}

/// Resolves when `stop` does, or a command stops the relay. From then on, no request waits for the
/// store.
async fn stop_requested<R: Relay>(
    stop: impl Future<Output = ()>,
    drain: impl Future<Output = ()>,
    opening: Weak<DeferredStore<R>>,
) {
    tokio::select! {
        () = stop => {}
        () = drain => {}
    }
    if let Some(opening) = opening.upgrade() {
        opening.end();
    }
}

/// What `/ready` answers for a store, as long as the store exists.
fn readiness<R: Relay>(store: &Arc<DeferredStore<R>>) -> Readiness {
    let store = Arc::downgrade(store);
    Readiness::new(move || store.upgrade().map_or(Ok(()), |store| store.readiness()))
}

/// What the program observes of this relay, as long as its store exists.
fn monitor<R: Relay>(store: &Arc<DeferredStore<R>>, metrics: &Arc<Metrics>, liveness: &Liveness) -> Monitor {
    Monitor { readiness: readiness(store), metrics: Arc::clone(metrics), liveness: liveness.clone() }
}

/// Serves operators. Without a listener, the future never resolves.
fn serve_admin<R: Relay>(
    config: &RelayConfig,
    admin: Option<Bound>,
    store: &Arc<DeferredStore<R>>,
    metrics: Arc<Metrics>,
) -> Result<impl Future<Output = io::Result<()>> + Send + use<R>, RelayError> {
    let serving = admin.map(|(listener, address)| {
        let is_loopback = address.ip().to_canonical().is_loopback();
        let options = wiring::admin_options(config, is_loopback, readiness(store));
        relay_http::serve_admin(listener, Arc::downgrade(store), metrics, options)
    });
    let serving = serving.transpose().map_err(RelayError::Serve)?;
    Ok(async move {
        match serving {
            Some(serving) => serving.await,
            None => pending().await,
        }
    })
}

/// Sweeps every `interval`, which may change; never resolves. Items that expired before the start
/// wait for the first sweep, since clients cannot see them.
async fn sweep_regularly<R: Relay>(
    store: Arc<DeferredStore<R>>,
    mut interval: watch::Receiver<Duration>,
    metrics: Arc<Metrics>,
) {
    store.opened().await;
    let mut ticks = every(*interval.borrow_and_update());
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            Ok(()) = interval.changed() => {
                let other = *interval.borrow_and_update();
                // Otherwise frequent reloads would put the sweep off for ever.
                if other != ticks.period() {
                    ticks = every(other);
                }
                continue;
            }
        }
        match store.sweep().await {
            Ok(swept) => {
                metrics.swept(swept.items);
                if swept.items > 0 {
                    tracing::info!(items = swept.items, "removed expired items");
                }
            }
            Err(error) => tracing::warn!(%error, "sweep failed; the relay will retry"),
        }
    }
}

/// Ticks after each `interval`, not at once.
fn every(interval: Duration) -> Interval {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.reset();
    ticks
}

fn log_warnings(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("configuration: {warning}");
    }
}
