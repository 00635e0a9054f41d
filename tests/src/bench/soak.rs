//! Pushes and acks at one rate for a long time. Rate, latency, memory, and files or tables must
//! stay flat.

use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use relay_store_postgres::testing::{Server, execute};
use tempfile::TempDir;

use crate::load::{ItemIds, Kind, Mixed, Pace, Plan, Report, Stop, now, run};

use super::Lab;
use super::figure::{Bar, Section, median, quantity};
use super::lab::{CONNECTIONS, PAYLOAD_BYTES, RECIPIENTS};
use super::plot::{self, Series};
use super::relay::{BenchRelay, Database, Settings};

const SAMPLE: Duration = Duration::from_secs(5);
const LAG_ITEMS: u64 = 20_000;
const BATCH: usize = 100;
pub(super) const MIB: f64 = 1024.0 * 1024.0;

/// How much a series may grow from its first third to its last.
const GROWTH_MAX: f64 = 1.2;
const LATENCY_GROWTH_MAX: f64 = 2.0;

/// A smaller increase, in the unit of the series, is no growth: a file of a few pages doubles
/// quickly.
const GROWTH_MIN: f64 = 8.0;

/// The size of each table of a store, with its indexes.
const TABLES: &str = "\
SELECT relname, pg_total_relation_size(oid) FROM pg_class
WHERE relnamespace = 'relay'::regnamespace AND relname IN ('queue', 'item', 'acked') ORDER BY relname";

/// What the relay stores in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Store {
    /// A directory of its own.
    #[default]
    Redb,
    /// A PostgreSQL server of its own, as it is shipped.
    Postgres,
}

/// A relay, and the server that it stores in, if there is one.
struct Subject {
    relay: BenchRelay,
    database: Option<(Server, String)>,
    _key: Option<TempDir>,
}

/// Runs for `minutes`, draws the plot, and reports what stayed flat.
pub(super) fn measure(lab: &Lab, minutes: f64, store: Store, svg: &Path) -> anyhow::Result<Section> {
    let subject = Subject::start(lab, store)?;
    let mut mixed = Mixed::new(ItemIds::new(1, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX, LAG_ITEMS, BATCH)
        .with_pulls(store.pull_every());
    let address = subject.relay.server.address;
    let plan = |pace| Plan {
        address,
        connections: CONNECTIONS,
        pace,
        stop: Stop { time: Some(SAMPLE), ..Stop::default() },
    };
    let rate = run(&mut mixed, &plan(Pace::Closed))?.rate() / 2.0;
    println!("{} requests, half of what was reached in the first seconds", quantity(rate, "/s"));
    let mut series = Vec::new();
    let start = now();
    while now() - start < Duration::from_secs_f64(minutes * 60.0) {
        let report = run(&mut mixed, &plan(Pace::PerSecond(rate)))?;
        record(&mut series, subject.sample(&report)?);
        print_last(&series, now() - start);
    }
    plot::write(svg, &series)?;
    println!("the plot is in {}", svg.display());
    let mut section = Section::new(
        store.title(),
        format!(
            "`cargo xtask soak --minutes {minutes}{}`: pushes of 1 KiB to random ones of 100,000 recipients{}, each item acked when {} more were \
             pushed, together {}, half of what was reached in the first seconds (open loop, {CONNECTIONS} connections). A sweep runs every \
             5 s, and acked names are forgotten after 5 s. Medians of samples of {} s, without the first tenth.",
            store.flag(),
            if store.pull_every() > 0 { ", the queue of every fourth pulled" } else { "" },
            quantity(LAG_ITEMS as f64, ""),
            quantity(rate, "requests/s"),
            SAMPLE.as_secs(),
        ),
    );
    compare(&mut section, &series);
    Ok(section)
}

impl Store {
    /// The title of the section.
    const fn title(self) -> &'static str {
        match self {
            Self::Redb => "Soak",
            Self::Postgres => "Soak over PostgreSQL",
        }
    }

    /// Behind how many pushes a pull comes. With redb, pulls change nothing that is measured.
    const fn pull_every(self) -> u64 {
        match self {
            Self::Redb => 0,
            Self::Postgres => 4,
        }
    }

    const fn flag(self) -> &'static str {
        match self {
            Self::Redb => "",
            Self::Postgres => " --store postgres",
        }
    }
}

impl Subject {
    fn start(lab: &Lab, store: Store) -> anyhow::Result<Self> {
        // Acked item ids are forgotten within a sample or two, so the store reaches its size soon.
        let settings = Settings { gc_interval_seconds: 5, dedup_window_seconds: 5, ..Settings::default() };
        if store == Store::Redb {
            return Ok(Self { relay: lab.relay(settings)?, database: None, _key: None });
        }
        let server = Server::start("")?;
        let (dsn, key) = (server.create_store()?.shards.remove(0).dsn, lab.directory()?);
        let key_path = key.path().join("relay.key");
        let database = Database { dsn: dsn.clone(), durability: "single", key_path };
        let program = lab.program("relay-under-test");
        let relay = BenchRelay::start_on(program, lab.directory()?, settings, Some(database))?;
        Ok(Self { relay, database: Some((server, dsn)), _key: Some(key) })
    }

    /// One value per series, by name.
    fn sample(&self, report: &Report) -> anyhow::Result<Vec<(String, f64)>> {
        let pushes = report.tally(Kind::Push);
        let mut values = vec![
            ("requests /s".to_owned(), report.rate()),
            ("push p50 ms".to_owned(), pushes.latency_ms(0.5)),
            ("push p99 ms".to_owned(), pushes.latency_ms(0.99)),
            ("push max ms".to_owned(), pushes.latency_ms(1.0)),
            ("memory MiB".to_owned(), self.relay.server.memory()?.resident as f64 / MIB),
        ];
        let Some((_, dsn)) = &self.database else {
            for (kind, bytes) in self.relay.disk_usage()?.0 {
                values.push((format!("files .{kind} MiB"), bytes as f64 / MIB));
            }
            return Ok(values);
        };
        for line in execute(dsn, TABLES)?.lines() {
            let (name, bytes) = line.split_once('|').unwrap_or_default();
            values.push((format!("table {name} MiB"), bytes.parse::<f64>()? / MIB));
        }
        Ok(values)
    }
}

/// Appends a sample. Series that are new, or have no value any more, count as zero there.
pub(super) fn record(series: &mut Vec<Series>, values: Vec<(String, f64)>) {
    let samples = series.first().map_or(0, |first| first.values.len());
    for (name, value) in values {
        let index = series.iter().position(|one| one.name == name).unwrap_or_else(|| {
            series.push(Series { name, values: vec![0.0; samples] });
            series.len() - 1
        });
        if let Some(one) = series.get_mut(index) {
            one.values.push(value);
        }
    }
    series.iter_mut().for_each(|one| one.values.resize(samples + 1, 0.0));
}

fn print_last(series: &[Series], elapsed: Duration) {
    let values = series
        .iter()
        .map(|one| format!("{} {}", one.name, quantity(one.values.last().copied().unwrap_or_default(), "")));
    println!("{:>6.0} s  {}", elapsed.as_secs_f64(), values.collect::<Vec<_>>().join(", "));
}

/// Adds the first and the last third of each series, and how far it may grow.
pub(super) fn compare(section: &mut Section, series: &[Series]) {
    for one in series {
        let (first, last) = one.thirds();
        let bar = growth_max(&one.name).map(|limit| Bar::Below((first * limit).max(first + GROWTH_MIN)));
        section.add(format!("{}, first third", one.name), first, "", Bar::None);
        section.add(format!("{}, last third", one.name), last, "", bar.unwrap_or(Bar::None));
    }
}

/// The largest ratio of last to first third that counts as flat.
fn growth_max(name: &str) -> Option<f64> {
    if ["memory", "files", "table"].iter().any(|kind| name.starts_with(kind)) {
        Some(GROWTH_MAX)
    } else if name.contains("p99") {
        Some(LATENCY_GROWTH_MAX)
    } else {
        None
    }
}

impl Series {
    /// The medians of the first and the last third, without the first tenth, in which caches fill.
    pub(super) fn thirds(&self) -> (f64, f64) {
        let settled = self.values.get(self.values.len().div_ceil(10)..).unwrap_or_default();
        let third = settled.len().div_ceil(3);
        let first = settled.get(..third).unwrap_or_default();
        let last = settled.get(settled.len() - third..).unwrap_or_default();
        (median(first), median(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(name: &str, value: impl Fn(u32) -> f64) -> Series {
        Series { name: name.to_owned(), values: (0..100).map(value).collect() }
    }

    fn is_flat(series: &Series) -> bool {
        let mut section = Section::new(Store::Redb.title(), "");
        compare(&mut section, std::slice::from_ref(series));
        section.is_met()
    }

    #[test]
    fn growth_is_not_flat() {
        assert!(is_flat(&series("memory MiB", |_| 100.0)) && is_flat(&series("requests /s", f64::from)));
        assert!(is_flat(&series("files .x MiB", |at| 100.0 + f64::from(at % 10))));
        assert!(!is_flat(&series("files .x MiB", |at| 100.0 + f64::from(at))));
        assert!(!is_flat(&series("table x MiB", |at| 100.0 + f64::from(at))));
        assert!(is_flat(&series("push p99 ms", |at| if at < 50 { 10.0 } else { 19.0 })));
        assert!(!is_flat(&series("push p99 ms", |at| if at < 50 { 10.0 } else { 21.0 })));
        assert!(is_flat(&series("files .x MiB", |at| if at < 50 { 1.0 } else { 5.0 })));
        // Caches may fill at the beginning.
        assert!(is_flat(&series("memory MiB", |at| if at < 10 { 1.0 } else { 100.0 })));
    }

    #[test]
    fn a_series_may_appear_and_disappear() {
        let mut series = Vec::new();
        record(&mut series, vec![("a".to_owned(), 1.0)]);
        record(&mut series, vec![("a".to_owned(), 2.0), ("b".to_owned(), 3.0)]);
        record(&mut series, vec![("b".to_owned(), 4.0)]);
        let values: Vec<_> = series.iter().map(|one| one.values.clone()).collect();
        assert_eq!(values, [[1.0, 2.0, 0.0], [0.0, 3.0, 4.0]]);
    }
}
