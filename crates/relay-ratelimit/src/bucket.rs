//! One token bucket with its reservations and its ban.
//!
//! A request that finds no token may reserve one that is not yet earned. If the client gives the
//! reservation back, the next request gets it, and cannot give it back a second time. Otherwise a
//! client could swap an early reservation for a late one again and again, and accumulate more than
//! a burst.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::decision::{Level, Refusal};
use crate::excess::Excess;
use crate::tokens::{Pace, Tokens};

/// The capacity, the rate and the name of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) name: &'static str,
    pub(crate) pace: Pace,
    pub(crate) burst: NonZeroU32,
}

/// When a bucket is banned, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BanRule {
    /// In seconds of excess within a minute, so at most 60.
    pub(crate) threshold: u32,
    pub(crate) ban_ns: u64,
}

/// What the buckets of a limiter need to know when its policy changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Change {
    pub(crate) now_ns: u64,
    /// Reservations may last as long as a request may wait.
    pub(crate) owed_max_ns: u64,
    /// No ban lasts longer than a new one.
    pub(crate) banned_until_max_ns: u64,
}

/// The default is a full bucket that was never used.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    tokens: Tokens,
    /// How many reservations were given back and not taken again.
    returned: u32,
    excess: Excess,
    banned_until_ns: u64,
}

impl Rate {
    pub(crate) fn new(name: &'static str, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { name, pace: Pace::new(per_second, burst), burst }
    }

    /// The time to fill an empty bucket, rounded up.
    pub(crate) fn window_seconds(&self) -> u32 {
        self.burst.get().div_ceil(self.pace.per_second().get())
    }

    /// A refusal by this bucket, without a ban.
    pub(crate) fn refusal(&self, retry_after_ns: u64) -> Refusal {
        Refusal {
            bucket: self.name,
            retry_after: Duration::from_nanos(retry_after_ns),
            banned: false,
            ban_began: false,
            quota: self.burst,
            window_seconds: self.window_seconds(),
        }
    }
}

impl Bucket {
    /// Nanoseconds until a request can pass: the rest of the ban or the wait for a token, whichever
    /// is longer.
    pub(crate) fn wait_ns(&self, rate: &Rate, now_ns: u64) -> u64 {
        self.banned_until_ns.saturating_sub(now_ns).max(self.tokens.wait_ns(&rate.pace, now_ns))
    }

    /// Takes one token, or reserves a future one. Returns until when the reservation can be given
    /// back; 0: never.
    pub(crate) fn take(&mut self, rate: &Rate, now_ns: u64) -> u64 {
        let wait_ns = self.tokens.wait_ns(&rate.pace, now_ns);
        self.tokens.take(&rate.pace, now_ns);
        if self.returned > 0 {
            self.returned -= 1;
            return 0;
        }
        if wait_ns == 0 { 0 } else { now_ns.saturating_add(wait_ns) }
    }

    /// Frees a reservation that still waits. `until_ns` is the result of [`Bucket::take`].
    pub(crate) fn give_back(&mut self, rate: &Rate, until_ns: u64, now_ns: u64) {
        if until_ns > now_ns {
            self.tokens.put_back(&rate.pace);
            self.returned = self.returned.saturating_add(1);
        }
    }

    /// Counts a request that the bucket does not refuse.
    pub(crate) fn count_request(&mut self, now_ns: u64) {
        self.excess.count_request(now_ns);
    }

    /// Counts a request that the bucket refuses, and bans the bucket if there are too many.
    pub(crate) fn count_refusal(&mut self, rule: &BanRule, rate: &Rate, now_ns: u64) {
        self.excess.count_request(now_ns);
        self.count_late_refusal(rule, rate, now_ns);
    }

    /// The same for a request that was counted when it passed.
    pub(crate) fn count_late_refusal(&mut self, rule: &BanRule, rate: &Rate, now_ns: u64) {
        if self.excess.count_refusal(rate.pace.per_second().get(), now_ns) >= rule.threshold {
            self.excess = Excess::default();
            self.banned_until_ns = now_ns.saturating_add(rule.ban_ns);
        }
    }

    /// Continues at another rate.
    pub(crate) fn carry(&mut self, old: &Rate, new: &Rate, change: &Change) {
        self.tokens = self.tokens.carried(&old.pace, &new.pace, change.owed_max_ns, change.now_ns);
        self.banned_until_ns = self.banned_until_ns.min(change.banned_until_max_ns);
    }

    pub(crate) fn is_banned(&self, now_ns: u64) -> bool {
        self.banned_until_ns > now_ns
    }

    /// The end of the last ban, which may be over; 0 if there was none.
    pub(crate) fn banned_until_ns(&self) -> u64 {
        self.banned_until_ns
    }

    pub(crate) fn level(&self, rate: &Rate, now_ns: u64) -> Level {
        let remaining = self.tokens.remaining(&rate.pace, now_ns);
        let reset_ns = if remaining == 0 {
            self.tokens.wait_ns(&rate.pace, now_ns)
        } else {
            self.tokens.full_in_ns(&rate.pace, now_ns)
        };
        Level {
            bucket: rate.name,
            remaining,
            reset: Duration::from_nanos(reset_ns),
            quota: rate.burst,
            window_seconds: rate.window_seconds(),
        }
    }
}
