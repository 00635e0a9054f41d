//! The name of a request in the log. It is the trace id of a `traceparent` header (W3C Trace
//! Context) if there is a well-formed one, so that the lines of the relay and of whatever called it
//! can be laid side by side; else a random one. It says nothing of who asked or for whom, and
//! nothing is decided by it.

use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::num::NonZeroU128;
use std::sync::atomic::{AtomicU64, Ordering};

use actix_web::http::header::{HeaderMap, HeaderName};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The name of one request, written as 32 digits in lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(u128);

/// Gives names.
#[derive(Debug)]
pub(crate) struct RequestIds {
    /// Drawn once, so that nobody can tell the names to come.
    keys: [u64; 2],
    given: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        // From the keys of a hasher, which the standard library draws from the operating system.
        let draw = || RandomState::new().build_hasher().finish();
        Self { keys: [draw(), draw()], given: AtomicU64::new(0) }
    }

    /// Two numbers that nobody outside can know.
    pub(crate) const fn keys(&self) -> [u64; 2] {
        self.keys
    }

    /// The name of a request with these headers.
    pub(crate) fn name(&self, headers: &HeaderMap) -> RequestId {
        let mut given = headers.get_all(TRACEPARENT);
        match (given.next(), given.next()) {
            (Some(header), None) => trace_id(header.as_bytes()).unwrap_or_else(|| self.make()),
            _ => self.make(),
        }
    }

    fn make(&self) -> RequestId {
        let [first, second] = self.keys;
        let mut hasher = SipHasher13::new_with_keys(first, second);
        hasher.write_u64(self.given.fetch_add(1, Ordering::Relaxed));
        RequestId(hasher.finish128().as_u128())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The trace id of a `traceparent`: `version-traceid-parentid-flags`, in lower-case hex. A version
/// to come may have more behind that; version ff never is.
fn trace_id(header: &[u8]) -> Option<RequestId> {
    let (version, rest) = part(header, 2)?;
    let (trace, rest) = part(rest.strip_prefix(b"-")?, 32)?;
    let (parent, rest) = part(rest.strip_prefix(b"-")?, 16)?;
    let (_flags, rest) = part(rest.strip_prefix(b"-")?, 2)?;
    let is_whole = rest.is_empty() || (version != 0 && rest.starts_with(b"-"));
    (is_whole && version != 0xff && parent != 0).then_some(())?;
    NonZeroU128::new(trace).map(|trace| RequestId(trace.get()))
}

/// A number of so many hex digits, and what follows.
fn part(text: &[u8], digits: usize) -> Option<(u128, &[u8])> {
    let (part, rest) = text.split_at_checked(digits)?;
    let digit = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let text = part.iter().all(digit).then(|| str::from_utf8(part).ok())??;
    Some((u128::from_str_radix(text, 16).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use actix_web::http::header::HeaderValue;

    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_traceparent_is_taken_over_when_it_is_well_formed() {
        let check = |header: &str, expected: bool| {
            let found = trace_id(header.as_bytes()).map(|id| id.to_string());
            assert_eq!(found.as_deref(), expected.then_some(TRACE), "{header}");
        };
        for good in ["00-{}-00f067aa0ba902b7-01", "00-{}-00f067aa0ba902b7-ff", "01-{}-00f067aa0ba902b7-01"] {
            check(&good.replace("{}", TRACE), true);
        }
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-will-be"), true);
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
    fn without_one_or_with_two_the_name_is_a_new_one() {
        let ids = RequestIds::new();
        let mut headers = HeaderMap::new();
        let mut names = HashSet::from([ids.name(&headers).to_string()]);
        let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
        headers.append(TRACEPARENT, HeaderValue::from_str(&parent).unwrap());
        assert_eq!(ids.name(&headers).to_string(), TRACE);
        headers.append(TRACEPARENT, HeaderValue::from_str(&parent).unwrap());
        names.extend((0..1000).map(|_| ids.name(&headers).to_string()));
        names.insert(RequestIds::new().name(&headers).to_string());
        assert_eq!(names.len(), 1002);
        assert!(names.iter().all(|name| name.len() == 32 && name != TRACE));
    }
}
