//! Runs the scripts of these tests.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::time::Duration;

use relay_ratelimit::{Connection, Decision, Endpoint, Key, Limiter, Policy, Refusal, Reservation};

use crate::positive;

/// The parent of `net/sub/host` is `net/sub`, whose parent is `net`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name(pub(crate) String);

impl Key for Name {
    fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(network, _)| Self(network.to_owned()))
    }
}

pub(crate) struct Script {
    pub(crate) limiter: Limiter<Name>,
    endpoints: HashMap<&'static str, Endpoint>,
    waiting: HashMap<Name, VecDeque<Reservation>>,
}

impl Script {
    /// Adds the endpoints `push` (5 per second), `pull` (2) and `upload` (5, waits for bytes).
    pub(crate) fn new(mut policy: Policy) -> Self {
        let endpoints = add_endpoints(&mut policy);
        Self { limiter: Limiter::new(policy), endpoints, waiting: HashMap::new() }
    }

    /// Continues by another policy.
    pub(crate) fn set(&self, mut policy: Policy, ms: u64) {
        add_endpoints(&mut policy);
        self.limiter.set_policy(policy, Duration::from_millis(ms));
    }

    /// Runs lines of `<ms | ms..ms> <key> <action> [<n>x] -> <answer>`, all times in milliseconds.
    /// A range runs the action once per second, without the range's end. `<n>x` repeats the action,
    /// and `*` accepts any answer.
    ///
    /// | action | answers |
    /// |---|---|
    /// | `push`, `pull`, `upload`, `-` for no endpoint | `ok`, `wait <ms>`, `[ban] <bucket> <ms>` |
    /// | `left`: the level after a request of no endpoint | `<bucket> <remaining> <reset>` |
    /// | `first-leaves`, `last-leaves`: a waiting request of this key hangs up | `ok` |
    /// | `connect` | `serve`, `once <ms>`, `drop`, `shut` if the key is banned |
    /// | `banned` | `no`, `<ms>` |
    /// | `bytes=<n>` | `ok` |
    pub(crate) fn run(&mut self, text: &str) {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, expected) = line.split_once(" -> ").unwrap();
            let words: Vec<_> = command.split(' ').collect();
            let (&[times, key, action], repeat) = words.split_first_chunk().unwrap();
            let repeat = repeat.first().map_or(1, |times| times.trim_end_matches('x').parse().unwrap());
            for ms in milliseconds(times).step_by(1000) {
                for turn in 0..repeat {
                    let answer = self.run_action(&Name(key.to_owned()), action, Duration::from_millis(ms));
                    assert!(
                        expected == "*" || answer == expected,
                        "{line}: {answer}, turn {turn} at {ms} ms"
                    );
                }
            }
        }
    }

    fn run_action(&mut self, key: &Name, action: &str, now: Duration) -> String {
        match action {
            "first-leaves" => self.leave(key, VecDeque::pop_front, now),
            "last-leaves" => self.leave(key, VecDeque::pop_back, now),
            "connect" => match self.limiter.connection(key, now) {
                Connection::Serve => "serve".to_owned(),
                Connection::RefuseOnce(refusal) => format!("once {}", refusal.retry_after.as_millis()),
                Connection::Drop { banned } => if banned { "shut" } else { "drop" }.to_owned(),
            },
            "banned" => self
                .limiter
                .is_banned(key, now)
                .map_or_else(|| "no".to_owned(), |refusal| refusal.retry_after.as_millis().to_string()),
            "left" => match self.limiter.check(key, None, now) {
                Decision::Allowed(level) => {
                    format!("{} {} {}", level.bucket, level.remaining, level.reset.as_millis())
                }
                decision => panic!("{decision:?} contains no level"),
            },
            _ => match action.strip_prefix("bytes=") {
                Some(bytes) => {
                    self.limiter.charge_bytes(key, bytes.parse().unwrap(), now);
                    "ok".to_owned()
                }
                None => self.check(key, action, now),
            },
        }
    }

    fn check(&mut self, key: &Name, endpoint: &str, now: Duration) -> String {
        let endpoint = if endpoint == "-" { None } else { Some(*self.endpoints.get(endpoint).unwrap()) };
        match self.limiter.check(key, endpoint, now) {
            Decision::Allowed(_) => "ok".to_owned(),
            Decision::Wait(wait) => {
                self.waiting.entry(key.clone()).or_default().push_back(wait.reservation);
                format!("wait {}", wait.after.as_millis())
            }
            Decision::Refused(Refusal { bucket, retry_after, banned, .. }) => {
                format!("{}{bucket} {}", if banned { "ban " } else { "" }, retry_after.as_millis())
            }
        }
    }

    fn leave(
        &mut self,
        key: &Name,
        pick: impl Fn(&mut VecDeque<Reservation>) -> Option<Reservation>,
        now: Duration,
    ) -> String {
        let reservation = pick(self.waiting.get_mut(key).unwrap()).unwrap();
        self.limiter.give_back(key, reservation, now);
        "ok".to_owned()
    }
}

fn add_endpoints(policy: &mut Policy) -> HashMap<&'static str, Endpoint> {
    HashMap::from([
        ("push", policy.add_endpoint("push", positive(5))),
        ("pull", policy.add_endpoint("pull", positive(2))),
        ("upload", policy.add_endpoint_with_debts("upload", positive(5))),
    ])
}

fn milliseconds(text: &str) -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().unwrap();
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(text)..number(text) + 1,
    }
}

pub(crate) fn check(policy: Policy, script: &str) {
    Script::new(policy).run(script);
}
