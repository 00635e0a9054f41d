//! The files of the dashboard. They contain no figures; the page gets those from `/events`.

use actix_http::Response;
use actix_web::http::StatusCode;
use actix_web::http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;

/// The path of the page itself.
pub(super) const ROOT: &str = "/";

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Path, content type and content of each file.
const FILES: [(&str, &str, &str); 9] = [
    (ROOT, "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/page/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/figures.js", SCRIPT, include_str!("page/figures.js")),
    ("/page/alerts.js", SCRIPT, include_str!("page/alerts.js")),
    ("/page/panels.js", SCRIPT, include_str!("page/panels.js")),
    ("/page/draw.js", SCRIPT, include_str!("page/draw.js")),
    ("/page/units.js", SCRIPT, include_str!("page/units.js")),
];

/// Nothing but the files above, and the events. No other page may show this one, and no script may
/// turn text into elements.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 6] = [
    ("content-security-policy", POLICY),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
];

/// Whether this is the path of a file.
pub(super) fn has(path: &str) -> bool {
    FILES.iter().any(|(own, ..)| *own == path)
}

/// The file at this path.
pub(super) fn file(path: &str) -> Option<Response<Bytes>> {
    let (_, content_type, text) = FILES.iter().find(|(own, ..)| *own == path)?;
    let mut response = Response::with_body(StatusCode::OK, Bytes::from_static(text.as_bytes()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    protect(response.headers_mut());
    Some(response)
}

/// The response to `/events`, without its body.
pub(super) fn events_response() -> Response<Bytes> {
    let mut response = Response::with_body(StatusCode::OK, Bytes::new());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    // Tells proxies (nginx and others) to pass events on at once.
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
    protect(response.headers_mut());
    response
}

/// Adds what keeps other pages away.
fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}
