//! The state of one key, and the rule by which its buckets decide together.

use std::time::Duration;

use crate::answers::Answers;
use crate::bucket::{BanRule, Bucket, Change, Rate};
use crate::bytes::{BYTES_BUCKET, ByteDebt, ByteRate, ITEMS_BUCKET};
use crate::decision::{Connection, Decision, Level, Refusal, Reservation, Wait};
use crate::policy::{Endpoint, Rules};
use crate::roster::KeyStatus;
use crate::tokens::Tokens;

#[derive(Debug)]
pub(crate) struct Entry {
    shared: Bucket,
    /// One per endpoint, in the order of [`Rules::endpoints`].
    endpoints: Box<[Bucket]>,
    last_seen_ns: u64,
    bytes: ByteDebt,
    items: ByteDebt,
    connections: Tokens,
    /// For connections while the shared bucket is banned.
    answers: Answers,
}

/// Who uses an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// One key.
    Key,
    /// All keys without space. Such an entry never bans, since it cannot distinguish its peers.
    Overflow,
}

/// A bucket that a request uses.
struct RatedBucket<'a> {
    bucket: &'a mut Bucket,
    rate: &'a Rate,
}

/// What all buckets of one request share.
struct CheckContext<'a> {
    ban: Option<&'a BanRule>,
    /// The debt that the request waits for.
    debt: Option<Debt<'a>>,
    max_wait_ns: u64,
    now_ns: u64,
}

/// A debt that a request waits for.
#[derive(Clone, Copy)]
struct Debt<'a> {
    bucket: &'static str,
    rate: &'a ByteRate,
    wait_ns: u64,
}

impl Owner {
    fn ban(self, rules: &Rules) -> Option<&BanRule> {
        rules.ban.as_ref().filter(|_| self == Self::Key)
    }
}

impl Entry {
    /// An entry whose buckets are full.
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            shared: Bucket::default(),
            endpoints: vec![Bucket::default(); rules.endpoints.len()].into_boxed_slice(),
            last_seen_ns: 0,
            bytes: ByteDebt::default(),
            items: ByteDebt::default(),
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
        self.touch(now_ns);
        let index = endpoint.map_or(0, |Endpoint(index)| index);
        let rule = endpoint.and_then(|_| rules.endpoints.get(index));
        let debt = rule.filter(|rule| rule.waits_for_debts).and_then(|_| self.debt(rules, now_ns));
        let shared = RatedBucket { bucket: &mut self.shared, rate: &rules.shared };
        let own = rule.zip(self.endpoints.get_mut(index));
        let own = own.map(|(rule, bucket)| RatedBucket { bucket, rate: &rule.rate });
        let context = CheckContext { ban: owner.ban(rules), debt, max_wait_ns: rules.max_wait_ns, now_ns };
        let mut decision = decide(shared, own, &context);
        if let Decision::Wait(wait) = &mut decision {
            wait.reservation.endpoint = index;
            wait.reservation.in_overflow = owner == Owner::Overflow;
        }
        decision
    }

    /// Takes a token from each bucket of a request that would pass at once.
    pub(crate) fn try_take(
        &mut self,
        rules: &Rules,
        endpoint: Option<Endpoint>,
        now_ns: u64,
    ) -> Result<(), Duration> {
        self.touch(now_ns);
        let mut shared = RatedBucket { bucket: &mut self.shared, rate: &rules.shared };
        let own = endpoint
            .and_then(|Endpoint(index)| rules.endpoints.get(index).zip(self.endpoints.get_mut(index)));
        let mut own = own.map(|(rule, bucket)| RatedBucket { bucket, rate: &rule.rate });
        let own_wait_ns = own.as_ref().map_or(0, |own| own.wait_ns(now_ns));
        let wait_ns = shared.wait_ns(now_ns).max(own_wait_ns);
        if wait_ns > 0 {
            return Err(Duration::from_nanos(wait_ns));
        }
        shared.take(now_ns);
        own.as_mut().map(|own| own.take(now_ns));
        Ok(())
    }

    /// Counts the last request to an endpoint as refused. Returns whether that bans the endpoint.
    pub(crate) fn count_refusal(
        &mut self,
        rules: &Rules,
        owner: Owner,
        Endpoint(index): Endpoint,
        now_ns: u64,
    ) -> bool {
        let (rule, bucket) = (rules.endpoints.get(index), self.endpoints.get_mut(index));
        let (Some(rule), Some(bucket), Some(ban)) = (rule, bucket, owner.ban(rules)) else { return false };
        if bucket.is_banned(now_ns) {
            return false;
        }
        bucket.count_late_refusal(ban, &rule.rate, now_ns);
        bucket.is_banned(now_ns)
    }

    /// Continues under other rules.
    pub(crate) fn carry(&mut self, old: &Rules, new: &Rules, change: &Change) {
        self.shared.carry(&old.shared, &new.shared, change);
        let rules = old.endpoints.iter().zip(&new.endpoints);
        for (bucket, (old, new)) in self.endpoints.iter_mut().zip(rules) {
            bucket.carry(&old.rate, &new.rate, change);
        }
        self.connections = self.connections.carried(&old.connections, &new.connections, 0, change.now_ns);
        self.bytes = self.bytes.carried(old.bytes.as_ref(), new.bytes.as_ref(), change.now_ns);
        self.items = self.items.carried(old.items.as_ref(), new.items.as_ref(), change.now_ns);
    }

    /// Frees the reservation of a request that no longer waits.
    pub(crate) fn give_back(&mut self, rules: &Rules, reservation: &Reservation, now_ns: u64) {
        self.shared.give_back(&rules.shared, reservation.shared_until_ns, now_ns);
        let index = reservation.endpoint;
        if let (Some(bucket), Some(rule)) = (self.endpoints.get_mut(index), rules.endpoints.get(index)) {
            bucket.give_back(&rule.rate, reservation.endpoint_until_ns, now_ns);
        }
    }

    /// Decides on one connection.
    pub(crate) fn connection(&mut self, rules: &Rules, owner: Owner, now_ns: u64) -> Connection {
        self.touch(now_ns);
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
        self.touch(now_ns);
        self.bytes.charge(rate, bytes, now_ns);
    }

    pub(crate) fn charge_items(&mut self, rate: &ByteRate, items: u64, now_ns: u64) {
        self.touch(now_ns);
        self.items.charge(rate, items, now_ns);
    }

    /// The debt that takes longest to pay.
    fn debt<'a>(&self, rules: &'a Rules, now_ns: u64) -> Option<Debt<'a>> {
        let debt = |bucket, rate: Option<&'a ByteRate>, debt: ByteDebt| {
            rate.map(|rate| Debt { bucket, rate, wait_ns: debt.wait_ns(rate, now_ns) })
        };
        let bytes = debt(BYTES_BUCKET, rules.bytes.as_ref(), self.bytes);
        let items = debt(ITEMS_BUCKET, rules.items.as_ref(), self.items);
        bytes.into_iter().chain(items).max_by_key(|debt| debt.wait_ns)
    }

    /// The ban of the shared bucket, if it is in force.
    pub(crate) fn banned(&self, rules: &Rules, now_ns: u64) -> Option<Refusal> {
        let until_ns = self.shared_banned_until_ns(now_ns)?;
        Some(Refusal { banned: true, ..rules.shared.refusal(until_ns - now_ns) })
    }

    /// Whether there is neither a ban of the shared bucket nor a debt that `endpoint` waits for.
    pub(crate) fn is_clear(&self, rules: &Rules, Endpoint(index): Endpoint, now_ns: u64) -> bool {
        let rule = rules.endpoints.get(index).filter(|rule| rule.waits_for_debts);
        let debt = rule.and_then(|_| self.debt(rules, now_ns));
        !self.shared.is_banned(now_ns) && debt.is_none_or(|debt| debt.wait_ns == 0)
    }

    /// When the ban of the shared bucket ends, if it is in force.
    pub(crate) fn shared_banned_until_ns(&self, now_ns: u64) -> Option<u64> {
        Some(self.shared.banned_until_ns()).filter(|&until_ns| until_ns > now_ns)
    }

    /// Whether the limiter can forget this entry, which the roster last saw at `stamp_ns`.
    pub(crate) fn status(&self, stamp_ns: u64, now_ns: u64) -> KeyStatus {
        let banned_until_ns =
            self.endpoints.iter().map(Bucket::banned_until_ns).fold(self.shared.banned_until_ns(), u64::max);
        if self.last_seen_ns > stamp_ns {
            KeyStatus::SeenAt(self.last_seen_ns)
        } else if banned_until_ns > now_ns {
            KeyStatus::BannedUntil(banned_until_ns)
        } else {
            KeyStatus::Idle
        }
    }

    /// Counts a dropped connection as a refused request. Returns the ban that it starts, if any.
    fn count_dropped(&mut self, rules: &Rules, owner: Owner, now_ns: u64) -> Option<Refusal> {
        self.shared.count_refusal(owner.ban(rules)?, &rules.shared, now_ns);
        let refusal = self.banned(rules, now_ns)?;
        Some(Refusal { ban_began: true, ..refusal })
    }

    fn touch(&mut self, now_ns: u64) {
        self.last_seen_ns = self.last_seen_ns.max(now_ns);
    }
}

impl RatedBucket<'_> {
    fn wait_ns(&self, now_ns: u64) -> u64 {
        self.bucket.wait_ns(self.rate, now_ns)
    }

    fn take(&mut self, now_ns: u64) -> u64 {
        self.bucket.take(self.rate, now_ns)
    }

    /// Counts a request that passes or waits, and returns the tokens that are left.
    fn count_request(self, now_ns: u64) -> Level {
        self.bucket.count_request(now_ns);
        self.bucket.level(self.rate, now_ns)
    }

    /// A refusal names the bucket with the greater weight: a banned one, else the one with the
    /// longer wait.
    fn weight(&self, now_ns: u64) -> (bool, u64) {
        (self.bucket.is_banned(now_ns), self.wait_ns(now_ns))
    }

    /// Counts a refusal by this bucket, unless it is banned already.
    fn refuse(self, retry_after_ns: u64, context: &CheckContext<'_>) -> Refusal {
        let Self { bucket, rate } = self;
        let now_ns = context.now_ns;
        let was_banned = bucket.is_banned(now_ns);
        if let Some(rule) = context.ban
            && !was_banned
        {
            bucket.count_refusal(rule, rate, now_ns);
        }
        let banned = bucket.is_banned(now_ns);
        let retry_after_ns = retry_after_ns.max(bucket.wait_ns(rate, now_ns));
        Refusal { banned, ban_began: banned && !was_banned, ..rate.refusal(retry_after_ns) }
    }
}

/// Takes a token from each bucket, or from none.
fn decide(
    mut shared: RatedBucket<'_>,
    mut own: Option<RatedBucket<'_>>,
    context: &CheckContext<'_>,
) -> Decision {
    let now_ns = context.now_ns;
    let (banned, shared_wait_ns) = shared.weight(now_ns);
    let (own_banned, own_wait_ns) = own.as_ref().map_or((false, 0), |own| own.weight(now_ns));
    let debt_wait_ns = context.debt.map_or(0, |debt| debt.wait_ns);
    let tokens_wait_ns = shared_wait_ns.max(own_wait_ns);
    let wait_ns = tokens_wait_ns.max(debt_wait_ns);
    if banned || own_banned || tokens_wait_ns > context.max_wait_ns {
        let named = match own {
            Some(own) if (own_banned, own_wait_ns) >= (banned, shared_wait_ns) => own,
            _ => shared,
        };
        return Decision::Refused(named.refuse(wait_ns, context));
    }
    let shared_until_ns = shared.take(now_ns);
    let endpoint_until_ns = own.as_mut().map_or(0, |own| own.take(now_ns));
    if let Some(Debt { bucket, rate, wait_ns }) = context.debt
        && wait_ns > context.max_wait_ns
    {
        // The request keeps its tokens: otherwise a key in debt could ask without end, and no
        // bucket would ever refuse it.
        let own_wait_ns = own.map_or(0, |own| own.wait_ns(now_ns));
        let retry_after_ns = wait_ns.max(own_wait_ns).max(shared.wait_ns(now_ns));
        return Decision::Refused(rate.refusal(bucket, retry_after_ns));
    }
    let mut level = shared.count_request(now_ns);
    if let Some(own) = own {
        level = scarcer(own.count_request(now_ns), level);
    }
    if wait_ns == 0 {
        return Decision::Allowed(level);
    }
    let reservation = Reservation { shared_until_ns, endpoint_until_ns, endpoint: 0, in_overflow: false };
    Decision::Wait(Wait { after: Duration::from_nanos(wait_ns), level, reservation })
}

/// The level with fewer tokens, else the one with the later reset, else the first.
fn scarcer(first: Level, second: Level) -> Level {
    let second_is_scarcer =
        second.remaining.cmp(&first.remaining).then(first.reset.cmp(&second.reset)).is_lt();
    if second_is_scarcer { second } else { first }
}
