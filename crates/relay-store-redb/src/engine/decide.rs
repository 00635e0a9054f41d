//! Decides the jobs of a batch, one after the other. A job that fails is rolled back and answered
//! at once; it does not affect the others.

use std::collections::{HashSet, VecDeque};

use relay_core::queue::{self, Admission};
use relay_core::{
    Ack, AckOutcome, Envelope, ImportItem, Imported, Limits, PushOutcome, Recipient, Seq, Timestamp, import,
};

use crate::engine::answers::Answers;
use crate::engine::backlog::Permit;
use crate::engine::batch::Batch;
use crate::engine::command::{Answer, Front, Job, Prepared, Push, PushAll, PushItem, Pushed, SETTLE_ITEMS};
use crate::engine::reply::Responder;
use crate::error::{StoreError, caught};
use crate::index::snapshot::IndexSnapshot;

/// The maximum number of items of an ack per batch. A larger ack takes several batches, so that
/// other requests do not wait for all of it: each item takes 3 microseconds.
pub(super) const ACK_STEP_ITEMS: usize = 1024;

/// An ack that takes several batches, or waits for an earlier one.
pub(super) struct LargeAck {
    recipient: Recipient,
    through: Option<Seq>,
    remaining: Box<dyn ExactSizeIterator<Item = Ack> + Send>,
    /// The outcome of the parts so far.
    outcome: AckOutcome,
    pub(super) responder: Responder<Answer<AckOutcome>>,
    permit: Permit,
}

impl LargeAck {
    pub(super) fn new(ack: Ack, responder: Responder<Answer<AckOutcome>>, permit: Permit) -> Self {
        let (recipient, through) = (ack.recipient().clone(), ack.through());
        let remaining = Box::new(ack.into_parts(ACK_STEP_ITEMS));
        Self { recipient, through, remaining, outcome: AckOutcome::default(), responder, permit }
    }
}

/// What a batch may still do about expired items in the middle of queues, so that requests have few
/// of them to count.
pub(super) struct Settling {
    /// How many items it may still remove.
    pub(super) items_max: usize,
    /// The queues whose requests wait for the next batches, so that later requests wait, too.
    pub(super) waiting: HashSet<Recipient>,
}

/// Whether a request can be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    Ready,
    /// It must wait, and this batch has done something for it.
    Advanced,
    /// It must wait, and this batch has done nothing for it.
    Behind,
}

/// Decides over a batch, and collects the answers.
pub(super) struct Decider<'s> {
    pub(super) batch: Batch<'s>,
    pub(super) limits: &'s Limits,
    pub(super) now: Timestamp,
    /// Whether the disk has too little space for new items.
    pub(super) is_full: bool,
    pub(super) answers: Answers,
    /// Acks that wait for an earlier one of the same queue.
    pub(super) waiting_acks: Vec<LargeAck>,
}

impl Decider<'_> {
    pub(super) fn decide(&mut self, job: Job) {
        match job {
            Job::Push(push) => self.push(push),
            Job::PushAll(all) => self.push_all(all),
            Job::Ack(ack, responder, permit) => match self.floor_before(ack.recipient(), ack.through()) {
                Some(queue) => {
                    self.batch.floors.push(queue);
                    // What arrives while it waits was not there when it was sent.
                    let ack = ack.through_at_most(self.batch.last_seq());
                    self.waiting_acks.push(LargeAck::new(ack, responder, permit));
                }
                None => match self.ack(&ack) {
                    Ok(outcome) => self.answers.acks.push((responder, outcome, permit)),
                    Err(error) => responder.fail(&error),
                },
            },
            Job::Move(frames, responder) => {
                let moved =
                    self.batch.attempt(|batch| frames.iter().try_for_each(|frame| batch.move_item(frame)));
                self.answers.add_task(responder, moved);
            }
            Job::Import(items, responder) => {
                let imported = self.import(items);
                self.answers.add_task(responder, imported);
            }
            Job::Settle(queue, responder) => {
                let settled = self.batch.attempt(|batch| batch.settle(queue, SETTLE_ITEMS));
                self.answers.add_task(responder, settled);
            }
            Job::Trim(fronts, index_snapshot, responder) => {
                let trimmed = self.trim(&fronts, &index_snapshot);
                self.answers.add_task(responder, trimmed);
            }
            Job::Maintain(_) => {}
        }
    }

    /// The queue of an ack of all items up to one, if the ack must wait because an earlier one of
    /// the same queue is not finished.
    fn floor_before(&self, recipient: &Recipient, through: Option<Seq>) -> Option<u64> {
        through?;
        caught(|| self.batch.floored_queue(recipient)).ok()?
    }

    /// Removes some items that the floor of one of the queues hides, at most `items_max`. Then
    /// `floors` are those that are left.
    ///
    /// # Errors
    /// If that failed. The acks that wait for it have failed as well.
    pub(super) fn remove_floored(
        &mut self,
        floors: &mut VecDeque<u64>,
        items_max: usize,
        acks: &mut VecDeque<LargeAck>,
    ) -> Result<(), StoreError> {
        let Some(queue) = floors.pop_front() else { return Ok(()) };
        let error = match self.batch.attempt(|batch| batch.remove_floored(queue, items_max)) {
            Ok(is_left) => {
                floors.extend(is_left.then_some(queue));
                return Ok(());
            }
            Err(error) => error,
        };
        if !error.is_corruption() {
            floors.push_back(queue);
        }
        let (waiting, others) =
            acks.drain(..).partition(|ack| self.floor_before(&ack.recipient, ack.through) == Some(queue));
        *acks = others;
        let waiting: VecDeque<LargeAck> = waiting;
        waiting.into_iter().for_each(|ack| ack.responder.fail(&error));
        // Corruption would fail again. The next sweep or ack tries it once more.
        if error.is_corruption() { Ok(()) } else { Err(error) }
    }

    /// Decides the next part of the first large ack that need not wait. Returns whether there was
    /// one.
    pub(super) fn decide_ack_part(&mut self, acks: &mut VecDeque<LargeAck>, settling: &mut Settling) -> bool {
        let next = acks.iter().position(|ack| match self.floor_before(&ack.recipient, ack.through) {
            Some(queue) => {
                self.batch.floors.push(queue);
                false
            }
            // If that fails, the ack fails by itself.
            None => !matches!(
                self.settle([&ack.recipient].into_iter(), settling),
                Ok(Readiness::Behind | Readiness::Advanced)
            ),
        });
        let Some(mut ack) = next.and_then(|next| acks.remove(next)) else { return false };
        let Some(part) = ack.remaining.next() else { return false };
        match self.ack(&part) {
            Err(error) => ack.responder.fail(&error),
            Ok(outcome) => {
                ack.outcome = ack.outcome.then(outcome);
                if ack.remaining.len() > 0 {
                    acks.push_front(ack);
                } else {
                    self.answers.acks.push((ack.responder, ack.outcome, ack.permit));
                }
            }
        }
        true
    }

    fn push(&mut self, push: Push) {
        let Push { envelope, responder, permit, prepared } = push;
        match self.push_item(envelope, prepared) {
            Ok(pushed) => self.answers.pushes.push((responder, pushed, permit)),
            Err(error) => responder.fail(&error),
        }
    }

    fn push_all(&mut self, all: PushAll) {
        let PushAll { items, responder, permit } = all;
        let push = |PushItem { envelope, prepared }| self.push_item(envelope, prepared?);
        let pushed = items.into_iter().map(push).collect();
        self.answers.push_lists.push((responder, pushed, permit));
    }

    fn push_item(&mut self, envelope: Envelope, prepared: Prepared) -> Answer<Pushed> {
        if self.is_full && self.would_store(&envelope) {
            return Err(StoreError::Full);
        }
        let (limits, now, recipient) = (self.limits, self.now, envelope.recipient.clone());
        self.batch.prepared = prepared;
        self.batch.compares_later = true;
        let outcome = self.batch.attempt(|batch| queue::push(batch, limits, now, envelope))?;
        if outcome.as_ref().is_ok_and(PushOutcome::is_stored) {
            self.answers.arrivals.push(recipient);
        }
        Ok(Pushed { outcome, compare: self.batch.take_to_compare() })
    }

    fn ack(&mut self, ack: &Ack) -> Result<AckOutcome, StoreError> {
        let (limits, now) = (self.limits, self.now);
        self.batch.attempt(|batch| queue::ack(batch, limits, now, ack))
    }

    /// Whether the queues of a job have few enough expired items to count. It removes some of them
    /// first, as `settling` allows. If too many are left, the job must wait.
    ///
    /// # Errors
    /// Those of the store, which fail the job.
    pub(super) fn settle<'a>(
        &mut self,
        recipients: impl Iterator<Item = &'a Recipient>,
        settling: &mut Settling,
    ) -> Result<Readiness, StoreError> {
        let mut last = None;
        for recipient in recipients {
            if last.replace(recipient) == Some(recipient) {
                continue;
            }
            if settling.waiting.contains(recipient) {
                return Ok(Readiness::Behind);
            }
            let readiness = self.settle_queue(recipient, settling)?;
            if readiness != Readiness::Ready {
                settling.waiting.insert(recipient.clone());
                return Ok(readiness);
            }
        }
        Ok(Readiness::Ready)
    }

    fn settle_queue(
        &mut self,
        recipient: &Recipient,
        settling: &mut Settling,
    ) -> Result<Readiness, StoreError> {
        // If a lookup fails, the request fails by itself.
        let unsettled = |batch: &Batch<'_>| caught(|| batch.unsettled(recipient)).ok().flatten();
        let Some(queue) = unsettled(&self.batch) else { return Ok(Readiness::Ready) };
        if settling.items_max == 0 {
            return Ok(Readiness::Behind);
        }
        settling.items_max = settling.items_max.saturating_sub(SETTLE_ITEMS);
        match self.batch.attempt(|batch| batch.settle(queue, SETTLE_ITEMS)) {
            Ok(settled) => {
                self.answers.settled += settled.expired;
                let is_ready = !settled.has_advanced || unsettled(&self.batch).is_none();
                Ok(if is_ready { Readiness::Ready } else { Readiness::Advanced })
            }
            Err(error) if error.is_corruption() => Ok(Readiness::Ready),
            Err(error) => Err(error),
        }
    }

    /// Imports items, up to the first one that is rejected.
    fn import(&mut self, items: Vec<ImportItem>) -> Result<Imported, StoreError> {
        if self.is_full {
            return Err(StoreError::Full);
        }
        let (limits, now) = (self.limits, self.now);
        self.batch.prepared = Prepared::Nothing;
        self.batch.compares_later = false;
        let arrivals = &mut self.answers.arrivals;
        self.batch.attempt(|batch| {
            let mut imported = Imported::default();
            for item in items {
                let recipient = item.envelope.recipient.clone();
                match import::import(batch, limits, now, item)? {
                    Ok(outcome) => {
                        imported.note(outcome);
                        arrivals.push(recipient);
                    }
                    Err(rejection) => {
                        imported.refused = Some(rejection);
                        break;
                    }
                }
            }
            Ok(imported)
        })
    }

    /// Removes expired items, and returns their number. Skips corrupt queues, so that one cannot
    /// stop the sweep of all others.
    fn trim(&mut self, fronts: &[Front], index_snapshot: &IndexSnapshot) -> Result<u64, StoreError> {
        let mut items = 0;
        for front in fronts {
            match self.batch.attempt(|batch| batch.trim(front, index_snapshot)) {
                Err(error) if error.is_corruption() => tracing::error!("the sweep skips a corrupt queue"),
                trimmed => items += trimmed?,
            }
        }
        Ok(items)
    }

    /// Whether a push would store an item. A full disk does not affect duplicates and rejections.
    fn would_store(&self, envelope: &Envelope) -> bool {
        let admitted = caught(|| queue::admit(&self.batch, self.limits, self.now, envelope));
        matches!(admitted, Ok(Ok(Admission::Fits { .. })))
    }
}
