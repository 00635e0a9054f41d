//! A fixed sequence of journal operations that the disk may interrupt anywhere, and checks of the
//! result.

use std::sync::Arc;

use relay_disk::{SimDisk, Survival};
use relay_journal::{Journal, Position};

use crate::support::{Bodies, Open, commit, open_from, texts, try_commit, try_open};

/// Small enough that batches fill segments soon.
pub(crate) const SEGMENT_BYTES: u64 = 2000;

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Commits a batch: the number of frames, and the bytes of each.
    Commit(usize, usize),
    /// Closes the journal and opens it again.
    Reopen,
    /// Stores the position, and removes the segments before it.
    Checkpoint,
}

use Step::{Checkpoint, Commit, Reopen};

const STEPS: &[Step] = &[
    Commit(1, 10),
    Commit(3, 100),
    Commit(1, 0),
    Commit(2, 1500),
    Commit(2, 900),
    Reopen,
    Commit(4, 50),
    Checkpoint,
    Commit(1, 1900),
    Commit(5, 600),
    Commit(1, 1),
    Reopen,
    Reopen,
    Commit(2, 700),
    Commit(2, 700),
    Checkpoint,
    Commit(1, 3000),
    Checkpoint,
    Commit(20, 20),
];

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// The position of the last checkpoint.
    pub(crate) from: Option<Position>,
    /// The later batches, and whether each commit succeeded.
    batches: Vec<(Bodies, bool)>,
    /// Whether a batch has begun after the last failed one.
    is_sealed: bool,
    /// How many operations the journal reported as failed.
    pub(crate) failures: u32,
}

impl Run {
    /// Runs all steps, despite failures, until the power fails.
    pub(crate) fn on(disk: &SimDisk) -> Self {
        let mut run = Self { is_sealed: true, ..Self::default() };
        let mut journal = None;
        for (number, step) in STEPS.iter().enumerate() {
            if matches!(step, Reopen) {
                journal = None;
            }
            while journal.is_none() && !disk.power_cut() {
                journal = run.open(disk);
            }
            let Some(journal) = &mut journal else { break };
            match step {
                Commit(frames, bytes) => run.commit(journal, &bodies(number, *frames, *bytes)),
                Checkpoint => run.checkpoint(journal),
                Reopen => {}
            }
        }
        run
    }

    /// The batches that must be present, and the last one that may be.
    fn expected(&self) -> (Vec<Bodies>, Option<Bodies>) {
        let committed = self.batches.iter().filter(|(_, is_committed)| *is_committed);
        let open = self.batches.last().filter(|(_, is_committed)| !is_committed && !self.is_sealed);
        (committed.map(|(bodies, _)| bodies.clone()).collect(), open.map(|(bodies, _)| bodies.clone()))
    }

    /// Opens the journal after a crash, commits more batches, and opens it again.
    pub(crate) fn check(&self, disk: &SimDisk, survival: Survival) {
        let disk = disk.after_crash(survival);
        let (mut committed, open) = self.expected();
        let Open { mut journal, opened, .. } = self.replay(&disk, &mut committed, open);
        assert_eq!(opened.damage, [], "a crash causes no damage");
        for round in 0..3 {
            let bodies = texts(&["after the crash", &format!("{round}"), &"x".repeat(round * 900)]);
            commit(&mut journal, &bodies);
            committed.push(bodies);
            let disk = disk.after_crash(Survival::None);
            let Open { opened, .. } = self.replay(&disk, &mut committed, None);
            assert_eq!((opened.torn_bytes, opened.damage), (0, vec![]));
        }
    }

    /// Opens the journal. The optional batch counts as committed if it is present.
    fn replay(&self, disk: &SimDisk, committed: &mut Vec<Bodies>, open: Option<Bodies>) -> Open {
        let found = open_from(disk, SEGMENT_BYTES, self.from);
        let bodies = found.bodies();
        if bodies.len() > committed.len() {
            committed.extend(open);
        }
        assert_eq!(brief(&bodies), brief(committed));
        found
    }

    fn open(&mut self, disk: &SimDisk) -> Option<Journal> {
        let Ok(found) = try_open(Arc::new(disk.clone()), SEGMENT_BYTES, self.from) else {
            self.failures += 1;
            return None;
        };
        if found.opened.unreadable {
            // The disk may read more the next time, so the journal must not be used.
            self.failures += 1;
            return None;
        }
        let (mut committed, open) = self.expected();
        let bodies = found.bodies();
        if bodies.len() > committed.len() {
            committed.extend(open);
            self.batches.last_mut().unwrap().1 = true;
            self.is_sealed = true;
        }
        assert_eq!(brief(&bodies), brief(&committed), "the replay differs");
        assert_eq!(found.opened.damage, []);
        Some(found.journal)
    }

    fn commit(&mut self, journal: &mut Journal, bodies: &Bodies) {
        // Beginning a batch is enough to exclude an earlier failed one.
        if journal.begin().is_err() {
            self.failures += 1;
            return;
        }
        let is_committed = try_commit(journal, bodies).is_ok();
        self.failures += u32::from(!is_committed);
        self.is_sealed = is_committed;
        self.batches.push((bodies.clone(), is_committed));
    }

    fn checkpoint(&mut self, journal: &mut Journal) {
        if self.is_sealed {
            self.from = Some(journal.end());
            self.batches.clear();
            for segment in journal.reader().segments() {
                if segment.id < journal.end().segment {
                    self.failures += u32::from(journal.reader().remove(segment.id, &|| ()).is_err());
                }
            }
        }
    }
}

/// Bodies that are unique to this step.
fn bodies(step: usize, frames: usize, bytes: usize) -> Bodies {
    let body = |frame: usize| (0..bytes).map(|at| (step * 31 + frame * 7 + at).to_le_bytes()[0]).collect();
    (0..frames).map(|frame| (u8::try_from(step + 1).unwrap(), body(frame))).collect()
}

/// A short form for assertions: the kind, length and checksum of each frame.
fn brief(batches: &[Bodies]) -> Vec<String> {
    let frame = |(kind, body): &(u8, Vec<u8>)| format!("{kind}:{}:{:08x}", body.len(), crc32c::crc32c(body));
    batches.iter().map(|batch| batch.iter().map(frame).collect::<Vec<_>>().join(" ")).collect()
}
