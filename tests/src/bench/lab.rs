//! What all benchmarks share: the programs, the disk, the length of runs, and runs that several of
//! them need.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::load::{ItemIds, Pace, Plan, Push, Report, Stop, Workload, run};

use super::figure::median;
use super::floor;
use super::relay::{BenchRelay, Settings};
use super::server::Server;

/// The number of recipients, unless a benchmark says otherwise.
pub(super) const RECIPIENTS: u64 = 100_000;

/// A small payload.
pub(super) const PAYLOAD_BYTES: usize = 1024;

/// The usual number of connections.
pub(super) const CONNECTIONS: usize = 64;

/// The most connections, for runs that only prepare a measurement.
pub(super) const CONNECTIONS_MAX: usize = 256;

/// The environment of all benchmarks.
#[derive(Debug)]
pub(super) struct Lab {
    /// The directory of the release programs.
    programs: PathBuf,
    /// The directory for files, on the disk that is measured.
    scratch: PathBuf,
    is_quick: bool,
    /// The rate of pushes at [`CONNECTIONS`], once it is measured.
    push_rate: Cell<Option<f64>>,
}

/// A run, and the CPU time of the server during it.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) report: Report,
    pub(super) server_cpu: Duration,
}

impl Lab {
    /// Opens a lab in the build directory of the running program.
    pub(super) fn open(is_quick: bool) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?;
        let programs = program.parent().context("the program has no directory")?.to_owned();
        let scratch = programs.parent().context("the program is not in target/release")?.join("bench");
        std::fs::create_dir_all(&scratch)?;
        Ok(Self { programs, scratch, is_quick, push_rate: Cell::new(None) })
    }

    /// `full`, or `quick` in a run that only checks that everything works.
    pub(super) fn at_length<T>(&self, full: T, quick: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// How often a noisy figure is measured.
    pub(super) fn rounds(&self) -> usize {
        self.at_length(3, 1)
    }

    /// The directory for all files.
    pub(super) fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The path of a release program.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A new directory, which is removed on drop.
    pub(super) fn directory(&self) -> io::Result<TempDir> {
        tempfile::Builder::new().prefix("run-").tempdir_in(&self.scratch)
    }

    /// Starts a relay with an empty store.
    pub(super) fn relay(&self, settings: Settings) -> anyhow::Result<BenchRelay> {
        BenchRelay::start(self.program("relay-under-test"), self.directory()?, settings)
    }

    /// The plan of one short run.
    pub(super) fn short_plan(&self, address: SocketAddr, connections: usize) -> Plan {
        let time = Duration::from_secs(self.at_length(10, 1));
        Plan { address, connections, pace: Pace::Closed, stop: Stop { time: Some(time), ..Stop::default() } }
    }

    /// Pushes new items of 1 KiB into an empty store for a short while.
    pub(super) fn push_into_empty(&self, connections: usize) -> anyhow::Result<Measured> {
        self.push_into(&self.relay(Settings::default())?.server, connections)
    }

    /// Like [`Lab::push_into_empty`], with a server that has no store.
    pub(super) fn push_onto_floor(&self, connections: usize) -> anyhow::Result<Measured> {
        self.push_into(&floor::start(&self.program("relay-floor"), None)?, connections)
    }

    fn push_into(&self, server: &Server, connections: usize) -> anyhow::Result<Measured> {
        let mut push = Push::new(ItemIds::new(0, RECIPIENTS), PAYLOAD_BYTES, 0..u64::MAX);
        self.continue_pushing(server, &mut push, connections)
    }

    /// Continues `push` for a short while.
    pub(super) fn continue_pushing(
        &self,
        server: &Server,
        push: &mut Push,
        connections: usize,
    ) -> anyhow::Result<Measured> {
        let cpu = server.cpu()?;
        let report = run(push, &self.short_plan(server.address, connections))?;
        Ok(Measured { report, server_cpu: server.cpu()?.saturating_sub(cpu) })
    }

    /// The highest rate of pushes a second at [`CONNECTIONS`].
    pub(super) fn push_rate(&self) -> anyhow::Result<f64> {
        match self.push_rate.get() {
            Some(rate) => Ok(rate),
            None => Ok(self.note_push_rates(&[self.push_into_empty(CONNECTIONS)?.report.rate()])),
        }
    }

    /// Stores measured rates for [`Lab::push_rate`] and returns their median.
    pub(super) fn note_push_rates(&self, rates: &[f64]) -> f64 {
        let rate = median(rates);
        self.push_rate.set(Some(rate));
        rate
    }
}

impl Measured {
    /// CPU time per request, in microseconds: of the server, and of the load generator.
    pub(super) fn cpu_us(&self) -> [f64; 2] {
        let requests = self.report.rate() * self.report.elapsed.as_secs_f64();
        [self.server_cpu, self.report.cpu].map(|cpu| cpu.as_secs_f64() * 1e6 / requests.max(1.0))
    }
}

/// Runs a workload to its end as fast as possible.
pub(super) fn run_to_end(
    workload: &mut impl Workload,
    address: SocketAddr,
    connections: usize,
) -> io::Result<Report> {
    run(workload, &Plan { address, connections, pace: Pace::Closed, stop: Stop::default() })
}
