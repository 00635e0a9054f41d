//! The id of a request in the log. It is the trace id of a well-formed `traceparent` header (W3C
//! Trace Context), so that the log lines of the relay and its client can be correlated, or else
//! random. It reveals nothing about the client or the recipient, and decides nothing.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header::{HeaderMap, HeaderName};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The id of one request, displayed as 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(u128);

/// Issues ids.
#[derive(Debug)]
pub(super) struct RequestIds {
    /// Random, so that nobody can predict ids.
    keys: [u64; 2],
    issued: AtomicU64,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // The standard library gets the keys of a hasher from the operating system.
        let random = || RandomState::new().build_hasher().finish();
        Self { keys: [random(), random()], issued: AtomicU64::new(0) }
    }

    /// Two secret random numbers.
    pub(super) const fn keys(&self) -> [u64; 2] {
        self.keys
    }

    /// The id of a request with these headers.
    pub(super) fn id(&self, headers: &HeaderMap) -> RequestId {
        let mut values = headers.get_all(TRACEPARENT);
        match (values.next(), values.next()) {
            (Some(value), None) => trace_id(value.as_bytes()).unwrap_or_else(|| self.random_id()),
            _ => self.random_id(),
        }
    }

    fn random_id(&self) -> RequestId {
        let [first, second] = self.keys;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write_u64(self.issued.fetch_add(1, Ordering::Relaxed));
        RequestId(hasher.finish128().as_u128())
    }
}

impl RequestId {
    /// The id as a number.
    pub(super) const fn as_u128(self) -> u128 {
        self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The trace id of a `traceparent`: `version-traceid-parentid-flags`, in lower-case hex. Versions
/// after 00 may append more; version ff is invalid.
fn trace_id(header: &[u8]) -> Option<RequestId> {
    let (version, rest) = hex_number(header, 2)?;
    let (trace, rest) = hex_number(rest.strip_prefix(b"-")?, 32)?;
    let (parent, rest) = hex_number(rest.strip_prefix(b"-")?, 16)?;
    let (_flags, rest) = hex_number(rest.strip_prefix(b"-")?, 2)?;
    let is_complete = rest.is_empty() || (version != 0 && rest.starts_with(b"-"));
    (is_complete && version != 0xff && parent != 0 && trace != 0).then_some(RequestId(trace))
}

/// A number of `digits` lower-case hex digits, and the rest of the text.
fn hex_number(text: &[u8], digits: usize) -> Option<(u128, &[u8])> {
    let (number, rest) = text.split_at_checked(digits)?;
    let is_hex = number.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let number = is_hex.then(|| str::from_utf8(number).ok())??;
    Some((u128::from_str_radix(number, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use actix_web::http::header::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_well_formed_traceparent_gives_the_id() {
        let check = |header: &str, expected: bool| {
            let found = trace_id(header.as_bytes()).map(|id| id.to_string());
            assert_eq!(found.as_deref(), expected.then_some(TRACE), "{header}");
        };
        for good in ["00-{}-00f067aa0ba902b7-01", "00-{}-00f067aa0ba902b7-ff", "01-{}-00f067aa0ba902b7-01"] {
            check(&good.replace("{}", TRACE), true);
        }
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01-later-version"), true);
        for bad in [
            "",
            "00",
            "00-{}",
            "00-{}-00f067aa0ba902b7",
            "00-{}-00f067aa0ba902b7-",
            "00-{}-00f067aa0ba902b7-1",
            "00-{}-00f067aa0ba902b7-01-",
            "00-{}-00f067aa0ba902b7-01-more",
            "01-{}-00f067aa0ba902b7-01more",
            "ff-{}-00f067aa0ba902b7-01",
            "0-{}-00f067aa0ba902b7-01",
            "00-{}-0000000000000000-01",
            "00-{}-00f067aa0ba902b-01",
            "00_{}_00f067aa0ba902b7_01",
            " 00-{}-00f067aa0ba902b7-01",
            "00-+{}-00f067aa0ba902b7-01",
        ] {
            check(&bad.replace("{}", TRACE), false);
        }
        check(&format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()), false);
        check(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), false);
        check(&format!("00-+{}-00f067aa0ba902b7-01", &TRACE[1..]), false);
    }

    #[test]
    fn without_one_or_with_two_the_id_is_random() {
        let ids = RequestIds::new();
        let mut headers = HeaderMap::new();
        let mut seen = HashSet::from([ids.id(&headers).to_string()]);
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        headers.append(TRACEPARENT, HeaderValue::from_str(&parent).unwrap());
        assert_eq!(ids.id(&headers).to_string(), TRACE);
        headers.append(TRACEPARENT, HeaderValue::from_str(&parent).unwrap());
        seen.extend((0..1000).map(|_| ids.id(&headers).to_string()));
        seen.insert(RequestIds::new().id(&headers).to_string());
        assert_eq!(seen.len(), 1002);
        assert!(seen.iter().all(|id| id.len() == 32 && id != TRACE));
    }
}
