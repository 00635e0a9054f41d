//! What a command prints: lines for people, or one JSON object in a line.

use std::io::{self, Write as _};

use serde_json::Value;

use crate::failure::Failure;

/// Standard output and standard error.
#[derive(Debug)]
pub(crate) struct Output {
    is_json: bool,
}

impl Output {
    pub(crate) fn new(is_json: bool) -> Self {
        Self { is_json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.is_json
    }

    /// Prints an object, or what people read in its place.
    pub(crate) fn print(&self, object: &Value, text: impl FnOnce() -> String) -> Result<(), Failure> {
        let line = if self.is_json { object.to_string() } else { text() };
        self.write(format!("{line}\n").as_bytes())
    }

    /// Writes bytes as they are.
    pub(crate) fn write(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::OutputClosed),
            Err(error) => Err(Failure::File(format!("cannot write to standard output: {error}"))),
        }
    }

    /// Writes a line to standard error. If nobody reads it, nothing is lost.
    pub(crate) fn error(&self, text: &str) {
        drop(writeln!(io::stderr(), "{text}"));
    }
}

/// A text of somebody else, without control characters that could command a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_commands() {
        assert_eq!(printable("a\u{1b}[2J\tb\n"), "a\u{fffd}[2J\tb\n");
    }
}
