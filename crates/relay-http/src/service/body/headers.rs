//! The headers that describe a body: `Content-Type` and `Content-Encoding`.

use actix_web::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};

use crate::api::error::ApiError;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
}

/// Accepts JSON types, and a missing type.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let essence =
        value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let subtype = essence.strip_prefix("application/").unwrap_or_default();
    if subtype == "json" || subtype.strip_suffix("+json").is_some_and(|name| !name.is_empty()) {
        Ok(())
    } else {
        Err(ApiError::UnsupportedMediaType)
    }
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
    fn json_types_and_a_missing_type_are_accepted() {
        let check = |values: &[&'static str], expected| {
            let result = check_content_type(&headers(CONTENT_TYPE, values));
            assert_eq!(result.is_ok(), expected, "{values:?}");
        };
        check(&[], true);
        check(&["application/json"], true);
        check(&["Application/JSON ; charset=utf-8"], true);
        check(&["application/problem+json"], true);
        check(&["application/+json"], false);
        check(&["application/jsonp"], false);
        check(&["text/json"], false);
        check(&["text/plain"], false);
        check(&[""], false);
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
