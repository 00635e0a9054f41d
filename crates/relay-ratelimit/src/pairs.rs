//! Limits for each recipient, whoever sends, and for each sender to one recipient. Bounded tables,
//! no bans, no waits. It never knows who anybody is: it is given numbers.
//!
//! A table has sets of a few places each. Who belongs to which set is decided by a hash under a key
//! that only this process knows, so nobody can choose whom to share a set with. A newcomer to a
//! full set takes over the fullest bucket there, with what that one lacks. A bucket that has rested
//! is full, so nothing is lost with it. If none has rested, the newcomer gets too little rather
//! than anybody too much.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::bucket::Rate;
use crate::decision::Refusal;
use crate::lock::lock;
use crate::tokens::{Pace, Tokens, nanos};

/// The name of the bucket of a recipient.
pub const RECIPIENT_BUCKET: &str = "recipient";

/// How many share a set.
const PLACES: usize = 8;

/// No table has more sets, whatever was asked for.
const SETS_MAX: usize = 1 << 20;

/// A bucket for each recipient, and one of half the rate and half the burst for each sender to it.
///
/// So one sender takes at most half of what a recipient can be sent. No recipient gets more than
/// `burst + per_second * t` within any time `t`, and none gets more than half of that from one
/// sender, whoever else is invented meanwhile.
pub struct PairLimiter {
    rate: Rate,
    pair_pace: Pace,
    hasher: RandomState,
    recipients: Table,
    pairs: Table,
}

struct Table {
    sets: Box<[Mutex<Vec<Place>>]>,
    places: usize,
}

#[derive(Clone, Copy)]
struct Place {
    hash: u64,
    tokens: Tokens,
}

/// The bucket of one hash, with its set locked.
struct Found<'a> {
    set: MutexGuard<'a, Vec<Place>>,
    /// Where it is or will be; past the end if the set has a place left.
    at: usize,
    place: Place,
}

impl PairLimiter {
    /// A limiter that tracks nobody yet. Each recipient's bucket holds `burst` and earns
    /// `per_second`.
    ///
    /// At most `tracked_max` recipients are remembered, and as many pairs; more than 8,388,608 are
    /// as many. Memory is taken as they come, but for 32 bytes for every eight.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32, tracked_max: NonZeroUsize) -> Self {
        let rate = Rate::new(RECIPIENT_BUCKET, per_second, burst);
        Self {
            rate,
            pair_pace: rate.pace.halved(),
            hasher: RandomState::new(),
            recipients: Table::new(tracked_max),
            pairs: Table::new(tracked_max),
        }
    }

    /// Decides on one request that sends something to `recipient`, and counts it if it passes.
    ///
    /// Both numbers are hashes of what they stand for. `now` is as for [`Limiter`](crate::Limiter).
    ///
    /// # Errors
    /// The refusal, always by [`RECIPIENT_BUCKET`] and never with a ban. It took nothing.
    pub fn check(&self, recipient: u64, sender: u64, now: Duration) -> Result<(), Refusal> {
        let now_ns = nanos(now);
        // Always in this order, so that no two checks wait for each other.
        let mut whole = self.recipients.find(self.hasher.hash_one(recipient));
        let mut pair = self.pairs.find(self.hasher.hash_one((recipient, sender)));
        let whole_wait_ns = whole.place.tokens.wait_ns(&self.rate.pace, now_ns);
        let wait_ns = whole_wait_ns.max(pair.place.tokens.wait_ns(&self.pair_pace, now_ns));
        if wait_ns > 0 {
            return Err(self.rate.refusal(wait_ns));
        }
        whole.take(&self.rate.pace, now_ns);
        pair.take(&self.pair_pace, now_ns);
        Ok(())
    }
}

impl Table {
    fn new(tracked_max: NonZeroUsize) -> Self {
        let sets = (tracked_max.get() / PLACES).clamp(1, SETS_MAX);
        let sets = (0..sets).map(|_| Mutex::new(Vec::new())).collect();
        Self { sets, places: tracked_max.get().min(PLACES) }
    }

    fn find(&self, hash: u64) -> Found<'_> {
        let sets = u64::try_from(self.sets.len()).unwrap_or(u64::MAX);
        let at = usize::try_from(hash % sets).unwrap_or(0);
        let set = lock(self.sets.get(at).expect("the remainder is below the number of sets"));
        let known = set.iter().position(|place| place.hash == hash);
        let at = known.or_else(|| if set.len() < self.places { None } else { fullest(&set) });
        let tokens = at.and_then(|at| set.get(at)).map_or_else(Tokens::default, |place| place.tokens);
        Found { at: at.unwrap_or(set.len()), set, place: Place { hash, tokens } }
    }
}

impl Found<'_> {
    fn take(&mut self, pace: &Pace, now_ns: u64) {
        self.place.tokens.take(pace, now_ns);
        match self.set.get_mut(self.at) {
            Some(place) => *place = self.place,
            None => self.set.push(self.place),
        }
    }
}

fn fullest(set: &[Place]) -> Option<usize> {
    (0..set.len()).min_by_key(|&at| set.get(at).map(|place| place.tokens.moment()))
}

/// Tells nothing of recipients and senders.
impl fmt::Debug for PairLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairLimiter").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    const NOW: Duration = Duration::from_secs(7);

    fn limiter(per_second: u32, burst: u32, tracked_max: usize) -> PairLimiter {
        let [per_second, burst] = [per_second, burst].map(|n| NonZeroU32::new(n).unwrap());
        PairLimiter::new(per_second, burst, NonZeroUsize::new(tracked_max).unwrap())
    }

    fn passed(limiter: &PairLimiter, recipient: u64, senders: impl IntoIterator<Item = u64>) -> usize {
        senders.into_iter().filter(|&sender| limiter.check(recipient, sender, NOW).is_ok()).count()
    }

    fn held(table: &Table) -> usize {
        table.sets.iter().map(|set| lock(set).len()).sum()
    }

    #[test]
    fn one_sender_takes_half_and_all_together_take_the_whole() {
        let limiter = limiter(2, 10, 1000);
        assert_eq!(passed(&limiter, 1, [7; 100]), 5);
        assert_eq!(passed(&limiter, 1, [8; 3]), 3);
        assert_eq!(passed(&limiter, 1, 100..200), 2);
        assert_eq!(passed(&limiter, 2, [7; 100]), 5, "recipients do not know each other");
        let refusal = limiter.check(1, 9, NOW).unwrap_err();
        assert_eq!((refusal.bucket, refusal.retry_after), ("recipient", Duration::from_millis(500)));
        assert_eq!((refusal.banned, refusal.ban_began), (false, false));
        assert_eq!((refusal.quota.get(), refusal.window_seconds), (10, 5));
        assert_eq!(limiter.check(1, 9, NOW + refusal.retry_after), Ok(()));
    }

    #[test]
    fn a_refusal_takes_nothing_from_either_bucket() {
        let limiter = limiter(2, 10, 1000);
        passed(&limiter, 1, [7; 1000]);
        assert_eq!(passed(&limiter, 1, 100..200), 5, "refusals of the pair cost the recipient nothing");
        passed(&limiter, 1, [8; 1000]);
        let later = NOW + Duration::from_secs(5);
        let passed = (0..100).filter(|_| limiter.check(1, 8, later).is_ok()).count();
        assert_eq!(passed, 5, "refusals of the recipient cost the pair nothing");
    }

    #[test]
    fn a_sender_alone_gets_half_of_the_rate() {
        let limiter = limiter(3, 1, 10);
        let ms = (0..10_000).filter(|&ms| limiter.check(1, 7, Duration::from_millis(ms)).is_ok());
        assert_eq!(ms.count(), 15);
    }

    #[test]
    fn inventing_others_frees_nobody_and_outgrows_no_bound() {
        for tracked_max in [1, 3, 8, 64, 1000] {
            let limiter = limiter(1, 10, tracked_max);
            // With few places for pairs, senders inherit from each other, and fewer pass.
            assert!(passed(&limiter, 1, 0..100) >= 5);
            for invented in 2..20_000 {
                let _ = limiter.check(invented, invented, NOW);
                assert_eq!(
                    passed(&limiter, 1, [invented]),
                    0,
                    "{invented} recipients, room for {tracked_max}"
                );
            }
            assert!(held(&limiter.recipients) <= tracked_max && held(&limiter.pairs) <= tracked_max);
        }
    }

    #[test]
    fn those_who_have_rested_give_way_without_loss() {
        let limiter = limiter(1, 2, 8);
        for round in 0..100_u64 {
            let now = Duration::from_secs(3 * round);
            for recipient in 8 * round..8 * round + 8 {
                assert_eq!(limiter.check(recipient, 1, now), Ok(()), "nobody inherits a debt that is paid");
            }
        }
    }

    #[test]
    fn any_numbers_are_fine() {
        for limiter in [limiter(1, 1, 1), limiter(u32::MAX, u32::MAX, usize::MAX)] {
            for now in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
                let _ = limiter.check(u64::MAX, 0, now);
            }
        }
    }

    #[test]
    fn debug_tells_nobody() {
        let limiter = limiter(1, 1, 1);
        limiter.check(123_456_789, 987_654_321, NOW).unwrap();
        let text = format!("{limiter:?}");
        assert!(!text.contains("123456789") && !text.contains("987654321"), "{text}");
    }
}
