//! Records what a relay has answered for one queue, while the relay is killed, stopped and made to
//! fail, and audits the queue against it: answered requests have taken effect, unanswered ones may
//! have, and nothing else is in the queue. It does not decide when faults happen.

use std::collections::BTreeMap;
use std::io;

use serde_json::{Value, json};

use crate::client::{Client, Response, ack_body, message_of, push_body};

/// Items per ack.
const ACK_ITEMS: usize = 5;

/// One in this many pushes is a batch, of this many items.
const BATCH_EVERY: u128 = 4;
const BATCH_ITEMS: u128 = 6;

/// What one client knows of its queue. It sends one request at a time, so the order of its pushes
/// is known.
#[derive(Clone, Debug)]
pub struct Account {
    recipient: String,
    /// About how many items stay in the queue.
    kept_items: usize,
    next_message: u128,
    /// Every item that may be in the queue.
    items: BTreeMap<u128, ItemState>,
    /// A request that the relay refused. It is sent again before any other.
    retry: Option<PendingRequest>,
}

/// The outcome of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A push, or a batch of pushes, was answered 200.
    Pushed,
    /// An ack was answered 200.
    Acked,
    /// The relay refused the request, or items of a batch, with this status.
    Refused(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ItemState {
    /// The push has no response yet.
    PushUnanswered,
    /// The push was answered.
    Stored,
    /// The ack has no response yet.
    AckUnanswered,
}

#[derive(Clone, Debug)]
enum PendingRequest {
    Push(u128),
    Batch(Vec<u128>),
    Ack(Vec<u128>),
}

impl Account {
    /// The account of an empty queue that is to hold about `kept_items` items.
    pub fn new(recipient: impl Into<String>, kept_items: usize) -> Self {
        let items = BTreeMap::new();
        Self { recipient: recipient.into(), kept_items, next_message: 0, items, retry: None }
    }

    /// Sends one request: the refused one again, an ack of the oldest items if there are enough, or
    /// else a push or a batch of pushes.
    ///
    /// # Errors
    /// When the connection breaks, so the outcome is unknown; with kind `InvalidData` when the
    /// response is wrong.
    pub fn step(&mut self, client: &mut Client) -> io::Result<Step> {
        let (request, is_again) = match self.retry.take() {
            Some(request) => (request, true),
            None => (self.next_request(), false),
        };
        let (body, path) = match &request {
            PendingRequest::Push(message) => (self.push_body(*message), "/push"),
            PendingRequest::Batch(messages) => {
                let items: Vec<Value> = messages.iter().map(|message| self.push_body(*message)).collect();
                (json!({"items": items}), "/push/batch")
            }
            PendingRequest::Ack(messages) => (ack_body(&self.recipient, messages), "/ack"),
        };
        let response = client.post(path, &body)?;
        match response.status {
            200 => self.record(request, is_again, &response),
            503 | 507 => {
                self.retry = Some(request);
                Ok(Step::Refused(response.status))
            }
            _ => Err(self.error(&format!("{path} was answered {}", response.status))),
        }
    }

    fn next_request(&mut self) -> PendingRequest {
        let stored =
            self.items.iter().filter(|(_, state)| **state == ItemState::Stored).map(|(message, _)| *message);
        let oldest: Vec<u128> = stored.collect();
        if oldest.len() >= self.kept_items + ACK_ITEMS {
            let acked: Vec<u128> = oldest.into_iter().take(ACK_ITEMS).collect();
            self.items.extend(acked.iter().map(|message| (*message, ItemState::AckUnanswered)));
            return PendingRequest::Ack(acked);
        }
        let first = self.next_message;
        let is_batch = first % (BATCH_EVERY - 1 + BATCH_ITEMS) == BATCH_EVERY - 1;
        self.next_message += if is_batch { BATCH_ITEMS } else { 1 };
        let messages = first..self.next_message;
        self.items.extend(messages.clone().map(|message| (message, ItemState::PushUnanswered)));
        if is_batch { PendingRequest::Batch(messages.collect()) } else { PendingRequest::Push(first) }
    }

    fn record(&mut self, request: PendingRequest, is_again: bool, response: &Response) -> io::Result<Step> {
        let json = response.json();
        match request {
            PendingRequest::Push(message) => {
                self.record_push(message, is_again, &json)?;
                Ok(Step::Pushed)
            }
            PendingRequest::Batch(messages) => self.record_batch(&messages, is_again, &json),
            PendingRequest::Ack(messages) => {
                let [deleted, missing] = ["deleted", "missing"]
                    .map(|key| json.get(key).and_then(Value::as_u64).unwrap_or_default());
                let acked = messages.len() as u64;
                if deleted + missing != acked || (deleted != acked && !is_again) {
                    return Err(self.error(&format!("an ack of {acked} items was answered {json}")));
                }
                self.items.retain(|message, _| !messages.contains(message));
                Ok(Step::Acked)
            }
        }
    }

    fn record_push(&mut self, message: u128, is_again: bool, response: &Value) -> io::Result<()> {
        // A refused push may have been stored anyway.
        let (is_stored, is_duplicate) = (is_true(response, "stored"), is_true(response, "duplicate"));
        if !(is_stored || (is_duplicate && is_again)) {
            return Err(self.error(&format!("a new item was answered {response}")));
        }
        self.items.insert(message, ItemState::Stored);
        Ok(())
    }

    /// Items that the relay refused stay without a response: to send them again would put them
    /// behind those that it stored.
    fn record_batch(&mut self, messages: &[u128], is_again: bool, response: &Value) -> io::Result<Step> {
        let results = response.get("results").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if results.len() != messages.len() {
            return Err(self.error(&format!("a batch of {} items was answered {response}", messages.len())));
        }
        let mut step = Step::Pushed;
        for (message, result) in messages.iter().zip(results) {
            match result.pointer("/error/code").and_then(Value::as_str) {
                Some("storage_error" | "not_ready") => step = Step::Refused(503),
                Some("storage_full") => step = Step::Refused(507),
                _ => self.record_push(*message, is_again, result)?,
            }
        }
        Ok(step)
    }

    /// Compares the queue with the account and returns what is wrong. The account then takes over
    /// the contents of the queue.
    ///
    /// # Errors
    /// When the queue cannot be read.
    pub fn audit(&mut self, client: &mut Client) -> io::Result<Vec<String>> {
        let mut findings = Vec::new();
        let found = self.read_queue(client, &mut findings)?;
        if !found.is_sorted() {
            findings.push(format!("{}: out of order", self.recipient));
        }
        for message in found.iter().filter(|message| !self.items.contains_key(message)) {
            let was_pushed = *message < self.next_message;
            let what = if was_pushed { "was acked and is back" } else { "was never pushed" };
            findings.push(format!("{}: item {message} {what}", self.recipient));
        }
        for (message, state) in &self.items {
            if *state == ItemState::Stored && !found.contains(message) {
                findings.push(format!("{}: answered push {message} is lost", self.recipient));
            }
        }
        self.items = found.into_iter().map(|message| (message, ItemState::Stored)).collect();
        // The audit has settled the outcome of the refused request.
        self.retry = None;
        Ok(findings)
    }

    /// Reads the message numbers of the queue. Adds a finding for each item that differs from what
    /// was pushed.
    fn read_queue(&self, client: &mut Client, findings: &mut Vec<String>) -> io::Result<Vec<u128>> {
        let items = client
            .pull_all(&self.recipient)?
            .map_err(|response| self.error(&format!("/pull was answered {}", response.status)))?;
        let mut found = Vec::new();
        for item in &items {
            let message = message_of(item)?;
            let expected = self.push_body(message);
            if ["ciphertext_b64", "meta"].iter().any(|key| item.get(key) != expected.get(key)) {
                findings.push(format!("{}: item {message} is not what was pushed", self.recipient));
            }
            found.push(message);
        }
        Ok(found)
    }

    fn push_body(&self, message: u128) -> Value {
        push_body(&self.recipient, message, &payload(message))
    }

    fn error(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.recipient))
    }
}

fn is_true(response: &Value, key: &str) -> bool {
    response.get(key) == Some(&Value::Bool(true))
}

/// Up to 3,000 bytes that depend on the message number.
fn payload(message: u128) -> Vec<u8> {
    let length = usize::try_from(message * 37 % 3000).unwrap_or_default();
    message.to_string().into_bytes().into_iter().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use crate::Relay;

    use super::*;

    /// Runs 20 steps on a relay of its own.
    fn account_after_work() -> (Relay, Client, Account) {
        let relay = Relay::start();
        let mut client = relay.connect().unwrap();
        let mut account = Account::new("alice", 3);
        let steps: Vec<_> = (0..20).map(|_| account.step(&mut client).unwrap()).collect();
        assert!(steps.contains(&Step::Acked));
        assert_eq!(account.audit(&mut client).unwrap(), Vec::<String>::new());
        (relay, client, account)
    }

    #[test]
    fn an_audit_finds_lost_reappeared_invented_and_changed_items() {
        let (_relay, mut client, mut account) = account_after_work();
        let newest = account.next_message - 1;
        client.post("/ack", &ack_body("alice", &[newest])).unwrap();
        for (message, payload) in [(1000, payload(1000)), (0, payload(0)), (999, b"changed".to_vec())] {
            client.post("/push", &push_body("bob", message, &payload)).unwrap();
        }
        let mut bob = Account::new("bob", 3);
        (bob.next_message, bob.items) = (1000, BTreeMap::from([(999, ItemState::Stored)]));
        let findings = [account.audit(&mut client).unwrap(), bob.audit(&mut client).unwrap()].concat();
        assert_eq!(
            findings,
            [
                format!("alice: answered push {newest} is lost"),
                "bob: item 999 is not what was pushed".to_owned(),
                "bob: out of order".to_owned(),
                "bob: item 1000 was never pushed".to_owned(),
                "bob: item 0 was acked and is back".to_owned(),
            ]
        );
    }

    #[test]
    fn an_unanswered_request_may_have_taken_effect_or_not() {
        let (_relay, mut client, mut account) = account_after_work();
        let message = account.next_message;
        account.items.insert(message, ItemState::PushUnanswered);
        account.items.insert(message + 1, ItemState::PushUnanswered);
        client.post("/push", &push_body("alice", message, &payload(message))).unwrap();
        assert_eq!(account.audit(&mut client).unwrap(), Vec::<String>::new());
        assert_eq!(account.items.get(&message), Some(&ItemState::Stored));
        assert_eq!(account.items.get(&(message + 1)), None);
    }
}
