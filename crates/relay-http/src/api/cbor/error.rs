//! What is wrong with a body in CBOR, in texts that repeat nothing of it.

use std::convert::Infallible;
use std::fmt;

use cbor4ii::core::dec::Error as CoreError;
use serde::de;

/// Why a body is not the expected CBOR.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) kind: ErrorKind,
    /// Where the value begins that is wrong, once that is known.
    offset: Option<usize>,
}

#[derive(Debug)]
pub(crate) enum ErrorKind {
    /// The body is not CBOR, or not of the kind that the relay reads.
    Syntax(&'static str),
    /// A value of the request is wrong. The text is that of serde or of a field.
    Data(String),
}

pub(super) fn syntax(text: &'static str) -> Error {
    Error { kind: ErrorKind::Syntax(text), offset: None }
}

impl Error {
    /// Where the value begins that is wrong.
    pub(crate) fn offset(&self) -> usize {
        self.offset.unwrap_or_default()
    }

    /// Adds the offset of a value, unless that of a value within it is known.
    pub(super) fn at(self, offset: usize) -> Self {
        Self { offset: self.offset.or(Some(offset)), ..self }
    }
}

impl From<CoreError<Infallible>> for Error {
    fn from(error: CoreError<Infallible>) -> Self {
        syntax(match error {
            // A string that is shorter than declared gets the second error.
            CoreError::Eof { .. } | CoreError::RequireLength { .. } => "the body ends within a value",
            CoreError::RequireUtf8 { .. } => "a text string is not UTF-8",
            _ => "a byte that cannot begin a value",
        })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Syntax(text) => f.write_str(text),
            ErrorKind::Data(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { kind: ErrorKind::Data(message.to_string()), offset: None }
    }
}
