//! Parses the text of a scenario.

use std::collections::HashMap;
use std::num::NonZeroU64;

use crate::limits::Limits;
use crate::message::{Envelope, ItemId, MessageId, Recipient};

use super::contents::{Content, message_id};
use super::words::{Words, duration_ms, number, split};

const NO_ANSWER: &str = "expected no ->, because this command has no answer";

/// One line with a command.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) line: usize,
    /// The trimmed line.
    pub(super) text: String,
    pub(super) command: Command,
    /// The expected answer, with single spaces; empty for a command without an answer.
    pub(super) expected: String,
}

#[derive(Debug)]
pub(super) enum Command {
    Push {
        envelope: Envelope,
    },
    Pull(PullCommand),
    /// `through` is the label of an earlier cursor.
    Ack {
        recipient: Recipient,
        items: Vec<ItemId>,
        through: Option<String>,
    },
    Purge {
        recipient: Recipient,
    },
    Sweep,
    Advance {
        ms: u64,
    },
    SetBack {
        ms: u64,
    },
    Reopen {
        limits: Limits,
    },
    Set {
        limits: Limits,
    },
    Verify,
}

#[derive(Debug)]
pub(super) struct PullCommand {
    pub(super) recipient: Recipient,
    /// The label of an earlier cursor.
    pub(super) after: Option<String>,
    pub(super) items_max: Option<NonZeroU64>,
    /// The label for the cursor of this page.
    pub(super) cursor: Option<String>,
    /// Whether the answer shows the arrival and deadline of each item.
    pub(super) times: bool,
}

impl Command {
    /// Whether the command has an answer.
    fn has_answer(&self) -> bool {
        matches!(
            self,
            Self::Push { .. } | Self::Pull(_) | Self::Ack { .. } | Self::Purge { .. } | Self::Sweep
        )
    }
}

/// A parsed text.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    pub(super) limits: Limits,
    pub(super) steps: Vec<Step>,
    /// The labels of the messages.
    pub(super) labels: HashMap<MessageId, String>,
}

/// Parses a text. An error has the number of the line and a description.
pub(super) fn parse(text: &str) -> Result<Parsed, (usize, String)> {
    let mut parser = Parser::default();
    for (line, text) in (1..).zip(text.lines()) {
        parser.line(line, text).map_err(|error| (line, error))?;
    }
    Ok(parser.parsed)
}

#[derive(Default)]
struct Parser {
    parsed: Parsed,
    /// The limits at the current line.
    limits: Limits,
    /// The labels of earlier cursors.
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
            Some(expected) if command.has_answer() && !expected.is_empty() => expected,
            _ if command.has_answer() => return Err("expected -> and an answer".to_owned()),
            Some(_) => return Err(NO_ANSWER.to_owned()),
            None => String::new(),
        };
        self.parsed.steps.push(Step { line, text: text.trim().to_owned(), command, expected });
        Ok(())
    }

    /// Parses a command. It returns `None` for `limits`, which is not a step.
    fn command(&mut self, words: &mut Words) -> Result<Option<Command>, String> {
        Ok(Some(match words.next("a command")?.as_str() {
            "limits" if !self.parsed.steps.is_empty() => {
                return Err("expected limits only before all other commands".to_owned());
            }
            "limits" => {
                self.change_limits(words)?;
                return Ok(None);
            }
            "push" => self.push(words)?,
            "pull" => self.pull(words)?,
            "ack" => self.ack(words)?,
            "purge" => Command::Purge { recipient: words.recipient()? },
            "sweep" => Command::Sweep,
            "advance" => Command::Advance { ms: duration_ms(&words.next("a duration such as 15d")?)? },
            "clock" => {
                let expected = "a duration such as -2h";
                let word = words.next(expected)?;
                let back =
                    word.strip_prefix('-').ok_or_else(|| format!("expected {expected}, found {word}"))?;
                Command::SetBack { ms: duration_ms(back)? }
            }
            "reopen" => {
                self.change_limits(words)?;
                Command::Reopen { limits: self.limits.clone() }
            }
            "set" => {
                self.change_limits(words)?;
                Command::Set { limits: self.limits.clone() }
            }
            "verify" => Command::Verify,
            other => {
                let known = "limits, push, pull, ack, purge, sweep, advance, clock, reopen, set or verify";
                return Err(format!("expected {known}, found {other}"));
            }
        }))
    }

    fn push(&mut self, words: &mut Words) -> Result<Command, String> {
        let recipient = words.recipient()?;
        let item = words.next("an item such as m1/0 or m1/0of3")?;
        let (message, chunk) = self.item(&item)?;
        let (index, count) = match chunk.split_once("of") {
            Some((index, count)) => (number(index)?, number(count)?),
            None => {
                let index: u32 = number(chunk)?;
                (index, index.saturating_add(1))
            }
        };
        let payload = words.next("a payload such as 10B or 10B:x")?;
        let (size, seed) = payload.split_once(':').unwrap_or((&payload, ""));
        let size =
            size.strip_suffix('B').ok_or(format!("expected a payload such as 10B, found {payload}"))?;
        let payload_bytes = number(size)?;
        let ttl_ms = match words.list.next().as_deref() {
            None => None,
            Some("ttl") => Some(duration_ms(&words.next("a duration such as 5s")?)?),
            Some(other) => return Err(format!("expected ttl, found {other}")),
        };
        let content = Content {
            recipient,
            message,
            chunk_index: index,
            chunk_count: count,
            payload_bytes,
            ttl_ms,
            seed,
        };
        let envelope = content.envelope().map_err(|rejection| rejection.to_string())?;
        Ok(Command::Push { envelope })
    }

    fn pull(&mut self, words: &mut Words) -> Result<Command, String> {
        let recipient = words.recipient()?;
        let mut pull = PullCommand { recipient, after: None, items_max: None, cursor: None, times: false };
        while let Some(word) = words.list.next() {
            match word.as_str() {
                "after" => pull.after = Some(self.label(words)?),
                "max" => pull.items_max = Some(number(&words.next("the maximum number of items")?)?),
                "as" => {
                    let label = words.next("a label for the cursor")?;
                    self.cursors.push(label.clone());
                    pull.cursor = Some(label);
                }
                "times" => pull.times = true,
                other => return Err(format!("expected after, max, as or times, found {other}")),
            }
        }
        Ok(Command::Pull(pull))
    }

    fn ack(&mut self, words: &mut Words) -> Result<Command, String> {
        let recipient = words.recipient()?;
        let (mut items, mut through) = (Vec::new(), None);
        while let Some(word) = words.list.next() {
            if word == "through" {
                through = Some(self.label(words)?);
                continue;
            }
            let (message, chunk) = self.item(&word)?;
            items.push(ItemId { message_id: message_id(message), chunk_index: number(chunk)? });
        }
        Ok(Command::Ack { recipient, items, through })
    }

    /// The label of an earlier cursor.
    fn label(&self, words: &mut Words) -> Result<String, String> {
        let label = words.next("the label of a cursor")?;
        if self.cursors.contains(&label) {
            Ok(label)
        } else {
            Err(format!("no earlier line has: as {label}"))
        }
    }

    /// Splits an item into the label of its message, which it remembers, and the chunk.
    fn item<'a>(&mut self, word: &'a str) -> Result<(&'a str, &'a str), String> {
        let (message, chunk) =
            word.split_once('/').ok_or(format!("expected an item such as m1/0, found {word}"))?;
        self.parsed.labels.insert(message_id(message), message.to_owned());
        Ok((message, chunk))
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
