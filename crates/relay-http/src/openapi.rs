//! The contract as a document that programs read: OpenAPI 3.1. What is served is the file
//! `docs/openapi.json` as it is; nothing here decides what the API does.
//!
//! The file is made of the types of [`api`](crate::api) and the codes of [`code`](crate::api::code), by
//! a test, and a test holds it to them: `cargo xtask openapi` writes it anew.

#[cfg(test)]
mod document;
#[cfg(test)]
mod operations;
#[cfg(test)]
mod page;
#[cfg(test)]
mod responses;
#[cfg(test)]
mod tests;

/// The document, as JSON.
pub(crate) const DOCUMENT: &str = include_str!("../../../docs/openapi.json");
