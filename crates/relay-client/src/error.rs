//! Why something failed, and whether it is worth another try.

use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The longest text of an error that is kept.
const TEXT_BYTES_MAX: usize = 500;

/// Why something failed. No error holds a secret or a payload.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or the address of the relay cannot be used.
    #[error("the options of the client: {0}")]
    Options(String),
    /// A secret, key or token cannot be used.
    #[error("the credentials: {0}")]
    Credentials(String),
    /// The relay, or something in front of it, answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// There is no connection, or it broke.
    #[error("the relay cannot be reached: {0}")]
    Unreachable(String),
    /// There was no answer in time.
    #[error("the relay did not answer in time")]
    Timeout,
    /// The answer is not what the API promises.
    #[error("the answer of the relay cannot be read: {0}")]
    BrokenAnswer(String),
    /// The answer is larger than the client takes.
    #[error("the answer of the relay is over {limit_bytes} bytes")]
    AnswerTooLarge {
        /// What the client takes.
        limit_bytes: usize,
    },
    /// The payload could not be read.
    #[error("the payload cannot be read: {0}")]
    Read(Arc<io::Error>),
    /// The deliveries were closed before the ack was confirmed.
    #[error("the deliveries are closed")]
    Closed,
}

/// An error that the relay answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("the relay refused with {status} {code}: {message}")]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status; 0 for an item of a batch.
    pub status: u16,
    /// The code of docs/api.md, or `http_` and the status if the answer has none.
    pub code: String,
    /// A text for people.
    pub message: String,
    /// `details.reason`.
    pub reason: Option<String>,
    /// `details.field`.
    pub field: Option<String>,
    /// `details.server_ms`: the relay's clock, in milliseconds since 1970.
    pub server_ms: Option<u64>,
    /// How long to wait before another try.
    pub retry_after: Option<Duration>,
}

impl Error {
    /// What failed, as a word that keeps its meaning: the relay's code, or one of this client:
    /// `unreachable`, `timeout`, `broken_answer`, `answer_too_large`, `read_failed`, `closed`. The
    /// relay's `invalid_input` is also that of options and credentials that cannot be used.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Options(_) | Self::Credentials(_) => "invalid_input",
            Self::Refused(refusal) => &refusal.code,
            Self::Unreachable(_) => "unreachable",
            Self::Timeout => "timeout",
            Self::BrokenAnswer(_) => "broken_answer",
            Self::AnswerTooLarge { .. } => "answer_too_large",
            Self::Read(_) => "read_failed",
            Self::Closed => "closed",
        }
    }

    /// What the relay answered, if it did.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }

    /// Whether the same request may succeed later. The client has then retried it already, for as
    /// long as its options say.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Timeout | Self::BrokenAnswer(_) => true,
            Self::Refused(refusal) => refusal.is_transient(),
            Self::Options(_)
            | Self::Credentials(_)
            | Self::AnswerTooLarge { .. }
            | Self::Read(_)
            | Self::Closed => false,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        self.refusal().and_then(|refusal| refusal.retry_after)
    }

    /// Whether the request may have been too large for the network.
    pub(crate) fn is_too_slow(&self) -> bool {
        matches!(self, Self::Timeout) || self.refusal().is_some_and(|refusal| refusal.status == 408)
    }

    /// Whether the relay does not know the cursor.
    pub(crate) fn is_about_cursor(&self) -> bool {
        self.refusal()
            .is_some_and(|refusal| refusal.status == 400 && refusal.field.as_deref() == Some("cursor"))
    }

    pub(crate) fn broken(error: &dyn std::error::Error) -> Self {
        Self::BrokenAnswer(with_causes(error))
    }
}

impl Refusal {
    fn is_transient(&self) -> bool {
        match self.status {
            0 => matches!(
                &*self.code,
                "request_timeout"
                    | "rate_limited"
                    | "internal_error"
                    | "storage_error"
                    | "overloaded"
                    | "draining"
                    | "not_ready"
                    | "storage_full"
            ),
            status => matches!(status, 408 | 429 | 500 | 502 | 503 | 504 | 507),
        }
    }
}

/// An error of HTTP without the address, which may be a secret of the user.
pub(crate) fn of_http(error: reqwest::Error) -> Error {
    let error = error.without_url();
    if error.is_timeout() {
        return Error::Timeout;
    }
    let text = with_causes(&error);
    if error.is_body() || error.is_decode() { Error::BrokenAnswer(text) } else { Error::Unreachable(text) }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    excerpt(&text)
}

/// The beginning of a text of somebody else, on one line and without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let text = text.get(..end).unwrap_or_default();
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, code: &str) -> Error {
        Error::Refused(Box::new(Refusal { status, code: code.to_owned(), ..Refusal::default() }))
    }

    #[test]
    fn only_what_may_pass_is_retried() {
        for status in [408, 429, 500, 502, 503, 504, 507] {
            assert!(refused(status, "any").is_transient(), "{status}");
        }
        for status in [300, 400, 401, 403, 404, 405, 409, 413, 415, 431, 501] {
            assert!(!refused(status, "any").is_transient(), "{status}");
        }
        assert!(refused(0, "storage_error").is_transient());
        assert!(!refused(0, "quota_exceeded").is_transient());
        assert!(Error::Timeout.is_transient());
        assert!(!Error::Closed.is_transient());
    }

    #[test]
    fn texts_of_others_are_short_and_on_one_line() {
        assert_eq!(excerpt("a\nb\u{1b}[2Jc"), "a b [2Jc");
        assert_eq!(excerpt(&"ä".repeat(400)).len(), 500);
    }
}
