//! What is wrong with the JSON of a body, in words that are bounded and hold nothing of the body:
//! its place, the field if one can be told, and what should stand there.
//!
//! serde_json's own words are taken where they are fixed ones. Where they are not, they are those
//! of `field`, or of a field that is missing or repeated, and anything else is replaced.

use std::fmt;

use relay_core::excerpt;
use serde::Deserialize;
use serde_json::error::Category;

use super::field::{JsonObject, NAMES};

/// The words for a mistake have less.
const WORDS_BYTES_MAX: usize = 200;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A mistake in the JSON of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// Where it is, counted from 1.
    pub(crate) line: usize,
    /// In bytes, counted from 1; 0 at the begin of a line.
    pub(crate) column: usize,
    /// Whose value it is, if it is one of the wrong kind.
    pub(crate) field: Option<&'static str>,
    words: String,
}

/// Reads a body.
pub(super) fn read<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Mistake> {
    let value = match str::from_utf8(json) {
        // One look at all of it costs less than one at each string.
        Ok(json) => serde_json::from_str(json),
        Err(_) => serde_json::from_slice(json),
    };
    value.map(|JsonObject(value)| value).map_err(|error| Mistake::new(json, &error))
}

impl Mistake {
    #[cold]
    fn new(json: &[u8], error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        if json.starts_with(BYTE_ORDER_MARK) {
            let words = "it begins with a byte order mark, and JSON begins without one".to_owned();
            return Self { line, column, field: None, words };
        }
        let text = excerpt(error, WORDS_BYTES_MAX);
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        match error.classify() {
            Category::Data => {
                let field = NAMES.iter().find(|&name| is_of_field(text, name)).copied();
                let is_ours = field.is_some() || is_missing_or_repeated(text);
                let words = if is_ours { text } else { "a value of another kind is expected" };
                Self { line, column, field, words: words.to_owned() }
            }
            Category::Io | Category::Syntax | Category::Eof => {
                Self { line, column, field: None, words: text.to_owned() }
            }
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, column, field, words } = self;
        if field.is_none() {
            f.write_str("the body is not the expected JSON: ")?;
        }
        write!(f, "{words} at line {line} column {column}")
    }
}

/// Whether `field` says this of the field with this name.
fn is_of_field(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| rest.starts_with(": expected "))
}

/// Whether serde says this of one of our fields. It knows a field by its name within its object.
fn is_missing_or_repeated(text: &str) -> bool {
    let quoted = text.strip_prefix("missing field `").or_else(|| text.strip_prefix("duplicate field `"));
    let Some(found) = quoted.and_then(|rest| rest.strip_suffix('`')) else { return false };
    NAMES.iter().any(|name| name.rsplit('.').next() == Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{AckRequest, PullRequest, PushRequest};

    const MARKED: &str = "m4rk3d";

    fn mistake<'de, T: Deserialize<'de>>(json: &'de str) -> Mistake {
        read::<T>(json.as_bytes()).err().unwrap()
    }

    #[test]
    fn a_value_of_a_wrong_kind_is_told_by_field_and_rule() {
        let check = |value: &str, expected: &str| {
            let json = format!("{{\"recipient\":\"a\",\"max\":{value}}}");
            let mistake = mistake::<PullRequest<'_>>(&json);
            let words = mistake.to_string();
            assert!(
                words.starts_with(&format!(
                    "max: expected a positive whole number, found {expected} at line 1"
                )),
                "{words}"
            );
            assert_eq!(mistake.field, Some("max"));
        };
        check(r#""1""#, "a string");
        check(r#""\n""#, "a string");
        check("1.0", "a number with a fraction or an exponent");
        check("1e3", "a number with a fraction or an exponent");
        check("-1", "a negative number");
        check("-0", "a negative number");
        check("-1.5", "a negative number");
        check("18446744073709551616", "one that is too large");
        check("1e300", "one that is too large");
        check("true", "a boolean");
        check("[1]", "an array");
        check(r#"{"a":1}"#, "an object");
    }

    #[test]
    fn a_number_may_be_too_large_for_its_field() {
        let json = r#"{"recipient":"a","ack":[{"message_id":"a","chunk_index":4294967296}]}"#;
        let words = "chunk_index: expected a whole number from 0 to 4294967295, found one that is too large at line 1 column 66";
        assert_eq!(mistake::<AckRequest<'_>>(json).to_string(), words);
    }

    #[test]
    fn what_is_no_object_is_told_as_well() {
        let check = |words: String, expected: &str| assert_eq!(words, expected);
        check(
            mistake::<PullRequest<'_>>("[]").to_string(),
            "the body: expected an object, found an array at line 1 column 2",
        );
        check(
            mistake::<AckRequest<'_>>(r#"{"ack":7}"#).to_string(),
            "ack: expected an array of objects, found a number at line 1 column 8",
        );
        check(
            mistake::<AckRequest<'_>>(r#"{"ack":[7]}"#).to_string(),
            "ack: expected an object, found a number at line 1 column 9",
        );
    }

    #[test]
    fn a_byte_order_mark_is_named() {
        let words = "the body is not the expected JSON: it begins with a byte order mark, and JSON begins without one at line 1 column 1";
        assert_eq!(mistake::<PullRequest<'_>>("\u{feff}{}").to_string(), words);
    }

    #[test]
    fn what_is_no_utf8_is_told_by_its_place() {
        let words = "the body is not the expected JSON: invalid unicode code point at line 1 column 15";
        let json = b"{\"recipient\":\"\xff\"}";
        assert_eq!(read::<PullRequest<'_>>(json).err().unwrap().to_string(), words);
    }

    #[test]
    fn a_field_that_is_missing_or_repeated_is_named() {
        let check = |json: &str, expected: &str| {
            let words = mistake::<PushRequest<'_>>(json).to_string();
            assert!(
                words.starts_with(&format!("the body is not the expected JSON: {expected} at line 1")),
                "{words}"
            );
        };
        check("{}", "missing field `recipient`");
        check(r#"{"meta":{}}"#, "missing field `kind`");
        check(r#"{"meta":{"kind":"a","kind":"b"}}"#, "duplicate field `kind`");
    }

    /// A field that somebody adds without a reader of its own.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Careless {
        #[expect(dead_code, reason = "it is never read")]
        number: u64,
    }

    #[test]
    fn words_that_are_not_ours_are_replaced() {
        for json in [format!("{{\"number\":\"{MARKED}\"}}"), format!("{{\"{MARKED}\":1}}"), "{}".to_owned()] {
            let mistake = mistake::<Careless>(&json);
            assert!(
                mistake.to_string().contains("a value of another kind is expected at line 1"),
                "{mistake}"
            );
            assert_eq!(mistake.field, None);
        }
    }
}
