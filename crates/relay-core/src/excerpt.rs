//! The begin of a text of any length, for a message to a person. What does not fit is never held,
//! nor even asked for.

use std::fmt::{self, Display, Write};

/// What stands behind a text that was cut.
const CUT: &str = "...";

/// At most `bytes_max` bytes of `text`, whole characters alone, and three dots if that is not all
/// of it.
///
/// ```
/// assert_eq!(relay_core::excerpt(&"short", 5), "short");
/// assert_eq!(relay_core::excerpt(&format_args!("{:?}", "x".repeat(1000)), 4), "\"xxx...");
/// ```
pub fn excerpt(text: &dyn Display, bytes_max: usize) -> String {
    let mut begin = Begin { text: String::new(), bytes_max, is_cut: false };
    // It fails where it is full.
    let _: fmt::Result = write!(begin, "{text}");
    if begin.is_cut {
        begin.text.push_str(CUT);
    }
    begin.text
}

struct Begin {
    text: String,
    bytes_max: usize,
    is_cut: bool,
}

impl Write for Begin {
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

    /// Shows the same piece for ever, unless it is told that nobody takes it.
    struct Endless;

    impl Display for Endless {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            loop {
                f.write_str("0123456789")?;
            }
        }
    }

    #[test]
    fn nobody_is_asked_for_more_than_fits() {
        assert_eq!(excerpt(&Endless, 14), "01234567890123...");
    }
}
