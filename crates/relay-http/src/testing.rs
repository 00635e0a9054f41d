//! A relay in this process, for tests over a socket: generous options, and a server over a store in
//! memory.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use relay_core::testing::ManualClock;
use relay_core::{Limits, MemoryRelay};

use crate::{
    AllowedHosts, Auth, CursorKey, Listener, Liveness, Metrics, Options, Readiness, Transport, serve,
};

/// No test waits longer for anything.
const TIMEOUT: Duration = Duration::from_secs(20);

const CONNECTIONS_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("it is not zero");

/// Options that nothing reaches. Every name is plain and open.
#[must_use]
pub fn options() -> Options {
    Options {
        limits: Limits::default(),
        batch_bytes_max: 16 * 1024 * 1024,
        inflight_bytes_max: 256 * 1024 * 1024,
        connections_max: CONNECTIONS_MAX,
        connections_per_address_max: CONNECTIONS_MAX,
        connection_age_max: Duration::from_secs(3600),
        request_timeout: TIMEOUT,
        keep_alive: TIMEOUT,
        pull_wait_max: Duration::from_secs(55),
        drain: TIMEOUT,
        rate_limit: None,
        public_stats: true,
        cursor_key: CursorKey::new(&[7; 32]),
        readiness: Readiness::always(),
        access_log: None,
        liveness: Liveness::default(),
        allowed_hosts: AllowedHosts::any(),
        loopback_hosts: AllowedHosts::any(),
        allowed_origins: Vec::new(),
        auth: Auth { settings: relay_auth::Settings::default(), clock: Arc::new(ManualClock::new()) },
    }
}

/// Starts a relay on a thread of its own, which ends with the process. Returns its address.
///
/// # Errors
/// If the system has no port or thread for it.
pub fn start(transport: Transport, options: Options) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let store = Arc::new(MemoryRelay::new(options.limits.clone(), Arc::new(ManualClock::new())));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listeners = vec![Listener::new(listener, transport)];
    let serving = serve(listeners, store, options, Arc::new(Metrics::new()), std::future::pending())?;
    std::thread::Builder::new().spawn(move || runtime.block_on(serving))?;
    Ok(address)
}
