//! Splits a line of a scenario into words, and parses numbers, durations and recipients.

use std::iter::Peekable;
use std::str::{Chars, FromStr};

use crate::message::Recipient;

/// The units of time in milliseconds, the largest first.
pub(super) const UNITS_MS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// The words of a line up to the arrow.
pub(super) struct Words {
    pub(super) list: std::vec::IntoIter<String>,
}

impl Words {
    pub(super) fn next(&mut self, expected: &str) -> Result<String, String> {
        self.list.next().ok_or_else(|| format!("expected {expected}, found the end of the command"))
    }

    pub(super) fn recipient(&mut self) -> Result<Recipient, String> {
        Recipient::parse(&self.next("a recipient")?).map_err(|rejection| rejection.to_string())
    }
}

/// Splits a line into the words of the command and the answer, if there is an arrow.
pub(super) fn split(line: &str) -> Result<(Words, Option<String>), String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    let expected = loop {
        if rest.is_empty() || rest.starts_with('#') {
            break None;
        }
        if let Some(answer) = rest.strip_prefix("->") {
            let words = answer.split_whitespace().take_while(|word| !word.starts_with('#'));
            break Some(words.collect::<Vec<_>>().join(" "));
        }
        let mut chars = rest.chars().peekable();
        words.push(if chars.next_if_eq(&'"').is_some() { quoted(&mut chars)? } else { bare(&mut chars) });
        let rest_bytes = chars.map(char::len_utf8).sum::<usize>();
        rest = rest.get(rest.len() - rest_bytes..).unwrap_or_default().trim_start();
    };
    Ok((Words { list: words.into_iter() }, expected))
}

fn bare(chars: &mut Peekable<Chars<'_>>) -> String {
    std::iter::from_fn(|| chars.next_if(|c| !c.is_whitespace())).collect()
}

/// The rest of a quoted text after its first quote, with an optional repetition: `"ab"*3`.
fn quoted(chars: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut text = String::new();
    loop {
        match chars.next().ok_or("expected a closing quote, found the end of the line")? {
            '"' => break,
            '\\' => text.push(escaped(chars)?),
            c => text.push(c),
        }
    }
    match bare(chars).strip_prefix('*') {
        Some(times) => Ok(text.repeat(number(times)?)),
        None => Ok(text),
    }
}

fn escaped(chars: &mut Peekable<Chars<'_>>) -> Result<char, String> {
    match chars.next() {
        Some(c @ ('"' | '\\')) => Ok(c),
        Some('n') => Ok('\n'),
        Some('t') => Ok('\t'),
        Some('u') => {
            let digits: String = chars.by_ref().skip(1).take_while(|c| *c != '}').collect();
            let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
            code.ok_or_else(|| format!("expected a character such as \\u{{1F980}}, found {digits}"))
        }
        other => Err(format!("expected \\\" \\\\ \\n \\t or \\u{{..}}, found {other:?}")),
    }
}

pub(super) fn number<N: FromStr>(text: &str) -> Result<N, String> {
    text.parse().map_err(|_| format!("expected a number, found {text:?}"))
}

/// Parses `15d`, `300s` or `1d2h3m4s5ms`.
pub(super) fn duration_ms(text: &str) -> Result<u64, String> {
    let wrong = || format!("expected a duration such as 15d or 1h30m, found {text:?}");
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (count, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let (_, unit_ms) = UNITS_MS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let count: u64 = count.parse().map_err(|_| wrong())?;
        total = count.checked_mul(*unit_ms).and_then(|ms| total.checked_add(ms)).ok_or_else(wrong)?;
        rest = tail;
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}
