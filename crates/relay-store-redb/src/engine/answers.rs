//! The answers of a batch. The writer sends them after it has synced the batch, and wakes those who
//! wait for what has arrived.

use relay_core::{AckOutcome, Recipient, Waiters};

use crate::engine::backlog::Permit;
use crate::engine::command::{Answer, Pushed, PushedList, TaskResponder, respond};
use crate::engine::reply::{Responder, WakeBatch};
use crate::error::StoreError;

/// Sends the answer of an infrequent request, or the error that made its batch fail.
type SendAnswer = Box<dyn FnOnce(Option<&StoreError>)>;

#[derive(Default)]
pub(super) struct Answers {
    pub(super) pushes: Vec<(Responder<Answer<Pushed>>, Pushed, Permit)>,
    pub(super) push_lists: Vec<(Responder<Answer<PushedList>>, PushedList, Permit)>,
    pub(super) acks: Vec<(Responder<Answer<AckOutcome>>, AckOutcome, Permit)>,
    /// The recipients of the stored items.
    pub(super) arrivals: Vec<Recipient>,
    /// How many expired items requests have removed before they were decided.
    pub(super) settled: u64,
    tasks: Vec<SendAnswer>,
}

impl Answers {
    /// Adds the outcome of an infrequent request. Sends an error at once.
    pub(super) fn add_task<T: 'static>(&mut self, responder: TaskResponder<T>, outcome: Answer<T>) {
        match outcome {
            Ok(outcome) => self.tasks.push(Box::new(|error| respond(responder, unless(error, outcome)))),
            Err(error) => respond(responder, Err(error)),
        }
    }

    /// Sends the outcomes of a batch that readers see by now, or the `error` that made it fail.
    pub(super) fn send(self, error: Option<&StoreError>, waiters: &Waiters) {
        let mut wake_batch = WakeBatch::default();
        for (responder, pushed, _permit) in self.pushes {
            wake_batch.add(responder.answer(unless(error, pushed)));
        }
        for (responder, pushed, _permit) in self.push_lists {
            wake_batch.add(responder.answer(unless(error, pushed)));
        }
        for (responder, outcome, _permit) in self.acks {
            wake_batch.add(responder.answer(unless(error, outcome)));
        }
        wake_batch.wake();
        if error.is_none() && !waiters.is_idle() {
            for recipient in &self.arrivals {
                waiters.wake(recipient);
            }
        }
        self.tasks.into_iter().for_each(|send| send(error));
    }
}

fn unless<T>(error: Option<&StoreError>, outcome: T) -> Answer<T> {
    error.map_or(Ok(outcome), |error| Err(error.clone()))
}
