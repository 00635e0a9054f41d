//! Runs a fuzzer's requests on a store with a failing disk, and compares it with relay-core's
//! model. Failed requests are repeated, so every request gets a response. A failed attempt must
//! leave no trace.
//!
//! The store has threads, so the same fault may hit another call in another run. To reproduce a
//! failure, an input may have to run several times.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use relay_core::testing::operations::from_bytes;
use relay_core::testing::{Harness, ManualClock, run_these};
use relay_core::{Ack, AckOutcome, Envelope, Error, Limits, Page, Pull, PushOutcome, Relay, Swept};
use relay_disk::{Class, Fault, SimDisk};
use tokio::runtime::{Builder, Runtime};

use crate::{Contents, Options, RedbRelay};

/// The most attempts of one request. The store retries a failed checkpoint after a second, and
/// until then rejects what does not fit into memory.
const ATTEMPTS_MAX: usize = 200_000;

/// The most planned faults.
const FAULTS_MAX: usize = 4;

/// More than the calls that all faults together can hit.
const FAILURES_MAX: usize = 20;

/// Opens stores whose disk fails as planned.
struct Faulty {
    disk: SimDisk,
    faults: Vec<Fault>,
    options: Options,
    runtime: Runtime,
}

/// Repeats each request until it succeeds or is rejected.
struct Stubborn(RedbRelay);

/// The first bytes plan the faults, the others are the requests.
pub fn operations(data: &[u8]) {
    let Some((plan, rest)) = data.split_first() else { return };
    let (faults, requests) = rest.split_at((usize::from(*plan) % (FAULTS_MAX + 1) * 3).min(rest.len()));
    let (faults, _) = faults.as_chunks::<3>();
    let blob_bytes = if plan & 0x80 == 0 { 8 } else { 256 * 1024 };
    let options = Options {
        cache_bytes: 1024 * 1024,
        checkpoint_rows: 20,
        checkpoint_bytes: 2048,
        segment_bytes: 256,
        blob_bytes,
        ..Options::default()
    };
    let runtime =
        Builder::new_current_thread().build().expect("a runtime without I/O has no resources to lack");
    let faults = faults.iter().map(fault).collect();
    let mut store = Faulty { disk: SimDisk::new(), faults, options, runtime };
    let outcome = run_these(&mut store, &from_bytes(requests), 8);
    assert!(outcome.is_ok(), "{outcome:?}");
}

fn fault([what, low, high]: &[u8; 3]) -> Fault {
    let class = [None, Some(Class::Write), Some(Class::Sync), Some(Class::Read)];
    Fault {
        class: class.get(usize::from(what & 3)).copied().flatten(),
        at: u64::from(u16::from_le_bytes([*low, high & 3])),
        times: u64::from(what >> 2 & 3).max(1),
        kind: if what & 0x10 == 0 { io::ErrorKind::Other } else { io::ErrorKind::StorageFull },
        partly: if what & 0x20 == 0 { 0 } else { usize::from(*high) },
    }
}

impl Faulty {
    fn open_here(&self, limits: &Limits, clock: &Arc<ManualClock>) -> Stubborn {
        let try_open = || {
            let (disk, clock) = (Arc::new(self.disk.clone()), Arc::clone(clock) as _);
            RedbRelay::open_on(disk, Path::new("/store"), limits.clone(), clock, self.options.clone())
        };
        let opened = (0..FAILURES_MAX).map(|_| try_open()).find_map(Result::ok);
        Stubborn(opened.expect("the planned faults do not hit every attempt"))
    }

    fn contents(&self, relay: &Stubborn) -> Result<Contents, Error> {
        self.runtime.block_on(retry(|| async { Ok(relay.0.contents()?) }))
    }
}

impl Harness for Faulty {
    type Relay = Stubborn;

    fn open(&mut self, limits: Limits, clock: Arc<ManualClock>) -> Stubborn {
        self.disk = SimDisk::new();
        for fault in &self.faults {
            self.disk.fail(*fault);
        }
        self.open_here(&limits, &clock)
    }

    fn reopen(
        &mut self,
        relay: Stubborn,
        limits: Limits,
        clock: Arc<ManualClock>,
    ) -> Result<Stubborn, Stubborn> {
        drop(relay);
        Ok(self.open_here(&limits, &clock))
    }

    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Counts the contents before and after, because a failed sweep does not report the steps that
    /// it has completed.
    fn sweep(&self, relay: &Stubborn) -> Result<Swept, Error> {
        let before = self.contents(relay)?;
        self.block_on(relay.sweep())?;
        let after = self.contents(relay)?;
        Ok(Swept {
            items: before.usage.items.saturating_sub(after.usage.items),
            forgotten: before.acked.saturating_sub(after.acked),
        })
    }

    /// A failed read is a finding too, but it does not appear in every attempt.
    fn verify(&mut self, relay: &Stubborn) -> Vec<String> {
        let mut findings = Vec::new();
        for _ in 0..FAILURES_MAX {
            let outcome = self.runtime.block_on(retry(|| async { Ok(relay.0.verify()?) }));
            findings = outcome.unwrap_or_else(|error| vec![error.to_string()]);
            if findings.is_empty() {
                break;
            }
        }
        findings
    }
}

impl Relay for Stubborn {
    async fn push(&self, envelope: Envelope) -> Result<PushOutcome, Error> {
        retry(|| self.0.push(envelope.clone())).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        retry(|| self.0.pull(pull.clone())).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        retry(|| self.0.ack(ack.clone())).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        retry(|| self.0.sweep()).await
    }
}

/// Repeats `act` until it succeeds, or is rejected for a permanent reason.
async fn retry<T, F: Future<Output = Result<T, Error>>>(act: impl Fn() -> F) -> Result<T, Error> {
    let mut outcome = act().await;
    for _ in 1..ATTEMPTS_MAX {
        match outcome {
            Ok(_) | Err(Error::Rejected(_)) => break,
            Err(_) => std::thread::yield_now(),
        }
        outcome = act().await;
    }
    outcome
}
