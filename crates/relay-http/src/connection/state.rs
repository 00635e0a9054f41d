//! What is known of one connection above its protocol: which requests are in work, since when it
//! has been quiet, and whether it is about to end. It lives on the thread of its connection and
//! neither reads nor writes anything.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::framing::Malformed;
use crate::limits::addresses::Address;
use crate::limits::open_connections::OpenConnection;
use crate::monotonic;

/// So many health checks of a connection are answered at once, and then one each time that this has
/// passed.
const CHECKS_AT_ONCE: u32 = 20;
const CHECK_PAUSE: Duration = Duration::from_millis(500);

/// One connection. Requests hold it as well as its task does.
pub(crate) struct ConnectionState {
    peer: SocketAddr,
    open: OpenConnection,
    in_flight: Cell<u32>,
    /// Means nothing while something is in flight.
    quiet_since: Cell<Instant>,
    is_ending: Cell<bool>,
    is_closing: Cell<bool>,
    has_unread_input: Cell<bool>,
    /// Its address is shut out, and it is told so once.
    is_shut_out: bool,
    /// When the next health check would be one in good time.
    next_check: Cell<Instant>,
    malformed: Cell<Option<Malformed>>,
    has_hung_up: Cell<bool>,
    hang_up: Notify,
}

impl ConnectionState {
    pub(crate) fn new(peer: SocketAddr, open: OpenConnection, is_shut_out: bool) -> Rc<Self> {
        let now = monotonic::now();
        Rc::new(Self {
            peer,
            open,
            in_flight: Cell::new(0),
            quiet_since: Cell::new(now),
            next_check: Cell::new(now),
            is_ending: Cell::new(false),
            is_closing: Cell::new(false),
            has_unread_input: Cell::new(false),
            is_shut_out,
            malformed: Cell::new(None),
            has_hung_up: Cell::new(false),
            hang_up: Notify::new(),
        })
    }

    /// Who is at the other end of the socket.
    pub(crate) const fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// That address as one that counts, unless it is exempt.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.open.address()
    }

    /// Its entry among all connections.
    pub(crate) const fn open(&self) -> &OpenConnection {
        &self.open
    }

    /// Whether its address is shut out, so that all that it is told is that.
    pub(crate) const fn is_shut_out(&self) -> bool {
        self.is_shut_out
    }

    /// Whether requests are in work.
    pub(crate) fn is_busy(&self) -> bool {
        self.in_flight.get() > 0
    }

    /// Since when none has been.
    pub(crate) fn quiet_since(&self) -> Instant {
        self.quiet_since.get()
    }

    /// Notes that the connection is to end as soon as that costs nobody anything.
    pub(crate) fn begin_end(&self) {
        self.is_ending.set(true);
    }

    /// Whether the connection is to end as soon as that costs nobody anything: the next answer is
    /// its last. One whose place another needs is, even before its task has woken to that: a
    /// request that comes first is told.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.get() || self.open.is_told_to_close()
    }

    /// Notes that the connection ends with the answer that is given now, or with those that are in
    /// work.
    pub(crate) fn begin_close(&self, has_unread_input: bool) {
        self.is_closing.set(true);
        self.has_unread_input.set(self.has_unread_input.get() || has_unread_input);
    }

    /// Whether the connection is about to end.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Whether somebody may still be sending what nobody will read. To close such a connection at
    /// once would reset it, and the client might lose the answer that it was given.
    pub(crate) fn has_unread_input(&self) -> bool {
        self.has_unread_input.get()
    }

    /// Notes that there is input that nobody is going to read.
    pub(crate) fn note_input_left(&self) {
        self.has_unread_input.set(true);
    }

    pub(crate) fn set_malformed(&self, malformed: Malformed) {
        self.malformed.set(Some(malformed));
        self.has_unread_input.set(true);
    }

    /// Why the input is not read any further, if it is not.
    pub(crate) fn malformed(&self) -> Option<Malformed> {
        self.malformed.get()
    }

    /// Notes a health check, and tells how long it has to wait, if it has to.
    pub(crate) fn check_again_after(&self, now: Instant) -> Option<Duration> {
        let next = self.next_check.get().max(now) + CHECK_PAUSE;
        self.next_check.set(next);
        let wait = next.saturating_duration_since(now + CHECKS_AT_ONCE * CHECK_PAUSE);
        (!wait.is_zero()).then_some(wait)
    }

    /// Notes that the client sends nothing more.
    pub(crate) fn set_hung_up(&self) {
        if !self.has_hung_up.replace(true) {
            self.hang_up.notify_waiters();
        }
    }

    /// Resolves when the client sends nothing more. It may still read.
    pub(crate) async fn hung_up(&self) {
        let hang_up = self.hang_up.notified();
        if !self.has_hung_up.get() {
            hang_up.await;
        }
    }

    /// Notes that a request has arrived.
    pub(crate) fn begin_request(&self) {
        if self.in_flight.replace(self.in_flight.get() + 1) == 0 {
            self.open.set_busy();
        }
    }

    /// Notes that a request has ended.
    pub(crate) fn end_request(&self) {
        let left = self.in_flight.get().saturating_sub(1);
        self.in_flight.set(left);
        if left == 0 {
            let now = monotonic::now();
            self.quiet_since.set(now);
            self.open.set_quiet(now);
        }
    }
}
