//! Reads the text of a scenario. It runs nothing.

use std::collections::HashMap;
use std::num::NonZeroU64;

use crate::limits::Limits;
use crate::message::{Envelope, ItemId, MessageId, Recipient};

use super::contents::{Content, message_id};
use super::words::{Words, duration_ms, number, split};

const NO_ANSWER: &str = "expected no -> here, since nothing is answered";

/// One line that does something.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) line: usize,
    /// The line as it was written.
    pub(super) text: String,
    pub(super) command: Command,
    /// What follows the arrow, its words one blank apart; nothing, where nothing is answered.
    pub(super) expected: String,
}

#[derive(Debug)]
pub(super) enum Command {
    Push { envelope: Envelope },
    Pull(PullCommand),
    Ack { recipient: Recipient, items: Vec<ItemId> },
    Sweep,
    Advance { ms: u64 },
    SetBack { ms: u64 },
    Reopen { limits: Limits },
    Verify,
}

#[derive(Debug)]
pub(super) struct PullCommand {
    pub(super) recipient: Recipient,
    /// The name of an earlier cursor.
    pub(super) after: Option<String>,
    pub(super) items_max: Option<NonZeroU64>,
    /// The name that the cursor of this page gets.
    pub(super) cursor: Option<String>,
    /// Whether the items are shown with the times of their arrival and deadline.
    pub(super) times: bool,
}

impl Command {
    /// Whether a relay answers it with something to compare.
    fn answers(&self) -> bool {
        matches!(self, Self::Push { .. } | Self::Pull(_) | Self::Ack { .. } | Self::Sweep)
    }
}

/// What a text says.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) limits: Limits,
    pub(super) steps: Vec<Step>,
    /// What the messages are called.
    pub(super) names: HashMap<MessageId, String>,
}

/// Reads a whole text. An error tells the number of the line and what is wrong with it.
pub(super) fn parse(text: &str) -> Result<Parsed, (usize, String)> {
    let mut parser = Parser::default();
    for (line, text) in (1..).zip(text.lines()) {
        parser.line(line, text).map_err(|what| (line, what))?;
    }
    Ok(parser.parsed)
}

#[derive(Default)]
struct Parser {
    parsed: Parsed,
    /// The rules as they are at the end of what was read.
    limits: Limits,
    /// The cursors that have a name by now.
    cursors: Vec<String>,
}

impl Parser {
    fn line(&mut self, line: usize, text: &str) -> Result<(), String> {
        let (mut words, expected) = split(text)?;
        if words.list.as_slice().is_empty() && expected.is_none() {
            return Ok(());
        }
        let Some(command) = self.command(&mut words)? else {
            self.parsed.limits = self.limits.clone();
            return if expected.is_none() { Ok(()) } else { Err(NO_ANSWER.to_owned()) };
        };
        if let Some(word) = words.list.next() {
            return Err(format!("expected the end of the command, found {word}"));
        }
        let expected = match expected {
            Some(expected) if command.answers() && !expected.is_empty() => expected,
            _ if command.answers() => return Err("expected -> and what is answered".to_owned()),
            Some(_) => return Err(NO_ANSWER.to_owned()),
            None => String::new(),
        };
        self.parsed.steps.push(Step { line, text: text.trim().to_owned(), command, expected });
        Ok(())
    }

    /// The command that the words make; none, when they only set the limits.
    fn command(&mut self, words: &mut Words) -> Result<Option<Command>, String> {
        Ok(Some(match words.next("a command")?.as_str() {
            "limits" if !self.parsed.steps.is_empty() => {
                return Err("expected limits before everything else only".to_owned());
            }
            "limits" => {
                self.change_limits(words)?;
                return Ok(None);
            }
            "push" => self.push(words)?,
            "pull" => self.pull(words)?,
            "ack" => self.ack(words)?,
            "sweep" => Command::Sweep,
            "advance" => Command::Advance { ms: duration_ms(&words.next("a duration such as 15d")?)? },
            "clock" => {
                let word = words.next("a duration such as -2h")?;
                let back = word
                    .strip_prefix('-')
                    .ok_or_else(|| format!("expected one such as -2h, found {word}"))?;
                Command::SetBack { ms: duration_ms(back)? }
            }
            "reopen" => {
                self.change_limits(words)?;
                Command::Reopen { limits: self.limits.clone() }
            }
            "verify" => Command::Verify,
            other => {
                let known = "limits, push, pull, ack, sweep, advance, clock, reopen or verify";
                return Err(format!("expected {known}, found {other}"));
            }
        }))
    }

    fn push(&mut self, words: &mut Words) -> Result<Command, String> {
        let recipient = words.recipient()?;
        let item = words.next("an item such as m1/0 or m1/0of3")?;
        let (message, chunk) =
            item.split_once('/').ok_or(format!("expected an item such as m1/0, found {item}"))?;
        let (index, count) = match chunk.split_once("of") {
            Some((index, count)) => (number(index)?, number(count)?),
            None => {
                let index: u32 = number(chunk)?;
                (index, index.saturating_add(1))
            }
        };
        let content = words.next("a content such as 10B or 10B:x")?;
        let (size, seed) = content.split_once(':').unwrap_or((&content, ""));
        let size =
            size.strip_suffix('B').ok_or(format!("expected a content such as 10B, found {content}"))?;
        let content = Content {
            recipient,
            message,
            chunk_index: index,
            chunk_count: count,
            payload_bytes: number(size)?,
            seed,
        };
        self.name(message);
        content
            .envelope()
            .map(|envelope| Command::Push { envelope })
            .map_err(|rejection| rejection.to_string())
    }

    fn pull(&mut self, words: &mut Words) -> Result<Command, String> {
        let recipient = words.recipient()?;
        let mut pull = PullCommand { recipient, after: None, items_max: None, cursor: None, times: false };
        while let Some(word) = words.list.next() {
            match word.as_str() {
                "after" => {
                    let name = words.next("the name of a cursor")?;
                    if !self.cursors.contains(&name) {
                        return Err(format!("no earlier line says: as {name}"));
                    }
                    pull.after = Some(name);
                }
                "max" => pull.items_max = Some(number(&words.next("the most items wanted")?)?),
                "as" => {
                    let name = words.next("a name for the cursor")?;
                    self.cursors.push(name.clone());
                    pull.cursor = Some(name);
                }
                "times" => pull.times = true,
                other => return Err(format!("expected after, max, as or times, found {other}")),
            }
        }
        Ok(Command::Pull(pull))
    }

    fn ack(&mut self, words: &mut Words) -> Result<Command, String> {
        let recipient = words.recipient()?;
        let mut items = Vec::new();
        for word in words.list.by_ref() {
            let (message, chunk) =
                word.split_once('/').ok_or(format!("expected an item such as m1/0, found {word}"))?;
            self.name(message);
            items.push(ItemId { message_id: message_id(message), chunk_index: number(chunk)? });
        }
        Ok(Command::Ack { recipient, items })
    }

    fn name(&mut self, message: &str) {
        self.parsed.names.insert(message_id(message), message.to_owned());
    }

    fn change_limits(&mut self, words: &mut Words) -> Result<(), String> {
        let limits = &mut self.limits;
        for word in words.list.by_ref() {
            let (key, value) =
                word.split_once('=').ok_or(format!("expected a limit such as items=3, found {word}"))?;
            match key {
                "items" => limits.queue_items_max = number(value)?,
                "bytes" => limits.queue_bytes_max = number(value)?,
                "message" => limits.message_bytes_max = number(value)?,
                "page" => limits.page_items_max = number(value)?,
                "page_bytes" => limits.page_bytes_max = number(value)?,
                "ttl" => limits.ttl_ms = duration_ms(value)?,
                "dedup" => limits.dedup_window_ms = duration_ms(value)?,
                _ => {
                    let known = "items, bytes, message, page, page_bytes, ttl or dedup";
                    return Err(format!("expected {known}, found {key}"));
                }
            }
        }
        Ok(())
    }
}
