//! The power goes at every sync and in every write. What was committed is found, what was not is
//! whole or absent, and the journal goes on.

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
fn the_power_goes_at_every_sync() {
    assert!(check_all(SimDisk::cut_at_sync) > 30);
}

#[test]
fn the_power_goes_in_every_write() {
    assert!(check_all(SimDisk::cut_at_write) > 20);
}
