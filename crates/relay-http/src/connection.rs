//! One connection: its byte stream, HTTP/1.1 or HTTP/2 on it, and its requests in flight.

pub(crate) mod access;
pub(crate) mod ending;
pub(crate) mod framing;
pub(crate) mod http1_response;
#[cfg(feature = "tls")]
pub(crate) mod http2;
pub(crate) mod in_flight_request;
pub(crate) mod io;
pub(crate) mod pace;
pub(crate) mod proxy_header;
pub(crate) mod state;
pub(crate) mod stream;
