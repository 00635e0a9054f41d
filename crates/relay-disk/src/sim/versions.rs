//! Something on the disk as it reads now, and as it may be found after a crash. It knows what is
//! certain of each change, and not what the changes mean.

use super::Survival;
use super::random::Random;

/// A change of a `Target`.
pub(super) trait Change<Target> {
    fn apply(&self, target: &mut Target);

    /// Does what a crash may leave of it.
    fn apply_torn(&self, target: &mut Target, random: &mut Random);
}

#[derive(Debug)]
pub(super) struct Versions<Target, C> {
    current: Target,
    /// What is left after a crash at least, up to the first change of `log`.
    durable: Target,
    /// The changes since, oldest first. It begins with one that is not synced.
    log: Vec<(C, Certainty)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Certainty {
    /// Not yet synced.
    Pending,
    /// A sync of it has failed; no later one decides.
    Undecided,
    /// Synced.
    Durable,
}

impl<Target: Default, C> Default for Versions<Target, C> {
    fn default() -> Self {
        Self { current: Target::default(), durable: Target::default(), log: Vec::new() }
    }
}

impl<Target: Clone, C: Change<Target>> Versions<Target, C> {
    /// Nothing is pending.
    pub(super) fn settled(target: Target) -> Self {
        Self { durable: target.clone(), current: target, log: Vec::new() }
    }

    pub(super) fn current(&self) -> &Target {
        &self.current
    }

    pub(super) fn change(&mut self, change: C) {
        change.apply(&mut self.current);
        self.log.push((change, Certainty::Pending));
    }

    pub(super) fn sync(&mut self) {
        self.decide(Certainty::Durable);
        let certain = self.log.iter().take_while(|(_, certainty)| *certainty == Certainty::Durable).count();
        for (change, _) in self.log.drain(..certain) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn fail_sync(&mut self) {
        self.decide(Certainty::Undecided);
    }

    pub(super) fn after_crash(&self, survival: Survival, random: &mut Random) -> Target {
        let mut found = self.durable.clone();
        for (change, certainty) in &self.log {
            match survival {
                _ if *certainty == Certainty::Durable => change.apply(&mut found),
                Survival::None => {}
                Survival::All => change.apply(&mut found),
                Survival::Torn(_) => change.apply_torn(&mut found, random),
            }
        }
        found
    }

    fn decide(&mut self, decided: Certainty) {
        for (_, certainty) in self.log.iter_mut().filter(|(_, certainty)| *certainty == Certainty::Pending) {
            *certainty = decided;
        }
    }
}
