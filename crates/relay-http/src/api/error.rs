//! Every error answer: which status, which code, whether and when to retry, and what a person is
//! told. This is the one place that knows, for relay-core's errors, for this crate's own and for
//! those of the framework below.
//!
//! Our faults are logged here, once, with all that led to them; a client's at debug and without its
//! words, since they may name a recipient. An answer tells nothing of files, stores or internals.

use std::fmt::Display;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER};
use relay_core::{Error, Rejection, excerpt};
use relay_ratelimit::Refusal;
use serde_json::{Value, json};

use crate::api::code::Code;
use crate::api::headers::{RATE_LIMIT, whole_seconds};
use crate::api::limits::{FIELDS_MAX, HEAD_BYTES_MAX};
use crate::api::mistake::Mistake;
use crate::readiness::Unready;

/// When to come back to a relay that is draining: by then another one may have taken over.
const DRAINING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When to try again what the store failed at.
const STORAGE_RETRY_AFTER: Duration = Duration::from_secs(1);

/// When to try again where there was no space: expired items are reclaimed once a minute, unless
/// the operator says otherwise.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(60);

/// When to ask again whether a relay is ready.
const UNREADY_RETRY_AFTER: Duration = Duration::from_secs(1);

/// No words are longer: not even those of a relay that is not ours, and has its own. In JSON, each
/// byte may take six.
const MESSAGE_BYTES_MAX: usize = 280;

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Why a request is answered with an error.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// relay-core, or the relay behind it, said no.
    Relay(Error),
    /// The body is not the JSON that it should be.
    Json(Mistake),
    /// The request is broken below its JSON. The text is for a person.
    BadRequest(&'static str),
    /// As [`Code::NotFound`].
    NotFound,
    /// As [`Code::MethodNotAllowed`].
    MethodNotAllowed {
        /// What the path knows.
        allow: &'static str,
    },
    /// As [`Code::RequestTimeout`].
    RequestTimeout,
    /// The body is larger than that of the largest message can be.
    BodyTooLarge {
        /// The largest payload, in bytes.
        payload_bytes_max: u64,
    },
    /// The body is larger than the largest request to its endpoint can be.
    RequestTooLarge {
        /// The largest body, in bytes.
        bytes_max: usize,
    },
    /// As [`Code::HeadersTooLarge`].
    HeadersTooLarge,
    /// The body is of a type that is not JSON.
    UnsupportedMediaType,
    /// The body is encoded in a way that is not gzip.
    UnsupportedEncoding,
    /// As [`Code::Forbidden`]: for whom a browser asks, or by which name.
    CrossSite(Denied),
    /// As [`Code::RateLimited`].
    RateLimited(Refusal),
    /// As [`Code::Draining`].
    Draining,
    /// As [`Code::NotReady`], to whoever asks just that.
    Unready(Unready),
    /// A fault of ours, in words for the log.
    Internal(String),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It calls the relay by a name that is not allowed, or in a way that could be read as two.
    Host,
    /// A browser sends it for a page of another site.
    Origin,
}

/// What an error comes to on the wire.
pub(crate) struct ErrorBody {
    pub(crate) code: Code,
    message: String,
    details: Option<Value>,
    retry_after: Option<Duration>,
    headers: Vec<(HeaderName, String)>,
}

impl ApiError {
    /// The one match from what went wrong to what is answered.
    pub(crate) fn error_body(&self) -> ErrorBody {
        match self {
            Self::Relay(Error::Rejected(rejection)) => rejected(rejection),
            Self::Relay(Error::Storage(_)) => {
                ErrorBody::new(Code::StorageError, "the store failed; it is safe to repeat this")
                    .retry_after(STORAGE_RETRY_AFTER)
            }
            Self::Relay(Error::StorageFull) => {
                ErrorBody::new(Code::StorageFull, "there is no space left").retry_after(FULL_RETRY_AFTER)
            }
            Self::Relay(Error::Overloaded { retry_after }) => {
                ErrorBody::new(Code::Overloaded, "too much work is waiting").retry_after(*retry_after)
            }
            Self::Relay(Error::NotReady { retry_after }) => {
                ErrorBody::new(Code::NotReady, "the relay is not ready yet").retry_after(*retry_after)
            }
            Self::Json(mistake) => not_json(mistake),
            Self::BadRequest(what) => ErrorBody::new(Code::InvalidInput, what),
            Self::NotFound => ErrorBody::new(Code::NotFound, "there is no such path"),
            Self::MethodNotAllowed { allow } => {
                ErrorBody::new(Code::MethodNotAllowed, format!("this path knows {allow} only"))
                    .header(ALLOW, *allow)
            }
            Self::RequestTimeout => {
                ErrorBody::new(Code::RequestTimeout, "the request did not arrive in time")
            }
            Self::BodyTooLarge { payload_bytes_max: limit } => ErrorBody::new(
                Code::MessageTooLarge,
                format!("the body is too large for a payload of {limit} bytes"),
            )
            .details(json!({"limit": limit})),
            Self::RequestTooLarge { bytes_max: limit } => {
                ErrorBody::new(Code::MessageTooLarge, format!("the body is over {limit} bytes"))
                    .details(json!({"limit": limit}))
            }
            Self::HeadersTooLarge => {
                let (bytes, fields) = (HEAD_BYTES_MAX, FIELDS_MAX);
                let message =
                    format!("the head of the request is over {bytes} bytes, or has over {fields} fields");
                ErrorBody::new(Code::HeadersTooLarge, message)
                    .details(json!({"limit_bytes": bytes, "limit_fields": fields}))
            }
            Self::UnsupportedMediaType => ErrorBody::new(
                Code::UnsupportedMediaType,
                "the content type must be application/json or application/*+json",
            ),
            Self::UnsupportedEncoding => ErrorBody::new(
                Code::UnsupportedMediaType,
                "a body may be gzip-encoded, once, and in no other way",
            )
            .header(ACCEPT_ENCODING, "gzip"),
            Self::CrossSite(Denied::Origin) => ErrorBody::new(
                Code::Forbidden,
                "a browser asks for a page of another site, and its origin is not listed in cors.allowed_origins",
            ),
            Self::CrossSite(Denied::Host) => ErrorBody::new(
                Code::Forbidden,
                "the relay is not to be called by this host name; see allowed_hosts",
            ),
            Self::RateLimited(refusal) => rate_limited(refusal),
            Self::Draining => {
                ErrorBody::new(Code::Draining, "the relay is shutting down").retry_after(DRAINING_RETRY_AFTER)
            }
            Self::Unready(why) => ErrorBody::new(Code::NotReady, "the relay is not ready")
                .details(json!({"reason": why.to_string()}))
                .retry_after(UNREADY_RETRY_AFTER),
            Self::Internal(_) => ErrorBody::new(Code::InternalError, "the relay has a fault"),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Relay(error)
    }
}

impl From<Unready> for ApiError {
    fn from(why: Unready) -> Self {
        Self::Unready(why)
    }
}

impl From<Denied> for ApiError {
    fn from(why: Denied) -> Self {
        Self::CrossSite(why)
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self::Relay(rejection.into())
    }
}

impl From<Mistake> for ApiError {
    fn from(mistake: Mistake) -> Self {
        Self::Json(mistake)
    }
}

impl ErrorBody {
    fn new(code: Code, message: impl Display) -> Self {
        let message = excerpt(&message, MESSAGE_BYTES_MAX);
        Self { code, message, details: None, retry_after: None, headers: Vec::new() }
    }

    fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).expect("the statuses of all codes are between 100 and 999")
    }

    /// Its headers, beside those of every answer.
    pub(crate) fn into_headers(self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let retry_after = self.retry_after.map(|wait| (RETRY_AFTER, HeaderValue::from(whole_seconds(wait))));
        let others = self.headers.into_iter().map(|(name, value)| {
            let value =
                HeaderValue::from_str(&value).expect("the values are put together from visible ASCII below");
            (name, value)
        });
        retry_after.into_iter().chain(others)
    }

    pub(crate) fn body(&self) -> Value {
        let mut error = json!({"code": self.code.as_str(), "message": self.message});
        if let (Some(details), Some(error)) = (&self.details, error.as_object_mut()) {
            error.insert("details".to_owned(), details.clone());
        }
        json!({"error": error})
    }
}

fn not_json(mistake: &Mistake) -> ErrorBody {
    let mut details = json!({"line": mistake.line, "column": mistake.column});
    if let (Some(field), Some(details)) = (mistake.field, details.as_object_mut()) {
        details.insert("field".to_owned(), field.into());
    }
    ErrorBody::new(Code::InvalidInput, mistake).details(details)
}

fn rejected(rejection: &Rejection) -> ErrorBody {
    match rejection {
        Rejection::InvalidInput { field, .. } => {
            ErrorBody::new(Code::InvalidInput, rejection).details(json!({"field": field}))
        }
        Rejection::Unauthorized => ErrorBody::new(Code::Unauthorized, rejection),
        Rejection::Forbidden => ErrorBody::new(Code::Forbidden, rejection),
        Rejection::MessageTooLarge { limit } => {
            ErrorBody::new(Code::MessageTooLarge, rejection).details(json!({"limit": limit}))
        }
        Rejection::QuotaExceeded { reason, limit, used } => ErrorBody::new(Code::QuotaExceeded, rejection)
            .details(json!({"reason": reason.as_str(), "limit": limit, "used": used})),
    }
}

/// The two fields are those of draft-ietf-httpapi-ratelimit-headers-10.
fn rate_limited(refusal: &Refusal) -> ErrorBody {
    let Refusal { bucket, retry_after, banned, quota, window_seconds, .. } = *refusal;
    let message =
        if banned { "too many requests, and banned for it for a while" } else { "too many requests" };
    let retry_after_ms = u64::try_from(retry_after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    ErrorBody::new(Code::RateLimited, message)
        .details(json!({"bucket": bucket, "retry_after_ms": retry_after_ms}))
        .retry_after(retry_after)
        .header(RATE_LIMIT_POLICY, format!("\"{bucket}\";q={quota};w={window_seconds}"))
        .header(RATE_LIMIT, format!("\"{bucket}\";r=0;t={}", whole_seconds(retry_after)))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn nobody_is_sent_back_at_once_or_too_early() {
        let check = |ms, seconds| assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds, "{ms} ms");
        check(0, 1);
        check(1, 1);
        check(1000, 1);
        check(1001, 2);
        check(299_999, 300);
    }

    #[test]
    fn words_of_any_length_make_a_short_answer() {
        for word in ["x", "\u{1}", "\\", "\u{1f980}"] {
            let rejection = Rejection::invalid("recipient", word.repeat(1_000_000));
            let answer = ApiError::from(rejection).error_body().body().to_string();
            assert!(answer.len() <= 2048, "{} bytes", answer.len());
        }
    }

    #[test]
    fn what_is_internal_stays_inside() {
        let secret = || io::Error::other("/var/lib/relay/secret.db");
        for error in [ApiError::Relay(Error::storage(secret())), ApiError::Internal(secret().to_string())] {
            assert!(!error.error_body().body().to_string().contains("secret"));
        }
    }
}
