//! The doors for benches and fuzz targets, which must see what no user of the crate has to. Nothing here is promised to stay.

use bytes::Bytes;
use relay_core::{Ack, Envelope, Page, Pull, Recipient};

use crate::api;

/// The item that the body of a push stands for.
pub fn decode_push(json: &[u8], payload_bytes_max: u64) -> Option<Envelope> {
    api::decode_push(json, payload_bytes_max).ok()
}

/// The page that the body of a pull asks for.
pub fn decode_pull(json: &[u8]) -> Option<Pull> {
    api::decode_pull(json).ok()
}

/// The items that the body of an ack names.
pub fn decode_ack(json: &[u8]) -> Option<Ack> {
    api::decode_ack(json).ok()
}

/// The body of the answer to a pull.
pub fn encode_page(recipient: &Recipient, page: &Page<Bytes>) -> String {
    api::encode_page(recipient, page)
}
