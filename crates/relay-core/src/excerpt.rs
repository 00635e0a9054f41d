//! Cuts long text for messages to a person. It never holds the part that does not fit.

use std::fmt::{self, Display, Write};

/// The beginning of `text`: at most `bytes_max` bytes of whole characters, then `...` if the text
/// is longer. Formatting stops there, so an endless text is fine.
///
/// ```
/// assert_eq!(relay_core::excerpt(&"short", 5), "short");
/// assert_eq!(relay_core::excerpt(&format_args!("{:?}", "x".repeat(1000)), 4), "\"xxx...");
/// ```
pub fn excerpt(text: &dyn Display, bytes_max: usize) -> String {
    let mut writer = BoundedWriter { text: String::new(), bytes_max, is_cut: false };
    // The writer fails once it is full, which stops the formatting.
    let _: fmt::Result = write!(writer, "{text}");
    if writer.is_cut {
        writer.text.push_str("...");
    }
    writer.text
}

struct BoundedWriter {
    text: String,
    bytes_max: usize,
    is_cut: bool,
}

impl Write for BoundedWriter {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let fits = more.floor_char_boundary(self.bytes_max.saturating_sub(self.text.len()));
        self.is_cut = self.is_cut || fits < more.len();
        self.text.push_str(more.get(..fits).unwrap_or_default());
        if self.is_cut { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        let check = |text: &str, bytes_max, expected: &str| assert_eq!(excerpt(&text, bytes_max), expected);
        check("", 0, "");
        check("a", 0, "...");
        check("abc", 3, "abc");
        check("abcd", 3, "abc...");
        check("ab\u{1f980}", 5, "ab...");
        check("ab\u{1f980}", 6, "ab\u{1f980}");
    }

    /// Writes for ever, until the writer fails.
    struct Endless;

    impl Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("0123456789")?;
            }
        }
    }

    #[test]
    fn formatting_stops_when_the_excerpt_is_full() {
        assert_eq!(excerpt(&Endless, 14), "01234567890123...");
    }
}
