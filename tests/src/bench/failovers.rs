//! Two relays over three PostgreSQL servers under Patroni, whose primary is lost again and again
//! under load: the server alone, its whole machine, or for a while. After each time everything that
//! was ever answered is audited. At the end the store is verified.
//!
//! The load is that of a few clients. It measures how long requests fail, not how many are served.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{ScopedJoinHandle, scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use relay_store_postgres::migrate;
use relay_store_postgres::testing::{Cluster, options};
use tempfile::TempDir;

use crate::audit::{Account, Step};
use crate::client::{Client, pull_body, push_body};
use crate::load::now;

use super::Lab;
use super::figure::{Bar, Section};
use super::relay::{BenchRelay, Database, Settings};

/// The title of the section.
const TITLE: &str = "Soak with failovers";

/// The number of clients, and the highest rate of each.
const CLIENTS: usize = 16;
const STEPS_PER_SECOND: f64 = 25.0;

/// One in this many requests of a client is a pull.
const PULL_EVERY: u64 = 5;

/// How many items each client leaves in its queue.
const KEPT_ITEMS: usize = 200;

/// How long the load runs before the primary is lost.
const BEFORE: Duration = Duration::from_secs(3);

/// How long a failover may take, before the run is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long a round may take.
const ROUND_MAX: Duration = Duration::from_secs(400);

const PAUSE: Duration = Duration::from_millis(20);

/// How soon requests must be answered again once the new primary accepts writes; and from the loss
/// on, where Patroni notices it at once.
const OUTAGE_SECONDS_MAX: f64 = 15.0;

/// A write that ends when the synchronous standby has it.
const WRITE: &str = "CREATE TABLE IF NOT EXISTS probe (at timestamptz); INSERT INTO probe VALUES (now())";

/// How the primary is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// The server and its children are killed. Its Patroni sees that.
    Server,
    /// Its Patroni, too: it holds the leader key until that expires.
    Machine,
    /// All of them are stopped until another server is the primary. Then they go on.
    Pause,
}

/// What the clients of one round have seen.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    answered: u64,
    refused: u64,
}

/// Seconds after the loss of a primary.
#[derive(Clone, Copy, Debug)]
struct Round {
    loss: Loss,
    /// When another server was the primary, and when a standby confirmed its first write.
    promoted: f64,
    writes: f64,
    /// When the last of the relays answered a push again.
    answers: f64,
    /// When the lost server followed the new primary.
    whole: f64,
    seen: Seen,
}

/// The servers and their relays.
struct Fleet {
    cluster: Cluster,
    relays: [BenchRelay; 2],
    _key: TempDir,
}

/// Loses the primary this often, and returns the results.
pub(super) fn measure(lab: &Lab, count: usize) -> anyhow::Result<Section> {
    if !Cluster::is_installed() {
        bail!("this needs the programs of PostgreSQL, patroni and etcd");
    }
    let mut fleet = Fleet::start(lab)?;
    let mut accounts: Vec<_> =
        (0..CLIENTS).map(|number| Account::new(recipient(number), KEPT_ITEMS)).collect();
    let (mut rounds, mut findings) = (Vec::new(), Vec::new());
    for (number, loss) in (1..=count).zip([Loss::Server, Loss::Machine, Loss::Pause].into_iter().cycle()) {
        let round = fleet.round(loss, number, &mut accounts)?;
        findings.extend(fleet.audit(&mut accounts)?);
        println!("{}", round.line(number, findings.len()));
        rounds.push(round);
    }
    findings.extend(fleet.verify()?);
    findings.iter().for_each(|finding| println!("FOUND {finding}"));
    Ok(section(&rounds, findings.len()))
}

fn recipient(number: usize) -> String {
    format!("recipient {number}")
}

impl Fleet {
    fn start(lab: &Lab) -> anyhow::Result<Self> {
        let cluster = Cluster::start()?;
        migrate(&options(&cluster.dsn("relay_owner")))?;
        let key = lab.directory()?;
        let database = Database {
            dsn: cluster.dsn("relay"),
            durability: "replicated",
            key_path: key.path().join("relay.key"),
        };
        let start = || {
            let program: PathBuf = lab.program("relay-under-test");
            BenchRelay::start_on(program, lab.directory()?, Settings::default(), Some(database.clone()))
        };
        let relays = [start()?, start()?];
        Ok(Self { cluster, relays, _key: key })
    }

    /// Loses the primary under load, waits until the relays answer, and brings the server back.
    fn round(&mut self, loss: Loss, number: usize, accounts: &mut [Account]) -> anyhow::Result<Round> {
        let Self { cluster, relays, .. } = self;
        let is_over = AtomicBool::new(false);
        scope(|scope| {
            let clients: Vec<_> = (0..)
                .zip(accounts)
                .map(|(client, account)| {
                    let base_url = relay_of(relays, client).server.address.to_string();
                    let is_over = &is_over;
                    scope.spawn(move || work(account, client, &base_url, is_over))
                })
                .collect();
            let outcome = fail_over(cluster, relays, loss, number);
            is_over.store(true, Ordering::Relaxed);
            let seen = clients.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>()?;
            Ok(Round { seen: seen.into_iter().fold(Seen::default(), Seen::plus), ..outcome? })
        })
    }

    /// Compares each queue with its account, through the relay that its client did not use.
    fn audit(&self, accounts: &mut [Account]) -> anyhow::Result<Vec<String>> {
        let mut findings = Vec::new();
        for (client, account) in accounts.iter_mut().enumerate() {
            let other = relay_of(&self.relays, client + 1);
            let mut other = Client::connect(&other.server.address.to_string())?;
            findings.extend(account.audit(&mut other)?);
        }
        Ok(findings)
    }

    /// Runs `relay-bin verify`, which recounts the usage of each queue. Returns what it found.
    fn verify(&self) -> anyhow::Result<Option<String>> {
        let output = self.relays[0].command("verify").output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        let is_clean = output.status.success();
        Ok((!is_clean).then(|| format!("verify: {text}{}", String::from_utf8_lossy(&output.stderr))))
    }
}

/// Clients use one relay and the other in turn.
const fn relay_of(relays: &[BenchRelay; 2], client: usize) -> &BenchRelay {
    let [even, odd] = relays;
    if client.is_multiple_of(2) { even } else { odd }
}

/// Pushes, pulls and acks at a steady rate until the round is over. Each request gets a response.
fn work(account: &mut Account, number: usize, base_url: &str, is_over: &AtomicBool) -> anyhow::Result<Seen> {
    let (mut seen, mut is_refused) = (Seen::default(), false);
    let mut client = Client::connect(base_url)?;
    let (pull, started) = (pull_body(&recipient(number), None, Some(20)), now());
    // A request that was refused is sent until its outcome is known.
    while is_refused || !is_over.load(Ordering::Relaxed) {
        let begun = now();
        if begun - started > ROUND_MAX {
            bail!("{base_url} still refuses requests");
        }
        if !is_refused && (seen.answered + seen.refused).is_multiple_of(PULL_EVERY) {
            match client.post("/pull", &pull)?.status {
                200 => seen.answered += 1,
                503 => seen.refused += 1,
                status => bail!("a pull was answered {status}"),
            }
        }
        is_refused = matches!(account.step(&mut client).context("a request")?, Step::Refused(_));
        *(if is_refused { &mut seen.refused } else { &mut seen.answered }) += 1;
        sleep((begun + Duration::from_secs_f64(1.0 / STEPS_PER_SECOND)).saturating_duration_since(now()));
    }
    Ok(seen)
}

/// Loses the primary, and brings it back once both relays answer.
fn fail_over(
    cluster: &mut Cluster,
    relays: &[BenchRelay; 2],
    loss: Loss,
    number: usize,
) -> anyhow::Result<Round> {
    sleep(BEFORE);
    let old = cluster.wait_until_whole()?;
    let lost = now();
    match loss {
        Loss::Server => cluster.kill_server(old)?,
        Loss::Machine => cluster.kill(old)?,
        Loss::Pause => cluster.pause(old)?,
    }
    let after = |then: Instant| (then - lost).as_secs_f64();
    let ([promoted, writes], answered) = scope(|scope| {
        let cluster = &*cluster;
        let takes_over = scope.spawn(move || watch(cluster, old));
        let probes = [0, 1].map(|relay| {
            let base_url = relay_of(relays, relay).server.address.to_string();
            scope.spawn(move || probe(&base_url, (number * 2 + relay) as u128))
        });
        let answered = probes.into_iter().map(join).collect::<anyhow::Result<Vec<_>>>();
        anyhow::Ok((join(takes_over)?, answered?))
    })?;
    match loss {
        // Its Patroni starts it again by itself.
        Loss::Server => {}
        Loss::Machine => cluster.start_again(old)?,
        Loss::Pause => cluster.resume(old)?,
    }
    cluster.wait_until_whole()?;
    let answers = answered.into_iter().map(after).fold(0.0, f64::max);
    let (promoted, writes, whole) = (after(promoted), after(writes), after(now()));
    Ok(Round { loss, promoted, writes, answers, whole, seen: Seen::default() })
}

/// When another server was the primary, and when its first write was confirmed.
fn watch(cluster: &Cluster, old: usize) -> anyhow::Result<[Instant; 2]> {
    let begun = now();
    let is_new = |node: &usize| *node != old && cluster.is_primary(*node);
    while now() - begun < PATIENCE {
        if let Some(new) = cluster.numbers().find(is_new) {
            let promoted = now();
            cluster.execute(new, WRITE)?;
            return Ok([promoted, now()]);
        }
        sleep(PAUSE);
    }
    bail!("no other server has become the primary: {}", cluster.logs()?)
}

/// When a relay answers a push that began after the loss.
fn probe(base_url: &str, message: u128) -> anyhow::Result<Instant> {
    let (begun, body) = (now(), push_body("probe", message, b"probe"));
    let mut client = Client::connect(base_url)?;
    while now() - begun < PATIENCE {
        if client.post("/push", &body)?.status == 200 {
            return Ok(now());
        }
        sleep(PAUSE);
    }
    bail!("{base_url} does not answer any more")
}

fn join<T>(thread: ScopedJoinHandle<'_, anyhow::Result<T>>) -> anyhow::Result<T> {
    thread.join().map_err(|_| io::Error::other("a thread panicked"))?
}

impl Seen {
    const fn plus(self, other: Self) -> Self {
        Self { answered: self.answered + other.answered, refused: self.refused + other.refused }
    }
}

impl Round {
    /// How long the relays took after the new primary could write. The first write may be theirs.
    fn relays(&self) -> f64 {
        (self.answers - self.writes).max(0.0)
    }

    fn line(&self, number: usize, findings: usize) -> String {
        let Self { loss, promoted, writes, answers, whole, seen } = self;
        let what = loss.name();
        format!(
            "round {number:>2}, {what:<24} promoted {promoted:>5.1} s after it, confirmed a write {writes:>5.1} s, relays answered {answers:>5.1} s \
             ({:.1} s after that), whole {whole:>5.1} s; {} answered, {} refused; {findings} findings",
            self.relays(),
            seen.answered,
            seen.refused
        )
    }
}

impl Loss {
    const fn name(self) -> &'static str {
        match self {
            Self::Server => "the server is killed",
            Self::Machine => "its Patroni is, too",
            Self::Pause => "both are held up",
        }
    }

    /// Patroni waits until the leader key expires, unless it sees that its server is dead.
    const fn bar(self) -> Bar {
        match self {
            Self::Server => Bar::Below(OUTAGE_SECONDS_MAX),
            Self::Machine | Self::Pause => Bar::None,
        }
    }
}

fn section(rounds: &[Round], findings: usize) -> Section {
    let mut section = Section::new(
        TITLE,
        format!(
            "`cargo xtask soak --failovers {}`: two relays over three servers under Patroni with the settings of deploy/postgres/patroni.yaml. \
             {CLIENTS} clients push, pull and ack, each at most {STEPS_PER_SECOND} times a second. The primary and its children are killed, \
             with its Patroni or without it, or both are held up (SIGSTOP) until another server is the primary. The longest of the seconds \
             after that. After each time everything that was ever answered is audited.",
            rounds.len()
        ),
    );
    for loss in [Loss::Server, Loss::Machine, Loss::Pause] {
        let of_loss: Vec<_> = rounds.iter().filter(|round| round.loss == loss).collect();
        let mut add = |until: &str, seconds: fn(&Round) -> f64, bar| {
            if let Some(longest) = of_loss.iter().map(|round| seconds(round)).reduce(f64::max) {
                section.add(format!("{}: {until}", loss.name()), longest, "s", bar);
            }
        };
        add("another one is the primary", |round| round.promoted, Bar::None);
        add("it has confirmed a write", |round| round.writes, Bar::None);
        add("both relays answer", |round| round.answers, loss.bar());
        let bar = Bar::Below(OUTAGE_SECONDS_MAX);
        add("both relays answer, after it has confirmed a write", Round::relays, bar);
    }
    let seen = rounds.iter().fold(Seen::default(), |seen, round| seen.plus(round.seen));
    section.add("requests answered 200", seen.answered as f64, "", Bar::None);
    section.add("refused with 503, and asked again", seen.refused as f64, "", Bar::None);
    section.add("findings of audits and verify", findings as f64, "", Bar::Below(1.0));
    section
}
