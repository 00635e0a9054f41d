//! Every error response: its status, code, message, details and headers. This is the only place
//! that decides them, for the errors of relay-core, of this crate and of the framework. A response
//! reveals nothing about files, stores or internals.

use std::fmt::Display;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use relay_core::{Error, QuotaKind, Rejection, excerpt};
use relay_ratelimit::Refusal;
use serde_json::{Value, json};

use crate::api::code::Code;
use crate::api::headers::{RATE_LIMIT, whole_seconds};
use crate::api::limits::{FIELDS_MAX, HEAD_BYTES_MAX};
use crate::api::mistake::{Mistake, Position};
use crate::readiness::Unready;

/// When to retry after a failure of the store, and while the relay starts or stops. In the last
/// case another relay may soon take over.
const RETRY_SOON: Duration = Duration::from_secs(1);

/// When to retry on a full store. By default, it frees the space of expired items once a minute.
const FULL_RETRY_AFTER: Duration = Duration::from_secs(60);

/// The maximum length of a message, also of one from another implementation of `Relay`. JSON may
/// need six bytes for each.
const MESSAGE_BYTES_MAX: usize = 280;

const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Why a request gets an error response, and the message for it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// An error of the [`Relay`](relay_core::Relay).
    #[error(transparent)]
    Relay(#[from] Error),
    #[error(transparent)]
    Body(#[from] Mistake),
    /// The HTTP of the request is invalid.
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("this path does not exist")]
    NotFound,
    #[error("this path supports only {allow}")]
    MethodNotAllowed { allow: &'static str },
    #[error("the request did not arrive in time")]
    RequestTimeout,
    /// The body of a push is too large for the largest allowed payload.
    #[error("the body is too large for a payload of {payload_bytes_max} bytes")]
    BodyTooLarge { payload_bytes_max: u64 },
    /// The payloads of a batch are too large.
    #[error("the payloads are larger than {payload_bytes_max} bytes together")]
    BatchTooLarge { payload_bytes_max: u64 },
    /// The body of another request is too large.
    #[error("the body is larger than {bytes_max} bytes")]
    RequestTooLarge { bytes_max: usize },
    #[error("the head exceeds {} bytes or {} fields", HEAD_BYTES_MAX, FIELDS_MAX)]
    HeadersTooLarge,
    #[error("the content type must be application/json, application/*+json or application/cbor")]
    UnsupportedMediaType,
    #[error("the only supported content encoding is gzip, applied once")]
    UnsupportedEncoding,
    #[error(transparent)]
    CrossSite(#[from] Denied),
    /// The proof does not open the recipient's name.
    #[error("{refusal}")]
    Auth { refusal: relay_auth::Refusal, server_ms: u64 },
    /// The queue is full, and the sender may not learn how full.
    #[error("the queue of this recipient is full")]
    QueueFull { reason: QuotaKind, limit: u64 },
    #[error("too many requests{}", if .0.banned { "; this address is banned for a while" } else { "" })]
    RateLimited(Refusal),
    #[error("the relay is shutting down")]
    Draining,
    /// The response to `/ready`.
    #[error("the relay is not ready")]
    Unready(#[from] Unready),
    /// A bug or another unexpected failure. Its text is for the log.
    #[error("the relay failed unexpectedly")]
    Internal(String),
}

/// Why the host name or the origin of a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Denied {
    /// The host name is not allowed, or is ambiguous.
    #[error("the relay does not allow this host name; see allowed_hosts")]
    Host,
    /// A web page of another site makes a browser send the request.
    #[error("the request comes from a web page of another site; see cors.allowed_origins")]
    Origin,
}

/// An error as sent to the client.
pub(crate) struct ErrorBody {
    pub(crate) code: Code,
    message: String,
    details: Option<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
    retry_after: Option<Duration>,
}

impl ApiError {
    /// Maps every error to its response.
    pub(crate) fn error_body(&self) -> ErrorBody {
        let body = |code| ErrorBody::new(code, self);
        match self {
            Self::Relay(error) => relay_error(error),
            Self::Body(mistake) => body(Code::InvalidInput).details(details_of_mistake(mistake)),
            Self::BadRequest(_) => body(Code::InvalidInput),
            Self::NotFound => body(Code::NotFound),
            Self::MethodNotAllowed { allow } => {
                body(Code::MethodNotAllowed).header(ALLOW, HeaderValue::from_static(allow))
            }
            Self::RequestTimeout => body(Code::RequestTimeout),
            Self::BodyTooLarge { payload_bytes_max: limit }
            | Self::BatchTooLarge { payload_bytes_max: limit } => {
                body(Code::MessageTooLarge).details(json!({"limit": limit}))
            }
            Self::RequestTooLarge { bytes_max: limit } => {
                body(Code::MessageTooLarge).details(json!({"limit": limit}))
            }
            Self::HeadersTooLarge => body(Code::HeadersTooLarge)
                .details(json!({"limit_bytes": HEAD_BYTES_MAX, "limit_fields": FIELDS_MAX})),
            Self::UnsupportedMediaType => body(Code::UnsupportedMediaType),
            Self::UnsupportedEncoding => {
                body(Code::UnsupportedMediaType).header(ACCEPT_ENCODING, HeaderValue::from_static("gzip"))
            }
            Self::CrossSite(_) => body(Code::Forbidden),
            Self::Auth { refusal, server_ms } => auth_refused(body, refusal, *server_ms),
            Self::QueueFull { reason, limit } => {
                body(Code::QuotaExceeded).details(json!({"reason": reason.as_str(), "limit": limit}))
            }
            Self::RateLimited(refusal) => rate_limited(body(Code::RateLimited), refusal),
            Self::Draining => body(Code::Draining).retry_after(RETRY_SOON),
            Self::Unready(reason) => {
                body(Code::NotReady).details(json!({"reason": reason.to_string()})).retry_after(RETRY_SOON)
            }
            Self::Internal(_) => body(Code::InternalError),
        }
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self::Relay(rejection.into())
    }
}

impl ErrorBody {
    fn new(code: Code, message: impl Display) -> Self {
        let message = excerpt(&message, MESSAGE_BYTES_MAX);
        Self { code, message, details: None, headers: Vec::new(), retry_after: None }
    }

    fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }

    fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self.header(RETRY_AFTER, HeaderValue::from(whole_seconds(wait)))
    }

    fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.status()).expect("the statuses of all codes are between 100 and 999")
    }

    /// The headers that not every response has.
    pub(crate) fn into_headers(self) -> Vec<(HeaderName, HeaderValue)> {
        self.headers
    }

    /// The JSON for one item of a batch, which has no headers: the details have the time of
    /// `Retry-After`.
    pub(crate) fn item_body(mut self) -> Value {
        if let Some(wait) = self.retry_after {
            let retry_after_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let details = self.details.get_or_insert_with(|| json!({}));
            if let Some(details) = details.as_object_mut() {
                details.entry("retry_after_ms").or_insert(retry_after_ms.into());
            }
        }
        self.body()
    }

    pub(crate) fn body(&self) -> Value {
        let mut error = json!({"code": self.code.as_str(), "message": self.message});
        if let (Some(details), Some(error)) = (&self.details, error.as_object_mut()) {
            error.insert("details".to_owned(), details.clone());
        }
        json!({"error": error})
    }
}

fn relay_error(error: &Error) -> ErrorBody {
    let body = |code| ErrorBody::new(code, error);
    match error {
        Error::Rejected(rejection) => match rejection {
            Rejection::InvalidInput { field, .. } => {
                body(Code::InvalidInput).details(json!({"field": field}))
            }
            Rejection::Unauthorized => unauthorized(body(Code::Unauthorized)),
            Rejection::Forbidden => body(Code::Forbidden),
            Rejection::MessageTooLarge { limit } => {
                body(Code::MessageTooLarge).details(json!({"limit": limit}))
            }
            Rejection::QuotaExceeded { reason, limit, used } => body(Code::QuotaExceeded)
                .details(json!({"reason": reason.as_str(), "limit": limit, "used": used})),
        },
        Error::Storage(_) => {
            ErrorBody::new(Code::StorageError, "the store failed; it is safe to repeat the request")
                .retry_after(RETRY_SOON)
        }
        Error::StorageFull => body(Code::StorageFull).retry_after(FULL_RETRY_AFTER),
        Error::Overloaded { retry_after } => body(Code::Overloaded).retry_after(*retry_after),
        Error::NotReady { retry_after } => body(Code::NotReady).retry_after(*retry_after),
    }
}

/// 400 for a malformed name, 401 without a proof, 403 with a wrong one. A client with a wrong clock
/// corrects itself by `server_ms`.
fn auth_refused(
    body: impl Fn(Code) -> ErrorBody,
    refusal: &relay_auth::Refusal,
    server_ms: u64,
) -> ErrorBody {
    let details = json!({"reason": refusal.reason(), "server_ms": server_ms});
    match refusal {
        relay_auth::Refusal::Name(_) => body(Code::InvalidInput).details(json!({"field": "recipient"})),
        refusal if refusal.is_unauthorized() => unauthorized(body(Code::Unauthorized).details(details)),
        _ => body(Code::Forbidden).details(details),
    }
}

/// Adds the header that every 401 has (RFC 9110, section 15.5.2).
fn unauthorized(body: ErrorBody) -> ErrorBody {
    body.header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
}

fn details_of_mistake(mistake: &Mistake) -> Value {
    let mut details = match mistake.position {
        Position::Json { line, column } => json!({"line": line, "column": column}),
        Position::Cbor { offset } => json!({"offset": offset}),
    };
    if let (Some(field), Some(details)) = (mistake.field, details.as_object_mut()) {
        details.insert("field".to_owned(), field.into());
    }
    details
}

/// Adds the details and headers of a rate limit. The headers `RateLimit` and `RateLimit-Policy` are
/// those of draft-ietf-httpapi-ratelimit-headers-10.
fn rate_limited(body: ErrorBody, refusal: &Refusal) -> ErrorBody {
    let Refusal { bucket, retry_after, quota, window_seconds, .. } = *refusal;
    let retry_after_ms = u64::try_from(retry_after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
    let value = |text: String| HeaderValue::try_from(text).expect("the names of buckets are visible ASCII");
    body.details(json!({"bucket": bucket, "retry_after_ms": retry_after_ms}))
        .retry_after(retry_after)
        .header(RATE_LIMIT_POLICY, value(format!("\"{bucket}\";q={quota};w={window_seconds}")))
        .header(RATE_LIMIT, value(format!("\"{bucket}\";r=0;t={}", whole_seconds(retry_after))))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn retry_after_is_rounded_up_to_at_least_one_second() {
        let check = |ms, seconds| assert_eq!(whole_seconds(Duration::from_millis(ms)), seconds, "{ms} ms");
        check(0, 1);
        check(1, 1);
        check(1000, 1);
        check(1001, 2);
        check(299_999, 300);
    }

    #[test]
    fn a_long_message_makes_a_short_response() {
        for character in ["x", "\u{1}", "\\", "\u{1f980}"] {
            let rejection = Rejection::invalid("recipient", character.repeat(1_000_000));
            let body = ApiError::from(rejection).error_body().body().to_string();
            assert!(body.len() <= 2048, "{} bytes", body.len());
        }
    }

    #[test]
    fn internal_errors_are_not_revealed() {
        let secret = || io::Error::other("/var/lib/relay/secret.db");
        for error in [ApiError::Relay(Error::storage(secret())), ApiError::Internal(secret().to_string())] {
            assert!(!error.error_body().body().to_string().contains("secret"));
        }
    }
}
