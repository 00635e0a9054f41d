//! Where an HTTP/1.1 request begins and ends, by the strict reading of RFC 9112: whatever two
//! readers might take for different requests is refused. It looks at the bytes before the framework
//! does and lets one request through at a time, so the framework never sees a head that was not
//! checked here, and never a second request while the first one is in work.
//!
//! It reads no socket, allocates nothing beyond one head, and decides nothing about what a request
//! asks for.

mod chunked;
mod fields;
mod head;

use crate::api::error::ApiError;

use chunked::{Chunked, Step};
#[cfg(feature = "tls")]
pub(crate) use fields::is_host;
use head::BodyLength;

/// Why a request cannot be read. Each text is for a person and tells nothing of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The head is too large, or has too many fields.
    HeadTooLarge,
    /// Anything else.
    Because(&'static str),
}

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// The client waits for a word before it sends the body that has begun.
    awaits_continue: bool,
}

#[derive(Debug)]
enum State {
    /// A head is expected. Its end is not among its first bytes, as many as this.
    Head {
        searched: usize,
    },
    /// So many bytes of a body are still to come.
    Sized(u64),
    Chunked(Chunked),
    /// The request is complete; the next one waits until this one is answered.
    Complete,
}

impl From<Malformed> for ApiError {
    fn from(malformed: Malformed) -> Self {
        match malformed {
            Malformed::HeadTooLarge => Self::HeadersTooLarge,
            Malformed::Because(why) => Self::BadRequest(why),
        }
    }
}

impl Framing {
    pub(crate) const fn new() -> Self {
        Self { state: State::Head { searched: 0 }, awaits_continue: false }
    }

    /// How many bytes at the front of `input` belong to the request that is being read, and can be
    /// handed on. None as long as its head is not whole: then the same bytes have to come again,
    /// with more behind them. None either behind the end of a request, until
    /// [`next_request`](Self::next_request).
    ///
    /// A field of the head that the framework must not see is renamed in place.
    ///
    /// # Errors
    /// Why the request is refused. Nothing can be read after that.
    pub(crate) fn read(&mut self, input: &mut [u8]) -> Result<usize, Malformed> {
        let mut read = 0;
        while let Some(rest) = input.get_mut(read..).filter(|rest| !rest.is_empty()) {
            let more = match &mut self.state {
                State::Head { .. } => self.read_head(rest)?,
                State::Sized(left) => {
                    let more = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                    *left -= more as u64;
                    if *left == 0 {
                        self.state = State::Complete;
                    }
                    more
                }
                State::Chunked(chunked) => {
                    let (more, step) = chunked.read(rest)?;
                    if step == Step::Complete {
                        self.state = State::Complete;
                    }
                    more
                }
                State::Complete => 0,
            };
            if more == 0 {
                break;
            }
            read += more;
        }
        Ok(read)
    }

    /// Whether the request is complete, and the next one has to wait.
    pub(crate) const fn is_complete(&self) -> bool {
        matches!(self.state, State::Complete)
    }

    /// The request is answered: a next one may begin.
    pub(crate) fn next_request(&mut self) {
        if self.is_complete() {
            self.state = State::Head { searched: 0 };
        }
    }

    /// Whether the client waits for the answer `100 Continue`.
    pub(crate) const fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// Whether the client waits for the answer `100 Continue`. This is told once.
    pub(crate) fn take_awaits_continue(&mut self) -> bool {
        std::mem::take(&mut self.awaits_continue)
    }

    fn read_head(&mut self, input: &mut [u8]) -> Result<usize, Malformed> {
        let State::Head { searched } = &mut self.state else { return Ok(0) };
        let Some(end) = head::end(input, *searched)? else {
            *searched = input.len();
            return Ok(0);
        };
        let (head, behind) = input.split_at_mut(end);
        let head = head::check(head)?;
        self.state = match head.body {
            BodyLength::Sized(0) => State::Complete,
            BodyLength::Sized(bytes) => State::Sized(bytes),
            BodyLength::Chunked => State::Chunked(Chunked::new()),
        };
        // Who has sent some of the body already waits for nothing.
        self.awaits_continue = head.awaits_continue && behind.is_empty() && !self.is_complete();
        Ok(end)
    }
}

#[cfg(test)]
mod tests;
