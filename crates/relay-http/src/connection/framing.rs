//! Finds where an HTTP/1.1 request begins and ends, by a strict reading of RFC 9112. It refuses
//! everything that two parsers might read as different requests. It checks the bytes before the
//! framework gets them, and passes on one request at a time.
//!
//! It reads no socket, allocates nothing beyond one head, and does not interpret requests.

mod chunked;
mod fields;
mod head;

use crate::api::error::ApiError;

use chunked::Chunked;
#[cfg(feature = "tls")]
pub(crate) use fields::is_host;
use head::BodyLength;

/// Why a request cannot be read. The texts are for people and repeat nothing that the client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// The head is too large, or has too many fields.
    HeadTooLarge,
    /// Any other reason.
    Because(&'static str),
}

/// The requests of one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    state: State,
    /// Whether the client waits for `100 Continue` before it sends the current body.
    awaits_continue: bool,
}

#[derive(Debug)]
enum State {
    /// A head is expected. Its first `searched` bytes do not contain its end.
    Head {
        searched: usize,
    },
    /// This many bytes of a body are still to come.
    Sized(u64),
    Chunked(Chunked),
    /// The request is complete. The next one waits until this one is answered.
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

    /// Returns how many bytes at the front of `input` belong to the current request and can be
    /// passed on. That is 0 while the head is incomplete; the caller then repeats the same bytes
    /// with more after them. It is also 0 after the end of a request, until
    /// [`next_request`](Self::next_request).
    ///
    /// A header field that the framework must not see is renamed in place.
    ///
    /// # Errors
    /// When the request is malformed. Nothing can be read after that.
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
                    let (more, is_complete) = chunked.read(rest)?;
                    if is_complete {
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

    /// Lets the next request begin.
    pub(crate) fn next_request(&mut self) {
        if self.is_complete() {
            self.state = State::Head { searched: 0 };
        }
    }

    /// Whether the client waits for `100 Continue`.
    pub(super) const fn awaits_continue(&self) -> bool {
        self.awaits_continue
    }

    /// Whether the client waits for `100 Continue`. Resets the flag.
    pub(super) fn take_awaits_continue(&mut self) -> bool {
        std::mem::take(&mut self.awaits_continue)
    }

    fn read_head(&mut self, input: &mut [u8]) -> Result<usize, Malformed> {
        let State::Head { searched } = &mut self.state else { return Ok(0) };
        let Some(end) = head::end(input, *searched)? else {
            *searched = input.len();
            return Ok(0);
        };
        let (head, rest) = input.split_at_mut(end);
        let head = head::check(head)?;
        self.state = match head.body {
            BodyLength::Sized(0) => State::Complete,
            BodyLength::Sized(bytes) => State::Sized(bytes),
            BodyLength::Chunked => State::Chunked(Chunked::new()),
        };
        // A client that has already sent some of the body does not wait.
        self.awaits_continue = head.awaits_continue && rest.is_empty() && !self.is_complete();
        Ok(end)
    }
}

#[cfg(test)]
mod tests;
