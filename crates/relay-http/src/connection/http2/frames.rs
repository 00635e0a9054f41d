//! Heads of frames as they come by (RFC 9113, section 4.1), of which nothing is kept, and how many
//! frames a client may send that carry nothing: pings, settings, windows, resets, priorities, empty
//! bodies, requests that are refused and whatever else costs work and asks for nothing.

use tokio::time::Instant;

const FRAME_HEAD_BYTES: usize = 9;

/// The connection preface (RFC 9113, section 3.4), which is no frame.
pub(super) const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Frames for nothing that may come at once, and how many more each second.
const BURST: u64 = 1_000;
const PER_SECOND: u64 = 100;

/// For each so many bytes that the client sends or takes, one frame is not for nothing: clients
/// open a window for what they took.
const BYTES_PER_FRAME: u64 = 1024;

/// For each request that is served, so many frames are not for nothing: its head, its windows, its
/// end. One that is taken back costs as much.
const FRAMES_PER_REQUEST: u64 = 9;

/// Finds the heads of frames in a stream of bytes, wherever its reads or writes end.
#[derive(Debug)]
pub(super) struct FrameHeads {
    /// Of the preface or of a payload, what is still to come.
    skip: usize,
    head: [u8; FRAME_HEAD_BYTES],
    head_bytes: usize,
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHead {
    kind: u8,
    flags: u8,
    stream: u32,
    payload_bytes: u32,
}

/// What is left of a client's frames for nothing.
#[derive(Debug)]
pub(super) struct FrameBudget {
    left: u64,
    filled_at: Instant,
    /// Bytes that have not earned a frame yet.
    bytes: u64,
    is_exceeded: bool,
}

impl FrameHeads {
    /// The heads behind so many bytes that are no frame.
    pub(super) const fn behind(skip: usize) -> Self {
        Self { skip, head: [0; FRAME_HEAD_BYTES], head_bytes: 0 }
    }

    /// Hands each head that is complete with these bytes to `found`.
    pub(super) fn read(&mut self, mut bytes: &[u8], mut found: impl FnMut(FrameHead)) {
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
                let head = FrameHead::parse(self.head);
                self.skip = head.payload_bytes as usize;
                found(head);
            }
        }
    }
}

impl FrameHead {
    fn parse(head: [u8; FRAME_HEAD_BYTES]) -> Self {
        let [high, middle, low, kind, flags, stream @ ..] = head;
        let payload_bytes = u32::from_be_bytes([0, high, middle, low]);
        // The first bit means nothing.
        Self { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload_bytes }
    }

    pub(super) const fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether its stream is given up.
    pub(super) const fn resets(&self) -> bool {
        self.kind == RST_STREAM
    }

    /// Whether nothing more comes in its stream from this side.
    pub(super) const fn is_last(&self) -> bool {
        self.resets() || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }
}

impl FrameBudget {
    pub(super) const fn new(now: Instant) -> Self {
        Self { left: BURST, filled_at: now, bytes: 0, is_exceeded: false }
    }

    /// Takes account of a frame that the client has sent.
    pub(super) fn received(&mut self, frame: FrameHead, now: Instant) {
        if frame.kind == DATA {
            self.earn(frame.payload_bytes.into());
        }
        let cost = if frame.resets() { FRAMES_PER_REQUEST + 1 } else { 1 };
        if self.left < cost {
            self.refill(now);
        }
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => self.is_exceeded = true,
        }
    }

    /// A request is served.
    pub(super) fn served(&mut self) {
        self.fill(FRAMES_PER_REQUEST);
    }

    /// The client has taken so many bytes, or is about to.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earn(bytes as u64);
    }

    /// Whether it has sent too much for nothing.
    pub(super) const fn is_exceeded(&self) -> bool {
        self.is_exceeded
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

    fn frame(kind: u8, payload_bytes: u32) -> FrameHead {
        FrameHead { kind, flags: 0, stream: 1, payload_bytes }
    }

    #[test]
    fn frames_for_nothing_are_borne_up_to_the_burst() {
        for kind in [HEADERS, 2, 4, 6, 8, 9, 99, DATA] {
            let now = monotonic::now();
            let mut budget = FrameBudget::new(now);
            for _ in 0..BURST {
                budget.received(frame(kind, 0), now);
            }
            assert!(!budget.is_exceeded(), "{kind}");
            budget.received(frame(kind, 0), now);
            assert!(budget.is_exceeded(), "{kind}");
        }
    }

    #[test]
    fn time_gives_them_back() {
        let start = monotonic::now();
        let mut budget = FrameBudget::new(start);
        for _ in 0..BURST {
            budget.received(frame(6, 8), start);
        }
        let later = start + FULL_AGAIN;
        for _ in 0..BURST {
            budget.received(frame(6, 8), later);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn requests_bodies_and_what_is_taken_cost_nothing() {
        let now = monotonic::now();
        let mut budget = FrameBudget::new(now);
        for _ in 0..10 * BURST {
            budget.received(frame(HEADERS, 50), now);
            budget.served();
            budget.received(frame(DATA, 16_384), now);
            budget.received(frame(8, 4), now);
            budget.sent(16_384);
            budget.received(frame(8, 4), now);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn requests_that_are_taken_back_again_and_again_are_for_nothing() {
        let now = monotonic::now();
        let mut budget = FrameBudget::new(now);
        let pairs = (0..2 * BURST).take_while(|_| {
            budget.received(frame(HEADERS, 50), now);
            budget.served();
            budget.received(frame(RST_STREAM, 4), now);
            !budget.is_exceeded()
        });
        assert!((BURST / 4..=BURST).contains(&(pairs.count() as u64)));
    }

    #[test]
    fn tiny_windows_and_tiny_bodies_are_for_nothing() {
        let now = monotonic::now();
        let (mut windows, mut bodies) = (FrameBudget::new(now), FrameBudget::new(now));
        for _ in 0..2 * BURST {
            windows.received(frame(8, 4), now);
            windows.sent(10);
            bodies.received(frame(DATA, 1), now);
        }
        assert!(windows.is_exceeded() && bodies.is_exceeded());
    }

    #[test]
    fn it_does_not_matter_where_reads_end() {
        let bytes = |head: FrameHead| {
            let [_, length @ ..] = head.payload_bytes.to_be_bytes();
            let begin = [&length[..], &[head.kind, head.flags], &head.stream.to_be_bytes()].concat();
            [begin, vec![0xff; head.payload_bytes as usize]].concat()
        };
        let frames = [
            frame(6, 8),
            FrameHead { flags: END_STREAM, stream: u32::MAX >> 1, ..frame(HEADERS, 300) },
            frame(4, 0),
            frame(RST_STREAM, 4),
        ];
        assert_eq!(frames.map(|frame| frame.is_last()), [false, true, false, true]);
        let stream = [vec![0xff; PREFACE_BYTES], frames.map(bytes).concat()].concat();
        for piece in 1..=stream.len() {
            let (mut heads, mut found) = (FrameHeads::behind(PREFACE_BYTES), Vec::new());
            stream.chunks(piece).for_each(|bytes| heads.read(bytes, |head| found.push(head)));
            assert_eq!(found, frames, "{piece}");
        }
    }
}
