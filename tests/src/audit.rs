//! An account of what a relay has answered for one queue, kept while the relay is killed, stopped
//! and made to fail: what was answered must be so, what was not answered may be so or not, and
//! nothing else may be there. It decides nothing about when all that happens.

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;

use crate::client::{Client, Response, ack_body, message_of, push_body};

/// How many items one ack names.
const ACK_ITEMS: usize = 5;

/// What one client knows of its queue. It has one request under way at a time, so that the order of
/// its pushes is known.
#[derive(Debug)]
pub struct Account {
    recipient: String,
    /// How many items stay in the queue.
    kept_items: usize,
    next_message: u128,
    /// All that may be in the queue.
    items: BTreeMap<u128, Fate>,
    /// What was refused, to be asked again before anything else.
    again: Option<Asked>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A push was answered 200.
    Pushed,
    /// An ack was answered 200.
    Acked,
    /// The relay could not, and said so with this status.
    Refused(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A push was sent and not answered.
    MayBeThere,
    /// A push was answered.
    There,
    /// An ack was sent and not answered.
    MayBeGone,
}

#[derive(Clone, Debug)]
enum Asked {
    Push(u128),
    Ack(Vec<u128>),
}

impl Account {
    /// The account of a queue that is empty, and is to hold about so many items.
    pub fn new(recipient: impl Into<String>, kept_items: usize) -> Self {
        let items = BTreeMap::new();
        Self { recipient: recipient.into(), kept_items, next_message: 0, items, again: None }
    }

    /// Pushes an item, or acks the oldest ones when there are enough, or asks again what was
    /// refused.
    ///
    /// # Errors
    /// When the connection breaks, which leaves open what became of the request; of the kind
    /// `InvalidData` when the answer is wrong.
    pub fn step(&mut self, client: &mut Client) -> io::Result<Step> {
        let (asked, is_again) = match self.again.take() {
            Some(asked) => (asked, true),
            None => (self.next(), false),
        };
        let (body, path) = match &asked {
            Asked::Push(message) => (push_body(&self.recipient, *message, &payload(*message)), "/push"),
            Asked::Ack(messages) => (ack_body(&self.recipient, messages), "/ack"),
        };
        let answer = client.post(path, &body)?;
        match answer.status {
            200 => self.note(asked, is_again, &answer),
            503 | 507 => {
                self.again = Some(asked);
                Ok(Step::Refused(answer.status))
            }
            _ => Err(self.wrong(&format!("{path} was answered {}", answer.status))),
        }
    }

    fn next(&mut self) -> Asked {
        let there = self.items.iter().filter(|(_, fate)| **fate == Fate::There).map(|(message, _)| *message);
        let oldest: Vec<u128> = there.collect();
        if oldest.len() >= self.kept_items + ACK_ITEMS {
            let acked: Vec<u128> = oldest.into_iter().take(ACK_ITEMS).collect();
            self.items.extend(acked.iter().map(|message| (*message, Fate::MayBeGone)));
            return Asked::Ack(acked);
        }
        let message = self.next_message;
        self.next_message += 1;
        self.items.insert(message, Fate::MayBeThere);
        Asked::Push(message)
    }

    fn note(&mut self, asked: Asked, is_again: bool, answer: &Response) -> io::Result<Step> {
        let json = answer.json();
        match asked {
            Asked::Push(message) => {
                // One that was refused may have been stored all the same.
                if json.get("stored") != Some(&Value::Bool(true)) && !is_again {
                    return Err(self.wrong(&format!("a new item was answered {json}")));
                }
                self.items.insert(message, Fate::There);
                Ok(Step::Pushed)
            }
            Asked::Ack(messages) => {
                let [deleted, missing] = ["deleted", "missing"]
                    .map(|key| json.get(key).and_then(Value::as_u64).unwrap_or_default());
                let acked = messages.len() as u64;
                if deleted + missing != acked || (deleted != acked && !is_again) {
                    return Err(self.wrong(&format!("an ack of {acked} items was answered {json}")));
                }
                self.items.retain(|message, _| !messages.contains(message));
                Ok(Step::Acked)
            }
        }
    }

    /// Compares the queue with what is known of it, takes what was not known from it, and tells
    /// what is wrong.
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
        for (message, fate) in &self.items {
            if *fate == Fate::There && !found.contains(message) {
                findings.push(format!("{}: answered push {message} is lost", self.recipient));
            }
        }
        self.items = found.into_iter().map(|message| (message, Fate::There)).collect();
        // Whatever was refused is settled now.
        self.again = None;
        Ok(findings)
    }

    /// The messages of the queue, each of which must be whole.
    fn read_queue(&self, client: &mut Client, findings: &mut Vec<String>) -> io::Result<Vec<u128>> {
        let items = client
            .pull_all(&self.recipient)?
            .map_err(|answer| self.wrong(&format!("/pull was answered {}", answer.status)))?;
        let mut found = Vec::new();
        for item in &items {
            let message = message_of(item)?;
            let expected = push_body(&self.recipient, message, &payload(message));
            if ["ciphertext_b64", "meta"].iter().any(|key| item.get(key) != expected.get(key)) {
                findings.push(format!("{}: item {message} is not what was pushed", self.recipient));
            }
            found.push(message);
        }
        Ok(found)
    }

    fn wrong(&self, what: &str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {what}", self.recipient))
    }
}

/// Up to 3,000 bytes that tell the message.
fn payload(message: u128) -> Vec<u8> {
    let length = usize::try_from(message * 37 % 3000).unwrap_or_default();
    message.to_string().into_bytes().into_iter().cycle().take(length).collect()
}

#[cfg(test)]
mod tests {
    use crate::Relay;

    use super::*;

    /// Works for a while on a relay of its own.
    fn worked() -> (Relay, Client, Account) {
        let relay = Relay::start();
        let mut client = relay.connect().unwrap();
        let mut account = Account::new("alice", 3);
        let steps: Vec<_> = (0..20).map(|_| account.step(&mut client).unwrap()).collect();
        assert!(steps.contains(&Step::Acked));
        assert_eq!(account.audit(&mut client).unwrap(), Vec::<String>::new());
        (relay, client, account)
    }

    #[test]
    fn what_is_lost_undone_invented_or_changed_is_found() {
        let (_relay, mut client, mut account) = worked();
        let newest = account.next_message - 1;
        client.post("/ack", &ack_body("alice", &[newest])).unwrap();
        for (message, payload) in [(1000, payload(1000)), (0, payload(0)), (999, b"changed".to_vec())] {
            client.post("/push", &push_body("bob", message, &payload)).unwrap();
        }
        let mut bob = Account::new("bob", 3);
        (bob.next_message, bob.items) = (1000, BTreeMap::from([(999, Fate::There)]));
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
    fn what_was_not_answered_may_be_so_or_not() {
        let (_relay, mut client, mut account) = worked();
        let message = account.next_message;
        account.items.insert(message, Fate::MayBeThere);
        account.items.insert(message + 1, Fate::MayBeThere);
        client.post("/push", &push_body("alice", message, &payload(message))).unwrap();
        assert_eq!(account.audit(&mut client).unwrap(), Vec::<String>::new());
        assert_eq!(account.items.get(&message), Some(&Fate::There));
        assert_eq!(account.items.get(&(message + 1)), None);
    }
}
