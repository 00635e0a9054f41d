//! Many behind one address, and a flood beside them, against the real program as it is shipped: who
//! only uses the relay is slowed down at worst and never banned, and who floods costs next to
//! nothing and harms nobody else. How single requests are decided is tested elsewhere.

mod burst;
mod flood;
mod heavy;
mod people;
mod settings;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use relay_tests::process::ADMIN_ADDRESS;
use relay_tests::{Process, at_length};
use tempfile::TempDir;

use self::people::{Crowd, Lives};
use crate::PROGRAM;
use crate::process::metrics::{scrape, shown_at, value};

/// The patience of clients, for an answer and for anything that they want.
const PATIENCE: Duration = Duration::from_secs(10);

/// A relay in memory, otherwise as it is shipped but for some lines.
pub(crate) struct Shipped {
    pub(crate) process: Process,
    admin: String,
    _directory: TempDir,
}

impl Shipped {
    pub(crate) fn with(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, log) = (directory.path().join("relay.toml"), directory.path().join("log"));
        std::fs::write(&config, format!("storage.kind = \"memory\"\n{lines}")).unwrap();
        let arguments = ["--config", config.to_str().unwrap()];
        let environment = [(ADMIN_ADDRESS, "127.0.0.1:0")];
        let process = Process::start_logging(PROGRAM, &arguments, &environment, &log).unwrap();
        let admin = shown_at(&log);
        Self { process, admin, _directory: directory }
    }

    fn metrics(&self) -> BTreeMap<&'static str, f64> {
        let names = ["relay_rate_limit_bans_total", "relay_rate_limit_refusals_total"];
        names.into_iter().map(|name| (name, self.metric(name))).collect()
    }

    /// A metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        value(&scrape(&self.admin), name).unwrap()
    }

    fn bans(&self) -> f64 {
        self.metric("relay_rate_limit_bans_total")
    }
}

/// Lets so many people live beside one another, and tells how it went and what the relay says of
/// it.
fn live(people: usize, time: Duration, lines: &str) -> (Lives, Shipped) {
    let relay = Shipped::with(lines);
    let lives = Crowd::begin(&relay.process.base_url, people).live_for(time);
    println!("{people} for {time:?}: {lives:?}, {:?}", relay.metrics());
    (lives, relay)
}

/// At once, since each has a relay of its own and neither takes much of the machine.
#[test]
fn people_behind_one_address_are_served_or_slowed_down_and_never_banned() {
    thread::scope(|scope| {
        for crowd in [ten_as_shipped, thirty_as_shipped, fifty_with_the_settings_for_fifty] {
            scope.spawn(crowd);
        }
    });
}

fn ten_as_shipped() {
    let (lives, relay) = live(10, at_length(Duration::from_secs(120), Duration::from_secs(20)), "");
    assert_all_was_served(&lives, &relay);
}

fn thirty_as_shipped() {
    let (lives, relay) = live(30, at_length(Duration::from_secs(90), Duration::from_secs(20)), "");
    assert!(lives.refusals > 0 && lives.pulls > 0 && lives.pushes > 0, "{lives:?}");
    assert_eq!((lives.wrong_acks, relay.bans()), (0, 0.0));
}

fn fifty_with_the_settings_for_fifty() {
    let time = at_length(Duration::from_secs(90), Duration::from_secs(20));
    let (lives, relay) = live(50, time, &settings::documented(50));
    assert_all_was_served(&lives, &relay);
    assert_eq!(lives.refusals, 0, "there is room for all");
}

fn assert_all_was_served(lives: &Lives, relay: &Shipped) {
    assert_eq!((lives.lost_pushes, lives.lost_pulls, lives.wrong_acks), (0, 0, 0));
    assert!(lives.longest_silence < PATIENCE, "{:?}", lives.longest_silence);
    assert_eq!(relay.bans(), 0.0);
}
