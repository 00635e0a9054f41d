//! People with the real client behind one address, as far as the relay can tell: each has one
//! connection, polls once a second from the beginning of its queue, acks what it got, and sends its
//! neighbour a message every other second. What is refused is tried again three times after 200 ms,
//! whatever the relay says of when to come back. It floods nobody and judges nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use relay_tests::{Client, Response, ack_body, message_of, pull_body, push_body};
use serde_json::Value;

use super::PATIENCE;
use crate::stopwatch::Stopwatch;

const POLL: Duration = Duration::from_secs(1);
const POLLS_PER_PUSH: u32 = 2;
const RETRIES: usize = 3;
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// Threads that live until they are told to end.
pub(super) struct Crowd {
    threads: Vec<JoinHandle<Lives>>,
    is_over: Arc<AtomicBool>,
}

/// What became of what people wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct Lives {
    pub(super) pulls: u64,
    pub(super) pushes: u64,
    pub(super) items: u64,
    /// Pulls and pushes that were given up after all their tries.
    pub(super) lost_pulls: u64,
    pub(super) lost_pushes: u64,
    /// Acks that deleted less than they named, which clients take for an error.
    pub(super) wrong_acks: u64,
    /// Answers 429, 408 and 5xx.
    pub(super) refusals: u64,
    /// The longest time from one pull that came through to the next.
    pub(super) longest_silence: Duration,
}

/// One of them.
struct Person {
    base_url: String,
    connection: Option<Client>,
    name: String,
    neighbour: String,
    next_message: u128,
    lives: Lives,
}

impl Crowd {
    /// So many people begin to live, at different moments of a second.
    pub(super) fn begin(base_url: &str, people: usize) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let threads = (0..people).map(|number| {
            let is_over = Arc::clone(&is_over);
            let person = Person::new(base_url, number, people);
            let phase = POLL.mul_f64(number as f64 / people as f64);
            thread::spawn(move || person.live(phase, &is_over))
        });
        Self { threads: threads.collect(), is_over }
    }

    /// Lets them live for a while, and tells how it went.
    pub(super) fn live_for(self, time: Duration) -> Lives {
        thread::sleep(time);
        self.end()
    }

    /// Ends them, and tells how it went.
    pub(super) fn end(self) -> Lives {
        self.is_over.store(true, Ordering::Relaxed);
        let lives = self.threads.into_iter().map(|thread| thread.join().unwrap());
        lives.reduce(Lives::and).unwrap_or_default()
    }
}

impl Lives {
    fn and(self, other: Self) -> Self {
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

impl Person {
    fn new(base_url: &str, number: usize, people: usize) -> Self {
        let name = |number: usize| format!("{:064x}", number % people);
        Self {
            base_url: base_url.to_owned(),
            connection: None,
            name: name(number),
            neighbour: name(number + 1),
            next_message: (number as u128) << 64,
            lives: Lives::default(),
        }
    }

    fn live(mut self, phase: Duration, is_over: &AtomicBool) -> Lives {
        thread::sleep(phase);
        let watch = Stopwatch::start();
        let mut heard = Duration::ZERO;
        for poll in 1.. {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            if self.pull() {
                let now = watch.elapsed();
                self.lives.longest_silence = self.lives.longest_silence.max(now - heard);
                heard = now;
            }
            if poll % POLLS_PER_PUSH == 0 {
                self.push();
            }
            thread::sleep((POLL * poll).saturating_sub(watch.elapsed()));
        }
        self.lives.longest_silence = self.lives.longest_silence.max(watch.elapsed() - heard);
        self.lives
    }

    /// Fetches what there is and acks it. Tells whether the relay could be asked.
    fn pull(&mut self) -> bool {
        let Some(page) = self.ask("/pull", &pull_body(&self.name, None, None)) else {
            self.lives.lost_pulls += 1;
            return false;
        };
        self.lives.pulls += 1;
        let items = page.json()["items"].as_array().unwrap().clone();
        let messages: Vec<u128> = items.iter().map(|item| message_of(item).unwrap()).collect();
        self.lives.items += messages.len() as u64;
        if !messages.is_empty()
            && let Some(acked) = self.ask("/ack", &ack_body(&self.name, &messages))
        {
            self.lives.wrong_acks += u64::from(acked.json()["deleted"] != messages.len());
        }
        true
    }

    fn push(&mut self) {
        self.next_message += 1;
        let body = push_body(&self.neighbour, self.next_message, &[7; 300]);
        match self.ask("/push", &body) {
            Some(_) => self.lives.pushes += 1,
            None => self.lives.lost_pushes += 1,
        }
    }

    /// The answer 200, or nothing when all tries are over.
    fn ask(&mut self, path: &str, body: &Value) -> Option<Response> {
        for attempt in 0..=RETRIES {
            if attempt > 0 {
                thread::sleep(RETRY_AFTER);
            }
            match self.try_once(path, body) {
                Ok(answer) if answer.status == 200 => return Some(answer),
                Ok(answer) if matches!(answer.status, 408 | 429 | 500..) => {
                    self.lives.refusals += 1;
                    if answer.header("connection") == Some("close") {
                        self.connection = None;
                    }
                }
                Ok(answer) => panic!("{} to {path}: {}", answer.status, answer.json()),
                // It took too long, or the connection is gone.
                Err(_) => self.connection = None,
            }
        }
        None
    }

    fn try_once(&mut self, path: &str, body: &Value) -> std::io::Result<Response> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Client::connect_for(&self.base_url, PATIENCE)?,
        };
        self.connection.insert(connection).post(path, body)
    }
}
