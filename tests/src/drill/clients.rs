//! Clients that push and ack while an operator works, and remember what was answered.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use anyhow::bail;

use crate::audit::{Account, Step};
use crate::client::Client;

/// Where the packaged relay listens.
pub(super) const BASE_URL: &str = "http://127.0.0.1:7000";

/// The number of clients, how many items each leaves in its queue, and how long it waits between
/// two requests.
const CLIENTS: usize = 8;
const KEPT_ITEMS: usize = 100;
const PAUSE: Duration = Duration::from_millis(5);

/// Some clients, each with a queue of its own.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    accounts: Vec<Account>,
    /// Requests that were answered 200, and those that were refused.
    pub(super) answered: u64,
    pub(super) refused: u64,
}

impl Clients {
    pub(super) fn new(name: &str) -> Self {
        let accounts =
            (0..CLIENTS).map(|number| Account::new(format!("{name} {number}"), KEPT_ITEMS)).collect();
        Self { accounts, answered: 0, refused: 0 }
    }

    /// All of them push and ack while `work` is done. They connect again when the relay goes away.
    ///
    /// # Errors
    /// That of `work`, or a response that is wrong.
    pub(super) fn during<T>(&mut self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        let is_over = AtomicBool::new(false);
        let outcome = scope(|scope| {
            let start = |account| scope.spawn(|| use_relay(account, &is_over));
            let clients: Vec<_> = self.accounts.iter_mut().map(start).collect();
            let done = work();
            is_over.store(true, Ordering::Relaxed);
            for client in clients {
                let Ok(counts) = client.join() else { bail!("a client panicked") };
                let (answered, refused) = counts?;
                self.answered += answered;
                self.refused += refused;
            }
            done
        })?;
        Ok(outcome)
    }

    /// Fails unless every queue holds what was answered, in order, and nothing else.
    pub(super) fn audit(&mut self) -> anyhow::Result<String> {
        let mut client = Client::connect(BASE_URL)?;
        let mut findings = Vec::new();
        for account in &mut self.accounts {
            findings.extend(account.audit(&mut client)?);
        }
        if !findings.is_empty() {
            bail!("the audit found:\n{}", findings.join("\n"));
        }
        Ok(format!(
            "audit of {CLIENTS} queues: every answered push and ack has taken effect, and nothing else is there"
        ))
    }
}

fn use_relay(account: &mut Account, is_over: &AtomicBool) -> anyhow::Result<(u64, u64)> {
    let (mut answered, mut refused, mut connection) = (0, 0, None);
    while !is_over.load(Ordering::Relaxed) {
        sleep(PAUSE);
        let client = match &mut connection {
            Some(client) => client,
            None => match Client::connect(BASE_URL) {
                Ok(client) => connection.insert(client),
                Err(_) => continue,
            },
        };
        match account.step(client) {
            Ok(Step::Refused(_)) => refused += 1,
            Ok(_) => answered += 1,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.into()),
            Err(_) => connection = None,
        }
    }
    Ok((answered, refused))
}
