//! A value of the simulated disk: its current state, and the states that a crash can leave. Changes
//! are opaque here; only their durability counts.

use super::Survival;
use super::random::Random;

/// A change to a `Target`.
pub(super) trait Change<Target> {
    fn apply(&self, target: &mut Target);

    /// Applies a random part of the change, as a crash might.
    fn apply_torn(&self, target: &mut Target, random: &mut Random);
}

#[derive(Debug)]
pub(super) struct Versions<Target, C> {
    current: Target,
    /// The synced state before the first change in `log`. Every crash preserves it.
    durable: Target,
    /// Later changes, oldest first. The first one is not durable.
    log: Vec<(C, Durability)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    /// Not synced yet.
    Pending,
    /// A sync failed, so the change may or may not survive. Later syncs do not resolve this.
    Unknown,
    /// Synced.
    Durable,
}

impl<Target: Default, C> Default for Versions<Target, C> {
    fn default() -> Self {
        Self { current: Target::default(), durable: Target::default(), log: Vec::new() }
    }
}

impl<Target: Clone, C: Change<Target>> Versions<Target, C> {
    /// A value that is durable already.
    pub(super) fn durable(target: Target) -> Self {
        Self { durable: target.clone(), current: target, log: Vec::new() }
    }

    pub(super) fn current(&self) -> &Target {
        &self.current
    }

    pub(super) fn change(&mut self, change: C) {
        change.apply(&mut self.current);
        self.log.push((change, Durability::Pending));
    }

    pub(super) fn sync(&mut self) {
        self.resolve_pending(Durability::Durable);
        let synced = self.log.iter().take_while(|(_, durability)| *durability == Durability::Durable).count();
        for (change, _) in self.log.drain(..synced) {
            change.apply(&mut self.durable);
        }
    }

    pub(super) fn fail_sync(&mut self) {
        self.resolve_pending(Durability::Unknown);
    }

    pub(super) fn after_crash(&self, survival: Survival, random: &mut Random) -> Target {
        let mut target = self.durable.clone();
        for (change, durability) in &self.log {
            match survival {
                _ if *durability == Durability::Durable => change.apply(&mut target),
                Survival::None => {}
                Survival::All => change.apply(&mut target),
                Survival::Torn(_) => change.apply_torn(&mut target, random),
            }
        }
        target
    }

    fn resolve_pending(&mut self, resolved: Durability) {
        for (_, durability) in &mut self.log {
            if *durability == Durability::Pending {
                *durability = resolved;
            }
        }
    }
}
