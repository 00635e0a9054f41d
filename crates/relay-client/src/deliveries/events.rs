//! The events of a `/stream`, one in a line of JSON.

use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use reqwest::Response;
use tokio::time::{Instant, timeout_at};

use crate::clock;
use crate::error::{Error, of_http};
use crate::http::PAGE_BYTES_MAX;
use crate::wire::{self, Event};

/// An open stream.
#[derive(Debug)]
pub(crate) struct Events {
    response: Response,
    buffer: BytesMut,
    /// How much of the buffer has no end of a line.
    searched: usize,
    /// The relay sends something at least this often.
    silence_max: Duration,
    heard: Instant,
}

impl Events {
    pub(crate) fn new(response: Response, silence_max: Duration) -> Self {
        Self { response, buffer: BytesMut::new(), searched: 0, silence_max, heard: clock::instant() }
    }

    /// The next event; `None` if the stream has ended. If this is dropped before it is done,
    /// nothing is lost.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            if let Some(line) = self.line() {
                return wire::event(&line).map(Some);
            }
            if self.buffer.len() > PAGE_BYTES_MAX {
                return Err(Error::AnswerTooLarge { limit_bytes: PAGE_BYTES_MAX });
            }
            let chunk = timeout_at(self.heard + self.silence_max, self.response.chunk()).await;
            match chunk.map_err(|_| Error::Timeout)?.map_err(of_http)? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
            self.heard = clock::instant();
        }
    }

    /// Takes a line that is not empty from the buffer.
    fn line(&mut self) -> Option<BytesMut> {
        loop {
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(end) = unsearched.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + end);
            self.buffer.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}
