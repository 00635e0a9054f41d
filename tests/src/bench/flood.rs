//! Measures what a flood of refused pulls costs the relay: of wrong proofs, beside one of requests
//! above the rate limit.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use crate::load::{Owner, Pace, Page, Plan, Pull, Stop, authorization, now, post, run, unix_seconds};
use crate::pull_body;

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::flooder::{CLOSED, Outcomes, flood};
use super::relay::{AUDIENCE, RateLimit, Settings};
use super::statistics::Interval;

const ROUNDS: usize = 7;

/// Connections of a flood that the relay accepts all, and whose requests may all wait for their
/// refusals.
const PATIENT: usize = 64;

/// More connections than one address may open at once, so that the relay closes some.
const RUDE: usize = 300;

/// Connections of a flood that is answered at once.
const AT_ONCE: usize = 16;

/// Up to this multiple of the cost of plain refusals, a flood counts as no dearer: runs differ by
/// as much.
const NOISE: f64 = 1.05;

/// Floods that are compared.
struct Group {
    name: String,
    connections: usize,
    /// The first one is what the others are compared with.
    floods: [Flood; 4],
}

/// A flood of one request, and what it has cost so far.
struct Flood {
    name: &'static str,
    request: fn() -> Bytes,
    rate_limit: RateLimit,
    /// The answer if nothing limits the rate.
    status: u16,
    costs: Vec<Cost>,
}

/// What a flood costs the relay.
struct Cost {
    attempts: f64,
    seconds: f64,
    cpu: Duration,
    outcomes: Outcomes,
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let (rounds, time) = (lab.at_length(ROUNDS, 1), Duration::from_secs(lab.at_length(8, 1)));
    let mut section = Section::new(
        "Floods of refused pulls",
        format!(
            "One address floods the relay with pulls. With the shipped rate limit, over {PATIENT} connections, where it delays most refusals \
             by 2 s, and over {RUDE}, where it also closes connections, which are opened again at once: the rate limit decides before the \
             proof is looked at. An attempt is one request, or one connection that is refused or closed. Then at once, as fast as the \
             answers come over {AT_ONCE} connections: refusals of the rate limit (without delay and bans) beside refusals of proofs \
             (without rate limit). {rounds} rounds of {} s, in turns, each in a new process; ratios are medians over the rounds.",
            time.as_secs()
        ),
    );
    let group =
        |name: String, connections, rate_limit| Group { name, connections, floods: floods(rate_limit) };
    let mut groups = [
        group(format!("{PATIENT} connections"), PATIENT, RateLimit::Shipped),
        group(format!("{RUDE} connections"), RUDE, RateLimit::Shipped),
        group("at once".to_owned(), AT_ONCE, RateLimit::Off),
    ];
    for round in 0..rounds {
        for Group { connections, floods, .. } in &mut groups {
            for turn in 0..floods.len() {
                let index = (round + turn) % floods.len();
                if let Some(flood) = floods.get_mut(index) {
                    flood.costs.push(flood.run(lab, *connections, time)?);
                }
            }
        }
    }
    groups.iter().for_each(|group| add(&mut section, group));
    Ok(section)
}

/// The flood of plain refusals, and those of refused proofs.
fn floods(rate_limit: RateLimit) -> [Flood; 4] {
    let flood = |name, status, request| Flood { name, request, rate_limit, status, costs: Vec::new() };
    let refused = flood("plain recipient, above the rate (429)", 429, plain);
    // Above the rate, but without delays, which would be all that is seen.
    let is_off = rate_limit == RateLimit::Off;
    let refused = if is_off { Flood { rate_limit: RateLimit::Immediate, ..refused } } else { refused };
    [
        refused,
        flood("wrong secret (403)", 403, wrong_secret),
        flood("wrong signature (403)", 403, wrong_signature),
        flood("no proof (401)", 401, no_proof),
    ]
}

fn plain() -> Bytes {
    pull(&"x".repeat(50), "")
}

fn no_proof() -> Bytes {
    pull(Owner::of_secret(1).name(), "")
}

fn wrong_secret() -> Bytes {
    wrong(&[1, 2].map(Owner::of_secret))
}

/// The relay computes the whole signature before it refuses.
fn wrong_signature() -> Bytes {
    wrong(&[1, 2].map(Owner::of_key))
}

fn wrong([owner, other]: &[Owner; 2]) -> Bytes {
    pull(owner.name(), &authorization(&other.wrong_proof(owner, AUDIENCE, unix_seconds())))
}

fn pull(name: &str, header: &str) -> Bytes {
    post("/pull", header.as_bytes(), pull_body(name, None, None).to_string().as_bytes())
}

impl Flood {
    fn run(&self, lab: &Lab, connections: usize, time: Duration) -> anyhow::Result<Cost> {
        let settings = Settings { rate_limit: self.rate_limit, has_tokens: true, ..Settings::default() };
        let relay = lab.relay(settings)?;
        let (address, request) = (relay.server.address, (self.request)());
        let (cpu, start) = (relay.server.cpu_of_threads()?, now());
        let outcomes = if self.rate_limit == RateLimit::Shipped {
            flood(address, &request, connections, time)
        } else {
            let stop = Stop { time: Some(time), ..Stop::default() };
            let pages = vec![Page { request, body_bytes: 0, items: 0 }];
            let plan = Plan { address, connections, pace: Pace::Closed, stop };
            let report = run(&mut Pull::new(pages), &plan)?;
            report.tallies.into_values().flat_map(|tally| tally.statuses).collect()
        };
        let seconds = (now() - start).as_secs_f64();
        let cpu = relay.server.cpu_of_threads()?.saturating_sub(cpu);
        Ok(Cost { attempts: outcomes.values().sum::<u64>() as f64, seconds, cpu, outcomes })
    }

    /// The share of attempts with this outcome, in percent.
    fn share(&self, status: u16) -> f64 {
        let shares = self.costs.iter().map(|cost| {
            let count = cost.outcomes.get(&status).copied().unwrap_or_default();
            100.0 * count as f64 / cost.attempts.max(1.0)
        });
        median(&shares.collect::<Vec<_>>())
    }

    fn figures(&self, figure: fn(&Cost) -> f64) -> Vec<f64> {
        self.costs.iter().map(figure).collect()
    }
}

impl Cost {
    /// CPU time per attempt, in microseconds.
    fn per_attempt_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.attempts.max(1.0)
    }

    /// CPU time per second of the flood, in milliseconds.
    fn per_second_ms(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e3 / self.seconds
    }

    fn rate(&self) -> f64 {
        self.attempts / self.seconds
    }
}

fn add(section: &mut Section, group: &Group) {
    let Group { name: how, floods, .. } = group;
    let mut outcomes = format!("Answers, {how}:");
    for flood in floods {
        let name = flood.name;
        let [rate, each, second] = [Cost::rate, Cost::per_attempt_us, Cost::per_second_ms]
            .map(|figure| median(&flood.figures(figure)));
        section.add(format!("{how}, {name}: attempts"), rate, "/s", Bar::None);
        section.add(format!("{how}, {name}: CPU time of an attempt"), each, "µs", Bar::None);
        section.add(format!("{how}, {name}: CPU time of a second"), second, "ms", Bar::None);
        let statuses = [200, flood.status, 429].into_iter().collect::<BTreeSet<_>>();
        let shares = statuses.into_iter().map(|status| (status.to_string(), flood.share(status)));
        let shares = shares.chain([("closed without an answer".to_owned(), flood.share(CLOSED))]);
        let shares = shares.map(|(what, share)| format!("{what} {}", quantity(share, "%")));
        outcomes += &format!(" {name}: {}.", shares.collect::<Vec<_>>().join(", "));
    }
    section.note(outcomes);
    let Some((base, others)) = floods.split_first() else { return };
    for flood in others {
        let pairs = flood.figures(Cost::per_attempt_us).into_iter().zip(base.figures(Cost::per_attempt_us));
        let ratio = Interval::of_median(&pairs.map(|(this, base)| this / base).collect::<Vec<_>>());
        let what = format!("{how}, {}: an attempt / one above the rate ({})", flood.name, ratio.bounds(""));
        section.add(what, ratio.middle, "", Bar::AtMost(NOISE));
    }
}

#[cfg(test)]
mod tests {
    use crate::Relay;
    use crate::bench::probe::Probe;
    use crate::load::command::address;

    use super::*;

    #[test]
    fn every_flood_gets_the_answer_that_it_is_named_for() {
        let relay = Relay::with(|config| config.auth.audiences = vec![AUDIENCE.to_owned()]);
        let mut probe = Probe::connect(address(&relay.base_url).unwrap()).unwrap();
        for flood in floods(RateLimit::Off).into_iter().skip(1) {
            assert_eq!(probe.exchange(&(flood.request)()).unwrap().status, flood.status, "{}", flood.name);
        }
        assert_eq!(probe.exchange(&plain()).unwrap().status, 200, "only the rate limit refuses it");
    }
}
