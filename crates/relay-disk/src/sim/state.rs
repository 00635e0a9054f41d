//! The files of the simulated disk, its planned faults, and its counters.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::Survival;
use super::changes::{ByteChange, NameChange, Names, NodeId};
use super::fault::{Class, Fault};
use super::random::Random;
use super::versions::Versions;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) names: Versions<Names, NameChange>,
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    pub(super) calls: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) syncs: u64,
    pub(super) faults: Vec<Fault>,
    pub(super) space_limit: Option<u64>,
    /// How many more calls of the class succeed before the power fails.
    pub(super) planned_cut: Option<(Class, u64)>,
    pub(super) power_cut: bool,
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) bytes: Versions<Vec<u8>, ByteChange>,
    /// The disk reserves space for this length, if it exceeds the length of the file.
    pub(super) reserved: usize,
    /// Every open handle holds a clone.
    open: Arc<()>,
}

/// How a call ends.
pub(super) enum Outcome {
    Success,
    Failure {
        kind: io::ErrorKind,
        /// How many bytes a write still writes.
        partly: usize,
    },
    /// The power fails during the call.
    PowerCut,
}

impl State {
    /// Counts a call and decides how it ends.
    pub(super) fn begin(&mut self, class: Class) -> Outcome {
        self.calls += 1;
        self.writes += u64::from(class == Class::Write);
        self.syncs += u64::from(class == Class::Sync);
        if self.power_cut {
            return Outcome::Failure { kind: io::ErrorKind::Other, partly: 0 };
        }
        match &mut self.planned_cut {
            Some((at, 0)) if *at == class => {
                self.power_cut = true;
                return Outcome::PowerCut;
            }
            Some((at, remaining)) if *at == class => *remaining -= 1,
            _ => {}
        }
        let mut outcome = Outcome::Success;
        // Every fault counts every call, so faults do not delay each other. The oldest one wins.
        for fault in self.faults.iter_mut().rev() {
            if fault.strikes(class) {
                outcome = Outcome::Failure { kind: fault.kind, partly: fault.partly };
            }
        }
        outcome
    }

    pub(super) fn find(&self, name: &str) -> io::Result<NodeId> {
        self.names.current().get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn create(&mut self, name: &str) {
        let node = self.add_node(Vec::new());
        self.names.change(NameChange::Create(name.to_owned(), node));
    }

    /// Removes or renames a file.
    pub(super) fn change_name(
        &mut self,
        name: &str,
        change: impl FnOnce(NodeId) -> NameChange,
    ) -> io::Result<()> {
        let outcome = self.begin(Class::Write);
        if outcome.has_effect() {
            let node = self.find(name)?;
            self.names.change(change(node));
        }
        outcome.result()
    }

    pub(super) fn sync_names(&mut self) {
        self.names.sync();
        let named = self.named();
        self.nodes.retain(|id, node| named.contains(id) || node.is_open());
    }

    pub(super) fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes.entry(node).or_insert_with(|| Node::new(Vec::new()))
    }

    pub(super) fn bytes(&self, node: NodeId) -> &[u8] {
        self.nodes.get(&node).map_or(&[], |node| node.bytes.current())
    }

    /// A marker that keeps the file open while it exists.
    pub(super) fn open_marker(&self, node: NodeId) -> Arc<()> {
        self.nodes.get(&node).map(|node| Arc::clone(&node.open)).unwrap_or_default()
    }

    pub(super) fn edit(&mut self, node: NodeId, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(node).to_vec();
        change(&mut bytes);
        self.node(node).bytes = Versions::durable(bytes);
    }

    pub(super) fn bytes_used(&self) -> u64 {
        self.stored_nodes().map(|node| node.bytes.current().len() as u64).sum()
    }

    /// The space that the limit leaves, with reserved space counted as used. `None` without a
    /// limit.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let allocated: u64 = self.stored_nodes().map(|node| node.allocated() as u64).sum();
        self.space_limit.map(|limit| limit.saturating_sub(allocated))
    }

    /// Fails if the file cannot grow to `len`.
    pub(super) fn check_space(&self, node: NodeId, len: usize) -> io::Result<()> {
        let growth = len.saturating_sub(self.nodes.get(&node).map_or(0, Node::allocated)) as u64;
        if growth > 0 && self.free_bytes().is_some_and(|free| growth > free) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    pub(super) fn after_crash(&self, survival: Survival) -> Self {
        let mut random = Random(if let Survival::Torn(seed) = survival { seed } else { 0 });
        let mut state = Self::default();
        let mut names = Names::new();
        for (name, node) in self.names.after_crash(survival, &mut random) {
            let bytes = self.nodes.get(&node).map(|node| node.bytes.after_crash(survival, &mut random));
            names.insert(name, state.add_node(bytes.unwrap_or_default()));
        }
        state.names = Versions::durable(names);
        state
    }

    fn add_node(&mut self, bytes: Vec<u8>) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        self.nodes.insert(id, Node::new(bytes));
        id
    }

    fn named(&self) -> BTreeSet<NodeId> {
        self.names.current().values().copied().collect()
    }

    /// The files that occupy space: those with a name or an open handle.
    fn stored_nodes(&self) -> impl Iterator<Item = &Node> {
        let named = self.named();
        self.nodes.iter().filter(move |(id, node)| named.contains(id) || node.is_open()).map(|(_, node)| node)
    }
}

impl Node {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Versions::durable(bytes), reserved: 0, open: Arc::default() }
    }

    /// How much space the file occupies.
    pub(super) fn allocated(&self) -> usize {
        self.bytes.current().len().max(self.reserved)
    }

    fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }
}

impl Outcome {
    /// Whether the call changes the disk. A power cut leaves its change pending.
    pub(super) fn has_effect(&self) -> bool {
        matches!(self, Self::Success | Self::PowerCut)
    }

    pub(super) fn result(&self) -> io::Result<()> {
        match self {
            Self::Success => Ok(()),
            Self::Failure { kind, .. } => Err((*kind).into()),
            Self::PowerCut => Err(io::Error::other("the power failed")),
        }
    }
}
