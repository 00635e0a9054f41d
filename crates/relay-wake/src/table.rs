//! Which queues wait for a call, and when the next call begins. Pure: the time is passed in, and
//! whoever calls the gateway reports the results.
//!
//! A queue is tracked from its first arrival until the end of the quiet period after its call, or
//! until its client shows that it is awake. A queue that is tracked is in one of three states:
//! *wanted*, *calling* or *quiet*. Arrivals of a quiet queue lead to a call at the end of its quiet
//! period, so no arrival is forgotten.

mod schedule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use relay_core::{Recipient, WakeFigures};

use self::schedule::{Schedule, Slot};
use crate::options::Rules;
use crate::pace::Pace;

/// How many queues one [`Table::next`] looks at, so that it never holds its lock for long.
const LOOKS_MAX: usize = 64;

/// All queues that are tracked.
pub(crate) struct Table {
    times: Times,
    rules: Rules,
    queues: HashMap<Recipient, Queue>,
    /// Queues whose call is due at a time, or will be.
    wanted: Schedule,
    /// Quiet queues, at the end of their quiet period.
    quiet: Schedule,
    calling: usize,
    pace: Pace,
    /// The gateway has asked for no calls before then.
    paused_until_ms: u64,
    figures: WakeFigures,
}

/// The times of [`Rules`] in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Times {
    grace: u64,
    /// `None`: what a client was handed is settled.
    confirm: Option<u64>,
    quiet: u64,
}

/// A queue that is tracked.
#[derive(Debug)]
struct Queue {
    state: State,
    /// Counts arrivals, to tell whether there was one since.
    arrivals: u64,
    /// How many items wait, as of the last push whose outcome is known.
    waiting: u64,
    /// Failed calls of this wake.
    attempts: u32,
    /// Not before the end of the quiet period, or of the pause after a failed call.
    not_before_ms: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Wanted(Slot),
    Quiet(Slot),
    Calling {
        /// When an arrival since the beginning of the call wants the next one.
        again_ms: Option<u64>,
        /// Whether the client has emptied the queue since the beginning of the call.
        is_settled: bool,
    },
}

/// How an item reached its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Nobody waited.
    Unattended,
    /// Somebody waited before, and nobody does after: it may have been given to them, or not.
    PerhapsHanded,
    /// Somebody waited, and may have got it.
    Handed,
}

/// A call that begins now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) recipient: Recipient,
    pub(crate) waiting: u64,
    /// How many calls of this wake have failed.
    pub(crate) attempts: u32,
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Call(Call),
    /// Nothing before this time, unless an arrival or the end of a call changes that.
    WaitUntil(u64),
    /// Nothing until then.
    Wait,
    /// Ask again: there was too much to look at.
    Again,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Sent,
    /// The gateway refuses this call for good.
    Refused,
    /// Another try may succeed, after this time.
    Failed {
        retry_after_ms: u64,
    },
}

/// What became of a wake whose call has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    WillRetry,
    Attended,
    Refused,
    GivenUp,
}

impl Table {
    pub(crate) fn new(rules: Rules) -> Self {
        let ms = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let times = Times {
            grace: ms(rules.grace),
            confirm: Some(ms(rules.confirm)).filter(|ms| *ms > 0),
            quiet: ms(rules.quiet),
        };
        Self {
            times,
            rules,
            queues: HashMap::new(),
            wanted: Schedule::default(),
            quiet: Schedule::default(),
            calling: 0,
            pace: Pace::new(rules.calls_per_second),
            paused_until_ms: 0,
            figures: WakeFigures::default(),
        }
    }

    pub(crate) fn figures(&self) -> WakeFigures {
        WakeFigures { pending: (self.wanted.len() + self.calling) as u64, ..self.figures }
    }

    /// How many queues are tracked.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.queues.len()
    }

    /// Notes an item in a queue. `waiting` is the number of items in it, if it is known. Returns
    /// whether a step before the expected time may follow, and `false` with a dropped wake.
    pub(crate) fn note(
        &mut self,
        recipient: &Recipient,
        arrival: Arrival,
        waiting: Option<u64>,
        now_ms: u64,
    ) -> bool {
        let after_ms = match (arrival, self.times.confirm) {
            (Arrival::Unattended, _) | (Arrival::PerhapsHanded, None) => self.times.grace,
            (Arrival::Handed | Arrival::PerhapsHanded, Some(confirm)) => confirm,
            (Arrival::Handed, None) => return false,
        };
        let due_ms = now_ms.saturating_add(after_ms);
        if let Some(queue) = self.queues.get_mut(recipient) {
            queue.arrivals += 1;
            queue.waiting = waiting.unwrap_or(queue.waiting).max(1);
            return self.want(recipient, due_ms);
        }
        if !self.has_room(arrival, now_ms) {
            self.figures.full += u64::from(arrival != Arrival::Handed);
            return false;
        }
        let slot = self.wanted.insert(due_ms, recipient.clone());
        let state = State::Wanted(slot);
        let waiting = waiting.unwrap_or(1).max(1);
        let queue = Queue { state, arrivals: 1, waiting, attempts: 0, not_before_ms: 0 };
        self.queues.insert(recipient.clone(), queue);
        self.wanted.is_first(slot)
    }

    /// The arrivals that a client which acts now can see. `None` if there is nothing to settle.
    pub(crate) fn seen(&self, recipient: &Recipient) -> Option<u64> {
        let queue = self.queues.get(recipient)?;
        (!matches!(queue.state, State::Quiet(_))).then_some(queue.arrivals)
    }

    /// A client has pulled, or acked a part, after these arrivals: it is awake. Unless it confirms
    /// what it got, the gateway is called later.
    pub(crate) fn pulled(&mut self, recipient: &Recipient, seen: u64, now_ms: u64) {
        match self.times.confirm {
            Some(confirm) => {
                let Some(queue) = self.queues.get_mut(recipient) else { return };
                if let State::Wanted(slot) = queue.state
                    && queue.arrivals == seen
                {
                    // Whoever is awake is never called earlier for that.
                    let due_ms = now_ms.saturating_add(confirm).max(slot.at_ms);
                    queue.state = State::Wanted(self.wanted.move_to(slot, due_ms));
                }
            }
            None => self.emptied(recipient, seen, now_ms),
        }
    }

    /// A client has emptied its queue after these arrivals, or all it contains is settled.
    pub(crate) fn emptied(&mut self, recipient: &Recipient, seen: u64, now_ms: u64) {
        let Some(queue) = self.queues.get_mut(recipient).filter(|queue| queue.arrivals == seen) else {
            return;
        };
        match &mut queue.state {
            State::Calling { again_ms, is_settled } => (*again_ms, *is_settled) = (None, true),
            State::Quiet(_) => {}
            State::Wanted(slot) => {
                let slot = *slot;
                self.figures.attended += 1;
                self.wanted.remove(slot);
                self.rest(recipient, now_ms);
            }
        }
    }

    /// What to do at `now_ms`. `has_waiter` tells whether somebody waits in a queue.
    pub(crate) fn next(&mut self, now_ms: u64, has_waiter: impl Fn(&Recipient) -> bool) -> Step {
        for _ in 0..LOOKS_MAX {
            if self.forget_one(now_ms) {
                continue;
            }
            let Some(due_ms) = self.wanted.first_ms() else { return self.wait_for(None) };
            let ready_ms = due_ms.max(self.paused_until_ms).max(self.pace.ready_at(now_ms));
            if self.calling >= self.rules.calls_max.get() {
                return self.wait_for(None);
            }
            if ready_ms > now_ms {
                return self.wait_for(Some(ready_ms));
            }
            let Some((slot, recipient)) = self.wanted.pop_first() else { continue };
            let Some(queue) = self.queues.get_mut(&recipient) else { continue };
            if !has_waiter(&recipient) {
                self.pace.take();
                self.calling += 1;
                queue.state = State::Calling { again_ms: None, is_settled: false };
                return Step::Call(Call { recipient, waiting: queue.waiting, attempts: queue.attempts });
            }
            match self.times.confirm {
                Some(confirm) => {
                    let due_ms = now_ms.saturating_add(confirm);
                    queue.state = State::Wanted(self.wanted.put_back(slot, due_ms, recipient));
                }
                None => {
                    self.figures.attended += 1;
                    self.rest(&recipient, now_ms);
                }
            }
        }
        Step::Again
    }

    /// A call to this queue has ended.
    pub(crate) fn ended(&mut self, recipient: &Recipient, ended: Ended, now_ms: u64) -> Option<Fate> {
        let queue = self.queues.get_mut(recipient)?;
        let State::Calling { again_ms, is_settled } = queue.state else { return None };
        self.calling -= 1;
        queue.attempts += 1;
        let has_attempts = queue.attempts < self.rules.attempts_max.get();
        let is_wanted = again_ms.is_some() || !is_settled;
        let (fate, next_ms, pause_ms) = match ended {
            Ended::Sent => (Fate::Sent, again_ms, self.times.quiet),
            Ended::Refused => (Fate::Refused, again_ms, self.times.quiet),
            Ended::Failed { retry_after_ms } if has_attempts && is_wanted => {
                (Fate::WillRetry, Some(now_ms), retry_after_ms)
            }
            Ended::Failed { .. } if is_settled => (Fate::Attended, again_ms, self.times.quiet),
            Ended::Failed { .. } => (Fate::GivenUp, again_ms, self.times.quiet),
        };
        if fate != Fate::WillRetry {
            queue.attempts = 0;
        }
        queue.not_before_ms = now_ms.saturating_add(pause_ms);
        match next_ms {
            Some(due_ms) => {
                let due_ms = due_ms.max(queue.not_before_ms);
                queue.state = State::Wanted(self.wanted.insert(due_ms, recipient.clone()));
            }
            None => self.rest(recipient, now_ms),
        }
        self.count(fate);
        Some(fate)
    }

    /// No call begins for this long.
    pub(crate) fn pause(&mut self, pause_ms: u64, now_ms: u64) {
        self.paused_until_ms = self.paused_until_ms.max(now_ms.saturating_add(pause_ms));
    }

    fn count(&mut self, fate: Fate) {
        let counter = match fate {
            Fate::Sent => &mut self.figures.sent,
            Fate::WillRetry => &mut self.figures.retried,
            Fate::Attended => &mut self.figures.attended,
            Fate::Refused => &mut self.figures.refused,
            Fate::GivenUp => &mut self.figures.failed,
        };
        *counter += 1;
    }

    /// Wants a call of a tracked queue by `due_ms`, if that is earlier than what it wants already.
    /// Returns whether this is the first one now.
    fn want(&mut self, recipient: &Recipient, due_ms: u64) -> bool {
        let Some(queue) = self.queues.get_mut(recipient) else { return false };
        let due_ms = due_ms.max(queue.not_before_ms);
        let slot = match &mut queue.state {
            State::Calling { again_ms, .. } => {
                *again_ms = Some(again_ms.map_or(due_ms, |again_ms| again_ms.min(due_ms)));
                return false;
            }
            State::Wanted(slot) if slot.at_ms <= due_ms => return false,
            State::Wanted(slot) => self.wanted.move_to(*slot, due_ms),
            State::Quiet(slot) => {
                self.quiet.remove(*slot);
                self.wanted.insert(due_ms, recipient.clone())
            }
        };
        queue.state = State::Wanted(slot);
        self.wanted.is_first(slot)
    }

    /// Nothing is wanted for a queue: it is quiet for the rest of its quiet period, or forgotten.
    fn rest(&mut self, recipient: &Recipient, now_ms: u64) {
        let Entry::Occupied(mut queue) = self.queues.entry(recipient.clone()) else { return };
        let until_ms = queue.get().not_before_ms;
        if until_ms > now_ms {
            queue.get_mut().attempts = 0;
            queue.get_mut().state = State::Quiet(self.quiet.insert(until_ms, recipient.clone()));
        } else {
            queue.remove();
        }
    }

    /// Forgets one queue whose quiet period is over. Returns whether there was one.
    fn forget_one(&mut self, now_ms: u64) -> bool {
        if self.quiet.first_ms().is_none_or(|until_ms| until_ms > now_ms) {
            return false;
        }
        if let Some((_, recipient)) = self.quiet.pop_first() {
            self.queues.remove(&recipient);
        }
        true
    }

    /// Whether one more queue may be tracked. Items that somebody got leave half of the table to
    /// the others.
    fn has_room(&mut self, arrival: Arrival, now_ms: u64) -> bool {
        let max = match arrival {
            Arrival::Unattended | Arrival::PerhapsHanded => self.rules.queues_max.get(),
            Arrival::Handed => self.rules.queues_max.get() / 2,
        };
        self.queues.len() < max || self.forget_one(now_ms) && self.queues.len() < max
    }

    /// Waits for a time, or for the end of the next quiet period if that is earlier.
    fn wait_for(&self, ready_ms: Option<u64>) -> Step {
        let until_ms = ready_ms.into_iter().chain(self.quiet.first_ms()).min();
        until_ms.map_or(Step::Wait, Step::WaitUntil)
    }
}
