//! A naive limiter that ignores memory, speed and threads: it searches lists from end to end. Time
//! must not run backwards here.

use std::collections::BTreeSet;
use std::time::Duration;

use relay_ratelimit::{BYTES_BUCKET, Refusal, SHARED_BUCKET};

use crate::{ENDPOINT_NAMES, Numbers, positive};

const SECOND: i128 = 1_000_000_000;
const TOKEN: i128 = 1_000_000_000;

/// The decision on a request, without the level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelDecision {
    Passes,
    Waits { after: Duration, reservation: ModelReservation },
    Refused(Refusal),
}

/// The buckets that the reservation can be returned to, each with the time when it passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelReservation(Vec<(usize, i128)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ModelConnection {
    Serve,
    Refuse(Refusal),
    Drop,
}

pub(crate) struct Model {
    numbers: Numbers,
    known: Vec<Known>,
}

struct Known {
    key: u8,
    seen: i128,
    /// The end of its ban, if another key needed its space during the ban.
    kept_until: Option<i128>,
    /// The shared bucket, then the endpoints'.
    buckets: Vec<ModelBucket>,
    connections: ModelBucket,
    /// In billionths of a byte, as of `seen`.
    owed: i128,
    answers_taken: i128,
    answers_second: i128,
}

struct ModelBucket {
    name: &'static str,
    burst: i128,
    per_second: i128,
    /// In billionths of a token, as of `filled`; below zero if future tokens are reserved.
    level: i128,
    filled: i128,
    /// How many reservations were given back and not taken again.
    returned: usize,
    asked: Vec<i128>,
    refused: Vec<i128>,
    first_refused: Option<i128>,
    excess: BTreeSet<i128>,
    banned_until: i128,
}

impl Model {
    pub(crate) fn new(numbers: Numbers) -> Self {
        Self { numbers, known: Vec::new() }
    }

    pub(crate) fn tracked(&self) -> usize {
        self.known.len()
    }

    pub(crate) fn check(&mut self, key: u8, endpoint: Option<usize>, now: Duration) -> ModelDecision {
        let (known, numbers, now) = self.known(key, now);
        known.check(numbers, endpoint, now)
    }

    pub(crate) fn connection(&mut self, key: u8, now: Duration) -> ModelConnection {
        let (known, numbers, now) = self.known(key, now);
        known.connection(numbers, now)
    }

    pub(crate) fn charge(&mut self, key: u8, bytes: u64, now: Duration) {
        let Some((per_second, burst)) = self.numbers.bytes else { return };
        let (known, ..) = self.known(key, now);
        let most = i128::from(burst) * TOKEN + 60 * SECOND * i128::from(per_second);
        known.owed = (known.owed + i128::from(bytes) * TOKEN).min(most);
    }

    pub(crate) fn give_back(&mut self, key: u8, reservation: &ModelReservation, now: Duration) {
        let now = nanoseconds(now);
        let Some(known) = self.known.iter_mut().find(|known| known.key == key) else { return };
        for &(at, passes) in &reservation.0 {
            if passes > now {
                known.buckets[at].level += TOKEN;
                known.buckets[at].returned += 1;
            }
        }
    }

    /// The state of the key as of now, after another key was forgotten if necessary.
    fn known(&mut self, key: u8, now: Duration) -> (&mut Known, &Numbers, i128) {
        let now = nanoseconds(now);
        let at = self.known.iter().position(|known| known.key == key).unwrap_or_else(|| {
            if self.known.len() == self.numbers.keys {
                self.forget_one(now);
            }
            self.known.push(Known::new(&self.numbers, key, now));
            self.known.len() - 1
        });
        let known = &mut self.known[at];
        known.fill(&self.numbers, now);
        (known, &self.numbers, now)
    }

    /// Forgets the idlest key. Banned keys are kept, but if those are too many, the one whose ban
    /// ends soonest is forgotten.
    fn forget_one(&mut self, now: i128) {
        for known in &mut self.known {
            known.kept_until = known.kept_until.filter(|&until| until > now);
        }
        loop {
            let candidates = (0..self.known.len()).filter(|&at| self.known[at].kept_until.is_none());
            let idlest = candidates.min_by_key(|&at| self.known[at].seen).unwrap();
            let ban = self.known[idlest].buckets.iter().map(|bucket| bucket.banned_until).max().unwrap();
            if ban <= now {
                self.known.remove(idlest);
                return;
            }
            self.known[idlest].kept_until = Some(ban);
            let kept = (0..self.known.len()).filter(|&at| self.known[at].kept_until.is_some());
            if kept.clone().count() > self.numbers.keys / 2 {
                let soonest = kept.min_by_key(|&at| self.known[at].kept_until).unwrap();
                self.known.remove(soonest);
                return;
            }
        }
    }
}

impl Known {
    fn new(numbers: &Numbers, key: u8, now: i128) -> Self {
        let bucket = |name, burst, per_second| ModelBucket {
            name,
            burst,
            per_second,
            level: burst * TOKEN,
            filled: now,
            returned: 0,
            asked: Vec::new(),
            refused: Vec::new(),
            first_refused: None,
            excess: BTreeSet::new(),
            banned_until: 0,
        };
        let names = [SHARED_BUCKET].into_iter().chain(ENDPOINT_NAMES);
        let rates = [numbers.per_second].into_iter().chain(numbers.endpoints);
        let burst = numbers.burst.into();
        let connections = i128::from(numbers.per_second.saturating_mul(4));
        Self {
            key,
            seen: now,
            kept_until: None,
            buckets: names.zip(rates).map(|(name, rate)| bucket(name, burst, rate.into())).collect(),
            connections: bucket("connections", connections, connections),
            owed: 0,
            answers_taken: 0,
            answers_second: 0,
        }
    }

    fn fill(&mut self, numbers: &Numbers, now: i128) {
        let per_second = numbers.bytes.map_or(0, |(per_second, _)| per_second);
        self.owed = (self.owed - (now - self.seen) * i128::from(per_second)).max(0);
        self.seen = now;
        self.connections.fill(now);
        self.buckets.iter_mut().for_each(|bucket| bucket.fill(now));
    }

    fn check(&mut self, numbers: &Numbers, endpoint: Option<usize>, now: i128) -> ModelDecision {
        let drawn: Vec<usize> = endpoint.map(|at| at + 1).into_iter().chain([0]).collect();
        let longest =
            |buckets: &[ModelBucket]| drawn.iter().map(|&at| buckets[at].wait_with_ban(now)).max().unwrap();
        let max_wait = nanoseconds(numbers.max_wait);
        // The first endpoint waits for bytes.
        let bytes = numbers.bytes.filter(|_| endpoint == Some(0));
        let debt = bytes.map_or(0, |(per_second, burst)| {
            div_ceil((self.owed - i128::from(burst) * TOKEN).max(0), per_second.into())
        });
        let banned: Vec<_> =
            drawn.iter().copied().filter(|&at| self.buckets[at].banned_until > now).collect();
        if !banned.is_empty() || longest(&self.buckets) > max_wait {
            let among = if banned.is_empty() { &drawn } else { &banned };
            let wait = among.iter().map(|&at| self.buckets[at].wait_with_ban(now)).max();
            let named =
                among.iter().copied().find(|&at| Some(self.buckets[at].wait_with_ban(now)) == wait).unwrap();
            let began = banned.is_empty() && self.buckets[named].refuse(numbers, now);
            let retry_after = longest(&self.buckets).max(debt);
            return ModelDecision::Refused(self.buckets[named].refusal(
                retry_after,
                !banned.is_empty() || began,
                began,
            ));
        }
        let token_wait = longest(&self.buckets);
        let mut reserved = Vec::new();
        for &at in &drawn {
            let bucket = &mut self.buckets[at];
            if bucket.returned > 0 {
                bucket.returned -= 1;
            } else if bucket.wait() > 0 {
                reserved.push((at, now + bucket.wait()));
            }
            bucket.level -= TOKEN;
        }
        if let Some((per_second, burst)) = bytes
            && debt > max_wait
        {
            let retry_after = longest(&self.buckets).max(debt);
            return ModelDecision::Refused(refusal_of_bytes(per_second, burst, retry_after));
        }
        drawn.iter().for_each(|&at| self.buckets[at].asked.push(now));
        match token_wait.max(debt) {
            0 => ModelDecision::Passes,
            after => ModelDecision::Waits { after: duration(after), reservation: ModelReservation(reserved) },
        }
    }

    fn connection(&mut self, numbers: &Numbers, now: i128) -> ModelConnection {
        let shared = &mut self.buckets[0];
        let was_banned = shared.banned_until > now;
        if !was_banned {
            if self.connections.wait() == 0 {
                self.connections.level -= TOKEN;
                return ModelConnection::Serve;
            }
            if !shared.refuse(numbers, now) {
                return ModelConnection::Drop;
            }
        }
        let second = now / SECOND;
        self.answers_taken = (self.answers_taken - (second - self.answers_second)).max(0);
        self.answers_second = second;
        if self.answers_taken == 5 {
            return ModelConnection::Drop;
        }
        self.answers_taken += 1;
        ModelConnection::Refuse(shared.refusal(shared.banned_until - now, true, !was_banned))
    }
}

impl ModelBucket {
    fn fill(&mut self, now: i128) {
        self.level = (self.level + (now - self.filled) * self.per_second).min(self.burst * TOKEN);
        self.filled = now;
    }

    fn wait(&self) -> i128 {
        div_ceil((TOKEN - self.level).max(0), self.per_second)
    }

    fn wait_with_ban(&self, now: i128) -> i128 {
        self.wait().max(self.banned_until - now)
    }

    /// Counts a refused request, and returns whether it starts a ban.
    fn refuse(&mut self, numbers: &Numbers, now: i128) -> bool {
        if numbers.ban.is_zero() {
            return false;
        }
        self.asked.push(now);
        let second = now / SECOND;
        let is_new = self.refused.last().is_none_or(|last| second - last / SECOND > 10);
        let first = if is_new { now } else { self.first_refused.unwrap() };
        self.first_refused = Some(first);
        self.refused.push(now);
        let asked = self.asked.iter().filter(|&at| at / SECOND == second).count() as i128;
        if asked > 4 * self.per_second && second * SECOND >= first + SECOND {
            self.excess.insert(second);
        }
        let within = self.excess.iter().filter(|&&counted| counted > second - 60).count();
        let began = within >= numbers.ban_threshold as usize;
        if began {
            self.banned_until = now + nanoseconds(numbers.ban);
            (self.asked, self.refused, self.excess) = Default::default();
        }
        began
    }

    fn refusal(&self, retry_after: i128, banned: bool, ban_began: bool) -> Refusal {
        Refusal {
            bucket: self.name,
            retry_after: duration(retry_after),
            banned,
            ban_began,
            quota: positive(self.burst.try_into().unwrap()),
            window_seconds: div_ceil(self.burst, self.per_second).try_into().unwrap(),
        }
    }
}

fn refusal_of_bytes(per_second: u64, burst: u64, retry_after: i128) -> Refusal {
    Refusal {
        bucket: BYTES_BUCKET,
        retry_after: duration(retry_after),
        banned: false,
        ban_began: false,
        quota: positive(burst.try_into().unwrap()),
        window_seconds: burst.div_ceil(per_second).try_into().unwrap(),
    }
}

fn nanoseconds(span: Duration) -> i128 {
    span.as_nanos().try_into().unwrap()
}

fn duration(nanoseconds: i128) -> Duration {
    Duration::from_nanos(nanoseconds.try_into().unwrap())
}

fn div_ceil(dividend: i128, divisor: i128) -> i128 {
    (dividend + divisor - 1) / divisor
}
