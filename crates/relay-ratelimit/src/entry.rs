//! All that is remembered of one key, and the rule by which its buckets decide together. It never
//! knows the key or the other keys.

use std::time::Duration;

use crate::answers::Answers;
use crate::bucket::{BanRule, Bucket, Rate};
use crate::bytes::{ByteDebt, ByteRate};
use crate::decision::{Connection, Decision, Level, Refusal, Reservation, Wait};
use crate::policy::{Endpoint, Rules};
use crate::roster::Fate;
use crate::tokens::Tokens;

#[derive(Debug)]
pub(crate) struct Entry {
    shared: Bucket,
    /// One per endpoint, in the order of [`Rules::endpoints`].
    endpoints: Box<[Bucket]>,
    last_seen_ns: u64,
    bytes: ByteDebt,
    connections: Tokens,
    /// To connections while the shared bucket is banned.
    answers: Answers,
}

/// Whose entry it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One key's.
    Key,
    /// Everybody's for whom there is no room: it limits and never bans, since it cannot tell the
    /// peers behind it apart.
    Overflow,
}

/// A bucket that a request draws from.
struct Drawn<'a> {
    bucket: &'a mut Bucket,
    rate: &'a Rate,
}

/// What is the same for all buckets of one request.
struct Terms<'a> {
    ban: Option<&'a BanRule>,
    /// The debt that the request has to wait for, and how long.
    bytes: Option<(&'a ByteRate, u64)>,
    max_wait_ns: u64,
    now_ns: u64,
}

impl Owner {
    fn ban(self, rules: &Rules) -> Option<&BanRule> {
        match self {
            Self::Key => rules.ban.as_ref(),
            Self::Overflow => None,
        }
    }
}

impl Entry {
    /// All buckets full.
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            shared: Bucket::default(),
            endpoints: vec![Bucket::default(); rules.endpoints.len()].into_boxed_slice(),
            last_seen_ns: 0,
            bytes: ByteDebt::default(),
            connections: Tokens::default(),
            answers: Answers::default(),
        }
    }

    /// Decides on one request.
    pub(crate) fn check(
        &mut self,
        rules: &Rules,
        owner: Owner,
        endpoint: Option<Endpoint>,
        now_ns: u64,
    ) -> Decision {
        self.see(now_ns);
        let shared = Drawn { bucket: &mut self.shared, rate: &rules.shared };
        let at = endpoint.map_or(0, |Endpoint(at)| at);
        let rule = endpoint.and_then(|_| rules.endpoints.get(at));
        let own = rule.and_then(|rule| Some(Drawn { bucket: self.endpoints.get_mut(at)?, rate: &rule.rate }));
        let bytes = rules.bytes.as_ref().filter(|_| rule.is_some_and(|rule| rule.heeds_bytes));
        let terms = Terms {
            ban: owner.ban(rules),
            bytes: bytes.map(|rate| (rate, self.bytes.wait_ns(rate, now_ns))),
            max_wait_ns: rules.max_wait_ns,
            now_ns,
        };
        let mut decision = decide(shared, own, &terms);
        if let Decision::Wait(wait) = &mut decision {
            wait.reservation.endpoint = at;
            wait.reservation.in_overflow = owner == Owner::Overflow;
        }
        decision
    }

    /// Frees the place of a request that waits no longer.
    pub(crate) fn give_back(&mut self, rules: &Rules, reservation: &Reservation, now_ns: u64) {
        self.shared.give_back(&rules.shared, reservation.shared_until_ns, now_ns);
        let at = reservation.endpoint;
        if let (Some(bucket), Some(rule)) = (self.endpoints.get_mut(at), rules.endpoints.get(at)) {
            bucket.give_back(&rule.rate, reservation.endpoint_until_ns, now_ns);
        }
    }

    /// Decides on one connection.
    pub(crate) fn connection(&mut self, rules: &Rules, owner: Owner, now_ns: u64) -> Connection {
        self.see(now_ns);
        let ban = match self.banned(rules, now_ns) {
            Some(refusal) => Some(refusal),
            None if self.connections.wait_ns(&rules.connections, now_ns) == 0 => {
                self.connections.take(&rules.connections, now_ns);
                return Connection::Serve;
            }
            None => self.count_dropped(rules, owner, now_ns),
        };
        match ban {
            Some(refusal) if self.answers.take(now_ns) => Connection::RefuseOnce(refusal),
            ban => Connection::Drop { banned: ban.is_some() },
        }
    }

    pub(crate) fn charge_bytes(&mut self, rate: &ByteRate, bytes: u64, now_ns: u64) {
        self.see(now_ns);
        self.bytes.charge(rate, bytes, now_ns);
    }

    /// The ban of the shared bucket, if it is in force.
    pub(crate) fn banned(&self, rules: &Rules, now_ns: u64) -> Option<Refusal> {
        let until_ns = self.shared_banned_until_ns(now_ns)?;
        Some(Refusal { banned: true, ..rules.shared.refusal(until_ns - now_ns) })
    }

    /// When the ban of the shared bucket ends, if it is in force.
    pub(crate) fn shared_banned_until_ns(&self, now_ns: u64) -> Option<u64> {
        Some(self.shared.banned_until_ns()).filter(|&until_ns| until_ns > now_ns)
    }

    /// What becomes of this entry if room is wanted and the roster believes that it was last seen
    /// at `stamp_ns`.
    pub(crate) fn fate(&self, stamp_ns: u64, now_ns: u64) -> Fate {
        let banned_until_ns =
            self.endpoints.iter().map(Bucket::banned_until_ns).fold(self.shared.banned_until_ns(), u64::max);
        if self.last_seen_ns > stamp_ns {
            Fate::SeenAt(self.last_seen_ns)
        } else if banned_until_ns > now_ns {
            Fate::BannedUntil(banned_until_ns)
        } else {
            Fate::Forget
        }
    }

    /// A connection too many is a refused request of the shared bucket. Returns the ban if it has
    /// set off one.
    fn count_dropped(&mut self, rules: &Rules, owner: Owner, now_ns: u64) -> Option<Refusal> {
        let rule = owner.ban(rules)?;
        self.shared.ask(now_ns);
        self.shared.refuse(rule, &rules.shared, now_ns);
        let refusal = self.banned(rules, now_ns)?;
        Some(Refusal { ban_began: true, ..refusal })
    }

    fn see(&mut self, now_ns: u64) {
        self.last_seen_ns = self.last_seen_ns.max(now_ns);
    }
}

impl Drawn<'_> {
    fn wait_ns(&self, now_ns: u64) -> u64 {
        self.bucket.wait_ns(self.rate, now_ns)
    }

    /// Returns until when the place can be given back; 0 if it cannot be.
    fn take(&mut self, now_ns: u64) -> u64 {
        self.bucket.take(self.rate, now_ns)
    }

    fn level(&self, now_ns: u64) -> Level {
        self.bucket.level(self.rate, now_ns)
    }

    /// The heavier of two buckets is the one that is named and blamed: a banned one, else the one
    /// with the longer wait.
    fn weight(&self, now_ns: u64) -> (bool, u64) {
        (self.bucket.is_banned(now_ns), self.wait_ns(now_ns))
    }
}

/// Takes a token from each bucket, or nothing from any.
fn decide(mut shared: Drawn<'_>, mut own: Option<Drawn<'_>>, terms: &Terms<'_>) -> Decision {
    let now_ns = terms.now_ns;
    let (banned, shared_wait_ns) = shared.weight(now_ns);
    let (own_banned, own_wait_ns) = own.as_ref().map_or((false, 0), |own| own.weight(now_ns));
    let bytes_wait_ns = terms.bytes.map_or(0, |(_, wait_ns)| wait_ns);
    let tokens_wait_ns = shared_wait_ns.max(own_wait_ns);
    let wait_ns = tokens_wait_ns.max(bytes_wait_ns);
    if banned || own_banned || tokens_wait_ns > terms.max_wait_ns {
        let named = match own {
            Some(own) if (own_banned, own_wait_ns) >= (banned, shared_wait_ns) => own,
            _ => shared,
        };
        return Decision::Refused(refuse(named, wait_ns, terms));
    }
    let shared_until_ns = shared.take(now_ns);
    let endpoint_until_ns = own.as_mut().map_or(0, |own| own.take(now_ns));
    if let Some((rate, bytes_wait_ns)) = terms.bytes
        && bytes_wait_ns > terms.max_wait_ns
    {
        // The tokens stay taken: else a key in debt could ask without end, and no bucket would ever
        // refuse it.
        let own_wait_ns = own.map_or(0, |own| own.wait_ns(now_ns));
        return Decision::Refused(rate.refusal(bytes_wait_ns.max(own_wait_ns).max(shared.wait_ns(now_ns))));
    }
    shared.bucket.ask(now_ns);
    let mut level = shared.level(now_ns);
    if let Some(own) = own {
        own.bucket.ask(now_ns);
        level = scarcer(own.level(now_ns), level);
    }
    if wait_ns == 0 {
        return Decision::Allowed(level);
    }
    let reservation = Reservation { shared_until_ns, endpoint_until_ns, endpoint: 0, in_overflow: false };
    Decision::Wait(Wait { after: Duration::from_nanos(wait_ns), level, reservation })
}

/// Counts a refusal by a bucket and tells of it.
fn refuse(named: Drawn<'_>, retry_after_ns: u64, terms: &Terms<'_>) -> Refusal {
    let Drawn { bucket, rate } = named;
    let now_ns = terms.now_ns;
    let was_banned = bucket.is_banned(now_ns);
    if let Some(rule) = terms.ban
        && !was_banned
    {
        bucket.ask(now_ns);
        bucket.refuse(rule, rate, now_ns);
    }
    let banned = bucket.is_banned(now_ns);
    let retry_after_ns = retry_after_ns.max(bucket.wait_ns(rate, now_ns));
    Refusal { banned, ban_began: banned && !was_banned, ..rate.refusal(retry_after_ns) }
}

/// The one with fewer tokens; of equals the one that takes longer; else the first.
fn scarcer(first: Level, second: Level) -> Level {
    let second_is_scarcer =
        second.remaining.cmp(&first.remaining).then(first.reset.cmp(&second.reset)).is_lt();
    if second_is_scarcer { second } else { first }
}
