//! Tells the service manager about the life of the relay, as sd_notify(3) of systemd specifies:
//! that it is ready, reloads or stops, how it is, and that it still works. Without a service
//! manager, it does nothing. A message that cannot be sent never stops the relay: nothing waits for
//! the manager, and what it has to know is sent again later.

use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relay_http::Unready;
use sd_notify::NotifyState;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};

use crate::supervision::{Monitor, Reloader};

/// The environment variable with the address of the manager's socket.
const SOCKET_VARIABLE: &str = "NOTIFY_SOCKET";

/// How often the status is compared with the one that was sent last.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// When a message is sent again that the manager did not take.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// The service manager that has started this process, if there is one.
#[derive(Default)]
pub(crate) struct ServiceManager {
    socket: Option<SocketAddr>,
    /// The manager ends the relay after this time without a sign of life.
    watchdog: Option<Duration>,
    life: Mutex<Life>,
    phase_changed: Notify,
    has_failed: AtomicBool,
}

#[derive(Debug, Default)]
struct Life {
    phase: Phase,
    /// The messages about phases that the manager has not taken yet, in their order. At most four:
    /// ready, reloading, ready again, stopping.
    owed: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    Serving,
    Reloading,
    Stopping,
}

impl ServiceManager {
    pub(crate) fn from_environment(variables: &[(String, String)]) -> Self {
        let name = variables.iter().find(|(name, _)| name == SOCKET_VARIABLE).map(|(_, value)| value);
        let socket = name.filter(|name| !name.is_empty()).map(|name| parse(name)).transpose();
        let socket = socket.unwrap_or_else(|error| {
            tracing::warn!(%error, "{SOCKET_VARIABLE} cannot be used; the service manager is not notified");
            None
        });
        Self::new(socket, sd_notify::watchdog_enabled().filter(|watchdog| !watchdog.is_zero()))
    }

    fn new(socket: Option<SocketAddr>, watchdog: Option<Duration>) -> Self {
        Self { socket, watchdog, ..Self::default() }
    }

    /// The store is open, and the relay serves.
    pub(crate) fn ready(&self) {
        self.change(&[Phase::Starting], Phase::Serving, &[NotifyState::Ready]);
    }

    /// The relay begins to drain.
    pub(crate) fn stopping(&self) {
        let any = [Phase::Starting, Phase::Serving, Phase::Reloading];
        self.change(&any, Phase::Stopping, &[NotifyState::Stopping]);
    }

    /// Reloads the files of the relay, and resolves when that is done.
    pub(crate) async fn reload(&self, reloader: &Reloader) {
        // Managers need the time of the beginning, to tell this reload from an earlier one.
        if let Ok(time) = NotifyState::monotonic_usec_now() {
            self.change(&[Phase::Serving], Phase::Reloading, &[NotifyState::Reloading, time]);
        }
        reloader.reload().await;
        self.change(&[Phase::Reloading], Phase::Serving, &[NotifyState::Ready]);
    }

    /// Shows the status of the relay, and gives signs of life while it works. Never resolves.
    pub(crate) async fn watch(&self, monitor: oneshot::Receiver<Monitor>) {
        if self.socket.is_some() {
            self.notify(&message(&[NotifyState::Status("starting")]));
            if let Ok(monitor) = monitor.await {
                tokio::join!(
                    self.show_status(&monitor),
                    self.feed_watchdog(async || monitor.answers().await)
                );
            }
        }
        std::future::pending::<()>().await;
    }

    async fn show_status(&self, monitor: &Monitor) {
        let mut last = String::new();
        loop {
            let phase = self.life().phase;
            let status = status(phase, monitor.readiness(), monitor.open_connections());
            let is_told =
                self.pay() && (status == last || self.notify(&message(&[NotifyState::Status(&status)])));
            if is_told {
                last = status;
            }
            // Either result is a reason to look again.
            let interval = if is_told { STATUS_INTERVAL } else { RETRY_INTERVAL };
            let _ = timeout(interval, self.phase_changed.notified()).await;
        }
    }

    /// Gives a sign of life twice in the time of the watchdog, each after `answers` has resolved to
    /// true. So there is none while it does not resolve, and none before the manager knows that the
    /// relay is ready.
    async fn feed_watchdog(&self, answers: impl AsyncFn() -> bool) {
        let Some(watchdog) = self.watchdog else { return };
        loop {
            if answers().await && self.life().phase != Phase::Starting && self.pay() {
                self.notify(&message(&[NotifyState::Watchdog]));
            }
            sleep((watchdog / 2).max(Duration::from_millis(1))).await;
        }
    }

    /// Enters a phase from one of `before`, with a message.
    fn change(&self, before: &[Phase], after: Phase, states: &[NotifyState<'_>]) {
        let mut life = self.life();
        if !before.contains(&life.phase) {
            return;
        }
        life.phase = after;
        if after == Phase::Reloading {
            // An earlier reload that the manager does not know of has no meaning any more.
            let earlier = life.owed.iter().position(|owed| owed.starts_with("RELOADING=1"));
            life.owed.truncate(earlier.unwrap_or(usize::MAX));
        }
        life.owed.push(message(states));
        drop(life);
        self.pay();
        self.phase_changed.notify_one();
    }

    /// Sends what is owed. Returns false if the manager does not take it now.
    fn pay(&self) -> bool {
        // Under the lock, so that messages have the order of the phases.
        let mut life = self.life();
        let refused = life.owed.iter().position(|owed| !self.notify(owed));
        let sent = refused.unwrap_or(life.owed.len());
        life.owed.drain(..sent);
        life.owed.is_empty()
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether the manager has taken the message, or there is none. Never waits.
    fn notify(&self, message: &str) -> bool {
        let Some(socket) = &self.socket else { return true };
        let sent = send(socket, message);
        if let Err(error) = &sent
            && !self.has_failed.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(%error, "the service manager cannot be notified; the relay goes on, and tries again");
        }
        sent.is_ok()
    }
}

/// The address of a socket: a path, or an abstract name behind `@`.
fn parse(name: &str) -> io::Result<SocketAddr> {
    #[cfg(target_os = "linux")]
    if let Some(name) = name.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt as _;
        return SocketAddr::from_abstract_name(name);
    }
    if name.starts_with('/') {
        SocketAddr::from_pathname(name)
    } else {
        Err(io::Error::new(io::ErrorKind::Unsupported, "it is no absolute path and no abstract name"))
    }
}

fn message(states: &[NotifyState<'_>]) -> String {
    states.iter().map(|state| format!("{state}\n")).collect()
}

/// The crate's own function takes no abstract names, and waits for a manager that does not read.
fn send(socket: &SocketAddr, message: &str) -> io::Result<()> {
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(message.as_bytes(), socket).map(drop)
}

fn status(phase: Phase, readiness: Result<(), Unready>, connections: usize) -> String {
    let connections = match connections {
        1 => "1 connection".to_owned(),
        number => format!("{number} connections"),
    };
    match (phase, readiness) {
        (Phase::Stopping, _) | (_, Err(Unready::Draining)) => format!("draining, {connections}"),
        (_, Ok(())) => format!("serving, {connections}"),
        (_, Err(Unready::Starting)) => "starting".to_owned(),
        (_, Err(Unready::Replaying { percent })) => format!("starting, {percent}%"),
        (_, Err(why @ (Unready::StorageFull | Unready::Database | Unready::Standby))) => {
            format!("serving, not ready ({why}), {connections}")
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::cell::Cell;
    use std::future::pending;

    use super::*;

    /// A manager, and the socket that gets its messages.
    fn manager(directory: &tempfile::TempDir, watchdog: Duration) -> (ServiceManager, UnixDatagram) {
        let path = directory.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let socket = parse(path.to_str().unwrap()).unwrap();
        (ServiceManager::new(Some(socket), Some(watchdog)), receiver)
    }

    fn received(receiver: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1000];
        std::iter::from_fn(|| receiver.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec()))
            .map(|message| String::from_utf8(message).unwrap())
            .collect()
    }

    // Time is paused: it advances while nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn a_relay_that_does_not_answer_gives_no_sign_of_life() {
        let directory = tempfile::tempdir().unwrap();
        let (manager, receiver) = manager(&directory, Duration::from_secs(30));
        let asked = Cell::new(0);
        let answers = async || {
            asked.set(asked.get() + 1);
            match asked.get() {
                1 | 3 => true,
                2 => false,
                _ => pending().await,
            }
        };
        manager.ready();
        assert_eq!(received(&receiver), ["READY=1\n"]);
        let fed = timeout(Duration::from_secs(3600), manager.feed_watchdog(answers)).await;
        assert!(fed.is_err());
        assert_eq!((asked.get(), received(&receiver)), (4, vec!["WATCHDOG=1\n".to_owned(); 2]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sign_of_life_comes_twice_in_the_time_of_the_watchdog() {
        let directory = tempfile::tempdir().unwrap();
        for (watchdog, signs) in [(Duration::from_secs(20), 10), (Duration::from_secs(200), 1)] {
            let directory = tempfile::tempdir_in(directory.path()).unwrap();
            let (manager, receiver) = manager(&directory, watchdog);
            let feed = async || {
                timeout(Duration::from_secs(99), manager.feed_watchdog(async || true)).await.is_err()
            };
            assert!(feed().await);
            assert_eq!(received(&receiver), Vec::<String>::new(), "the relay is not ready");
            manager.ready();
            assert_eq!(received(&receiver), ["READY=1\n"]);
            assert!(feed().await);
            assert_eq!(received(&receiver).len(), signs);
        }
    }

    #[test]
    fn what_the_manager_does_not_take_is_sent_again_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let (manager, receiver) = manager(&directory, Duration::ZERO);
        while manager.notify("X") {}
        manager.ready();
        for number in 0..3 {
            let reloading = format!("RELOADING=1\nMONOTONIC_USEC={number}");
            manager.change(&[Phase::Serving], Phase::Reloading, &[NotifyState::Custom(&reloading)]);
            manager.change(&[Phase::Reloading], Phase::Serving, &[NotifyState::Ready]);
        }
        manager.stopping();
        assert!(received(&receiver).iter().all(|message| message == "X"));
        assert!(manager.pay());
        let expected = ["READY=1\n", "RELOADING=1\nMONOTONIC_USEC=2\n", "READY=1\n", "STOPPING=1\n"];
        assert_eq!(received(&receiver), expected);
        assert!(manager.pay() && received(&receiver).is_empty());
    }

    #[test]
    fn no_phase_follows_the_stop() {
        let directory = tempfile::tempdir().unwrap();
        let (manager, receiver) = manager(&directory, Duration::ZERO);
        manager.stopping();
        manager.ready();
        manager.stopping();
        assert_eq!(received(&receiver), ["STOPPING=1\n"]);
    }

    #[test]
    fn the_status_says_what_the_relay_does() {
        for (phase, readiness, connections, expected) in [
            (Phase::Starting, Err(Unready::Starting), 0, "starting"),
            (Phase::Starting, Err(Unready::Replaying { percent: 43 }), 3, "starting, 43%"),
            (Phase::Serving, Ok(()), 1, "serving, 1 connection"),
            (Phase::Reloading, Ok(()), 2, "serving, 2 connections"),
            (
                Phase::Serving,
                Err(Unready::StorageFull),
                2,
                "serving, not ready (storage_full), 2 connections",
            ),
            (Phase::Stopping, Ok(()), 0, "draining, 0 connections"),
            (Phase::Serving, Err(Unready::Draining), 7, "draining, 7 connections"),
        ] {
            assert_eq!(status(phase, readiness, connections), expected);
        }
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        for name in ["/run/systemd/notify", "@/org/freedesktop/systemd1/notify"] {
            assert!(parse(name).is_ok(), "{name}");
        }
        let long = format!("/{}", "x".repeat(200));
        for name in ["relative", "vsock:2:1234", "", long.as_str()] {
            assert!(parse(name).is_err(), "{name}");
        }
    }
}
