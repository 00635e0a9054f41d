//! The JSON of the API: the request and response types, and their conversion from and to the types
//! of relay-core. Nothing here does I/O.

mod base64;
pub(crate) mod code;
pub(crate) mod counts;
pub(crate) mod cursor;
pub(crate) mod endpoint;
pub(crate) mod error;
mod field;
pub(crate) mod headers;
pub(crate) mod limits;
mod mistake;
mod page;
mod requests;
mod responses;

#[cfg(feature = "fuzzing")]
pub(crate) use self::base64::STANDARD as SIMD_BASE64;
pub(crate) use page::PageJson;
#[cfg(test)]
pub(crate) use requests::{AckRequest, Meta, PullRequest, PushRequest};
pub(crate) use requests::{decode_ack, decode_pull, decode_push};
pub(crate) use responses::{AckResponse, HealthResponse, PushResponse, ReadyResponse, StatsResponse};
