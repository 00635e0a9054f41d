//! The state of one connection that does not depend on its protocol: requests in flight, idle time,
//! and whether it ends soon. It lives on the thread of its connection and does no I/O.

#[cfg(feature = "tls")]
use std::cell::OnceCell;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::BoxBody;
use futures_util::future::LocalBoxFuture;
use relay_auth::CertifiedNames;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::connection::framing::Malformed;
use crate::limits::addresses::Address;
use crate::limits::open_connections::OpenConnection;
use crate::monotonic;
#[cfg(feature = "tls")]
use crate::tls::client::CertifiedClient;

/// This many health checks of a connection are answered at once, then one per [`CHECK_INTERVAL`].
const CHECK_BURST: u32 = 20;
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

static NO_NAMES: CertifiedNames = CertifiedNames::NONE;

/// The response to a request over HTTP/1.1 that the connection sends without the framework.
pub(crate) type Detached = LocalBoxFuture<'static, HttpResponse<BoxBody>>;

/// One connection. Its task and its requests share it.
pub(crate) struct ConnectionState {
    peer: Cell<SocketAddr>,
    open: OpenConnection,
    is_loopback: bool,
    is_http2: Cell<bool>,
    is_encrypted: Cell<bool>,
    in_flight: Cell<u32>,
    /// Has no meaning while a request is in flight.
    quiet_since: Cell<Instant>,
    is_ending: Cell<bool>,
    is_closing: Cell<bool>,
    has_unread_input: Cell<bool>,
    is_shut_out: Cell<bool>,
    is_introduced: Cell<bool>,
    /// When the next health check is due.
    next_check: Cell<Instant>,
    malformed: Cell<Option<Malformed>>,
    detached: RefCell<Option<Detached>>,
    has_hung_up: Cell<bool>,
    hang_up: Notify,
    /// Set if the client's certificate has names.
    #[cfg(feature = "tls")]
    client: OnceCell<CertifiedClient>,
}

impl ConnectionState {
    pub(crate) fn new(
        peer: SocketAddr,
        open: OpenConnection,
        is_shut_out: bool,
        is_loopback: bool,
    ) -> Rc<Self> {
        let now = monotonic::now();
        Rc::new(Self {
            peer: Cell::new(peer),
            open,
            is_loopback,
            is_http2: Cell::new(false),
            is_encrypted: Cell::new(false),
            in_flight: Cell::new(0),
            quiet_since: Cell::new(now),
            next_check: Cell::new(now),
            is_ending: Cell::new(false),
            is_closing: Cell::new(false),
            has_unread_input: Cell::new(false),
            is_shut_out: Cell::new(is_shut_out),
            is_introduced: Cell::new(false),
            malformed: Cell::new(None),
            detached: RefCell::new(None),
            has_hung_up: Cell::new(false),
            hang_up: Notify::new(),
            #[cfg(feature = "tls")]
            client: OnceCell::new(),
        })
    }

    /// The address at the other end of the socket, or what stands for the peers of a Unix socket;
    /// or the client that a proxy has named in a header before the first request.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.get()
    }

    /// Sets the client that a proxy has named, or that its proxy is the client itself.
    pub(crate) fn introduce(&self, client: Option<SocketAddr>, is_shut_out: bool) {
        self.is_introduced.set(client.is_some());
        self.is_shut_out.set(is_shut_out);
        if let Some(client) = client {
            self.peer.set(client);
        }
    }

    /// Whether the peer is the client of a proxy that the operator names.
    pub(crate) fn is_introduced(&self) -> bool {
        self.is_introduced.get()
    }

    /// Whether the listener accepts connections over TCP from this machine only.
    pub(crate) const fn is_loopback(&self) -> bool {
        self.is_loopback
    }

    /// The peer as an address that the limits count, unless it is exempt.
    pub(crate) fn address(&self) -> Option<&Address> {
        self.open.address()
    }

    /// Sets the client, once, after the handshake.
    #[cfg(feature = "tls")]
    pub(crate) fn set_client(&self, client: CertifiedClient) {
        let _ = self.client.set(client);
    }

    /// The names in the client's certificate, as long as it is valid.
    #[cfg(feature = "tls")]
    pub(crate) fn certified_names(&self) -> &CertifiedNames {
        self.client.get().map_or(&NO_NAMES, CertifiedClient::names)
    }

    /// Without TLS there are no certificates.
    #[cfg(not(feature = "tls"))]
    pub(crate) const fn certified_names(&self) -> &CertifiedNames {
        &NO_NAMES
    }

    /// The entry of this connection in the table of open connections.
    pub(crate) const fn open(&self) -> &OpenConnection {
        &self.open
    }

    /// Notes that the client has chosen HTTP/2.
    #[cfg(feature = "tls")]
    pub(crate) fn set_http2(&self) {
        self.is_http2.set(true);
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.is_http2.get()
    }

    /// Notes that nobody on the way can read the connection.
    #[cfg(feature = "tls")]
    pub(crate) fn set_encrypted(&self) {
        self.is_encrypted.set(true);
    }

    /// Whether nobody on the way can read the connection.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.is_encrypted.get()
    }

    /// Whether the address was banned when it connected. Such a connection gets one refusal.
    pub(crate) fn is_shut_out(&self) -> bool {
        self.is_shut_out.get()
    }

    /// Whether a request is in flight.
    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.get() > 0
    }

    /// Since when no request has been in flight.
    pub(super) fn quiet_since(&self) -> Instant {
        self.quiet_since.get()
    }

    /// Makes the next response the last one.
    pub(crate) fn begin_end(&self) {
        self.is_ending.set(true);
    }

    /// Whether the next response is the last one. That is also so when another connection needs
    /// this slot and the task of this one has not noticed it yet.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.get() || self.open.is_close_requested()
    }

    /// Ends the connection after the responses in progress.
    pub(crate) fn begin_close(&self, has_unread_input: bool) {
        self.is_closing.set(true);
        if has_unread_input {
            self.note_unread_input();
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.get()
    }

    /// Whether the client may still be sending what the relay will not read. An immediate close
    /// would reset such a connection, and the client could lose its last response.
    pub(crate) fn has_unread_input(&self) -> bool {
        self.has_unread_input.get()
    }

    pub(super) fn note_unread_input(&self) {
        self.has_unread_input.set(true);
    }

    pub(super) fn set_malformed(&self, malformed: Malformed) {
        self.malformed.set(Some(malformed));
        self.note_unread_input();
    }

    /// Why the relay stopped reading the input, if it did.
    pub(crate) fn malformed(&self) -> Option<Malformed> {
        self.malformed.get()
    }

    /// Takes a response from the framework, which then is no longer needed for this request.
    pub(crate) fn detach(&self, response: Detached) {
        *self.detached.borrow_mut() = Some(response);
    }

    /// The response that was taken from the framework.
    pub(crate) fn take_detached(&self) -> Option<Detached> {
        self.detached.take()
    }

    /// Counts a request that takes no tokens. Returns how long its response has to wait, if it has
    /// to.
    pub(crate) fn delay_of_uncounted(&self, now: Instant) -> Option<Duration> {
        let next = self.next_check.get().max(now) + CHECK_INTERVAL;
        self.next_check.set(next);
        let wait = next.saturating_duration_since(now + CHECK_BURST * CHECK_INTERVAL);
        (!wait.is_zero()).then_some(wait)
    }

    /// Notes that the client has closed its sending side.
    pub(super) fn set_hung_up(&self) {
        if !self.has_hung_up.replace(true) {
            self.hang_up.notify_waiters();
        }
    }

    /// Resolves when the client has closed its sending side. It may still read.
    pub(crate) async fn hung_up(&self) {
        let hang_up = self.hang_up.notified();
        if !self.has_hung_up.get() {
            hang_up.await;
        }
    }

    pub(super) fn begin_request(&self) {
        if self.in_flight.replace(self.in_flight.get() + 1) == 0 {
            self.open.set_busy();
        }
    }

    pub(super) fn end_request(&self) {
        let left = self.in_flight.get().saturating_sub(1);
        self.in_flight.set(left);
        if left == 0 {
            let now = monotonic::now();
            self.quiet_since.set(now);
            self.open.set_quiet(now);
        }
    }
}
