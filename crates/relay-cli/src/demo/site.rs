//! The files of deploy/demo, which are part of the program, and the response to each request. Pure:
//! it knows no sockets.

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};

/// The files, each with its path and type.
const FILES: [(&str, &str, &str); 5] = [
    ("/", HTML, include_str!("../../../../deploy/demo/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../../../deploy/demo/style.css")),
    ("/demo.js", JAVASCRIPT, include_str!("../../../../deploy/demo/demo.js")),
    ("/seal.js", JAVASCRIPT, include_str!("../../../../deploy/demo/seal.js")),
    ("/relay.js", JAVASCRIPT, include_str!("../../../../deploy/demo/relay.js")),
];

const HTML: &str = "text/html; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// What every response says. The policy is that of the page itself, and no other page may frame it.
const HEAD: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self' https: \
         http://127.0.0.1:* http://localhost:*; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // The next version of the program may have other files.
    (header::CACHE_CONTROL, "no-store"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The response to a request; `host` is the site's own host and port.
pub(super) fn respond<B>(request: &Request<B>, host: &str) -> Response<Full<Bytes>> {
    let asked = request.headers().get(header::HOST).map(HeaderValue::as_bytes);
    // Under another name the page has another origin, which the relay does not list.
    if asked != Some(host.as_bytes()) {
        return response(StatusCode::MISDIRECTED_REQUEST, TEXT, format!("This page is at http://{host}/\n"));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "Only GET and HEAD work here.\n");
        refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match FILES.iter().find(|(path, ..)| *path == request.uri().path()) {
        Some((_, kind, text)) => response(StatusCode::OK, kind, *text),
        None => response(StatusCode::NOT_FOUND, TEXT, "There is no such page.\n"),
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    for (name, value) in HEAD {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
