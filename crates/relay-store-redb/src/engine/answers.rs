//! The answers of a batch. The writer sends them after it has synced the batch.

use relay_core::AckOutcome;

use crate::engine::backlog::Permit;
use crate::engine::command::{Answer, Pushed, TaskResponder, respond};
use crate::engine::reply::{Responder, WakeBatch};
use crate::error::StoreError;

/// Sends the answer of an infrequent request, or the error that made its batch fail.
type SendAnswer = Box<dyn FnOnce(Option<&StoreError>)>;

#[derive(Default)]
pub(super) struct Answers {
    pub(super) pushes: Vec<(Responder<Answer<Pushed>>, Pushed, Permit)>,
    pub(super) acks: Vec<(Responder<Answer<AckOutcome>>, AckOutcome, Permit)>,
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

    /// Sends the outcomes, or the `error` that made the batch fail.
    pub(super) fn send(self, error: Option<&StoreError>) {
        let mut wake_batch = WakeBatch::default();
        for (responder, pushed, _permit) in self.pushes {
            wake_batch.add(responder.answer(unless(error, pushed)));
        }
        for (responder, outcome, _permit) in self.acks {
            wake_batch.add(responder.answer(unless(error, outcome)));
        }
        wake_batch.wake();
        self.tasks.into_iter().for_each(|send| send(error));
    }
}

fn unless<T>(error: Option<&StoreError>, outcome: T) -> Answer<T> {
    error.map_or(Ok(outcome), |error| Err(error.clone()))
}
