//! Parses a body, and explains mistakes in a bounded text that repeats nothing of the body: the
//! position, the field if it is known, and the expected value.
//!
//! Syntax errors keep the text of serde_json or `cbor`, which is fixed. Of data errors, only those
//! of `field` and those about a missing or repeated field keep their text; any other text is
//! replaced.

use std::fmt;

use relay_core::excerpt;
use serde::Deserialize;
use serde_json::error::Category;

use super::cbor::{self, ErrorKind};
use super::field::{BodyObject, NAMES};
use super::format::Format;

/// No explanation is longer.
const TEXT_BYTES_MAX: usize = 200;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A mistake in a body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{text} {position}", if .field.is_none() { position.introduction() } else { "" })]
pub(crate) struct Mistake {
    pub(crate) position: Position,
    /// The field, if its value has the wrong type.
    pub(crate) field: Option<&'static str>,
    text: String,
}

/// Where in a body a mistake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// In JSON. The line is counted from 1; the column too, in bytes, but 0 at the beginning of a
    /// line.
    Json { line: usize, column: usize },
    /// In CBOR. Counted in bytes, from 0.
    Cbor { offset: usize },
}

/// Parses a body.
pub(super) fn read<'de, T: Deserialize<'de>>(format: Format, body: &'de [u8]) -> Result<T, Mistake> {
    match format {
        Format::Json => read_json(body),
        Format::Cbor => {
            let value = cbor::from_slice(body).map_err(|error| Mistake::of_cbor(&error));
            value.map(|BodyObject(value)| value)
        }
    }
}

fn read_json<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Mistake> {
    let value = match str::from_utf8(json) {
        // One check of the whole body is cheaper than one of each string.
        Ok(json) => serde_json::from_str(json),
        Err(_) => serde_json::from_slice(json),
    };
    value.map(|BodyObject(value)| value).map_err(|error| Mistake::of_json(json, &error))
}

impl Position {
    /// The beginning of a message that does not begin with a field.
    const fn introduction(self) -> &'static str {
        match self {
            Self::Json { .. } => "the body is not the expected JSON: ",
            Self::Cbor { .. } => "the body is not the expected CBOR: ",
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Json { line, column } => write!(f, "at line {line} column {column}"),
            Self::Cbor { offset } => write!(f, "at offset {offset}"),
        }
    }
}

impl Mistake {
    #[cold]
    fn of_json(json: &[u8], error: &serde_json::Error) -> Self {
        let (line, column) = (error.line(), error.column());
        let position = Position::Json { line, column };
        if json.starts_with(BYTE_ORDER_MARK) {
            let text = "JSON must not begin with a byte order mark".to_owned();
            return Self { position, field: None, text };
        }
        let text = excerpt(error, TEXT_BYTES_MAX);
        let text = text.strip_suffix(&format!(" at line {line} column {column}")).unwrap_or(&text);
        match error.classify() {
            Category::Data => Self::of_data(position, text),
            Category::Io | Category::Syntax | Category::Eof => {
                Self { position, field: None, text: text.to_owned() }
            }
        }
    }

    #[cold]
    fn of_cbor(error: &cbor::Error) -> Self {
        let position = Position::Cbor { offset: error.offset() };
        match &error.kind {
            ErrorKind::Data(text) => Self::of_data(position, &excerpt(text, TEXT_BYTES_MAX)),
            ErrorKind::Syntax(text) => Self { position, field: None, text: (*text).to_owned() },
        }
    }

    /// A value of a request is wrong, as this text says.
    fn of_data(position: Position, text: &str) -> Self {
        let (field, text) = match NAMES.iter().find(|name| is_about_field(text, name)) {
            Some(field) => (Some(*field), text),
            None if is_missing_or_repeated(text) => (None, text),
            None => (None, "a value has the wrong type"),
        };
        Self { position, field, text: text.to_owned() }
    }
}

/// Whether this is the text of `field` about the field with this name.
fn is_about_field(text: &str, name: &str) -> bool {
    text.strip_prefix(name).is_some_and(|rest| rest.starts_with(": expected "))
}

/// Whether this is the text of serde about a missing or repeated field of a request. It contains
/// the name of the field within its object.
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
        read::<T>(Format::Json, json.as_bytes()).err().unwrap()
    }

    #[test]
    fn a_value_of_the_wrong_type_is_explained_with_field_and_rule() {
        let check = |value: &str, expected: &str| {
            let json = format!("{{\"recipient\":\"a\",\"max\":{value}}}");
            let mistake = mistake::<PullRequest<'_>>(&json);
            let text = mistake.to_string();
            assert!(
                text.starts_with(&format!(
                    "max: expected a positive whole number, found {expected} at line 1"
                )),
                "{text}"
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
        check("18446744073709551616", "a number that is too large");
        check("1e300", "a number that is too large");
        check("true", "a boolean");
        check("[1]", "an array");
        check(r#"{"a":1}"#, "an object");
    }

    #[test]
    fn a_number_may_be_too_large_for_its_field() {
        let json = r#"{"recipient":"a","ack":[{"message_id":"a","chunk_index":4294967296}]}"#;
        let text = "chunk_index: expected a whole number from 0 to 4294967295, found a number that is too large at line 1 column 66";
        assert_eq!(mistake::<AckRequest<'_>>(json).to_string(), text);
    }

    #[test]
    fn a_value_that_is_not_an_object_is_explained() {
        let check = |text: String, expected: &str| assert_eq!(text, expected);
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
    fn a_byte_order_mark_is_explained() {
        let text = "the body is not the expected JSON: JSON must not begin with a byte order mark at line 1 column 1";
        assert_eq!(mistake::<PullRequest<'_>>("\u{feff}{}").to_string(), text);
    }

    #[test]
    fn invalid_utf8_is_reported_with_its_position() {
        let text = "the body is not the expected JSON: invalid unicode code point at line 1 column 15";
        let json = b"{\"recipient\":\"\xff\"}";
        assert_eq!(read::<PullRequest<'_>>(Format::Json, json).err().unwrap().to_string(), text);
    }

    #[test]
    fn a_field_that_is_missing_or_repeated_is_named() {
        let check = |json: &str, expected: &str| {
            let text = mistake::<PushRequest<'_>>(json).to_string();
            assert!(
                text.starts_with(&format!("the body is not the expected JSON: {expected} at line 1")),
                "{text}"
            );
        };
        check("{}", "missing field `recipient`");
        check(r#"{"meta":{}}"#, "missing field `kind`");
        check(r#"{"meta":{"kind":"a","kind":"b"}}"#, "duplicate field `kind`");
    }

    /// A request type whose field has no reader in `field`.
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Careless {
        #[expect(dead_code, reason = "it is never read")]
        number: u64,
    }

    #[test]
    fn other_texts_of_serde_are_replaced() {
        for json in [format!("{{\"number\":\"{MARKED}\"}}"), format!("{{\"{MARKED}\":1}}"), "{}".to_owned()] {
            let mistake = mistake::<Careless>(&json);
            assert!(mistake.to_string().contains("a value has the wrong type at line 1"), "{mistake}");
            assert_eq!(mistake.field, None);
        }
    }
}
