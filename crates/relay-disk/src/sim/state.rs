//! What the disk in memory holds, and what each call does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use super::Survival;
use super::fault::{Class, Fault};
use super::random::Random;
use super::versions::{Change, Versions};

/// A crash keeps or loses as much at a time.
const SECTOR_BYTES: usize = 512;

/// A file, whatever its name.
pub(super) type NodeId = u64;
type Names = BTreeMap<String, NodeId>;

#[derive(Debug, Default)]
pub(super) struct State {
    names: Versions<Names, NameChange>,
    nodes: BTreeMap<NodeId, Node>,
    nodes_made: NodeId,
    pub(super) counts: Counts,
    pub(super) faults: Vec<Fault>,
    pub(super) space_limit: Option<u64>,
    /// How many calls of the class pass before the one that ends with the power.
    cut: Option<(Class, u64)>,
    pub(super) power_cut: bool,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) writes: u64,
    pub(super) written_bytes: u64,
    pub(super) syncs: u64,
}

#[derive(Debug)]
struct Node {
    bytes: Versions<Vec<u8>, ByteChange>,
    /// Space is set aside up to here, if that is behind its end.
    reserved: usize,
    /// Shared with the open handles.
    open: Arc<()>,
}

#[derive(Debug)]
enum NameChange {
    Create(String, NodeId),
    Remove(String),
    Rename { from: String, to: String, node: NodeId },
}

#[derive(Debug)]
enum ByteChange {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// How a call ends.
enum Verdict {
    Done,
    Fails {
        kind: io::ErrorKind,
        partly: usize,
    },
    /// The power goes while the call is under way.
    Cut,
}

impl State {
    pub(super) fn cut_at(&mut self, class: Class, n: u64) {
        self.cut = Some((class, n));
    }

    pub(super) fn list(&mut self) -> io::Result<Vec<String>> {
        self.begin(Class::Read).plain()?;
        Ok(self.names.current().keys().cloned().collect())
    }

    pub(super) fn create(&mut self, name: &str) -> io::Result<NodeId> {
        let verdict = self.begin(Class::Write);
        if self.find(name).is_ok() {
            return verdict.plain().and(Err(io::ErrorKind::AlreadyExists.into()));
        }
        let node = self.nodes_made;
        if verdict.is_under_way() {
            self.nodes_made += 1;
            self.nodes.insert(node, Node::new(Vec::new()));
            self.names.change(NameChange::Create(name.to_owned(), node));
        }
        verdict.plain().map(|()| node)
    }

    pub(super) fn open(&mut self, name: &str) -> io::Result<NodeId> {
        self.begin(Class::Read).plain()?;
        self.find(name)
    }

    pub(super) fn file_len(&mut self, name: &str) -> io::Result<u64> {
        let node = self.open(name)?;
        Ok(self.bytes(node).len() as u64)
    }

    pub(super) fn remove(&mut self, name: &str) -> io::Result<()> {
        let verdict = self.begin(Class::Write);
        self.change_name(name, verdict, |_| NameChange::Remove(name.to_owned()))
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let verdict = self.begin(Class::Write);
        self.change_name(from, verdict, |node| NameChange::Rename {
            from: from.to_owned(),
            to: to.to_owned(),
            node,
        })
    }

    pub(super) fn sync_names(&mut self) -> io::Result<()> {
        // A file system keeps a journal of its names: what one sync could not make durable, the
        // next one does.
        self.begin(Class::Sync).plain()?;
        self.names.sync();
        let named: BTreeSet<NodeId> = self.names.current().values().copied().collect();
        self.nodes.retain(|id, node| named.contains(id) || node.is_open());
        Ok(())
    }

    pub(super) fn free_bytes(&mut self) -> io::Result<Option<u64>> {
        self.begin(Class::Read).plain()?;
        Ok(self.space_limit.map(|limit| limit.saturating_sub(self.bytes_taken())))
    }

    pub(super) fn len(&mut self, node: NodeId) -> io::Result<u64> {
        self.begin(Class::Read).plain()?;
        Ok(self.bytes(node).len() as u64)
    }

    pub(super) fn read(&mut self, node: NodeId, out: &mut [u8], offset: u64) -> io::Result<()> {
        self.begin(Class::Read).plain()?;
        let start = position(offset)?;
        let end = start.checked_add(out.len()).ok_or(io::ErrorKind::InvalidInput)?;
        out.copy_from_slice(self.bytes(node).get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    pub(super) fn write(&mut self, node: NodeId, mut bytes: Vec<u8>, offset: u64) -> io::Result<()> {
        let verdict = self.begin(Class::Write);
        self.counts.written_bytes += bytes.len() as u64;
        let offset = position(offset)?;
        let end = offset.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        match verdict {
            Verdict::Fails { partly, .. } => bytes.truncate(partly),
            Verdict::Done => self.check_space(node, end)?,
            Verdict::Cut => {}
        }
        if !bytes.is_empty() {
            self.node(node).bytes.change(ByteChange::Write { offset, bytes });
        }
        verdict.plain()
    }

    pub(super) fn set_len(&mut self, node: NodeId, len: u64) -> io::Result<()> {
        let verdict = self.begin(Class::Write);
        let len = position(len)?;
        if verdict.is_under_way() {
            self.check_space(node, len)?;
            let node = self.node(node);
            if len <= node.bytes.current().len() {
                node.reserved = 0;
            }
            node.bytes.change(ByteChange::SetLen(len));
        }
        verdict.plain()
    }

    pub(super) fn reserve(&mut self, node: NodeId, bytes: u64) -> io::Result<()> {
        let verdict = self.begin(Class::Write);
        let Some(limit) = self.space_limit.filter(|_| verdict.is_under_way()) else { return verdict.plain() };
        let free = position(limit.saturating_sub(self.bytes_taken()))?;
        let (wanted, node) = (position(bytes)?, self.node(node));
        let had = node.taken();
        node.reserved = wanted.min(had.saturating_add(free)).max(node.reserved);
        if wanted > node.reserved.max(had) { Err(io::ErrorKind::StorageFull.into()) } else { verdict.plain() }
    }

    /// What is brought onto the disk is no more durable for it; but when that fails, a sync does
    /// not tell of it any more.
    pub(super) fn write_back(&mut self, node: NodeId, offset: u64, len: usize) -> io::Result<()> {
        let verdict = self.begin(Class::Write);
        let end = position(offset)?.checked_add(len).ok_or(io::ErrorKind::InvalidInput)?;
        if end > self.bytes(node).len() {
            return verdict.plain().and(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        if matches!(verdict, Verdict::Fails { .. }) && !self.power_cut {
            self.node(node).bytes.fail_sync();
        }
        verdict.plain()
    }

    pub(super) fn sync_file(&mut self, node: NodeId) -> io::Result<()> {
        let verdict = self.begin(Class::Sync);
        let bytes = &mut self.node(node).bytes;
        match verdict {
            Verdict::Done => bytes.sync(),
            Verdict::Fails { .. } => bytes.fail_sync(),
            Verdict::Cut => {}
        }
        verdict.plain()
    }

    pub(super) fn after_crash(&self, survival: Survival) -> Self {
        let mut random = Random::new(if let Survival::Torn(seed) = survival { seed } else { 0 });
        let mut found = Self::default();
        let mut names = Names::new();
        for (name, node) in self.names.after_crash(survival, &mut random) {
            let bytes = self.nodes.get(&node).map(|node| node.bytes.after_crash(survival, &mut random));
            found.nodes.insert(found.nodes_made, Node::new(bytes.unwrap_or_default()));
            names.insert(name, found.nodes_made);
            found.nodes_made += 1;
        }
        found.names = Versions::settled(names);
        found
    }

    pub(super) fn edit(&mut self, node: NodeId, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.bytes(node).to_vec();
        change(&mut bytes);
        self.node(node).bytes = Versions::settled(bytes);
    }

    pub(super) fn find(&self, name: &str) -> io::Result<NodeId> {
        self.names.current().get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn bytes(&self, node: NodeId) -> &[u8] {
        self.nodes.get(&node).map_or(&[], |node| node.bytes.current())
    }

    pub(super) fn bytes_used(&self) -> u64 {
        self.kept().map(|node| node.bytes.current().len() as u64).sum()
    }

    /// The same, and what is set aside.
    fn bytes_taken(&self) -> u64 {
        self.kept().map(|node| node.taken() as u64).sum()
    }

    /// The files that take space.
    fn kept(&self) -> impl Iterator<Item = &Node> {
        let named: BTreeSet<NodeId> = self.names.current().values().copied().collect();
        self.nodes.iter().filter(move |(id, node)| named.contains(id) || node.is_open()).map(|(_, node)| node)
    }

    /// Marks the file as open.
    pub(super) fn hold(&self, node: NodeId) -> Arc<()> {
        self.nodes.get(&node).map(|node| Arc::clone(&node.open)).unwrap_or_default()
    }

    /// Counts a call and decides how it ends.
    fn begin(&mut self, class: Class) -> Verdict {
        self.counts.calls += 1;
        self.counts.writes += u64::from(class == Class::Write);
        self.counts.syncs += u64::from(class == Class::Sync);
        if self.power_cut {
            return Verdict::Fails { kind: io::ErrorKind::Other, partly: 0 };
        }
        match &mut self.cut {
            Some((at, 0)) if *at == class => {
                self.power_cut = true;
                return Verdict::Cut;
            }
            Some((at, left)) if *at == class => *left -= 1,
            _ => {}
        }
        let mut verdict = Verdict::Done;
        // Each fault counts each call, so that two do not put each other off.
        for fault in self.faults.iter_mut().rev() {
            if fault.strikes(class) {
                verdict = Verdict::Fails { kind: fault.kind, partly: fault.partly };
            }
        }
        verdict
    }

    fn change_name(
        &mut self,
        name: &str,
        verdict: Verdict,
        change: impl FnOnce(NodeId) -> NameChange,
    ) -> io::Result<()> {
        let found = self.find(name);
        if verdict.is_under_way() {
            self.names.change(change(found?));
        }
        verdict.plain()
    }

    fn check_space(&self, node: NodeId, len: usize) -> io::Result<()> {
        let growth = len.saturating_sub(self.nodes.get(&node).map_or(0, Node::taken)) as u64;
        match self.space_limit {
            Some(limit) if growth > 0 && self.bytes_taken() + growth > limit => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        self.nodes.entry(node).or_insert_with(|| Node::new(Vec::new()))
    }
}

impl Node {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes: Versions::settled(bytes), reserved: 0, open: Arc::default() }
    }

    /// How much space it takes.
    fn taken(&self) -> usize {
        self.bytes.current().len().max(self.reserved)
    }

    fn is_open(&self) -> bool {
        Arc::strong_count(&self.open) > 1
    }
}

impl Verdict {
    fn is_under_way(&self) -> bool {
        matches!(self, Self::Done | Self::Cut)
    }

    fn plain(&self) -> io::Result<()> {
        match self {
            Self::Done => Ok(()),
            Self::Fails { kind, .. } => Err((*kind).into()),
            Self::Cut => Err(io::Error::other("the power is gone")),
        }
    }
}

impl Change<Names> for NameChange {
    fn apply(&self, names: &mut Names) {
        match self {
            Self::Create(name, node) => {
                names.insert(name.clone(), *node);
            }
            Self::Remove(name) => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                // After a crash that took the creation, `from` may not be there.
                names.retain(|name, named| name != from || named != node);
                names.insert(to.clone(), *node);
            }
        }
    }

    fn apply_torn(&self, names: &mut Names, random: &mut Random) {
        if random.coin() {
            self.apply(names);
        }
    }
}

impl Change<Vec<u8>> for ByteChange {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => write(file, *offset, bytes),
            Self::SetLen(len) => file.resize(*len, 0),
        }
    }

    fn apply_torn(&self, file: &mut Vec<u8>, random: &mut Random) {
        match (self, random.below(4)) {
            (_, 0) => {}
            (Self::Write { offset, bytes }, 1) => {
                let (prefix, _) = bytes.split_at(cut(bytes.len(), random));
                write(file, *offset, prefix);
            }
            (Self::Write { offset, bytes }, 2) => write_some_sectors(file, *offset, bytes, random),
            _ => self.apply(file),
        }
    }
}

fn write(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end && !bytes.is_empty() {
        file.resize(end, 0);
    }
    if let Some(target) = file.get_mut(offset..end) {
        target.copy_from_slice(bytes);
    }
}

/// The length becomes that of the whole write; sectors that are missing keep what they had, or
/// zeros.
fn write_some_sectors(file: &mut Vec<u8>, offset: usize, bytes: &[u8], random: &mut Random) {
    file.resize(file.len().max(offset + bytes.len()), 0);
    let (first, rest) = bytes.split_at(bytes.len().min(SECTOR_BYTES - offset % SECTOR_BYTES));
    let mut at = offset;
    for sector in [first].into_iter().chain(rest.chunks(SECTOR_BYTES)) {
        if random.coin() {
            write(file, at, sector);
        }
        at += sector.len();
    }
}

/// How much is left of so many bytes: anything but all of them.
fn cut(bytes: usize, random: &mut Random) -> usize {
    usize::try_from(random.below(bytes.max(1) as u64)).unwrap_or(0)
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}
