//! The headers that describe a body: `Content-Type` and `Content-Encoding`.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use crate::api::error::ApiError;
use crate::api::format::Format;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// How the body is written. Without a type it is JSON.
pub(super) fn content_format(headers: &HeaderMap) -> Result<Format, ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(Format::Json) };
    let essence =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    Format::of(&essence).ok_or(ApiError::UnsupportedMediaType)
}

pub(super) fn content_encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let mut encoding = Encoding::Identity;
    for value in headers.get_all(CONTENT_ENCODING) {
        let names = value.to_str().map_err(|_| ApiError::UnsupportedEncoding)?.split(',').map(str::trim);
        for name in names.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case("identity")) {
            let is_gzip = name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip");
            if !is_gzip || encoding != Encoding::Identity {
                return Err(ApiError::UnsupportedEncoding);
            }
            encoding = Encoding::Gzip;
        }
    }
    Ok(encoding)
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    fn headers(name: HeaderName, values: &[&'static str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn json_types_cbor_and_a_missing_type_are_accepted() {
        let check = |values: &[&'static str], expected: Option<Format>| {
            assert_eq!(content_format(&headers(CONTENT_TYPE, values)).ok(), expected, "{values:?}");
        };
        check(&[], Some(Format::Json));
        check(&["application/json"], Some(Format::Json));
        check(&["Application/JSON ; charset=utf-8"], Some(Format::Json));
        check(&["application/problem+json"], Some(Format::Json));
        check(&["Application/CBOR;x=y"], Some(Format::Cbor));
        for refused in [
            "application/+json",
            "application/jsonp",
            "text/json",
            "text/plain",
            "",
            "application/cbor-seq",
            "application/x+cbor",
            "application/cbor+x",
            "text/cbor",
            "cbor",
        ] {
            check(&[refused], None);
        }
    }

    #[test]
    fn gzip_once_is_the_only_encoding() {
        let check = |values: &[&'static str], expected: Option<Encoding>| {
            assert_eq!(content_encoding(&headers(CONTENT_ENCODING, values)).ok(), expected, "{values:?}");
        };
        check(&[], Some(Encoding::Identity));
        check(&["identity"], Some(Encoding::Identity));
        check(&["gzip"], Some(Encoding::Gzip));
        check(&["X-GZIP"], Some(Encoding::Gzip));
        check(&["identity, gzip,"], Some(Encoding::Gzip));
        check(&["gzip, gzip"], None);
        check(&["gzip", "gzip"], None);
        check(&["br"], None);
        check(&["gzip, br"], None);
    }
}
