//! Tests of the table: each rule as a story.

mod random;

use std::collections::HashSet;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use relay_core::Recipient;

use super::*;

const GRACE: u64 = 2_000;
const CONFIRM: u64 = 30_000;
const QUIET: u64 = 60_000;

fn rules() -> Rules {
    Rules {
        grace: Duration::from_millis(GRACE),
        confirm: Duration::from_millis(CONFIRM),
        quiet: Duration::from_millis(QUIET),
        attempts_max: NonZeroU32::new(3).unwrap(),
        queues_max: NonZeroUsize::new(100).unwrap(),
        calls_max: NonZeroUsize::new(10).unwrap(),
        calls_per_second: NonZeroU32::new(1_000).unwrap(),
    }
}

fn name(number: usize) -> Recipient {
    Recipient::parse(&format!("queue {number}")).unwrap()
}

/// A table at a time.
struct Story {
    table: Table,
    now_ms: u64,
    waiting: HashSet<Recipient>,
}

impl Story {
    fn new(rules: Rules) -> Self {
        Self { table: Table::new(rules), now_ms: 1_000_000, waiting: HashSet::new() }
    }

    fn note(&mut self, queue: usize) {
        self.table.note(&name(queue), Arrival::Unattended, Some(7), self.now_ms);
    }

    fn hand(&mut self, queue: usize) {
        self.table.note(&name(queue), Arrival::Handed, Some(7), self.now_ms);
    }

    fn pull(&mut self, queue: usize) {
        if let Some(seen) = self.table.seen(&name(queue)) {
            self.table.pulled(&name(queue), seen, self.now_ms);
        }
    }

    fn empty(&mut self, queue: usize) {
        if let Some(seen) = self.table.seen(&name(queue)) {
            self.table.emptied(&name(queue), seen, self.now_ms);
        }
    }

    fn step(&mut self) -> Step {
        loop {
            let step = self.table.next(self.now_ms, |recipient| self.waiting.contains(recipient));
            if step != Step::Again {
                return step;
            }
        }
    }

    /// Whether a call to this queue begins now, and no other.
    #[track_caller]
    fn calls(&mut self, queue: usize) -> Call {
        match self.step() {
            Step::Call(call) if call.recipient == name(queue) => call,
            other => panic!("expected a call to {queue}, found {other:?}"),
        }
    }

    /// Waits until something is due.
    #[track_caller]
    fn wait(&mut self, ms: u64) {
        assert_eq!(self.step(), Step::WaitUntil(self.now_ms + ms));
        self.now_ms += ms;
    }

    fn end(&mut self, queue: usize, ended: Ended) -> Option<Fate> {
        self.table.ended(&name(queue), ended, self.now_ms)
    }

    /// Everything that is tracked is in exactly one place.
    fn check(&self) {
        let table = &self.table;
        assert_eq!(table.queues.len(), table.wanted.len() + table.quiet.len() + table.calling);
        assert!(table.queues.len() <= table.rules.queues_max.get());
        assert!(table.calling <= table.rules.calls_max.get());
    }
}

#[test]
fn an_arrival_leads_to_one_call_after_the_grace_and_then_quiet() {
    let mut story = Story::new(rules());
    assert_eq!(story.step(), Step::Wait);
    story.note(1);
    story.now_ms += 500;
    story.note(1);
    story.wait(GRACE - 500);
    assert_eq!(story.calls(1), Call { recipient: name(1), waiting: 7, attempts: 0 });
    assert_eq!(story.end(1, Ended::Sent), Some(Fate::Sent));
    assert_eq!(story.table.figures().sent, 1);
    story.wait(QUIET);
    assert_eq!(story.step(), Step::Wait);
    assert_eq!(story.table.len(), 0, "nothing is left of a quiet period that is over");
}

#[test]
fn arrivals_of_a_quiet_period_lead_to_one_call_at_its_end() {
    let mut story = Story::new(rules());
    story.note(1);
    story.wait(GRACE);
    story.calls(1);
    story.note(1);
    story.end(1, Ended::Sent);
    for _ in 0..10 {
        story.now_ms += 1_000;
        story.note(1);
    }
    story.wait(QUIET - 10_000);
    story.calls(1);
    assert_eq!(story.table.figures().pending, 1, "a call that runs is pending");
    story.end(1, Ended::Sent);
    assert_eq!(story.table.figures().pending, 0);
}

#[test]
fn a_client_that_empties_its_queue_is_not_woken() {
    let mut story = Story::new(rules());
    story.note(1);
    story.empty(1);
    assert_eq!(story.step(), Step::Wait);
    assert_eq!((story.table.len(), story.table.figures().attended), (0, 1));
}

#[test]
fn a_pull_that_began_before_an_arrival_does_not_settle_it() {
    let mut story = Story::new(rules());
    story.note(1);
    let seen = story.table.seen(&name(1)).unwrap();
    story.note(1);
    story.table.emptied(&name(1), seen, story.now_ms);
    story.table.pulled(&name(1), seen, story.now_ms);
    story.wait(GRACE);
    story.calls(1);
}

#[test]
fn a_client_that_pulls_and_confirms_nothing_is_woken_later() {
    let mut story = Story::new(rules());
    story.note(1);
    story.now_ms += 100;
    story.pull(1);
    story.now_ms += 5_000;
    story.pull(1);
    story.wait(CONFIRM);
    story.calls(1);

    let mut story = Story::new(Rules { grace: Duration::from_secs(3600), ..rules() });
    story.note(1);
    story.pull(1);
    assert_eq!(story.step(), Step::WaitUntil(story.now_ms + 3_600_000), "a pull brings no call forward");

    let mut story = Story::new(Rules { confirm: Duration::ZERO, ..rules() });
    story.note(1);
    story.pull(1);
    story.hand(2);
    assert_eq!(story.step(), Step::Wait);
    assert_eq!(story.table.len(), 0, "without a time to confirm, a pull settles");
}

#[test]
fn what_a_waiting_client_got_leads_to_a_call_only_if_it_stays_away() {
    let mut story = Story::new(rules());
    story.hand(1);
    story.wait(CONFIRM);
    story.waiting.insert(name(1));
    story.wait(CONFIRM);
    assert_eq!(story.step(), Step::WaitUntil(story.now_ms + CONFIRM), "it still waits");
    story.waiting.clear();
    story.wait(CONFIRM);
    story.calls(1);
}

#[test]
fn whoever_waits_at_the_end_of_the_grace_is_not_woken_before_it_had_time_to_confirm() {
    let mut story = Story::new(rules());
    story.note(1);
    story.waiting.insert(name(1));
    story.wait(GRACE);
    story.wait(CONFIRM);

    let mut story = Story::new(Rules { confirm: Duration::ZERO, ..rules() });
    story.note(1);
    story.waiting.insert(name(1));
    story.wait(GRACE);
    assert_eq!(story.step(), Step::Wait);
    assert_eq!(story.table.figures().attended, 1);
}

#[test]
fn an_arrival_without_a_waiter_hurries_one_that_somebody_got() {
    let mut story = Story::new(rules());
    story.hand(1);
    story.now_ms += 1_000;
    story.note(1);
    story.wait(GRACE);
    story.calls(1);
}

#[test]
fn failed_calls_are_repeated_and_then_given_up() {
    let mut story = Story::new(rules());
    story.note(1);
    story.wait(GRACE);
    for attempts in 0..2 {
        assert_eq!(story.calls(1).attempts, attempts);
        assert_eq!(story.end(1, Ended::Failed { retry_after_ms: 900 }), Some(Fate::WillRetry));
        // More arrivals do not shorten the pause.
        story.note(1);
        story.wait(900);
    }
    story.calls(1);
    assert_eq!(story.end(1, Ended::Failed { retry_after_ms: 900 }), Some(Fate::GivenUp));
    let figures = story.table.figures();
    assert_eq!((figures.failed, figures.retried, figures.pending), (1, 2, 0));
    story.note(1);
    story.wait(QUIET);
    assert_eq!(story.calls(1).attempts, 0, "a later wake has all its attempts");
}

#[test]
fn a_refused_call_is_not_repeated() {
    let mut story = Story::new(rules());
    story.note(1);
    story.wait(GRACE);
    story.calls(1);
    assert_eq!(story.end(1, Ended::Refused), Some(Fate::Refused));
    story.wait(QUIET);
    assert_eq!(story.step(), Step::Wait);
}

#[test]
fn a_failed_call_is_not_repeated_for_a_client_that_came_meanwhile() {
    let mut story = Story::new(rules());
    story.note(1);
    story.wait(GRACE);
    story.calls(1);
    story.empty(1);
    assert_eq!(story.end(1, Ended::Failed { retry_after_ms: 900 }), Some(Fate::Attended));
    story.wait(QUIET);
    assert_eq!(story.step(), Step::Wait);

    story.note(2);
    story.wait(GRACE);
    story.calls(2);
    story.end(2, Ended::Failed { retry_after_ms: 900 });
    story.empty(2);
    story.wait(900);
    assert_eq!(story.step(), Step::Wait, "also in the pause before a repetition");
}

#[test]
fn a_pause_holds_for_all_queues() {
    let mut story = Story::new(rules());
    story.note(1);
    story.note(2);
    story.wait(GRACE);
    story.calls(1);
    story.table.pause(20_000, story.now_ms);
    story.end(1, Ended::Failed { retry_after_ms: 900 });
    story.wait(20_000);
    // In the order in which they have become due.
    story.calls(2);
    story.calls(1);
}

#[test]
fn few_calls_run_at_a_time() {
    let mut story = Story::new(rules());
    (0..20).for_each(|queue| story.note(queue));
    story.wait(GRACE);
    (0..10).for_each(|queue| drop(story.calls(queue)));
    assert_eq!(story.step(), Step::Wait);
    story.end(3, Ended::Sent);
    story.calls(10);
}

#[test]
fn a_full_table_drops_and_counts_until_quiet_periods_end() {
    let mut story = Story::new(Rules { calls_max: NonZeroUsize::new(1000).unwrap(), ..rules() });
    // What somebody got takes at most half.
    (0..200).for_each(|queue| story.hand(queue));
    assert_eq!((story.table.len(), story.table.figures().full), (50, 0));
    (200..400).for_each(|queue| story.note(queue));
    assert_eq!((story.table.len(), story.table.figures().full), (100, 150));
    story.wait(GRACE);
    for queue in 200..250 {
        story.calls(queue);
        story.end(queue, Ended::Sent);
    }
    story.note(400);
    assert_eq!(story.table.figures().full, 151, "quiet queues have their places");
    story.now_ms += QUIET;
    story.note(400);
    assert_eq!(story.table.figures().full, 151);
    assert!(story.table.seen(&name(400)).is_some());
    story.check();
}
