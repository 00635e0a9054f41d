//! Measures relays over PostgreSQL: one server and two synchronous standbys, one relay and two,
//! single pushes and batches, beside one SQL function for each push. Servers, relays and load share
//! the processors.

use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use relay_store_postgres::testing::{Server, execute, program};
use tempfile::TempDir;

use crate::client::Client;
use crate::load::{Format, ItemIds, Pull, Push, PushBatches, Recipients, run, walk};

use super::Lab;
use super::figure::{Bar, Section, median};
use super::lab::{CONNECTIONS, CONNECTIONS_MAX, PAYLOAD_BYTES, RECIPIENTS, run_to_end};
use super::relay::{BenchRelay, Database, Settings};

/// A server as it would be set up for this load. All durability is on.
const SERVER: &str = "\
shared_buffers = 1GB
max_wal_size = 8GB
checkpoint_timeout = 15min
wal_buffers = 64MB
";

const BATCH_ITEMS: usize = 100;
const BATCH_CONNECTIONS: usize = 16;
const PULL_CONNECTIONS: usize = 16;

/// What each push would be as one function of the database: the same locks and checks.
const FUNCTION: &str = "\
CREATE FUNCTION relay.push_one(key uuid, name bytea, id uuid, payload bytea) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE u relay.queue; at bigint := floor(extract(epoch FROM clock_timestamp()) * 1000);
BEGIN
    SELECT * INTO u FROM relay.queue WHERE q = key FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO relay.queue VALUES (key, name, 0, 0, 0, at + 1209600000) ON CONFLICT DO NOTHING;
        SELECT * INTO u FROM relay.queue WHERE q = key FOR UPDATE;
    END IF;
    PERFORM FROM relay.item WHERE q = key AND message_id = id AND chunk_index = 0;
    IF FOUND THEN RETURN false; END IF;
    PERFORM FROM relay.acked WHERE q = key AND message_id = id AND chunk_index = 0 AND until > at;
    IF FOUND THEN RETURN false; END IF;
    IF u.items >= 200000 THEN RETURN false; END IF;
    u.last_seq := greatest(u.last_seq + 1, at << 20);
    INSERT INTO relay.item VALUES (key, u.last_seq, id, 0, 1, 'opaque', length(payload), 0, at,
        at + 1209600000, length(payload), 0, payload);
    UPDATE relay.queue SET items = items + 1, bytes = bytes + length(payload), last_seq = u.last_seq
        WHERE q = key;
    RETURN true;
END $$";

/// One call for pgbench. The payload costs the load generator next to nothing.
const CALL: &str = "\
\\set n random(1, 100000)
SELECT relay.push_one(md5(:n::text)::uuid, convert_to(:n::text, 'UTF8'), gen_random_uuid(), repeat('x', 1024)::bytea);
";

/// A server, its standbys, and what relays need to use it.
struct Cluster {
    primary: Server,
    _standbys: Vec<Server>,
    database: Database,
    _home: TempDir,
}

impl Cluster {
    fn start(lab: &Lab, standbys: usize) -> anyhow::Result<Self> {
        let primary = Server::start(SERVER)?;
        let dsn = primary.create_store()?.shards.remove(0).dsn;
        let names: Vec<String> = (0..standbys).map(|number| format!("s{number}")).collect();
        let standbys = names.iter().map(|name| primary.standby(name, "")).collect::<io::Result<Vec<_>>>()?;
        if !names.is_empty() {
            primary.configure(&format!("synchronous_standby_names = 'ANY 1 ({})'", names.join(", ")))?;
            // Until the server has read it and both follow.
            std::thread::sleep(Duration::from_secs(3));
        }
        let home = lab.directory()?;
        let key_path = home.path().join("relay.key");
        let durability = if names.is_empty() { "single" } else { "replicated" };
        Ok(Self {
            primary,
            _standbys: standbys,
            database: Database { dsn, durability, key_path },
            _home: home,
        })
    }

    fn relay(&self, lab: &Lab) -> anyhow::Result<BenchRelay> {
        let program = lab.program("relay-under-test");
        BenchRelay::start_on(program, lab.directory()?, Settings::default(), Some(self.database.clone()))
    }

    /// Forgets all items.
    fn clear(&self) -> io::Result<()> {
        let clear = "SET search_path = relay; TRUNCATE queue, item, acked; CHECKPOINT";
        execute(&self.database.dsn, clear).map(drop)
    }

    /// Single pushes a second into an empty store.
    fn push_rate(&self, lab: &Lab, connections: usize, section: &mut Section) -> anyhow::Result<f64> {
        self.clear()?;
        let relay = self.relay(lab)?;
        let mut push = Push::new(ItemIds::new(0, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX);
        let report = run(&mut push, &lab.short_plan(relay.server.address, connections))?;
        section.note_failures("pushes", &report);
        Ok(report.rate())
    }

    /// The same over two relays, each with half of the connections.
    fn push_rate_of_two(&self, lab: &Lab, connections: usize) -> anyhow::Result<f64> {
        self.clear()?;
        let relays = [self.relay(lab)?, self.relay(lab)?];
        let rates = std::thread::scope(|scope| {
            let runs: Vec<_> = (0..)
                .zip(&relays)
                .map(|(number, relay)| {
                    let plan = lab.short_plan(relay.server.address, connections / 2);
                    let ids = ItemIds::new(10 + number, RECIPIENTS);
                    scope.spawn(move || run(&mut Push::new(ids, PAYLOAD_BYTES, 0..u64::MAX), &plan))
                })
                .collect();
            runs.into_iter()
                .map(|run| run.join().map_err(|_| io::Error::other("a load generator panicked"))?)
                .collect::<io::Result<Vec<_>>>()
        })?;
        Ok(rates.iter().map(crate::load::Report::rate).sum())
    }

    fn batch_rate(&self, lab: &Lab) -> anyhow::Result<f64> {
        self.clear()?;
        let relay = self.relay(lab)?;
        let ids = ItemIds::new(0, RECIPIENTS);
        let mut pushes = PushBatches::new(Format::Json, ids, PAYLOAD_BYTES, BATCH_ITEMS as u64, 0..u64::MAX);
        let report = run(&mut pushes, &lab.short_plan(relay.server.address, BATCH_CONNECTIONS))?;
        Ok(report.rate() * BATCH_ITEMS as f64)
    }

    /// Items a second in full pages along the cursors of one queue.
    fn pull_rate(&self, lab: &Lab) -> anyhow::Result<f64> {
        self.clear()?;
        let items = 256 * lab.at_length(100, 4);
        let relay = self.relay(lab)?;
        let address = relay.server.address;
        run_to_end(&mut Push::new(ItemIds::new(1, 1), PAYLOAD_BYTES, 0..items), address, CONNECTIONS)?;
        let mut client = Client::connect(&address.to_string())?;
        let pages = walk(&mut client, &Recipients::computed(1), 0, usize::MAX, |_| {})?;
        Ok(run(&mut Pull::new(pages), &lab.short_plan(address, PULL_CONNECTIONS))?.item_rate())
    }

    /// Calls of one SQL function a second.
    fn function_rate(&self, lab: &Lab) -> anyhow::Result<f64> {
        self.clear()?;
        let home = lab.directory()?;
        let script = home.path().join("push.sql");
        std::fs::write(&script, CALL)?;
        execute(&self.database.dsn, &FUNCTION.replacen("CREATE", "CREATE OR REPLACE", 1))?;
        let seconds = lab.at_length("10", "1");
        let mut pgbench = Command::new(pgbench()?);
        pgbench.args(["-n", "-M", "prepared", "-c", "64", "-j", "1", "-T", seconds, "-f"]).arg(&script);
        pgbench.args(["-h", "127.0.0.1", "-U", "relay", "-p", &self.primary.port().to_string()]);
        let output = pgbench.arg(self.database.dsn.rsplit('=').next().unwrap_or_default()).output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let rate = text.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.with_context(|| format!("{text}{}", String::from_utf8_lossy(&output.stderr)))
    }
}

fn pgbench() -> anyhow::Result<PathBuf> {
    program("pgbench").context("pgbench is not installed")
}

pub(super) fn measure(lab: &Lab) -> anyhow::Result<Section> {
    let mut section = Section::new(
        "PostgreSQL",
        "Pushes of 1 KiB for random ones of 100,000 recipients into empty tables, through relays over one \
         server, and over one with two synchronous standbys (ANY 1), all on this machine with fsync. Beside them, \
         one SQL function for each push, called by pgbench over 64 connections. Runs alternate, and medians are compared.",
    );
    if program("initdb").is_none() {
        section.note("Skipped: PostgreSQL is not installed.");
        return Ok(section);
    }
    let (alone, replicated) = (Cluster::start(lab, 0)?, Cluster::start(lab, 2)?);
    let mut rates: [Vec<f64>; 8] = std::array::from_fn(|_| Vec::new());
    for _ in 0..lab.rounds() {
        let measured = [
            alone.push_rate(lab, CONNECTIONS, &mut section)?,
            alone.push_rate(lab, CONNECTIONS_MAX, &mut section)?,
            alone.push_rate_of_two(lab, CONNECTIONS)?,
            alone.function_rate(lab)?,
            alone.batch_rate(lab)?,
            replicated.push_rate(lab, CONNECTIONS, &mut section)?,
            replicated.push_rate(lab, CONNECTIONS_MAX, &mut section)?,
            alone.pull_rate(lab)?,
        ];
        rates.iter_mut().zip(measured).for_each(|(rates, rate)| rates.push(rate));
    }
    let [single, many, two, function, batch, standby, many_standby, pull] = rates.map(|rates| median(&rates));
    section.add("one server, 64 connections", single, "/s", Bar::AtLeast(15_000.0));
    section.add("one server, 256 connections", many, "/s", Bar::None);
    section.add("one server, two relays with 32 connections each", two, "/s", Bar::None);
    section.add("one SQL function for each push, 64 connections", function, "/s", Bar::None);
    section.add("relay / function", single / function, "", Bar::AtLeast(3.0));
    section.add("items in batches of 100, 16 connections", batch, "/s", Bar::None);
    section.add("two synchronous standbys, 64 connections", standby, "/s", Bar::AtLeast(8_000.0));
    section.add("two synchronous standbys, 256 connections", many_standby, "/s", Bar::None);
    section.add("items in full pages, 16 connections", pull, "/s", Bar::None);
    Ok(section)
}
