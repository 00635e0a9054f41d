//! Random stories against what a gateway and a client may rely on.

use std::collections::HashMap;
use std::num::NonZeroUsize;

use proptest::prelude::*;

use super::{CONFIRM, Ended, Fate, GRACE, QUIET, Rules, Step, Story, name, rules};

/// What may happen to one of a few queues.
#[derive(Clone, Debug)]
enum Event {
    Note(usize),
    Hand(usize),
    Pull(usize),
    Empty(usize),
    WaitBegins(usize),
    WaitEnds(usize),
    Ends(Ended),
    Pause(u64),
    Passes(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let queue = 0..8_usize;
    prop_oneof![
        6 => queue.clone().prop_map(Event::Note),
        2 => queue.clone().prop_map(Event::Hand),
        1 => queue.clone().prop_map(Event::Pull),
        1 => queue.clone().prop_map(Event::Empty),
        1 => queue.clone().prop_map(Event::WaitBegins),
        2 => queue.prop_map(Event::WaitEnds),
        3 => Just(Event::Ends(Ended::Sent)),
        1 => Just(Event::Ends(Ended::Refused)),
        2 => (0..5_000_u64).prop_map(|ms| Event::Ends(Ended::Failed { retry_after_ms: ms })),
        1 => (0..10_000_u64).prop_map(Event::Pause),
        6 => (0..20_000_u64).prop_map(Event::Passes),
    ]
}

/// Runs a story, and checks each call as it begins.
struct Watched {
    story: Story,
    /// Queues whose last arrival nobody has attended, and that were not dropped.
    owed: HashMap<usize, u64>,
    running: Vec<usize>,
    /// When the last call that was not a failure has ended.
    quiet_since: HashMap<usize, u64>,
    dropped: u64,
}

impl Watched {
    fn apply(&mut self, event: &Event) {
        let story = &mut self.story;
        match *event {
            Event::Note(queue) => {
                let full = story.table.figures().full;
                story.note(queue);
                if story.table.figures().full > full {
                    self.dropped += 1;
                } else {
                    self.owed.entry(queue).or_insert(story.now_ms);
                }
            }
            Event::Hand(queue) => story.hand(queue),
            Event::Pull(queue) => {
                self.owed.remove(&queue);
                story.pull(queue);
            }
            Event::Empty(queue) => {
                self.owed.remove(&queue);
                story.empty(queue);
            }
            Event::WaitBegins(queue) => {
                self.owed.remove(&queue);
                story.waiting.insert(name(queue));
            }
            Event::WaitEnds(queue) => {
                story.waiting.remove(&name(queue));
            }
            Event::Ends(ended) => {
                let Some(queue) = self.running.pop() else { return };
                if story.end(queue, ended).expect("it ran") == Fate::WillRetry {
                    self.owed.entry(queue).or_insert(story.now_ms);
                } else {
                    self.quiet_since.insert(queue, story.now_ms);
                }
            }
            Event::Pause(ms) => story.table.pause(ms, story.now_ms),
            Event::Passes(ms) => story.now_ms += ms,
        }
    }

    /// Begins all calls that may begin.
    fn begin_calls(&mut self) -> Option<u64> {
        loop {
            self.story.check();
            match self.story.step() {
                Step::Call(call) => {
                    let queue = (0..8).find(|queue| name(*queue) == call.recipient).unwrap();
                    assert!(!self.story.waiting.contains(&call.recipient), "somebody waits");
                    assert!(!self.running.contains(&queue), "two calls at a time");
                    if let Some(since) = self.quiet_since.get(&queue) {
                        assert!(self.story.now_ms - since >= QUIET, "a call in a quiet period");
                    }
                    self.owed.remove(&queue);
                    self.running.push(queue);
                }
                Step::WaitUntil(at) => return Some(at),
                Step::Wait => return None,
                Step::Again => unreachable!("the story asks again"),
            }
        }
    }
}

proptest! {
    #[test]
    fn every_arrival_leads_to_a_call_unless_attended_or_dropped(
        events in prop::collection::vec(event(), 1..200),
        queues_max in 1..10_usize,
        calls_max in 1..4_usize,
    ) {
        let rules = Rules {
            queues_max: NonZeroUsize::new(queues_max).unwrap(),
            calls_max: NonZeroUsize::new(calls_max).unwrap(),
            ..rules()
        };
        let mut watched = Watched {
            story: Story::new(rules),
            owed: HashMap::new(),
            running: Vec::new(),
            quiet_since: HashMap::new(),
            dropped: 0,
        };
        for event in &events {
            watched.apply(event);
            watched.begin_calls();
        }
        // From now on nobody comes, and the gateway accepts everything.
        watched.story.waiting.clear();
        let end_ms = watched.story.now_ms + 10_000 + QUIET + CONFIRM + GRACE;
        loop {
            while !watched.running.is_empty() {
                watched.apply(&Event::Ends(Ended::Sent));
                watched.begin_calls();
            }
            match watched.begin_calls() {
                Some(at) if at <= end_ms => watched.story.now_ms = at.max(watched.story.now_ms + 1),
                _ if watched.running.is_empty() => break,
                _ => {}
            }
        }
        prop_assert_eq!(&watched.owed, &HashMap::new());
        prop_assert_eq!(watched.story.table.figures().full, watched.dropped);
        prop_assert_eq!(watched.story.table.figures().pending, 0);
    }
}
