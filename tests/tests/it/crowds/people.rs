//! Simulates users of the real client behind one address. Each user has one connection, polls its
//! queue from the beginning every second, acks what it got, and sends its neighbour a message every
//! other second. A refused request is retried three times after 200 ms, whatever `retry-after`
//! says.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use relay_auth::{Locks, keygen};
use relay_tests::{Client, Response, ack_body, message_of, pull_body, push_body};
use serde_json::Value;

use super::TIMEOUT;
use crate::stopwatch::Stopwatch;

const POLL: Duration = Duration::from_secs(1);
const RETRIES: usize = 3;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// The threads of all users, which run until they are stopped.
pub(super) struct Crowd {
    threads: Vec<JoinHandle<CrowdStats>>,
    is_over: Arc<AtomicBool>,
}

/// What users experienced.
#[derive(Clone, Debug, Default)]
pub(super) struct CrowdStats {
    pub(super) pulls: u64,
    pub(super) pushes: u64,
    pub(super) items: u64,
    /// Pulls and pushes that failed after all retries.
    pub(super) lost_pulls: u64,
    pub(super) lost_pushes: u64,
    /// Acks that deleted fewer items than they named, which clients treat as an error.
    pub(super) wrong_acks: u64,
    /// Responses with status 429, 408 or 5xx.
    pub(super) refusals: u64,
    /// The longest time between two successful pulls.
    pub(super) longest_silence: Duration,
}

/// One simulated user.
struct User {
    base_url: String,
    connection: Option<Client>,
    recipient: String,
    neighbour: String,
    /// The proof for `recipient`, if it has a lock. A push carries it too, to count by it.
    authorization: Option<String>,
    /// How many pulls there are for each push.
    polls_per_push: u32,
    next_message: u128,
    stats: CrowdStats,
}

impl Crowd {
    /// Starts `users` simulated users of 0.0.3, spread over one second.
    pub(super) fn begin(base_url: &str, users: usize) -> Self {
        Self::begin_with(users, POLL, |number| User::new(base_url, number, users))
    }

    /// Starts users all at once whose recipients have a lock. They prove it with each request, and
    /// push, pull and ack every second.
    pub(super) fn begin_with_proofs(base_url: &str, users: usize) -> Self {
        Self::begin_with(users, Duration::ZERO, |number| User::with_proof(base_url, number, users))
    }

    fn begin_with(users: usize, spread: Duration, user: impl Fn(usize) -> User) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..users).map(|number| {
            let is_over = Arc::clone(&is_over);
            let user = user(number);
            let phase = spread.mul_f64(number as f64 / users as f64);
            thread::spawn(move || user.run(phase, &is_over))
        });
        Self { threads: threads.collect(), is_over }
    }

    /// Runs the crowd for a while and returns its statistics.
    pub(super) fn run_for(self, time: Duration) -> CrowdStats {
        thread::sleep(time);
        self.end()
    }

    /// Stops the users and returns the statistics of all.
    pub(super) fn end(self) -> CrowdStats {
        self.is_over.store(true, Ordering::Relaxed);
        let stats = self.threads.into_iter().map(|thread| thread.join().unwrap());
        stats.reduce(CrowdStats::merge).unwrap_or_default()
    }
}

impl CrowdStats {
    fn merge(self, other: Self) -> Self {
        Self {
            pulls: self.pulls + other.pulls,
            pushes: self.pushes + other.pushes,
            items: self.items + other.items,
            lost_pulls: self.lost_pulls + other.lost_pulls,
            lost_pushes: self.lost_pushes + other.lost_pushes,
            wrong_acks: self.wrong_acks + other.wrong_acks,
            refusals: self.refusals + other.refusals,
            longest_silence: self.longest_silence.max(other.longest_silence),
        }
    }
}

impl User {
    fn new(base_url: &str, number: usize, users: usize) -> Self {
        let recipient = |number: usize| format!("{:064x}", number % users);
        Self {
            base_url: base_url.to_owned(),
            connection: None,
            recipient: recipient(number),
            neighbour: recipient(number + 1),
            authorization: None,
            polls_per_push: 2,
            next_message: (number as u128) << 64,
            stats: CrowdStats::default(),
        }
    }

    fn with_proof(base_url: &str, number: usize, users: usize) -> Self {
        let lock = |number: usize| {
            let mut secret = [0; 32];
            secret[..8].copy_from_slice(&((number % users) as u64).to_le_bytes());
            keygen::secret_lock(&secret)
        };
        let name = |number| Locks { read: lock(number).0, send: None }.to_string();
        Self {
            recipient: name(number),
            neighbour: name(number + 1),
            authorization: Some(format!("Bearer {}", lock(number).1)),
            polls_per_push: 1,
            ..Self::new(base_url, number, users)
        }
    }

    fn run(mut self, phase: Duration, is_over: &AtomicBool) -> CrowdStats {
        thread::sleep(phase);
        let watch = Stopwatch::start();
        let mut last_pull = Duration::ZERO;
        for poll in 1.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            if self.pull() {
                let now = watch.elapsed();
                self.stats.longest_silence = self.stats.longest_silence.max(now - last_pull);
                last_pull = now;
            }
            if poll % self.polls_per_push == 0 {
                self.push();
            }
            thread::sleep((POLL * poll).saturating_sub(watch.elapsed()));
        }
        self.stats.longest_silence = self.stats.longest_silence.max(watch.elapsed() - last_pull);
        self.stats
    }

    /// Pulls the queue and acks its items. Returns whether the pull succeeded.
    fn pull(&mut self) -> bool {
        let Some(page) = self.post_with_retries("/pull", &pull_body(&self.recipient, None, None)) else {
            self.stats.lost_pulls += 1;
            return false;
        };
        self.stats.pulls += 1;
        let items = page.json()["items"].as_array().unwrap().clone();
        let messages: Vec<u128> = items.iter().map(|item| message_of(item).unwrap()).collect();
        self.stats.items += messages.len() as u64;
        if !messages.is_empty()
            && let Some(acked) = self.post_with_retries("/ack", &ack_body(&self.recipient, &messages))
        {
            self.stats.wrong_acks += u64::from(acked.json()["deleted"] != messages.len());
        }
        true
    }

    fn push(&mut self) {
        self.next_message += 1;
        let body = push_body(&self.neighbour, self.next_message, &[7; 300]);
        match self.post_with_retries("/push", &body) {
            Some(_) => self.stats.pushes += 1,
            None => self.stats.lost_pushes += 1,
        }
    }

    /// The response with status 200, or `None` after all retries.
    fn post_with_retries(&mut self, path: &str, body: &Value) -> Option<Response> {
        for attempt in 0..=RETRIES {
            if attempt > 0 {
                thread::sleep(RETRY_AFTER);
            }
            match self.post_once(path, body) {
                Ok(response) if response.status == 200 => return Some(response),
                Ok(response) if matches!(response.status, 408 | 429 | 500..) => {
                    self.stats.refusals += 1;
                    if response.header("connection") == Some("close") {
                        self.connection = None;
                    }
                }
                Ok(response) => panic!("{} to {path}: {}", response.status, response.json()),
                // The request timed out, or the connection broke.
                Err(_) => self.connection = None,
            }
        }
        None
    }

    fn post_once(&mut self, path: &str, body: &Value) -> std::io::Result<Response> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Client::connect_for(&self.base_url, TIMEOUT)?,
        };
        let mut headers = vec![("content-type", "application/json")];
        headers.extend(self.authorization.as_deref().map(|value| ("authorization", value)));
        self.connection.insert(connection).post_bytes(path, &headers, body.to_string().as_bytes())
    }
}
