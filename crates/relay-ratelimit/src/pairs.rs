//! Limits for each recipient, and for each sender to one recipient, in tables of bounded size
//! without bans or waits.
//!
//! A table consists of sets with a few slots each. A hash with a key that only this process knows
//! selects the set, so no client can choose whose set it shares. A new hash in a full set takes
//! over the fullest bucket there, with its missing tokens. A bucket that has rested is full, so
//! taking it over loses nothing. If none has rested, the new hash gets too few tokens, never too
//! many.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::{MutexGuard, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use crate::bucket::Rate;
use crate::decision::Refusal;
use crate::sets::Sets;
use crate::tokens::{Pace, Tokens, nanos};

/// The name of the bucket of a recipient.
pub const RECIPIENT_BUCKET: &str = "recipient";

/// A bucket for each recipient, and one of half the rate and half the burst for each sender to it.
///
/// So one sender uses at most half of a recipient's limit. Within any time `t`, a recipient gets at
/// most `burst + per_second * t`, and at most half of that from one sender. Invented recipients and
/// senders do not change that.
pub struct PairLimiter {
    rate: RwLock<Rate>,
    hasher: RandomState,
    recipients: Table,
    pairs: Table,
}

struct Table(Sets<Slot>);

#[derive(Clone, Copy)]
struct Slot {
    hash: u64,
    tokens: Tokens,
}

/// The slot of one hash, with its set locked.
struct LockedSlot<'a> {
    set: MutexGuard<'a, Vec<Slot>>,
    /// Where `slot` belongs in the set; past the end if the set has a free slot.
    index: usize,
    slot: Slot,
}

impl PairLimiter {
    /// A limiter that tracks no recipient yet. Each recipient's bucket holds `burst` and earns
    /// `per_second`.
    ///
    /// It tracks at most `tracked_max` recipients and as many pairs, and never more than 8,388,608
    /// of each. Memory grows with their number, apart from 32 bytes for every eight.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32, tracked_max: NonZeroUsize) -> Self {
        let rate = Rate::new(RECIPIENT_BUCKET, per_second, burst);
        Self {
            rate: RwLock::new(rate),
            hasher: RandomState::new(),
            recipients: Table::new(tracked_max),
            pairs: Table::new(tracked_max),
        }
    }

    /// Decides by another rate from now on. What recipients and senders have spent stays spent, but
    /// a bucket lacks no more than it then holds.
    pub fn set_rate(&self, per_second: NonZeroU32, burst: NonZeroU32, now: Duration) {
        let now_ns = nanos(now);
        let mut rate = self.rate.write().unwrap_or_else(PoisonError::into_inner);
        let (old, new) = (*rate, Rate::new(RECIPIENT_BUCKET, per_second, burst));
        if new == old {
            return;
        }
        let carry = |slots: &Table, old: Pace, new: Pace| {
            slots.0.for_each_mut(|slot| slot.tokens = slot.tokens.carried(&old, &new, 0, now_ns));
        };
        carry(&self.recipients, old.pace, new.pace);
        carry(&self.pairs, old.pace.halved(), new.pace.halved());
        *rate = new;
    }

    /// Decides on one request that sends something to `recipient`, and counts it if it passes.
    ///
    /// Both numbers are hashes. `now` is as for [`Limiter`](crate::Limiter).
    ///
    /// # Errors
    /// The refusal, always by [`RECIPIENT_BUCKET`] and without a ban. The request took no tokens.
    pub fn check(&self, recipient: u64, sender: u64, now: Duration) -> Result<(), Refusal> {
        let (rate, now_ns) = (self.rate(), nanos(now));
        let pair_pace = rate.pace.halved();
        // All threads lock the tables in this order, so there is no deadlock.
        let mut total = self.recipients.lock_slot(self.hasher.hash_one(recipient));
        let mut pair = self.pairs.lock_slot(self.hasher.hash_one((recipient, sender)));
        let total_wait_ns = total.slot.tokens.wait_ns(&rate.pace, now_ns);
        let wait_ns = total_wait_ns.max(pair.slot.tokens.wait_ns(&pair_pace, now_ns));
        if wait_ns > 0 {
            return Err(rate.refusal(wait_ns));
        }
        total.take(&rate.pace, now_ns);
        pair.take(&pair_pace, now_ns);
        Ok(())
    }

    fn rate(&self) -> RwLockReadGuard<'_, Rate> {
        self.rate.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn new(tracked_max: NonZeroUsize) -> Self {
        Self(Sets::new(tracked_max))
    }

    fn lock_slot(&self, hash: u64) -> LockedSlot<'_> {
        let set = self.0.lock(hash);
        let known = set.iter().position(|slot| slot.hash == hash);
        let index = known.or_else(|| if self.0.is_full(&set) { fullest(&set) } else { None });
        let tokens = index.and_then(|index| set.get(index)).map_or_else(Tokens::default, |slot| slot.tokens);
        LockedSlot { index: index.unwrap_or(set.len()), set, slot: Slot { hash, tokens } }
    }
}

impl LockedSlot<'_> {
    fn take(&mut self, pace: &Pace, now_ns: u64) {
        self.slot.tokens.take(pace, now_ns);
        match self.set.get_mut(self.index) {
            Some(slot) => *slot = self.slot,
            None => self.set.push(self.slot),
        }
    }
}

fn fullest(set: &[Slot]) -> Option<usize> {
    let (index, _) = set.iter().enumerate().min_by_key(|(_, slot)| slot.tokens.moment())?;
    Some(index)
}

/// Hides recipients and senders.
impl fmt::Debug for PairLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PairLimiter").field("rate", &*self.rate()).finish_non_exhaustive()
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
        table.0.len()
    }

    #[test]
    fn one_sender_gets_half_and_all_together_get_the_limit() {
        let limiter = limiter(2, 10, 1000);
        assert_eq!(passed(&limiter, 1, [7; 100]), 5);
        assert_eq!(passed(&limiter, 1, [8; 3]), 3);
        assert_eq!(passed(&limiter, 1, 100..200), 2);
        assert_eq!(passed(&limiter, 2, [7; 100]), 5, "recipients are independent");
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
    fn invented_recipients_free_no_tokens_and_respect_the_bound() {
        for tracked_max in [1, 3, 8, 64, 1000] {
            let limiter = limiter(1, 10, tracked_max);
            // With few slots for pairs, senders inherit empty buckets from each other, and fewer
            // pass.
            assert!(passed(&limiter, 1, 0..100) >= 5);
            for invented in 2..20_000 {
                let _ = limiter.check(invented, invented, NOW);
                assert_eq!(
                    passed(&limiter, 1, [invented]),
                    0,
                    "{invented} recipients, space for {tracked_max}"
                );
            }
            assert!(held(&limiter.recipients) <= tracked_max && held(&limiter.pairs) <= tracked_max);
        }
    }

    #[test]
    fn rested_buckets_are_taken_over_without_loss() {
        let limiter = limiter(1, 2, 8);
        for round in 0..100_u64 {
            let now = Duration::from_secs(3 * round);
            for recipient in 8 * round..8 * round + 8 {
                assert_eq!(limiter.check(recipient, 1, now), Ok(()), "a rested bucket is full");
            }
        }
    }

    #[test]
    fn extreme_numbers_do_not_overflow() {
        for limiter in [limiter(1, 1, 1), limiter(u32::MAX, u32::MAX, usize::MAX)] {
            for now in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
                let _ = limiter.check(u64::MAX, 0, now);
            }
        }
    }

    #[test]
    fn debug_hides_recipients_and_senders() {
        let limiter = limiter(1, 1, 1);
        limiter.check(123_456_789, 987_654_321, NOW).unwrap();
        let text = format!("{limiter:?}");
        assert!(!text.contains("123456789") && !text.contains("987654321"), "{text}");
    }
}
