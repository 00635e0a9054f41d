//! Calls the gateway over HTTP: one POST, of whose response only the head matters.
//!
//! It follows no redirect and uses no proxy. Everything that a gateway can make it hold or wait for
//! is bounded: the head of a response by [`HEAD_BYTES_MAX`], its body by [`BODY_BYTES_MAX`], and
//! the time of the whole call by its timeout.

mod connector;
mod resolver;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use relay_core::Timestamp;

use self::connector::Connector;
use crate::options::Options;
use crate::signature;

/// The largest head of a response.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most header fields of a response.
const HEAD_FIELDS_MAX: usize = 64;
/// A connection whose response has a larger body is closed, others are used again.
const BODY_BYTES_MAX: usize = 4 << 10;

/// How long a body may take. Its connection is closed after that.
const BODY_TIME_MAX: Duration = Duration::from_secs(1);
/// How long an unused connection stays open.
const IDLE_MAX: Duration = Duration::from_secs(30);
/// The longest pause that a gateway can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// How many bytes of an error the log repeats.
const ERROR_BYTES_MAX: usize = 200;

/// The client of a gateway.
pub(crate) struct Gateway {
    client: Client<Connector, Full<Bytes>>,
    uri: http::Uri,
    timeout: Duration,
}

/// Why no gateway can be called.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The file with the authorities cannot be used.
    #[error("authorities for the gateway, file {}: {reason}", path.display())]
    Ca {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The system trusts no authority.
    #[error(
        "this system has no usable certificate authorities for the gateway; install them, or set a file with authorities"
    )]
    NoAuthorities,
    /// TLS cannot be used.
    #[error("no TLS to the gateway: {0}")]
    Tls(String),
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted,
    /// For good: a redirect, or a client error other than 429.
    Refused(StatusCode),
    /// Another try may succeed. `pause`: the gateway wants no calls for this long.
    Failed {
        reason: Failure,
        pause: Option<Duration>,
    },
}

/// Why a call failed, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Status(StatusCode),
    Timeout,
    /// No connection, or no response that is HTTP.
    Connection(String),
}

impl Gateway {
    /// Reads the authorities. Blocks on disk.
    pub(crate) fn new(options: &Options) -> Result<Self, GatewayError> {
        let connector = connector::connector(options)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(options.rules.calls_max.get())
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEAD_FIELDS_MAX)
            .build(connector);
        Ok(Self { client, uri: options.url.uri().clone(), timeout: options.timeout })
    }

    /// Posts a body with its signature. `now` is the time of the machine.
    pub(crate) async fn call(&self, body: String, signature: &str, now: Timestamp) -> Answer {
        let mut answer = Answer::Failed { reason: Failure::Timeout, pause: None };
        drop(tokio::time::timeout(self.timeout, self.exchange(body, signature, now, &mut answer)).await);
        answer
    }

    /// Sets the answer when it is known, and then reads what is left of the response.
    async fn exchange(&self, body: String, signature: &str, now: Timestamp, answer: &mut Answer) {
        let request = Request::builder()
            .method(Method::POST)
            .uri(self.uri.clone())
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(USER_AGENT, HeaderValue::from_static("relay"))
            .header(signature::HEADER, signature)
            .body(Full::new(Bytes::from(body)));
        let response = match request {
            Ok(request) => self.client.request(request).await,
            Err(error) => {
                *answer = failed(&error);
                return;
            }
        };
        match response {
            Ok(response) => {
                *answer = judge(&response, now);
                // Whatever happens to the body, the head has decided.
                drop(tokio::time::timeout(BODY_TIME_MAX, discard(response)).await);
            }
            Err(error) => *answer = failed(&error),
        }
    }
}

/// What the head of a response means.
fn judge<B>(response: &Response<B>, now: Timestamp) -> Answer {
    let status = response.status();
    if status.is_success() {
        return Answer::Accepted;
    }
    if !status.is_server_error() && status != StatusCode::TOO_MANY_REQUESTS {
        return Answer::Refused(status);
    }
    let is_busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let pause = response.headers().get(RETRY_AFTER).filter(|_| is_busy);
    let pause = pause.and_then(|value| retry_after(value.to_str().ok()?, now));
    Answer::Failed { reason: Failure::Status(status), pause }
}

/// The value of `Retry-After`, in seconds or as a date, within its bound.
fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let pause = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // Too many digits are a long time.
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let at = httpdate::parse_http_date(value).ok()?;
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(now.as_ms());
        at.duration_since(now).unwrap_or_default()
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

/// Reads a small body to its end, so that its connection can be used again. Dropping a larger one
/// closes the connection.
async fn discard<B: http_body::Body<Data = Bytes> + Unpin>(response: Response<B>) {
    let (mut body, mut bytes) = (response.into_body(), 0);
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len);
        if bytes > BODY_BYTES_MAX || frame.is_trailers() {
            return;
        }
    }
}

/// The error with its causes. The text is for the log, and the bytes of a peer in it are few.
fn failed(error: &dyn std::error::Error) -> Answer {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    let reason = Failure::Connection(relay_core::excerpt(&text, ERROR_BYTES_MAX));
    Answer::Failed { reason, pause: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_bound() {
        // 14 November 2023, 22:13:20.
        let now = Timestamp::from_ms(1_700_000_000_000);
        for (value, seconds) in [
            ("0", Some(0)),
            ("7", Some(7)),
            (" 7 ", Some(7)),
            ("301", Some(300)),
            ("99999999999999999999999999", Some(300)),
            ("Tue, 14 Nov 2023 22:13:30 GMT", Some(10)),
            ("Tue, 14 Nov 2023 22:13:00 GMT", Some(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(300)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("+7", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn only_a_busy_gateway_asks_for_a_pause() {
        let pause = |status: u16| {
            let response = Response::builder().status(status).header(RETRY_AFTER, "7").body(()).unwrap();
            match judge(&response, Timestamp::from_ms(0)) {
                Answer::Failed { pause, .. } => pause,
                Answer::Accepted | Answer::Refused(_) => None,
            }
        };
        for status in [429, 503] {
            assert_eq!(pause(status), Some(Duration::from_secs(7)), "{status}");
        }
        for status in [200, 301, 404, 500, 502] {
            assert_eq!(pause(status), None, "{status}");
        }
    }
}
