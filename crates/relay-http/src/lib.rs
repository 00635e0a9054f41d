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
//! Its folders are layers, from the top down; each uses those below it:
//! - `server`: listeners, workers, one connection from its first to its last byte, the drain, the
//!   admin address.
//! - `service`: from a request to its response.
//! - `connection`: the stream of one connection, HTTP/1.1 and HTTP/2 on it, its requests in work.
//! - `openapi`: the document that describes the API.
//! - `metrics`: what is counted. `tls`: certificates.
//! - `limits`: who may send, and how much.
//! - `api`: the wire: types, codes, errors, cursors.

#![warn(missing_docs)]

mod api;
mod connection;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod metrics;
mod monotonic;
mod openapi;
mod options;
mod readiness;
mod server;
mod service;
#[cfg(feature = "tls")]
pub mod tls;

pub use api::code::Code;
pub use api::counts::Counts;
pub use api::cursor::CursorKey;
pub use limits::cross_site::{AllowedHosts, Origin};
pub use metrics::{Metric, MetricKind, Metrics};
pub use options::{Options, RateLimit, Transport};
pub use readiness::{Readiness, Unready};
pub use server::admin::{AdminOptions, serve_admin};
pub use server::serve;
