//! Translates the head of an HTTP/2 request for the framework. `h2` has checked its form (RFC 9113,
//! section 8). This file refuses what is still ambiguous.

use actix_http::Request;
use actix_web::dev::{Payload, RequestHead};
use actix_web::http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, Uri, Version};
use h2::RecvStream;

use super::body::body;
use crate::api::error::ApiError;
use crate::api::limits::FIELDS_MAX;
use crate::connection::framing::is_host;

/// The memory of a field besides its name and value, both of which exist twice for a moment.
const FIELD_BYTES: usize = 256;

/// The memory of a head, by measurements.
pub(super) fn bytes(request: &http::Request<RecvStream>) -> usize {
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let authority = request.uri().authority().map_or(0, |authority| authority.as_str().len());
    let field_bytes = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        2 * (name.as_str().len() + value.len()) + FIELD_BYTES
    };
    target + authority + request.headers().iter().map(field_bytes).sum::<usize>()
}

/// The request for the framework, with its body.
///
/// # Errors
/// When the head is invalid or ambiguous.
pub(super) fn translate(
    request: http::Request<RecvStream>,
    peer: std::net::SocketAddr,
) -> Result<Request, ApiError> {
    let (parts, stream) = request.into_parts();
    check(&parts)?;
    let payload = if stream.is_end_stream() { Payload::None } else { body(stream) };
    let mut request = Request::with_payload(payload);
    fill(request.head_mut(), &parts).ok_or(ApiError::BadRequest("the request head is malformed"))?;
    request.head_mut().peer_addr = Some(peer);
    Ok(request)
}

fn fill(head: &mut RequestHead, parts: &http::request::Parts) -> Option<()> {
    head.version = Version::HTTP_2;
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.uri = Uri::try_from(parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str)).ok()?;
    copy_fields(&mut head.headers, &parts.headers)?;
    // Services look for the host in the Host header, as with HTTP/1.1.
    if let Some(authority) = parts.uri.authority()
        && !head.headers.contains_key(HOST)
    {
        head.headers.insert(HOST, HeaderValue::from_str(authority.as_str()).ok()?);
    }
    Some(())
}

fn copy_fields(to: &mut HeaderMap, from: &http::HeaderMap) -> Option<()> {
    for (name, value) in from {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        to.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(())
}

fn check(parts: &http::request::Parts) -> Result<(), ApiError> {
    if parts.headers.len() > FIELDS_MAX {
        return Err(ApiError::HeadersTooLarge);
    }
    if parts.method == http::Method::CONNECT {
        return Err(ApiError::BadRequest("CONNECT is not supported"));
    }
    let scheme = parts.uri.scheme_str();
    if !scheme.is_some_and(|scheme| scheme == "https" || scheme == "http") {
        return Err(ApiError::BadRequest("the scheme must be https or http"));
    }
    if parts.headers.get_all(http::header::CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(ApiError::BadRequest("the Content-Length header appears more than once"));
    }
    check_host(parts)
}

fn check_host(parts: &http::request::Parts) -> Result<(), ApiError> {
    let mut hosts = parts.headers.get_all(http::header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(ApiError::BadRequest("the Host header appears more than once"));
    }
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let effective = authority.or(host.map(http::HeaderValue::as_bytes));
    if !effective.is_some_and(is_host) {
        return Err(ApiError::BadRequest("the request has no valid host"));
    }
    match (authority, host) {
        (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host.as_bytes()) => {
            Err(ApiError::BadRequest("the Host header and :authority name different hosts"))
        }
        _ => Ok(()),
    }
}
