//! A request in flight, from its head to the last byte of its response.

use std::fmt;
use std::rc::Rc;

use crate::connection::access::Access;
use crate::connection::io::ConnectionIo;
use crate::connection::state::ConnectionState;
use crate::limits::in_flight::InFlightGuard;
use crate::limits::memory_budget::Share;

/// A request in flight. Dropping it ends the request.
pub(crate) struct InFlightRequest {
    connection: Rc<ConnectionState>,
    /// `None` over HTTP/2.
    io: Option<ConnectionIo>,
    /// Counts the bytes of the response.
    share: Option<Share>,
    /// Writes a line when it is dropped.
    access: Option<Box<Access>>,
    _guard: Option<InFlightGuard>,
}

impl InFlightRequest {
    /// Counts a request that has arrived. A shutdown waits for it if it has a `guard`.
    pub(crate) fn begin(
        connection: &Rc<ConnectionState>,
        io: Option<ConnectionIo>,
        guard: Option<InFlightGuard>,
    ) -> Self {
        connection.begin_request();
        Self { connection: Rc::clone(connection), io, share: None, access: None, _guard: guard }
    }

    /// Logs the request when it ends.
    pub(crate) fn log_to(&mut self, access: Option<Box<Access>>) {
        self.access = access;
    }

    /// What the access log says of the request, if there is one.
    pub(crate) fn access(&self) -> Option<&Access> {
        self.access.as_deref()
    }

    pub(crate) fn connection(&self) -> &Rc<ConnectionState> {
        &self.connection
    }

    /// Keeps `share` until the response is sent.
    pub(crate) fn hold_share(&mut self, share: Option<Share>) {
        self.share = share;
    }

    /// The stream of an HTTP/1.1 request.
    pub(crate) fn io(&self) -> Option<&ConnectionIo> {
        self.io.as_ref()
    }
}

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.connection.end_request();
        if let Some(io) = &self.io {
            io.next_request(self.share.take());
        }
    }
}

impl fmt::Debug for InFlightRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlightRequest").finish_non_exhaustive()
    }
}
