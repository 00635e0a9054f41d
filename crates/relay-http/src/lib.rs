//! The HTTP layer of the relay: JSON over HTTP/1.1 and HTTP/2, limits, TLS. It translates requests
//! into calls of relay-core's [`Relay`](relay_core::Relay), and outcomes into responses. It
//! contains no rules of queues, stores nothing, binds no socket, and reads no environment variable
//! and no file except those of TLS.
//!
//! The paths are `POST /push`, `POST /pull`, `POST /ack`, `GET /health`, `GET /ready`, `GET /stats`
//! and `GET /openapi.json`, which describes them all. Every error response, even to input that is
//! not HTTP, is JSON of the form `{"error": {"code", "message", "details"?}}`; [`Code`] lists the
//! codes.
//!
//! - [`serve`] serves listeners until a shutdown, [`serve_reloadable`] with other options
//!   meanwhile.
//! - [`Metrics`] has the counters of `/stats`. [`serve_admin`] serves them and more at `/metrics`,
//!   and a dashboard; [`Metric`] lists them.
//! - [`CursorKey`] encrypts cursors.
//! - [`Readiness`] decides what `/ready` responds. [`Liveness`] asks whether its threads work.
//! - [`tls`] loads and reloads certificates.
//!
//! The folders are layers, from the top down; each uses only those below it:
//! - `server`: listeners, worker threads, connections, the drain, the admin server.
//! - `service`: from a request to its response.
//! - `connection`: the stream of one connection, HTTP/1.1 and HTTP/2 on it, its requests in flight.
//! - `openapi`: the document that describes the API.
//! - `metrics`: counters and gauges. `tls`: certificates.
//! - `limits`: which clients may send, and how much.
//! - `api`: the wire format: types, codes, errors, cursors.

#![warn(missing_docs)]

mod api;
mod connection;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod limits;
mod liveness;
mod metrics;
mod monotonic;
mod openapi;
mod options;
mod readiness;
mod server;
mod service;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;

pub use api::code::Code;
pub use api::counts::Counts;
pub use api::cursor::CursorKey;
pub use api::limits::BATCH_ITEMS_MAX;
pub use limits::cross_site::{AllowedHosts, Origin};
pub use limits::peer::Peers;
pub use liveness::Liveness;
pub use metrics::{Metric, MetricKind, Metrics};
pub use options::{AccessAddresses, AccessLog, Auth, Options, RateLimit, Transport};
pub use readiness::{Readiness, Unready};
pub use server::admin::{AdminOptions, serve_admin};
pub use server::{Listener, ListeningSocket, Reload, serve, serve_reloadable};
