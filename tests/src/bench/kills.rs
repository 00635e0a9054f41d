//! A steady load for a long time on a relay that is repeatedly killed, stopped, suspended and
//! deprived of file descriptors, and whose journal sometimes gets a torn end. Each restart is
//! followed by an audit of all earlier responses. At the end the store is verified.
//!
//! A seed determines the faults and their times. It does not determine how threads and load
//! interleave, so a seed repeats the plan and not the run.

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
use super::relay::{BenchRelay, Settings};
use super::soak::{MIB, compare, record};

/// The title of the section.
const TITLE: &str = "Soak with kills";

/// The number of clients, and the highest rate of each.
const CLIENTS: usize = 16;
const STEPS_PER_SECOND: f64 = 100.0;

/// How many items each client leaves in its queue.
const KEPT_ITEMS: usize = 500;

/// How long a restarted relay may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long the relay is suspended, and how long it may open no files. It needs a new file about
/// every ten seconds.
const SUSPENDED_MS: Range<u64> = 200..2000;
const NO_FILES_MS: Range<u64> = 2000..15_000;

/// Longer latencies count as this long.
const LATENCY_US_MAX: u64 = 60_000_000;

/// The most bytes that a torn write leaves at the end of the journal.
const TORN_BYTES_MAX: usize = 10_000;

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct KillOptions {
    pub(super) minutes: f64,
    pub(super) kill_every_seconds: f64,
    pub(super) seed: u64,
}

/// Counts over the whole run.
#[derive(Default)]
struct Totals {
    kills: u64,
    stops: u64,
    torn: u64,
    suspended: u64,
    starved: u64,
    answered: u64,
    refused: u64,
    findings: Vec<String>,
}

/// Counts of one client in one round.
struct RoundStats {
    answered: u64,
    refused: u64,
    latencies_us: Histogram<u64>,
}

/// Runs the soak, draws the plot and returns the results.
pub(super) fn measure(lab: &Lab, options: KillOptions, svg: &Path) -> anyhow::Result<Section> {
    println!("seed {}", options.seed);
    let mut rng = Rng::with_seed(options.seed);
    let settings = Settings { gc_interval_seconds: 5, dedup_window_seconds: 5, ..Settings::default() };
    let mut relay = lab.relay(settings)?;
    let mut accounts: Vec<_> =
        (0..CLIENTS).map(|number| Account::new(format!("recipient {number}"), KEPT_ITEMS)).collect();
    let (mut totals, mut series, start) = (Totals::default(), Vec::new(), now());
    while now() - start < Duration::from_secs_f64(options.minutes * 60.0) {
        let length = options.kill_every_seconds * (0.5 + rng.f64());
        let seen = round(&mut relay, &mut accounts, &mut rng, &mut totals, Duration::from_secs_f64(length))?;
        let restart = restart(&mut relay, settings, &mut accounts, &mut totals)?;
        record(&mut series, sample(&seen, &relay, restart)?);
        print_round(now() - start, &totals, restart);
    }
    relay.server.kill()?;
    totals.findings.extend(verify(&relay)?);
    plot::write(svg, &series)?;
    totals.findings.iter().for_each(|finding| println!("FOUND {finding}"));
    Ok(section(options, now() - start, &totals, &series))
}

/// Runs the load for a while, with a fault in the middle, until the relay is killed or stopped.
fn round(
    relay: &mut BenchRelay,
    accounts: &mut [Account],
    rng: &mut Rng,
    totals: &mut Totals,
    length: Duration,
) -> anyhow::Result<Vec<RoundStats>> {
    let is_over = AtomicBool::new(false);
    let base_url = relay.server.address.to_string();
    scope(|scope| {
        let clients: Vec<_> =
            accounts.iter_mut().map(|account| scope.spawn(|| work(account, &base_url, &is_over))).collect();
        let outcome = inject_faults(relay, rng, totals, length);
        is_over.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for client in clients {
            let round_stats = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
            totals.answered += round_stats.answered;
            totals.refused += round_stats.refused;
            seen.push(round_stats);
        }
        outcome.map(|()| seen)
    })
}

fn inject_faults(
    relay: &mut BenchRelay,
    rng: &mut Rng,
    totals: &mut Totals,
    length: Duration,
) -> anyhow::Result<()> {
    sleep(length / 2);
    match rng.u8(0..4) {
        0 => {
            totals.suspended += 1;
            relay.server.signal("STOP")?;
            sleep(Duration::from_millis(rng.u64(SUSPENDED_MS)));
            relay.server.signal("CONT")?;
        }
        1 => {
            totals.starved += 1;
            let previous_limit = relay.server.forbid_new_files()?;
            sleep(Duration::from_millis(rng.u64(NO_FILES_MS)));
            relay.server.set_file_limit(previous_limit)?;
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

/// Appends garbage to the journal, as a write that a power failure interrupts may leave it.
fn tear(store: &Path, rng: &mut Rng) -> anyhow::Result<()> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("journal-") && name.ends_with(".seg") {
            segments.push(path);
        }
    }
    let last = segments.into_iter().max().context("the store has no journal")?;
    let garbage: Vec<u8> = (0..rng.usize(1..TORN_BYTES_MAX)).map(|_| rng.u8(..)).collect();
    Ok(OpenOptions::new().append(true).open(last)?.write_all(&garbage)?)
}

/// Pushes and acks at a steady rate until the connection breaks or the round is over.
fn work(account: &mut Account, base_url: &str, is_over: &AtomicBool) -> anyhow::Result<RoundStats> {
    let mut seen = RoundStats { answered: 0, refused: 0, latencies_us: latencies()? };
    let mut client = Client::connect(base_url)?;
    let mut due = now();
    while !is_over.load(Ordering::Relaxed) {
        sleep(due.saturating_duration_since(now()));
        let started = now();
        // The client does not catch up after a fault.
        due = started.max(due) + Duration::from_secs_f64(1.0 / STEPS_PER_SECOND);
        match account.step(&mut client) {
            Ok(Step::Refused(_)) => seen.refused += 1,
            Ok(step) => {
                seen.answered += 1;
                let latency = now().saturating_duration_since(started);
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

/// Starts the relay again and audits every account. Returns how long the first response took.
fn restart(
    relay: &mut BenchRelay,
    settings: Settings,
    accounts: &mut [Account],
    totals: &mut Totals,
) -> anyhow::Result<Duration> {
    let started = now();
    relay.start_again(settings)?;
    let mut client = Client::connect(&relay.server.address.to_string())?;
    wait_until_ready(&mut client, started)?;
    let duration = now() - started;
    for account in accounts {
        totals.findings.extend(account.audit(&mut client)?);
    }
    Ok(duration)
}

fn wait_until_ready(client: &mut Client, started: Instant) -> anyhow::Result<()> {
    let body = crate::client::pull_body("nobody", None, None);
    while client.post("/pull", &body)?.status != 200 {
        if now() - started > START_TIMEOUT {
            bail!("the relay does not serve within a minute");
        }
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Runs `relay-bin verify` and returns its findings, if any.
fn verify(relay: &BenchRelay) -> anyhow::Result<Option<String>> {
    let output = relay.command("verify").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    Ok((!output.status.success())
        .then(|| format!("verify: {text}{}", String::from_utf8_lossy(&output.stderr))))
}

fn latencies() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_max(LATENCY_US_MAX, 3)?)
}

fn sample(seen: &[RoundStats], relay: &BenchRelay, restart: Duration) -> anyhow::Result<Vec<(String, f64)>> {
    let mut latencies_us = latencies()?;
    for round_stats in seen {
        latencies_us.add(&round_stats.latencies_us)?;
    }
    let latency_ms = |quantile| latencies_us.value_at_quantile(quantile) as f64 / 1000.0;
    let mut values = vec![
        ("push p50 ms".to_owned(), latency_ms(0.5)),
        ("push p99 ms".to_owned(), latency_ms(0.99)),
        ("restart ms".to_owned(), restart.as_secs_f64() * 1000.0),
        ("memory after restart MiB".to_owned(), relay.server.memory()?.resident as f64 / MIB),
    ];
    for (kind, bytes) in relay.disk_usage()?.0 {
        values.push((format!("files .{kind} MiB"), bytes as f64 / MIB));
    }
    Ok(values)
}

fn print_round(elapsed: Duration, totals: &Totals, restart: Duration) {
    let Totals { kills, stops, torn, suspended, starved, answered, refused, findings } = totals;
    println!(
        "{:>6.0} s  {kills} kills, {stops} stops, {torn} torn ends, {suspended} times suspended, {starved} times without file descriptors; {answered} answered, \
         {refused} refused; last restart {} ms; {} findings",
        elapsed.as_secs_f64(),
        quantity(restart.as_secs_f64() * 1000.0, ""),
        findings.len()
    );
}

fn section(options: KillOptions, elapsed: Duration, totals: &Totals, series: &[Series]) -> Section {
    let mut section = Section::new(
        TITLE,
        format!(
            "`cargo xtask soak --minutes {} --kill-every {} --seed {}`: {CLIENTS} clients push and ack, each at most {STEPS_PER_SECOND} times a \
             second and with about {KEPT_ITEMS} items left in its queue, while the relay is killed, stopped, held up (SIGSTOP) and \
             starved (no more files may be opened), and its journal gets a torn end. After each restart everything that was ever answered is audited.",
            options.minutes, options.kill_every_seconds, options.seed
        ),
    );
    let counts = [
        ("kill -9", totals.kills),
        ("torn ends after it", totals.torn),
        ("SIGTERM", totals.stops),
        ("times held up", totals.suspended),
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
