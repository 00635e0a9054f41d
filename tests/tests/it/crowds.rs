//! Tests with many clients behind one address, and a flood beside them, against the program with
//! its shipped configuration. Ordinary use is slowed down at worst and never banned; a flood costs
//! little and does not affect other clients. Other tests cover decisions about single requests.

mod burst;
mod flood;
mod heavy;
mod names;
mod people;
mod settings;

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use relay_tests::process::ADMIN_ADDRESS;
use relay_tests::{Process, at_length};
use tempfile::TempDir;

use self::people::{Crowd, CrowdStats};
use crate::PROGRAM;
use crate::process::metrics::{admin_url, scrape, value};

/// How long clients wait for a response, and at most for success.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A relay in memory with the shipped configuration, except for some lines.
pub(crate) struct ShippedRelay {
    pub(crate) process: Process,
    admin: String,
    _directory: TempDir,
}

impl ShippedRelay {
    pub(crate) fn with(lines: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (config, log) = (directory.path().join("relay.toml"), directory.path().join("log"));
        std::fs::write(&config, format!("storage.kind = \"memory\"\n{lines}")).unwrap();
        let arguments = ["--config", config.to_str().unwrap()];
        let environment = [(ADMIN_ADDRESS, "127.0.0.1:0")];
        let process = Process::start_logging(PROGRAM, &arguments, &environment, &log).unwrap();
        let admin = admin_url(&log);
        Self { process, admin, _directory: directory }
    }

    fn metrics(&self) -> BTreeMap<&'static str, f64> {
        let names = ["relay_rate_limit_bans_total", "relay_rate_limit_refusals_total"];
        names.into_iter().map(|name| (name, self.metric(name))).collect()
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        value(&scrape(&self.admin), name).unwrap()
    }

    /// The sum of the samples of a metric that have this label.
    pub(crate) fn sum(&self, name: &str, label: &str) -> f64 {
        let text = scrape(&self.admin);
        let samples =
            text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{')?.split_once("} "));
        samples
            .filter(|(labels, _)| labels.contains(label))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
    }

    pub(crate) fn bans(&self) -> f64 {
        self.metric("relay_rate_limit_bans_total")
    }
}

/// Runs `users` simulated users. Returns what they experienced, and the relay.
fn run_crowd(users: usize, time: Duration, lines: &str) -> (CrowdStats, ShippedRelay) {
    let relay = ShippedRelay::with(lines);
    let crowd_stats = Crowd::begin(&relay.process.base_url, users).run_for(time);
    println!("{users} for {time:?}: {crowd_stats:?}, {:?}", relay.metrics());
    (crowd_stats, relay)
}

/// The crowds run at once, since each has its own relay and none takes much of the machine.
#[test]
fn users_behind_one_address_are_served_or_slowed_down_and_never_banned() {
    thread::scope(|scope| {
        for crowd in [ten_as_shipped, thirty_as_shipped, fifty_with_the_settings_for_fifty] {
            scope.spawn(crowd);
        }
    });
}

fn ten_as_shipped() {
    let (crowd_stats, relay) =
        run_crowd(10, at_length(Duration::from_secs(120), Duration::from_secs(20)), "");
    assert_all_were_served(&crowd_stats, &relay);
}

fn thirty_as_shipped() {
    let (crowd_stats, relay) = run_crowd(30, at_length(Duration::from_secs(90), Duration::from_secs(20)), "");
    assert!(crowd_stats.refusals > 0 && crowd_stats.pulls > 0 && crowd_stats.pushes > 0, "{crowd_stats:?}");
    assert_eq!((crowd_stats.wrong_acks, relay.bans()), (0, 0.0));
}

fn fifty_with_the_settings_for_fifty() {
    let time = at_length(Duration::from_secs(90), Duration::from_secs(20));
    let (crowd_stats, relay) = run_crowd(50, time, &settings::documented(50));
    assert_all_were_served(&crowd_stats, &relay);
    assert_eq!(crowd_stats.refusals, 0, "the limits have capacity for all");
}

fn assert_all_were_served(crowd_stats: &CrowdStats, relay: &ShippedRelay) {
    assert_eq!((crowd_stats.lost_pushes, crowd_stats.lost_pulls, crowd_stats.wrong_acks), (0, 0, 0));
    assert!(crowd_stats.longest_silence < TIMEOUT, "{:?}", crowd_stats.longest_silence);
    assert_eq!(relay.bans(), 0.0);
}
