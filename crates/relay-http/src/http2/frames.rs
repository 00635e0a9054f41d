//! How many frames a client may send that carry nothing: pings, settings, windows, resets, priorities, empty bodies and whatever
//! else costs work and asks for nothing. It looks at the heads of frames as they come by (RFC 9113, section 4.1) and keeps nothing of them.

use tokio::time::Instant;

const FRAME_HEAD_BYTES: usize = 9;

/// The connection preface (RFC 9113, section 3.4), which is no frame.
const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;

/// Frames for nothing that may come at once, and how many more each second.
const BURST: u64 = 1_000;
const PER_SECOND: u64 = 100;

/// For each so many bytes that the client sends or takes, one frame is not for nothing: clients open a window for what they took.
const BYTES_PER_FRAME: u64 = 1024;

/// For each request, so many frames are not for nothing: its windows, its end, a reset.
const FRAMES_PER_REQUEST: u64 = 8;

/// What is left of a client's frames for nothing.
#[derive(Debug)]
pub(super) struct FrameBudget {
    /// Of the preface or of a payload, what is still to come.
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
    left: u64,
    filled_at: Instant,
    /// Bytes that have not earned a frame yet.
    bytes: u64,
    is_exceeded: bool,
}

impl FrameBudget {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            skip: PREFACE_BYTES,
            head: [0; FRAME_HEAD_BYTES],
            head_bytes: 0,
            left: BURST,
            filled_at: now,
            bytes: 0,
            is_exceeded: false,
        }
    }

    /// Looks at what the client has sent.
    pub(super) fn received(&mut self, mut bytes: &[u8], now: Instant) {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            let wanted = FRAME_HEAD_BYTES - self.head_bytes;
            let (head, rest) = bytes.split_at(wanted.min(bytes.len()));
            if head.is_empty() {
                return;
            }
            for (to, from) in self.head.iter_mut().skip(self.head_bytes).zip(head) {
                *to = *from;
            }
            self.head_bytes += head.len();
            bytes = rest;
            if self.head_bytes == FRAME_HEAD_BYTES {
                self.head_bytes = 0;
                let [high, middle, low, kind, ..] = self.head;
                let length = u32::from_be_bytes([0, high, middle, low]);
                self.skip = length as usize;
                self.frame(kind, length, now);
            }
        }
    }

    /// The client has taken so many bytes, or is about to.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earn(bytes as u64);
    }

    /// Whether it has sent too much for nothing.
    pub(super) const fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    fn frame(&mut self, kind: u8, length: u32, now: Instant) {
        match kind {
            HEADERS => self.fill(FRAMES_PER_REQUEST),
            DATA => self.earn(length.into()),
            _ => {}
        }
        if self.left == 0 {
            self.refill(now);
        }
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None => self.is_exceeded = true,
        }
    }

    fn earn(&mut self, bytes: u64) {
        self.bytes += bytes;
        self.fill(self.bytes / BYTES_PER_FRAME);
        self.bytes %= BYTES_PER_FRAME;
    }

    fn refill(&mut self, now: Instant) {
        let frames =
            u64::try_from(now.saturating_duration_since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let frames = frames.saturating_mul(PER_SECOND) / 1000;
        if frames > 0 {
            self.filled_at = now;
            self.fill(frames);
        }
    }

    fn fill(&mut self, frames: u64) {
        self.left = self.left.saturating_add(frames).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::monotonic;

    /// How long an empty budget takes to be full again.
    const FULL_AGAIN: Duration = Duration::from_secs(BURST / PER_SECOND);

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let [_, high, middle, low] = u32::try_from(payload).unwrap().to_be_bytes();
        [&[high, middle, low, kind, 0, 0, 0, 0, 1][..], &vec![0; payload]].concat()
    }

    /// A budget behind the preface.
    fn budget(now: Instant) -> FrameBudget {
        let mut budget = FrameBudget::new(now);
        budget.received(&[0; PREFACE_BYTES], now);
        budget
    }

    #[test]
    fn frames_for_nothing_are_borne_up_to_the_burst() {
        for kind in [2, 3, 4, 6, 8, 9, 99, DATA] {
            let now = monotonic::now();
            let mut budget = budget(now);
            for _ in 0..BURST {
                budget.received(&frame(kind, 0), now);
            }
            assert!(!budget.is_exceeded(), "{kind}");
            budget.received(&frame(kind, 0), now);
            assert!(budget.is_exceeded(), "{kind}");
        }
    }

    #[test]
    fn time_gives_them_back() {
        let start = monotonic::now();
        let mut budget = budget(start);
        for _ in 0..BURST {
            budget.received(&frame(6, 8), start);
        }
        let later = start + FULL_AGAIN;
        for _ in 0..BURST {
            budget.received(&frame(6, 8), later);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn requests_bodies_and_what_is_taken_cost_nothing() {
        let now = monotonic::now();
        let mut budget = budget(now);
        for _ in 0..10 * BURST {
            budget.received(&frame(HEADERS, 50), now);
            budget.received(&frame(DATA, 16_384), now);
            budget.received(&frame(8, 4), now);
            budget.sent(16_384);
            budget.received(&frame(8, 4), now);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn tiny_windows_and_tiny_bodies_are_for_nothing() {
        let now = monotonic::now();
        let (mut windows, mut bodies) = (budget(now), budget(now));
        for _ in 0..2 * BURST {
            windows.received(&frame(8, 4), now);
            windows.sent(10);
            bodies.received(&frame(DATA, 1), now);
        }
        assert!(windows.is_exceeded() && bodies.is_exceeded());
    }

    #[test]
    fn it_does_not_matter_where_reads_end() {
        let now = monotonic::now();
        let stream =
            [vec![0; PREFACE_BYTES], frame(6, 8), frame(HEADERS, 300), frame(4, 0), frame(8, 4)].concat();
        let left = |piece: usize| {
            let mut budget = FrameBudget::new(now);
            stream.chunks(piece).for_each(|bytes| budget.received(bytes, now));
            budget.left
        };
        for piece in 1..stream.len() {
            assert_eq!(left(piece), left(stream.len()), "{piece}");
        }
    }
}
