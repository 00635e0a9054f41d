//! A request in work, from its head to the last byte of its response.

use std::fmt;
use std::rc::Rc;

use crate::connection::io::ConnectionIo;
use crate::connection::state::ConnectionState;
use crate::limits::in_flight::InFlightGuard;
use crate::limits::memory_budget::Share;

/// A request in work, from its head to the last byte of its answer.
pub(crate) struct InFlightRequest {
    connection: Rc<ConnectionState>,
    /// The stream that it came by, over HTTP/1.1.
    io: Option<ConnectionIo>,
    /// Counts its answer.
    share: Option<Share>,
    _entered: Option<InFlightGuard>,
}

impl InFlightRequest {
    /// A request of this connection has arrived, which `entered` counts as well.
    pub(crate) fn begin(
        connection: &Rc<ConnectionState>,
        io: Option<ConnectionIo>,
        entered: Option<InFlightGuard>,
    ) -> Self {
        connection.begin_request();
        Self { connection: Rc::clone(connection), io, share: None, _entered: entered }
    }

    /// The connection that it came by.
    pub(crate) fn connection(&self) -> &Rc<ConnectionState> {
        &self.connection
    }

    /// Has its answer counted by this until it is sent.
    pub(crate) fn counted_by(&mut self, share: Option<Share>) {
        self.share = share;
    }

    /// The stream that it came by, over HTTP/1.1.
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
