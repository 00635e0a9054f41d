//! The API as an OpenAPI 3.1 document: the file `docs/openapi.json`, which the relay serves as it
//! is.
//!
//! `cargo xtask openapi` generates the file from the types of [`api`](crate::api) and the codes of
//! [`code`](crate::api::code). A test checks that it is up to date.

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
