//! Issuer's tokens and certificates: which open plain names, and which do not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod attempts;
mod jwks;
mod names;
mod properties;
mod support;
