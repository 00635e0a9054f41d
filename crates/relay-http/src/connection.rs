//! One connection: its stream, its HTTP, and the requests that it has in work.

pub(crate) mod ending;
pub(crate) mod framing;
#[cfg(feature = "tls")]
pub(crate) mod http2;
pub(crate) mod in_flight_request;
pub(crate) mod io;
pub(crate) mod pace;
pub(crate) mod state;
pub(crate) mod stream;
