//! Writes and reads the lines of an export. `docs/export.md` describes the fields.

use std::borrow::Cow;
use std::io::{self, BufRead, Read as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use relay_core::{
    Chunk, Envelope, ImportItem, Item, Kind, MessageId, Recipient, Rejection, Timestamp, excerpt,
};
use serde::{Deserialize, Serialize};

use super::header::Header;

/// The most bytes of a line besides its payload. Each byte of recipient and kind may be an escape
/// of six characters.
const LINE_BYTES: u64 = 8 * 1024;

/// Some editors write it at the start of a text.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// How many bytes of a JSON error a message repeats.
const EXCERPT_BYTES_MAX: usize = 160;

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line<'a> {
    /// The first line.
    RelayExport(Header),
    #[serde(borrow)]
    Item(ItemLine<'a>),
    /// The last line. A file without it is truncated.
    End(End),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemLine<'a> {
    #[serde(borrow)]
    recipient: Cow<'a, str>,
    message_id: String,
    chunk_index: u32,
    chunk_count: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    total_len: u64,
    sent_ms: u64,
    arrival_ms: u64,
    deadline_ms: u64,
    #[serde(borrow)]
    payload_b64: Cow<'a, str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct End {
    pub(super) items: u64,
    pub(super) payload_bytes: u64,
}

impl End {
    pub(super) fn count(&mut self, payload_bytes: u64) {
        self.items = self.items.saturating_add(1);
        self.payload_bytes = self.payload_bytes.saturating_add(payload_bytes);
    }
}

impl<'a> ItemLine<'a> {
    pub(super) fn new(recipient: &'a Recipient, item: &'a Item<Bytes>) -> Self {
        Self {
            recipient: recipient.as_str().into(),
            message_id: item.message_id.to_string(),
            chunk_index: item.chunk.index(),
            chunk_count: item.chunk.count(),
            kind: item.kind.as_str().into(),
            total_len: item.total_len,
            sent_ms: item.sent_ms,
            arrival_ms: item.arrival.as_ms(),
            deadline_ms: item.deadline.as_ms(),
            payload_b64: STANDARD.encode(&item.body).into(),
        }
    }

    fn parse(self) -> Result<ImportItem, String> {
        let message = |rejection: Rejection| rejection.to_string();
        let payload = STANDARD.decode(&*self.payload_b64);
        let envelope = Envelope {
            recipient: Recipient::parse(&self.recipient).map_err(message)?,
            message_id: MessageId::parse(&self.message_id).map_err(message)?,
            chunk: Chunk::new(self.chunk_index, self.chunk_count).map_err(message)?,
            kind: Kind::parse(&self.kind).map_err(message)?,
            total_len: self.total_len,
            sent_ms: self.sent_ms,
            ttl_ms: None,
            payload: payload.map_err(|error| format!("payload_b64: {error}"))?.into(),
        };
        let (arrival, deadline) = (Timestamp::from_ms(self.arrival_ms), Timestamp::from_ms(self.deadline_ms));
        Ok(ImportItem { envelope, arrival, deadline })
    }
}

/// Reads and checks an export from its first line to its last.
pub(super) struct Reader<R> {
    from: R,
    line_bytes_max: u64,
    payload_bytes_max: u64,
    text: String,
    /// The number of the last line that was read, from 1.
    pub(super) line: u64,
    /// How many bytes were read.
    pub(super) bytes: u64,
    counted: End,
    at_end: bool,
}

/// Why a file is not a valid export.
#[derive(Debug)]
pub(super) enum Fault {
    Io(io::Error),
    Line(String),
}

impl<R: BufRead> Reader<R> {
    /// Refuses payloads of more than `payload_bytes_max`.
    pub(super) fn new(from: R, payload_bytes_max: u64) -> Self {
        let line_bytes_max = payload_bytes_max.div_ceil(3).saturating_mul(4).saturating_add(LINE_BYTES);
        let (text, counted) = (String::new(), End::default());
        Self { from, line_bytes_max, payload_bytes_max, text, line: 0, bytes: 0, counted, at_end: false }
    }

    /// Reads the first line.
    pub(super) fn header(&mut self) -> Result<Header, Fault> {
        match self.read()? {
            Some(Line::RelayExport(header)) => header.checked().map_err(Fault::Line),
            Some(Line::Item(_) | Line::End(_)) | None => {
                Err(Fault::line("an export begins with a line {\"relay_export\":{...}}"))
            }
        }
    }

    /// Reads the next item; `None` at the end of a complete export.
    pub(super) fn item(&mut self) -> Result<Option<ImportItem>, Fault> {
        if self.at_end {
            return Ok(None);
        }
        let (limit, counted) = (self.payload_bytes_max, self.counted);
        match self.read()? {
            Some(Line::Item(item)) => {
                let item = item.parse().map_err(Fault::Line)?;
                let bytes = item.envelope.payload_bytes();
                if bytes > limit {
                    return Err(Fault::line(Rejection::MessageTooLarge { limit }.to_string()));
                }
                self.counted.count(bytes);
                Ok(Some(item))
            }
            Some(Line::End(end)) if end == counted => {
                self.at_end = true;
                self.check_end().map(|()| None)
            }
            Some(Line::End(End { items, payload_bytes })) => Err(Fault::line(format!(
                "the last line expects {items} items of {payload_bytes} bytes, but the file has {} of {}",
                counted.items, counted.payload_bytes
            ))),
            Some(Line::RelayExport(_)) => Err(Fault::line("a second header")),
            None => Err(Fault::line("the file ends before its last line; it is truncated")),
        }
    }

    /// Checks that nothing but empty lines follows, which some editors add.
    fn check_end(&mut self) -> Result<(), Fault> {
        loop {
            match self.next_line() {
                Ok(false) => return Ok(()),
                Ok(true) if self.text.trim().is_empty() => {}
                Ok(true) | Err(Fault::Line(_)) => {
                    return Err(Fault::line("more text follows the last line"));
                }
                Err(Fault::Io(error)) => return Err(Fault::Io(error)),
            }
        }
    }

    fn read(&mut self) -> Result<Option<Line<'_>>, Fault> {
        if !self.next_line()? {
            return Ok(None);
        }
        let text = self.text.trim_end_matches(['\n', '\r']);
        let text = if self.line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text };
        serde_json::from_str(text).map(Some).map_err(|error| Fault::Line(json_message(&error)))
    }

    /// Reads a line into `text`; false at the end of the file.
    fn next_line(&mut self) -> Result<bool, Fault> {
        self.text.clear();
        self.line += 1;
        let mut limited = self.from.by_ref().take(self.line_bytes_max + 1);
        let read = limited.read_line(&mut self.text).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Fault::line("it is not UTF-8"),
            _ => Fault::Io(error),
        })?;
        self.bytes += read as u64;
        if read as u64 > self.line_bytes_max {
            let limit = self.payload_bytes_max;
            return Err(Fault::line(format!("it is too long for a payload of {limit} bytes")));
        }
        Ok(read > 0)
    }
}

impl Fault {
    fn line(message: impl Into<String>) -> Self {
        Self::Line(message.into())
    }
}

/// The beginning of a JSON error, which may quote long values. It omits the line number, since
/// serde_json sees only one line.
fn json_message(error: &serde_json::Error) -> String {
    let text = excerpt(error, EXCERPT_BYTES_MAX);
    let reason = text.split_once(" at line 1 column ").map_or(&*text, |(reason, _)| reason);
    format!("{reason}, at character {}", error.column())
}

#[cfg(test)]
mod tests {
    use relay_core::Seq;

    use super::*;

    const HEADER: &str = r#"{"relay_export":{"version":1,"exported_ms":5,"last_arrival_number":9}}"#;
    const ITEM: &str = concat!(
        r#"{"item":{"recipient":"a","message_id":"00000000-0000-4000-8000-000000000001","chunk_index":0,"chunk_count":1,"#,
        r#""kind":"opaque","total_len":2,"sent_ms":3,"arrival_ms":4,"deadline_ms":6,"payload_b64":"aGk="}}"#,
    );
    const END: &str = r#"{"end":{"items":1,"payload_bytes":2}}"#;

    /// Reads all of it: the items, or the number of the line that is wrong and what is.
    fn read(text: &str) -> Result<Vec<ImportItem>, (u64, String)> {
        let mut reader = Reader::new(text.as_bytes(), 10);
        let mut items = Vec::new();
        let mut all = || {
            reader.header()?;
            while let Some(item) = reader.item()? {
                items.push(item);
            }
            Ok(())
        };
        match all() {
            Ok(()) => Ok(items),
            Err(Fault::Line(what)) => Err((reader.line, what)),
            Err(Fault::Io(error)) => panic!("{error}"),
        }
    }

    fn refused(text: &str, line: u64, part: &str) {
        let (found, what) = read(text).unwrap_err();
        assert!(found == line && what.contains(part), "line {found}: {what}");
    }

    #[test]
    fn an_item_is_written_as_it_is_read() {
        let items = read(&format!("{HEADER}\n{ITEM}\n{END}\n")).unwrap();
        let [ImportItem { envelope, arrival, deadline }] = items.as_slice() else { panic!("{items:?}") };
        let item = Item::new(envelope.clone(), Seq::new(7), *arrival, *deadline);
        let line = Line::Item(ItemLine::new(&envelope.recipient, &item));
        assert_eq!(serde_json::to_string(&line).unwrap(), ITEM);
        assert_eq!(envelope.payload, "hi");
        let header = Line::RelayExport(Header::new(Timestamp::from_ms(5), Seq::new(9), None));
        assert_eq!(serde_json::to_string(&header).unwrap(), HEADER);
    }

    #[test]
    fn byte_order_marks_and_empty_lines_are_ignored() {
        let text = format!("{HEADER}\n{ITEM}\n{END}\n");
        for text in [
            format!("\u{feff}{text}"),
            format!("{text}\n"),
            format!("{text}\r\n \t\n\n"),
            text.replace('\n', "\r\n"),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(read(&text).unwrap().len(), 1, "{text:?}");
        }
        refused(&format!("{text}\n\n{{}}"), 6, "follows the last line");
        refused(&format!("{HEADER}\n\n{ITEM}\n{END}\n"), 2, "EOF");
        refused(&format!("{HEADER}\n\u{feff}{ITEM}\n{END}\n"), 2, "expected value");
    }

    #[test]
    fn messages_repeat_only_the_beginning_of_a_value() {
        for wrong in ["S", "\u{7f}"] {
            let value = format!("\"chunk_index\":\"{}\"", wrong.repeat(7000));
            let (_, what) =
                read(&format!("{HEADER}\n{}\n", ITEM.replace("\"chunk_index\":0", &value))).unwrap_err();
            assert!(what.starts_with("invalid type: string") && what.len() < 250, "{what}");
        }
        let key = ITEM.replace("sent_ms", &"k".repeat(7000));
        let (_, what) = read(&format!("{HEADER}\n{key}\n")).unwrap_err();
        assert!(what.starts_with("unknown field") && what.len() < 250, "{what}");
    }

    #[test]
    fn messages_contain_the_line() {
        refused("", 1, "begins with a line");
        refused(&format!("{ITEM}\n"), 1, "begins with a line");
        refused(&HEADER.replace("\"version\":1", "\"version\":3"), 1, "version 3");
        let with_key = |version: &str, id: &str| {
            let key = format!("\"version\":{version},\"recipients_key\":\"{id}\"");
            HEADER.replace("\"version\":1", &key)
        };
        refused(&HEADER.replace("\"version\":1", "\"version\":2"), 1, "contradict each other");
        refused(&with_key("1", "00000000000000ff"), 1, "contradict each other");
        refused(&with_key("2", "00000000000000FF"), 1, "16 hexadecimal digits");
        refused(&HEADER.replace(":9", ":9223372036854775808"), 1, "last_arrival_number is too large");
        refused(&format!("{HEADER}\n"), 2, "is truncated");
        refused(
            &format!("{HEADER}\n{ITEM}\n{ITEM}\n{END}\n"),
            4,
            "expects 1 items of 2 bytes, but the file has 2 of 4",
        );
        refused(&format!("{HEADER}\n{ITEM}\n{END}\n{END}\n"), 4, "follows the last line");
        refused(&format!("{HEADER}\n{HEADER}\n"), 2, "second header");
        refused(&format!("{HEADER}\n{}\n", &ITEM[..50]), 2, "at character 50");
        refused(&format!("{HEADER}\n{}\n", ITEM.replace("aGk=", "a")), 2, "payload_b64");
        refused(
            &format!("{HEADER}\n{}\n", ITEM.replace("aGk=", "aGVsbG8gd29ybGQh")),
            2,
            "larger than 10 bytes",
        );
        refused(&format!("{HEADER}\n{}\n", ITEM.replace("0001\"", "zzzz\"")), 2, "message_id");
        refused(&format!("{HEADER}\n{}\n", ITEM.replace("\"sent_ms\":3", "\"sent\":3")), 2, "unknown field");
        refused(&format!("{HEADER}\n{}\n", "x".repeat(20_000)), 2, "too long");
    }
}
