//! Measures what proofs cost: items that are pushed, pulled and acked, at recipients with and
//! without locks.

use std::time::Duration;

use crate::load::{
    Cycle, ItemIds, Pace, Page, Plan, Pull, Recipients, Stop, pull_request, run, unix_seconds,
};

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, Measured, PAYLOAD_BYTES};
use super::relay::{AUDIENCE, Settings};
use super::statistics::Interval;

/// How often each kind of name is measured.
const ROUNDS: usize = 20;

/// Far fewer than the verified tokens that a relay remembers.
const RECIPIENTS: u64 = 4_000;

/// The length of an `sha256:` name; an `ed25519:` name has one character more.
const LOCKED_BYTES: usize = 50;

const SHAPES: [(&str, usize); 2] = [("4 connections", 4), ("128 connections", 128)];

/// A kind of name, and what was measured with it.
struct Names {
    name: &'static str,
    recipients: fn(u64) -> Recipients,
    /// How much slower it may be than [`BASE`], in percent.
    bar: Bar,
    runs: Vec<Measured>,
}

/// The index of the plain names that the others are compared with.
const BASE: usize = 0;

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let (rounds, seconds) = (lab.at_length(ROUNDS, 2), lab.at_length(3, 1));
    let mut section = Section::new(
        "Proofs",
        format!(
            "Items of 1 KiB for {} recipients: each is pushed (without a proof), its queue is pulled and it is acked (with one); \
             closed loop. Plain names have as many characters as those with a lock, or 16. Each run of {seconds} s has a new process and an \
             empty store, in which every queue was pulled once, so that every token is verified. Kinds of names take turns, {rounds} rounds. \
             Percentages are medians over the pairs of one round, with 95% intervals.",
            quantity(RECIPIENTS as f64, "")
        ),
    );
    for (shape, connections) in SHAPES {
        let mut kinds = kinds();
        for round in 0..rounds {
            // Each round begins with another kind.
            for turn in 0..kinds.len() {
                let index = (round + turn) % kinds.len();
                let Some(names) = kinds.get_mut(index) else { continue };
                let measured = one_run(lab, (names.recipients)(RECIPIENTS), connections, seconds)?;
                section.note_failures(names.name, &measured.report);
                names.runs.push(measured);
            }
        }
        add(&mut section, shape, &kinds);
    }
    Ok(section)
}

fn kinds() -> [Names; 4] {
    let names =
        |name, recipients: fn(u64) -> Recipients, bar| Names { name, recipients, bar, runs: Vec::new() };
    [
        names("plain", |count| Recipients::plain(count, LOCKED_BYTES), Bar::None),
        names("plain, short", |count| Recipients::plain(count, 16), Bar::None),
        names("sha256", Recipients::with_secrets, Bar::Below(3.0)),
        names("ed25519", |count| Recipients::with_keys(count, AUDIENCE, unix_seconds()), Bar::Below(5.0)),
    ]
}

fn one_run(lab: &Lab, recipients: Recipients, connections: usize, seconds: u64) -> anyhow::Result<Measured> {
    let relay = lab.relay(Settings { has_tokens: true, ..Settings::default() })?;
    let address = relay.server.address;
    let plan = |connections, stop| Plan { address, connections, pace: Pace::Closed, stop };
    let first_pulls = (0..recipients.count())
        .map(|number| Page { request: pull_request(&recipients, number, None), body_bytes: 0, items: 0 })
        .collect();
    let once = Stop { requests: Some(recipients.count()), ..Stop::default() };
    run(&mut Pull::new(first_pulls), &plan(CONNECTIONS, once))?;

    let mut cycle = Cycle::new(ItemIds::of(1, recipients), PAYLOAD_BYTES, 0..u64::MAX);
    let stop = Stop { time: Some(Duration::from_secs(seconds)), ..Stop::default() };
    let cpu = relay.server.cpu()?;
    let report = run(&mut cycle, &plan(connections, stop))?;
    Ok(Measured { report, server_cpu: relay.server.cpu()?.saturating_sub(cpu) })
}

fn add(section: &mut Section, shape: &str, kinds: &[Names]) {
    for Names { name, runs, .. } in kinds {
        let [server, generator] = [0, 1].map(|index| cpu_us(runs, index));
        let rate = median(&rates(runs));
        section.add(format!("{shape}, {name}: requests"), rate, "/s", Bar::None);
        section.add(format!("{shape}, {name}: CPU time, relay"), median(&server), "µs", Bar::None);
        section.add(format!("{shape}, {name}: CPU time, generator"), median(&generator), "µs", Bar::None);
    }
    let Some(base) = kinds.get(BASE) else { return };
    for Names { name, runs, bar, .. } in kinds.iter().skip(BASE + 1) {
        let slower = percent(&rates(runs), &rates(&base.runs), |locked, plain| 1.0 - locked / plain);
        let more = percent(&cpu_us(runs, 0), &cpu_us(&base.runs, 0), |locked, plain| locked / plain - 1.0);
        let what = format!("{shape}, {name}: slower than plain ({})", slower.bounds("%"));
        section.add(what, slower.middle, "%", *bar);
        let what = format!("{shape}, {name}: more CPU time of the relay ({})", more.bounds("%"));
        section.add(what, more.middle, "%", Bar::None);
    }
}

fn rates(runs: &[Measured]) -> Vec<f64> {
    runs.iter().map(|run| run.report.rate()).collect()
}

/// CPU time per request, of the relay (0) or the generator (1).
fn cpu_us(runs: &[Measured], index: usize) -> Vec<f64> {
    runs.iter().filter_map(|run| run.cpu_us().get(index).copied()).collect()
}

/// Compares the runs of each round.
fn percent(these: &[f64], base: &[f64], compare: fn(f64, f64) -> f64) -> Interval {
    let pairs: Vec<_> = these.iter().zip(base).map(|(this, base)| compare(*this, *base) * 100.0).collect();
    Interval::of_median(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lock_differs_from_plain_names() {
        let [plain, short, secret, key] = kinds().map(|names| (names.recipients)(2).name_bytes());
        assert_eq!([plain, short, secret, key], [LOCKED_BYTES, 16, LOCKED_BYTES, LOCKED_BYTES + 1]);
    }

    #[test]
    fn runs_of_one_round_are_compared() {
        let slower =
            percent(&[90.0, 99.0, 49.0], &[100.0, 100.0, 50.0], |locked, plain| 1.0 - locked / plain);
        assert!((slower.middle - 2.0).abs() < 1e-9 && (slower.high - 10.0).abs() < 1e-9, "{slower:?}");
    }
}
