//! The HTTP face of a relay: JSON over HTTP/1.1 and HTTP/2, limits, TLS. It turns requests into
//! calls of relay-core's [`Relay`](relay_core::Relay) and what comes back into answers. It decides
//! nothing about queues, stores nothing, binds no socket, and reads no file (but those of TLS) and
//! no environment.
//!
//! The paths are `POST /push`, `POST /pull`, `POST /ack`, `GET /health`, `GET /ready`, `GET /stats`
//! and `GET /openapi.json`, which describes them all. Every error answer, also to what is no HTTP
//! at all, is JSON of the form `{"error": {"code", "message", "details"?}}`; [`Code`] lists the
//! codes.
//!
//! - [`serve`] runs it all, from a listener to a drain.
//! - [`Metrics`] are the counters behind `/stats`, and [`serve_admin`] shows them and more at
//!   `/metrics`; [`Metric`] lists it.
//! - [`CursorKey`] keeps what a cursor says between the relay and itself.
//! - [`Readiness`] says what `/ready` tells.
//! - [`tls`] keeps certificates.
//!
//! Inside, a request goes from `connection` (one TCP connection, TLS, its end) through actix-http
//! and `route` to `service` (limits, handlers) and from there to the relay. `api` has the JSON,
//! `error` all error answers, `body` reads bodies, `budget` bounds what is in flight, `guard`
//! limits rates, `cursor` writes cursors, `request_id` names requests in the log.

#![warn(missing_docs)]

mod accept;
mod addresses;
mod admin;
mod api;
mod body;
mod budget;
mod code;
#[doc(hidden)]
pub mod codec;
mod connection;
mod connection_io;
mod connection_state;
mod cross_site;
mod cursor;
mod ending;
mod endpoint;
mod error;
mod forwarded;
mod framing;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod headers;
#[cfg(feature = "tls")]
mod http2;
mod in_flight;
mod in_flight_request;
mod metrics;
mod monotonic;
mod open_connections;
mod openapi;
mod options;
mod pace;
mod rate_limit;
mod readiness;
mod request_id;
mod response;
mod route;
mod server;
mod service;
mod stream;
#[cfg(feature = "tls")]
pub mod tls;
mod waiting_line;

pub use admin::{AdminOptions, serve_admin};
pub use code::Code;
pub use cross_site::{AllowedHosts, Origin};
pub use cursor::CursorKey;
pub use metrics::{Counts, Metric, MetricKind, Metrics};
pub use options::{Options, RateLimit, Transport};
pub use readiness::{Readiness, Unready};
pub use server::serve;
