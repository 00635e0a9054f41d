//! The JSON and CBOR of the API: the request and response types, and their conversion from and to
//! the types of relay-core. Nothing here does I/O.

mod acks;
mod base64;
mod batch;
mod cbor;
pub(crate) mod code;
pub(crate) mod counts;
pub(crate) mod cursor;
pub(crate) mod endpoint;
pub(crate) mod error;
pub(crate) mod events;
mod field;
pub(crate) mod format;
pub(crate) mod headers;
pub(crate) mod limits;
mod mistake;
mod page;
mod reading;
mod requests;
mod responses;

#[cfg(feature = "fuzzing")]
pub(crate) use self::base64::STANDARD as SIMD_BASE64;
#[cfg(test)]
pub(crate) use acks::{AckRequest, PurgeRequest};
pub(crate) use acks::{decode_ack, decode_purge};
pub(crate) use batch::decode_batch;
#[cfg(test)]
pub(crate) use batch::{BatchRequest, CborBatchRequest};
pub(crate) use page::EncodedPage;
pub(crate) use reading::{PageRequest, StreamRequest, decode_pull, decode_stream};
#[cfg(test)]
pub(crate) use reading::{PullRequest, StreamSettings};
#[cfg(test)]
pub(crate) use requests::{CborPushRequest, Meta, PushRequest};
pub(crate) use requests::{PushItem, decode_push};
pub(crate) use responses::{
    AckResponse, BatchResponse, BatchResult, HealthResponse, InfoLimits, InfoResponse, PushResponse,
    ReadyResponse, StatsResponse,
};
