//! Lets the web pages of listed origins read responses, and send requests that a browser asks about
//! first (CORS, Fetch Standard, section 3.2). Whether such a request is served at all is decided by
//! [`cross_site`](crate::limits::cross_site), also for requests that no browser asks about.

use actix_web::dev::RequestHead;
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, VARY,
};

use crate::limits::cross_site::{Origin, listed_origin};
use crate::service::response::ApiResponse;
use crate::service::route::RouteMatch;

/// What a page may send besides what every page may.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, Content-Encoding");

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");

/// What a page may read besides what every page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static("Retry-After, RateLimit, RateLimit-Policy");

/// For how long a browser need not ask again, in seconds. Chromium's maximum.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// A browser hides every response from its page if the preflight fails, so the preflight for an
/// unknown path succeeds too. The page then reads the 404 of its request.
pub(super) fn route(route: RouteMatch, head: &RequestHead, allowed: &[Origin]) -> RouteMatch {
    let is_unknown = matches!(route, RouteMatch::NotFound) && is_preflight(head);
    if is_unknown && listed_origin(head.headers(), allowed).is_some() {
        RouteMatch::Options { allow: "OPTIONS" }
    } else {
        route
    }
}

/// Completes the response to a request with this head. Without listed origins, it stays as it is.
pub(super) fn complete(response: &mut ApiResponse, head: &RequestHead, allowed: &[Origin]) {
    if allowed.is_empty() {
        return;
    }
    response.set_header(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = listed_origin(head.headers(), allowed) else { return };
    response.set_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if is_preflight(head) {
        response.set_header(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        response.set_header(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        response.set_header(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        response.set_header(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
}

/// Whether a browser asks before it sends a request of a page.
fn is_preflight(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS && head.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}
