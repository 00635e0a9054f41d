//! One token bucket with its line and its ban. It never knows whose bucket it is.
//!
//! A request that finds no token may take one that is still to be earned: its place in the line. A
//! place that is given back goes to the next request that draws, and that one cannot give it back a
//! second time. Else a client could hold a place for ever, by giving up a place in front for one at
//! the end again and again, and save up more than a burst.

use std::num::NonZeroU32;
use std::time::Duration;

use crate::decision::{Level, Refusal};
use crate::excess::Excess;
use crate::tokens::{Pace, Tokens};

/// What a bucket holds, what it earns, and what it is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) name: &'static str,
    pub(crate) pace: Pace,
    pub(crate) burst: NonZeroU32,
}

/// When a bucket is banned, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BanRule {
    /// In seconds of excess; at most the 60 that a minute has.
    pub(crate) threshold: u32,
    pub(crate) ban_ns: u64,
}

/// The default is a full bucket without a past.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bucket {
    tokens: Tokens,
    /// Places given back that nobody has taken since.
    returned: u32,
    excess: Excess,
    banned_until_ns: u64,
}

impl Rate {
    pub(crate) fn new(name: &'static str, per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { name, pace: Pace::new(per_second, burst), burst }
    }

    /// How many seconds an empty bucket takes to fill, rounded up.
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
    /// is longer. 0: now.
    pub(crate) fn wait_ns(&self, rate: &Rate, now_ns: u64) -> u64 {
        self.banned_until_ns.saturating_sub(now_ns).max(self.tokens.wait_ns(&rate.pace, now_ns))
    }

    /// Takes one token, now or of those to come. Returns until when the place may be given back: 0
    /// if it may not be.
    pub(crate) fn take(&mut self, rate: &Rate, now_ns: u64) -> u64 {
        let wait_ns = self.tokens.wait_ns(&rate.pace, now_ns);
        self.tokens.take(&rate.pace, now_ns);
        if self.returned > 0 {
            self.returned -= 1;
            0
        } else if wait_ns == 0 {
            0
        } else {
            now_ns.saturating_add(wait_ns)
        }
    }

    /// Frees a place whose turn has not come yet. `until_ns` is what [`Bucket::take`] said.
    pub(crate) fn give_back(&mut self, rate: &Rate, until_ns: u64, now_ns: u64) {
        if until_ns > now_ns {
            self.tokens.put_back(&rate.pace);
            self.returned = self.returned.saturating_add(1);
        }
    }

    /// Notes that something was asked of this bucket, whatever becomes of it.
    pub(crate) fn ask(&mut self, now_ns: u64) {
        self.excess.ask(now_ns);
    }

    /// Notes that what was asked last was refused, and bans the bucket if there was too much of it.
    pub(crate) fn refuse(&mut self, rule: &BanRule, rate: &Rate, now_ns: u64) {
        if self.excess.refuse(rate.pace.per_second().get(), now_ns) >= rule.threshold {
            self.excess = Excess::default();
            self.banned_until_ns = now_ns.saturating_add(rule.ban_ns);
        }
    }

    pub(crate) fn is_banned(&self, now_ns: u64) -> bool {
        self.banned_until_ns > now_ns
    }

    /// The end of the last ban, in force or over; 0 if there was none.
    pub(crate) fn banned_until_ns(&self) -> u64 {
        self.banned_until_ns
    }

    /// How much is left of it.
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
