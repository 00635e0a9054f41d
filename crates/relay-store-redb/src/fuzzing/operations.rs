//! Requests of a fuzzer on a store whose disk fails, beside relay-core's model. What fails is asked
//! again, so every request is answered in the end, as if nothing had been; what failed must have
//! left nothing behind.
//!
//! The store's threads run at their own pace, so which call a fault meets is not the same in every
//! run: an input that failed may have to be run a few times.

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;

use relay_core::testing::operations::from_bytes;
use relay_core::testing::{Harness, ManualClock, run_these};
use relay_core::{Ack, AckOutcome, Envelope, Error, Limits, Page, Pull, PushOutcome, Relay, Swept};
use relay_disk::{Class, Fault, SimDisk};
use tokio::runtime::{Builder, Runtime};

use crate::Contents;
use crate::Options;
use crate::RedbRelay;

/// How often something is asked again. A checkpoint that failed is tried again after a second, and
/// until then the store refuses what does not fit in memory.
const ATTEMPTS_MAX: usize = 200_000;

/// So many faults are planned at most.
const FAULTS_MAX: usize = 4;

/// More calls than all faults together hit.
const FAILURES_MAX: usize = 20;

/// A store whose disk fails as planned.
struct Faulty {
    disk: SimDisk,
    faults: Vec<Fault>,
    options: Options,
    runtime: Runtime,
}

/// Asks until it is answered.
struct Stubborn(RedbRelay);

/// The first bytes plan the faults, the others stand for requests.
pub fn operations(data: &[u8]) {
    let Some((manner, rest)) = data.split_first() else { return };
    let (faults, requests) = rest.split_at((usize::from(*manner) % (FAULTS_MAX + 1) * 3).min(rest.len()));
    let (faults, _) = faults.as_chunks::<3>();
    let blob_bytes = if manner & 0x80 == 0 { 8 } else { 256 * 1024 };
    let options = Options {
        cache_bytes: 1024 * 1024,
        checkpoint_rows: 20,
        checkpoint_bytes: 2048,
        segment_bytes: 256,
        blob_bytes,
        ..Options::default()
    };
    let runtime = Builder::new_current_thread().build().expect("a runtime that does no I/O needs nothing");
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
            let disk = Arc::new(self.disk.clone());
            RedbRelay::open_on(
                disk,
                Path::new("/store"),
                limits.clone(),
                Arc::clone(clock) as _,
                self.options.clone(),
            )
        };
        let opened = (0..FAILURES_MAX).map(|_| try_open()).find_map(Result::ok);
        Stubborn(opened.expect("there are not so many faults"))
    }

    fn contents(&self, relay: &Stubborn) -> Result<Contents, Error> {
        self.runtime.block_on(again(|| async { Ok(relay.0.contents()?) }))
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

    /// A sweep that fails has done some of its steps, and does not tell how many.
    fn sweep(&self, relay: &Stubborn) -> Result<Swept, Error> {
        let before = self.contents(relay)?;
        self.block_on(relay.sweep())?;
        let after = self.contents(relay)?;
        Ok(Swept {
            items: before.usage.items.saturating_sub(after.usage.items),
            forgotten: before.acked.saturating_sub(after.acked),
        })
    }

    /// What the disk does not read this time is a finding too. What is found again and again does
    /// not add up.
    fn verify(&mut self, relay: &Stubborn) -> Vec<String> {
        let mut findings = Vec::new();
        for _ in 0..FAILURES_MAX {
            let outcome = self.runtime.block_on(again(|| async { Ok(relay.0.verify()?) }));
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
        again(|| self.0.push(envelope.clone())).await
    }

    async fn pull(&self, pull: Pull) -> Result<Page, Error> {
        again(|| self.0.pull(pull.clone())).await
    }

    async fn ack(&self, ack: Ack) -> Result<AckOutcome, Error> {
        again(|| self.0.ack(ack.clone())).await
    }

    async fn sweep(&self) -> Result<Swept, Error> {
        again(|| self.0.sweep()).await
    }
}

/// Does something until it works, or is refused for a reason that stays.
async fn again<T, F: Future<Output = Result<T, Error>>>(act: impl Fn() -> F) -> Result<T, Error> {
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
