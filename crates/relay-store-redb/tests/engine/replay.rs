//! A replay ends where the live store stands: after every random operation, what a store opened on a copy of the disk shows is what the
//! live one shows, and the suite holds that one to the model.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use relay_core::testing::operations::RECIPIENTS;
use relay_core::testing::{Harness, ManualClock, Plan, run_operations};
use relay_core::{Clock, Item, Limits, Pull, Recipient, Relay, Timestamp};
use relay_disk::{SimDisk, Survival};
use relay_store_redb::{Contents, OpenProgress, Options, RedbRelay};

use crate::world::{World, envelope, run_slow_tests, small_options, within_bounds};

/// A store on a disk in memory, which is compared with its own replay whenever the suite recounts it.
struct Twins {
    world: World,
    latest: Timestamp,
}

/// Everything that can be seen of a store.
#[derive(Debug, PartialEq)]
struct Seen {
    pages: Vec<(Vec<Item<Bytes>>, u64)>,
    contents: Contents,
    findings: Vec<String>,
}

impl Twins {
    fn look(&self, relay: &RedbRelay) -> Seen {
        let mut pages = Vec::new();
        for name in RECIPIENTS {
            let mut after = None;
            loop {
                let pull = Pull { recipient: Recipient::parse(name).unwrap(), after, items_max: None };
                let page = self.world.block_on(relay.pull(pull)).unwrap();
                pages.push((page.items, page.remaining));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        Seen { pages, contents: relay.contents().unwrap(), findings: relay.verify().unwrap() }
    }
}

impl Harness for Twins {
    type Relay = RedbRelay;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> RedbRelay {
        self.world = World { limits, clock, ..self.world.on(SimDisk::new()) };
        self.latest = Timestamp::default();
        self.world.open()
    }

    fn reopen(
        &mut self,
        relay: RedbRelay,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<RedbRelay, RedbRelay> {
        drop(relay);
        self.world = World { limits, clock, ..self.world.on(self.world.disk.clone()) };
        Ok(self.world.open())
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.world.block_on(future)
    }

    fn verify(&mut self, relay: &RedbRelay) -> Vec<String> {
        // The live store does not believe a clock that was set back; its twin has to be told the latest time.
        self.latest = self.latest.max(self.world.clock.now());
        let clock = ManualClock::new();
        clock.set(self.latest);
        let twin = World { clock: Arc::new(clock), ..self.world.after_crash(Survival::All) };
        let (live, replayed) = (self.look(relay), self.look(&twin.open()));
        assert_eq!(live, replayed);
        live.findings
    }

    fn plan(&self) -> Plan {
        let cases = if run_slow_tests() { 48 } else { 12 };
        Plan { cases, regressions: None, ..Plan::default() }
    }
}

fn run(options: Options) {
    within_bounds(|| {
        let mut twins = Twins { world: World::new().with_options(options), latest: Timestamp::default() };
        run_operations(&mut twins).unwrap();
    });
}

#[test]
fn a_replay_over_many_checkpoints_ends_where_the_live_store_stands() {
    run(Options { checkpoint_rows: 8, checkpoint_bytes: 512, segment_bytes: 256, ..small_options() });
}

#[test]
fn a_replay_with_payloads_aside_ends_where_the_live_store_stands() {
    let options =
        Options { checkpoint_rows: 40, checkpoint_bytes: 2048, segment_bytes: 256, ..small_options() };
    run(Options { aside_bytes: 8, ..options });
}

#[test]
fn a_replay_of_everything_ends_where_the_live_store_stands() {
    run(Options { checkpoint_rows: 1_000_000, checkpoint_bytes: 1 << 40, ..small_options() });
}

#[test]
fn a_start_tells_how_far_it_has_come() {
    let world = World::new().with_options(Options { checkpoint_rows: 1_000_000, ..Options::default() });
    let relay = world.open();
    for number in 0..20 {
        world.block_on(relay.push(envelope(0, number, 100))).unwrap();
    }
    let progress = OpenProgress::default();
    assert_eq!(progress.percent(), None);
    let options = Options { progress: Some(progress.clone()), ..Options::default() };
    let _again = world.after_crash(Survival::All).with_options(options).open();
    assert_eq!(progress.percent(), Some(100));
}
