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

/// What a page may send besides what every page may.
const REQUEST_HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, Content-Encoding");

const METHODS: HeaderValue = HeaderValue::from_static("GET, POST");

/// What a page may read besides what every page may.
const RESPONSE_HEADERS: HeaderValue = HeaderValue::from_static("Retry-After, RateLimit, RateLimit-Policy");

/// For how long a browser need not ask again, in seconds. Chromium's maximum.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Completes the response to a request with this head. Without listed origins, it stays as it is.
pub(super) fn complete(response: &mut ApiResponse, head: &RequestHead, allowed: &[Origin]) {
    if allowed.is_empty() {
        return;
    }
    response.set_header(VARY, HeaderValue::from_static("Origin"));
    let Some(origin) = listed_origin(head.headers(), allowed) else { return };
    response.set_header(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    if head.method == Method::OPTIONS && head.headers().contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
        response.set_header(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        response.set_header(ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        response.set_header(ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    } else {
        response.set_header(ACCESS_CONTROL_EXPOSE_HEADERS, RESPONSE_HEADERS);
    }
}
