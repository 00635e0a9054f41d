//! Reads the heads of HTTP/2 frames (RFC 9113, section 4.1) as they pass, and limits idle frames:
//! pings, settings, window updates, resets, priorities, empty bodies, refused requests, and
//! everything else that costs work and requests nothing.

use tokio::time::Instant;

const FRAME_HEAD_BYTES: usize = 9;

/// The connection preface (RFC 9113, section 3.4), which is not a frame.
pub(super) const PREFACE_BYTES: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// How many idle frames may arrive at once, and how many more per second.
const BURST: u64 = 1_000;
const PER_SECOND: u64 = 100;

/// One frame per this many bytes that the client sends or reads is not idle: clients open windows
/// for what they have read.
const BYTES_PER_FRAME: u64 = 1024;

/// This many frames per served request are not idle: its head, its windows, its end. A request that
/// the client cancels costs as much.
const FRAMES_PER_REQUEST: u64 = 9;

/// Finds the heads of frames in a stream of bytes, however it is cut into reads or writes.
#[derive(Debug)]
pub(super) struct FrameHeads {
    /// How many bytes of the preface or of a payload are still to come.
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

/// How many idle frames the client may still send.
#[derive(Debug)]
pub(super) struct FrameBudget {
    frames_left: u64,
    filled_at: Instant,
    /// Bytes that have not earned a frame yet.
    bytes_unspent: u64,
    is_exceeded: bool,
}

impl FrameHeads {
    /// Finds the frames after `skip` bytes.
    pub(super) const fn after(skip: usize) -> Self {
        Self { skip, head: [0; FRAME_HEAD_BYTES], head_bytes: 0 }
    }

    /// Calls `found` for each head that these bytes complete.
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
        // The first bit is reserved.
        Self { kind, flags, stream: u32::from_be_bytes(stream) & (u32::MAX >> 1), payload_bytes }
    }

    pub(super) const fn stream(&self) -> u32 {
        self.stream
    }

    /// Whether the frame cancels its stream.
    pub(super) const fn resets(&self) -> bool {
        self.kind == RST_STREAM
    }

    /// How much of a body the frame carries.
    pub(super) const fn body_bytes(&self) -> u32 {
        if self.kind == DATA { self.payload_bytes } else { 0 }
    }

    /// Whether the frame is the last one that its sender sends in the stream.
    pub(super) const fn is_last(&self) -> bool {
        self.resets() || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }
}

impl FrameBudget {
    pub(super) const fn new(now: Instant) -> Self {
        Self { frames_left: BURST, filled_at: now, bytes_unspent: 0, is_exceeded: false }
    }

    /// Counts a frame from the client.
    pub(super) fn received(&mut self, frame: FrameHead, now: Instant) {
        if frame.kind == DATA {
            self.earn(frame.payload_bytes.into());
        }
        let cost = if frame.resets() { FRAMES_PER_REQUEST + 1 } else { 1 };
        if self.frames_left < cost {
            self.refill(now);
        }
        match self.frames_left.checked_sub(cost) {
            Some(left) => self.frames_left = left,
            None => self.is_exceeded = true,
        }
    }

    /// Counts a request that the relay serves.
    pub(super) fn served(&mut self) {
        self.fill(FRAMES_PER_REQUEST);
    }

    /// Counts bytes that were sent to the client.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.earn(bytes as u64);
    }

    /// Whether the client has ever sent too many idle frames.
    pub(super) const fn is_exceeded(&self) -> bool {
        self.is_exceeded
    }

    fn earn(&mut self, bytes: u64) {
        self.bytes_unspent += bytes;
        self.fill(self.bytes_unspent / BYTES_PER_FRAME);
        self.bytes_unspent %= BYTES_PER_FRAME;
    }

    fn refill(&mut self, now: Instant) {
        let millis = now.saturating_duration_since(self.filled_at).as_millis();
        let frames = u64::try_from(millis).unwrap_or(u64::MAX).saturating_mul(PER_SECOND) / 1000;
        if frames > 0 {
            self.filled_at = now;
            self.fill(frames);
        }
    }

    fn fill(&mut self, frames: u64) {
        self.frames_left = self.frames_left.saturating_add(frames).min(BURST);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::monotonic;

    /// How long an empty budget takes to fill.
    const TIME_TO_FILL: Duration = Duration::from_secs(BURST / PER_SECOND);

    fn frame(kind: u8, payload_bytes: u32) -> FrameHead {
        FrameHead { kind, flags: 0, stream: 1, payload_bytes }
    }

    #[test]
    fn idle_frames_are_accepted_up_to_the_burst() {
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
    fn the_budget_fills_with_time() {
        let start = monotonic::now();
        let mut budget = FrameBudget::new(start);
        for _ in 0..BURST {
            budget.received(frame(6, 8), start);
        }
        let later = start + TIME_TO_FILL;
        for _ in 0..BURST {
            budget.received(frame(6, 8), later);
        }
        assert!(!budget.is_exceeded());
    }

    #[test]
    fn requests_bodies_and_responses_are_not_idle() {
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
    fn cancelled_requests_use_up_the_budget() {
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
    fn tiny_windows_and_tiny_bodies_are_idle_frames() {
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
    fn frames_are_found_however_the_stream_is_cut() {
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
            let (mut heads, mut found) = (FrameHeads::after(PREFACE_BYTES), Vec::new());
            stream.chunks(piece).for_each(|bytes| heads.read(bytes, |head| found.push(head)));
            assert_eq!(found, frames, "{piece}");
        }
    }
}
