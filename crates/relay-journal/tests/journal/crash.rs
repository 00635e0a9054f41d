//! Power cuts at every sync and during every write. Afterwards, committed batches are present,
//! other batches are complete or absent, and the journal takes new batches.

use relay_disk::{SimDisk, Survival};

use crate::script::Run;
use crate::support::slow;

fn survivals() -> impl Iterator<Item = Survival> {
    let torn = (0..slow(150, 12)).map(Survival::Torn);
    [Survival::None, Survival::All].into_iter().chain(torn)
}

fn check_all(cut: impl Fn(&SimDisk, u64)) -> u64 {
    for at in 0.. {
        let disk = SimDisk::new();
        cut(&disk, at);
        let run = Run::on(&disk);
        for survival in survivals() {
            run.check(&disk, survival);
        }
        if !disk.power_cut() {
            return at;
        }
    }
    unreachable!("a run ends")
}

#[test]
fn power_cut_at_every_sync() {
    assert!(check_all(SimDisk::cut_at_sync) > 30);
}

#[test]
fn power_cut_during_every_write() {
    assert!(check_all(SimDisk::cut_at_write) > 20);
}
