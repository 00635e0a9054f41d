//! A steady load for a long time on a relay that is killed, stopped, held up and starved of files
//! again and again, and whose journal gets a torn end now and then. After each restart every answer
//! that was ever given is audited; at the end the store is verified.
//!
//! What happens when follows from a seed. How the relay's threads and the load meet does not, so a
//! seed repeats the plan and not the run.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use fastrand::Rng;
use hdrhistogram::Histogram;

use crate::audit::{Account, Step};
use crate::client::Client;
use crate::load::now;

use super::Lab;
use super::figure::{Bar, Section, quantity};
use super::plot::{self, Series};
use super::relay::{Relay, Settings};
use super::soak::{MIB, compare, record};

/// What the section of this run is called.
const TITLE: &str = "Soak with kills";

/// How many clients there are, and how fast each of them asks at most.
const CLIENTS: usize = 16;
const STEPS_PER_SECOND: f64 = 100.0;

/// How many items each leaves in its queue.
const KEPT_ITEMS: usize = 500;

/// How long a restarted relay may take until it serves.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the relay is held up, and how long it is starved: it needs a new file every ten seconds
/// or so.
const HELD_UP_MS: Range<u64> = 200..2000;
const STARVED_MS: Range<u64> = 2000..15_000;

/// No latency is longer, or it is not told how much.
const LATENCY_US_MAX: u64 = 60_000_000;

/// What a torn write leaves behind the end of the journal, at most.
const TORN_BYTES_MAX: usize = 10_000;

/// How long, how often, and with which chances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) minutes: f64,
    pub(super) kill_every_seconds: f64,
    pub(super) seed: u64,
}

/// What is counted over the whole run.
#[derive(Default)]
struct Totals {
    kills: u64,
    stops: u64,
    torn: u64,
    held_up: u64,
    starved: u64,
    answered: u64,
    refused: u64,
    findings: Vec<String>,
}

/// What one client has seen in one round.
struct Seen {
    answered: u64,
    refused: u64,
    latencies_us: Histogram<u64>,
}

/// Runs, draws the plot, and hands back what was found.
pub(super) fn measure(lab: &Lab, terms: Terms, svg: &Path) -> anyhow::Result<Section> {
    println!("seed {}", terms.seed);
    let mut rng = Rng::with_seed(terms.seed);
    let settings = Settings { gc_interval_seconds: 5, dedup_window_seconds: 5, ..Settings::default() };
    let mut relay = lab.relay(settings)?;
    let mut accounts: Vec<_> =
        (0..CLIENTS).map(|number| Account::new(format!("recipient {number}"), KEPT_ITEMS)).collect();
    let (mut totals, mut series, start) = (Totals::default(), Vec::new(), now());
    while now() - start < Duration::from_secs_f64(terms.minutes * 60.0) {
        let length = terms.kill_every_seconds * (0.5 + rng.f64());
        let seen = round(&mut relay, &mut accounts, &mut rng, &mut totals, Duration::from_secs_f64(length))?;
        let restart = restart(&mut relay, settings, &mut accounts, &mut totals)?;
        record(&mut series, sample(&seen, &relay, restart)?);
        print_round(now() - start, &totals, restart);
    }
    relay.server.kill()?;
    totals.findings.extend(verify(&relay)?);
    plot::write(svg, &series)?;
    totals.findings.iter().for_each(|finding| println!("FOUND {finding}"));
    Ok(section(terms, now() - start, &totals, &series))
}

/// Load for a while, with a fault in the middle, until the relay is killed or stopped.
fn round(
    relay: &mut Relay,
    accounts: &mut [Account],
    rng: &mut Rng,
    totals: &mut Totals,
    length: Duration,
) -> anyhow::Result<Vec<Seen>> {
    let is_over = AtomicBool::new(false);
    let base_url = relay.server.address.to_string();
    scope(|scope| {
        let clients: Vec<_> =
            accounts.iter_mut().map(|account| scope.spawn(|| work(account, &base_url, &is_over))).collect();
        let outcome = disturb(relay, rng, totals, length);
        is_over.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for client in clients {
            let one = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            totals.answered += one.answered;
            totals.refused += one.refused;
            seen.push(one);
        }
        outcome.map(|()| seen)
    })
}

fn disturb(relay: &mut Relay, rng: &mut Rng, totals: &mut Totals, length: Duration) -> anyhow::Result<()> {
    sleep(length / 2);
    match rng.u8(0..4) {
        0 => {
            totals.held_up += 1;
            relay.server.signal("STOP")?;
            sleep(Duration::from_millis(rng.u64(HELD_UP_MS)));
            relay.server.signal("CONT")?;
        }
        1 => {
            totals.starved += 1;
            let before = relay.server.allow_no_more_files()?;
            sleep(Duration::from_millis(rng.u64(STARVED_MS)));
            relay.server.allow_files(before)?;
        }
        _ => {}
    }
    sleep(length / 2);
    if rng.u8(0..4) == 0 {
        totals.stops += 1;
        relay.server.stop()?;
        return Ok(());
    }
    totals.kills += 1;
    relay.server.kill()?;
    if rng.bool() {
        totals.torn += 1;
        tear(&relay.store(), rng)?;
    }
    Ok(())
}

/// Writes what was never answered behind the end of the journal, as a write that a power failure
/// has cut may leave it.
fn tear(store: &Path, rng: &mut Rng) -> anyhow::Result<()> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("journal-") && name.ends_with(".seg") {
            segments.push(path);
        }
    }
    let last = segments.into_iter().max().context("a store has a journal")?;
    let garbage: Vec<u8> = (0..rng.usize(1..TORN_BYTES_MAX)).map(|_| rng.u8(..)).collect();
    Ok(OpenOptions::new().append(true).open(last)?.write_all(&garbage)?)
}

/// Pushes and acks at a steady pace until the connection breaks or the round is over.
fn work(account: &mut Account, base_url: &str, is_over: &AtomicBool) -> anyhow::Result<Seen> {
    let mut seen = Seen { answered: 0, refused: 0, latencies_us: latencies()? };
    let mut client = Client::connect(base_url)?;
    let mut due = now();
    while !is_over.load(Ordering::Relaxed) {
        sleep(due.saturating_duration_since(now()));
        let begun = now();
        // It does not catch up on what a fault has kept it from.
        due = begun.max(due) + Duration::from_secs_f64(1.0 / STEPS_PER_SECOND);
        match account.step(&mut client) {
            Ok(Step::Refused(_)) => seen.refused += 1,
            Ok(step) => {
                seen.answered += 1;
                let latency = now().saturating_duration_since(begun);
                if step == Step::Pushed {
                    seen.latencies_us
                        .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error.into()),
            Err(_) => break,
        }
    }
    Ok(seen)
}

/// Starts the relay again and audits every account. Tells how long it took until the first answer.
fn restart(
    relay: &mut Relay,
    settings: Settings,
    accounts: &mut [Account],
    totals: &mut Totals,
) -> anyhow::Result<Duration> {
    let begun = now();
    relay.start_again(settings)?;
    let mut client = Client::connect(&relay.server.address.to_string())?;
    until_ready(&mut client, begun)?;
    let took = now() - begun;
    for account in accounts {
        totals.findings.extend(account.audit(&mut client)?);
    }
    Ok(took)
}

fn until_ready(client: &mut Client, begun: Instant) -> anyhow::Result<()> {
    let nobody = crate::client::pull_body("nobody", None, None);
    while client.post("/pull", &nobody)?.status != 200 {
        if now() - begun > PATIENCE {
            bail!("the relay does not serve");
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// What `relay-bin verify` finds, if anything.
fn verify(relay: &Relay) -> anyhow::Result<Option<String>> {
    let output = relay.command("verify").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    Ok((!output.status.success())
        .then(|| format!("verify: {text}{}", String::from_utf8_lossy(&output.stderr))))
}

fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LATENCY_US_MAX, 3)?)
}

fn sample(seen: &[Seen], relay: &Relay, restart: Duration) -> anyhow::Result<Vec<(String, f64)>> {
    let mut latencies_us = latencies()?;
    for one in seen {
        latencies_us.add(&one.latencies_us)?;
    }
    let latency_ms = |quantile| latencies_us.value_at_quantile(quantile) as f64 / 1000.0;
    let mut values = vec![
        ("push p50 ms".to_owned(), latency_ms(0.5)),
        ("push p99 ms".to_owned(), latency_ms(0.99)),
        ("restart ms".to_owned(), restart.as_secs_f64() * 1000.0),
        ("memory after restart MiB".to_owned(), relay.server.memory()?.resident as f64 / MIB),
    ];
    for (kind, bytes) in relay.files()?.0 {
        values.push((format!("files .{kind} MiB"), bytes as f64 / MIB));
    }
    Ok(values)
}

fn print_round(elapsed: Duration, totals: &Totals, restart: Duration) {
    let Totals { kills, stops, torn, held_up, starved, answered, refused, findings } = totals;
    println!(
        "{:>6.0} s  {kills} kills, {stops} stops, {torn} torn ends, {held_up} times held up, {starved} times starved; {answered} answered, \
         {refused} refused; last restart {} ms; {} findings",
        elapsed.as_secs_f64(),
        quantity(restart.as_secs_f64() * 1000.0, ""),
        findings.len()
    );
}

fn section(terms: Terms, elapsed: Duration, totals: &Totals, series: &[Series]) -> Section {
    let mut section = Section::new(
        TITLE,
        format!(
            "`cargo xtask soak --minutes {} --kill-every {} --seed {}`: {CLIENTS} clients push and ack, each at most {STEPS_PER_SECOND} times a \
             second and with about {KEPT_ITEMS} items left in its queue, while the relay is killed, stopped, held up (SIGSTOP) and \
             starved (no more files may be opened), and its journal gets a torn end. After each restart everything that was ever answered is audited.",
            terms.minutes, terms.kill_every_seconds, terms.seed
        ),
    );
    let counts = [
        ("kill -9", totals.kills),
        ("torn ends after it", totals.torn),
        ("SIGTERM", totals.stops),
        ("times held up", totals.held_up),
        ("times starved of files", totals.starved),
        ("answered 200", totals.answered),
        ("refused with 503 or 507, and asked again", totals.refused),
    ];
    section.add("time", elapsed.as_secs_f64() / 60.0, "min", Bar::None);
    for (what, count) in counts {
        section.add(what, count as f64, "", Bar::None);
    }
    section.add("findings of audits and verify", totals.findings.len() as f64, "", Bar::Below(1.0));
    compare(&mut section, series);
    section
}
