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

/// A text of somebody else on one line, without what could command a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if is_command(c) { '\u{fffd}' } else { c }).collect()
}

/// The same for a text of several lines. Further ones are indented, so none looks like our own.
pub(crate) fn printable_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(printable).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n    ")
}

/// Whether a character may move the cursor, or change the order of others.
fn is_command(c: char) -> bool {
    let is_direction = matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2066}'..='\u{2069}');
    // The second range begins with the separators of lines and paragraphs.
    c.is_control() || is_direction || matches!(c, '\u{2028}'..='\u{202e}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_commands() {
        assert_eq!(printable("a\u{1b}[2J\tb\n"), "a\u{fffd}[2J\u{fffd}b\u{fffd}");
        assert_eq!(printable("\u{202e}a\u{2066}\u{200f}ä"), "\u{fffd}a\u{fffd}\u{fffd}ä");
    }

    #[test]
    fn further_lines_are_indented() {
        assert_eq!(printable_lines("a\tb\u{1b}\nid  kind\r\n"), "a\tb\u{fffd}\n    id  kind\u{fffd}\n    ");
    }
}
