//! The limiter as one would write it without a thought for memory, speed or threads: lists, searched from end to end.
//! Time must not run backwards here.

use std::time::Duration;

use relay_ratelimit::{Decision, Refusal, SHARED_BUCKET};

use crate::{ENDPOINT_NAMES, Numbers, positive};

const MINUTE: u128 = 60_000_000_000;
const TOKEN: u128 = 1_000_000_000;

pub(crate) struct Model {
    numbers: Numbers,
    known: Vec<Known>,
    overflow: Known,
}

#[derive(Clone)]
struct Known {
    key: u8,
    seen: u128,
    /// The shared bucket, then the endpoints'.
    buckets: Vec<Level>,
}

#[derive(Clone)]
struct Level {
    name: &'static str,
    per_second: u32,
    /// In billionths of a token, as of `filled`.
    level: u128,
    filled: u128,
    /// The times of the refusals since the first of the window.
    refused: Vec<u128>,
    banned_until: u128,
}

impl Model {
    pub(crate) fn new(numbers: Numbers) -> Self {
        let overflow = Known::new(&numbers, 0, 0);
        Self { numbers, known: Vec::new(), overflow }
    }

    pub(crate) fn tracked(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn check(&mut self, key: u8, endpoint: Option<usize>, now: Duration) -> Decision {
        let now = now.as_nanos();
        let bans = !self.numbers.ban.is_zero();
        match self.place(key, now) {
            Some(at) => self.known[at].check(&self.numbers, bans, endpoint, now),
            None => self.overflow.check(&self.numbers, false, endpoint, now),
        }
    }

    /// Where the key is in the list, after making room for it.
    fn place(&mut self, key: u8, now: u128) -> Option<usize> {
        if let Some(at) = self.known.iter().position(|known| known.key == key) {
            return Some(at);
        }
        if self.known.len() == self.numbers.keys {
            let free = |&at: &usize| self.known[at].buckets.iter().all(|bucket| bucket.banned_until <= now);
            let idlest = (0..self.known.len()).filter(free).min_by_key(|&at| self.known[at].seen)?;
            self.known.remove(idlest);
        }
        self.known.push(Known::new(&self.numbers, key, now));
        Some(self.known.len() - 1)
    }
}

impl Known {
    fn new(numbers: &Numbers, key: u8, now: u128) -> Self {
        let names = [SHARED_BUCKET].into_iter().chain(ENDPOINT_NAMES);
        let rates = [numbers.per_second].into_iter().chain(numbers.endpoints);
        let level = u128::from(numbers.burst) * TOKEN;
        let bucket = |(name, per_second)| Level {
            name,
            per_second,
            level,
            filled: now,
            refused: Vec::new(),
            banned_until: 0,
        };
        Self { key, seen: now, buckets: names.zip(rates).map(bucket).collect() }
    }

    fn check(&mut self, numbers: &Numbers, bans: bool, endpoint: Option<usize>, now: u128) -> Decision {
        self.seen = now;
        for bucket in &mut self.buckets {
            bucket.fill(numbers.burst, now);
        }
        let drawn: Vec<usize> = endpoint.map(|at| at + 1).into_iter().chain([0]).collect();
        let longest = |buckets: &[Level]| drawn.iter().map(|&at| buckets[at].wait(now)).max().unwrap();
        if longest(&self.buckets) == 0 {
            for at in drawn {
                self.buckets[at].level -= TOKEN;
            }
            return Decision::Allowed;
        }
        let banned =
            drawn.iter().copied().filter(|&at| self.buckets[at].banned_until > now).collect::<Vec<_>>();
        let among = if banned.is_empty() { &drawn } else { &banned };
        let wait = among.iter().map(|&at| self.buckets[at].wait(now)).max();
        let named = among.iter().copied().find(|&at| Some(self.buckets[at].wait(now)) == wait).unwrap();
        if bans && banned.is_empty() {
            self.buckets[named].refuse(numbers, now);
        }
        let retry_after = Duration::from_nanos(longest(&self.buckets).try_into().unwrap());
        let Level { name, per_second, banned_until, .. } = self.buckets[named];
        Decision::Refused(Refusal {
            bucket: name,
            retry_after,
            banned: banned_until > now,
            ban_began: banned.is_empty() && banned_until > now,
            quota: positive(numbers.burst),
            window_seconds: (f64::from(numbers.burst) / f64::from(per_second)).ceil() as u32,
        })
    }
}

impl Level {
    fn fill(&mut self, burst: u32, now: u128) {
        let earned = (now - self.filled) * u128::from(self.per_second);
        self.level = (self.level + earned).min(u128::from(burst) * TOKEN);
        self.filled = now;
    }

    fn wait(&self, now: u128) -> u128 {
        let missing = TOKEN.saturating_sub(self.level);
        missing.div_ceil(self.per_second.into()).max(self.banned_until.saturating_sub(now))
    }

    fn refuse(&mut self, numbers: &Numbers, now: u128) {
        if self.refused.first().is_some_and(|first| now - first >= MINUTE) {
            self.refused.clear();
        }
        self.refused.push(now);
        if self.refused.len() == numbers.ban_threshold as usize {
            self.refused.clear();
            self.banned_until = now + numbers.ban.as_nanos();
        }
    }
}
