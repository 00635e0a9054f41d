//! Bans of networks: when many keys of one network are banned at once, the network is banned
//! instead.
//!
//! A check takes locks here only while a network is banned: one short lock for each network around
//! its key. Everything else happens when a ban begins, under one lock. The memory is bounded: each
//! listed ban has its element in `ends`, and beyond the bound, the one that ends soonest leaves.

use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::iter;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::answers::Answers;
use crate::key::Key;
use crate::lock::lock;
use crate::roster::Stamped;

/// This many banned children of one network become one ban of the network.
const CHILDREN_MAX: usize = 16;

/// How many steps a ban climbs at most, in case a key is its own ancestor.
const LEVELS_MAX: usize = 8;

pub(crate) struct Networks<K> {
    banned: DashMap<K, NetworkBan>,
    /// An upper bound of the ends of all bans, so that one load shows whether any is in force.
    latest_end_ns: AtomicU64,
    registry: Mutex<Registry<K>>,
}

#[derive(Debug)]
struct NetworkBan {
    until_ns: u64,
    answers: Answers,
}

/// The bans in force, by network and by end.
struct Registry<K> {
    /// Fewer than [`CHILDREN_MAX`] per network, each once.
    children: HashMap<K, Vec<Child<K>>>,
    ends: BinaryHeap<Stamped<Listed<K>>>,
    listed_max: usize,
}

struct Child<K> {
    key: K,
    until_ns: u64,
}

enum Listed<K> {
    Child { network: K, key: K },
    Network(K),
}

impl<K: Key> Networks<K> {
    /// Lists up to `listed_max` bans, or the bans of one network if those are more.
    pub(crate) fn new(listed_max: usize) -> Self {
        let listed_max = listed_max.max(CHILDREN_MAX);
        let registry = Registry { children: HashMap::new(), ends: BinaryHeap::new(), listed_max };
        Self { banned: DashMap::new(), latest_end_ns: AtomicU64::new(0), registry: Mutex::new(registry) }
    }

    /// When the ban of a network around this key ends; `None` if none is in force.
    pub(crate) fn banned_until_ns(&self, key: &K, now_ns: u64) -> Option<u64> {
        self.find(key, now_ns, |ban| ban.until_ns)
    }

    /// The same for a connection, and whether it still gets an answer. All keys of a network share
    /// its answers.
    pub(crate) fn answer(&self, key: &K, now_ns: u64) -> Option<(u64, bool)> {
        self.find(key, now_ns, |ban| (ban.until_ns, ban.answers.take(now_ns)))
    }

    /// Adds the ban of a key. Returns the keys whose bans a ban of their network replaces.
    pub(crate) fn note_ban(&self, key: &K, until_ns: u64, now_ns: u64) -> Vec<K> {
        let mut registry = lock(&self.registry);
        // The ban of the network may have begun since the request of the key.
        if self.banned_until_ns(key, now_ns).is_some() {
            return vec![key.clone()];
        }
        let mut replaced = Vec::new();
        let mut child = Child { key: key.clone(), until_ns };
        while registry.ends.peek().is_some_and(|first| first.stamp_ns <= now_ns) {
            self.remove_soonest(&mut registry);
        }
        for _ in 0..LEVELS_MAX {
            let Some(network) = child.key.parent() else { break };
            let Some(children) = registry.add_child(&network, child) else { break };
            let until_ns = children.iter().map(|child| child.until_ns).fold(0, u64::max);
            self.ban(network.clone(), until_ns);
            for Child { key, .. } in children {
                self.banned.remove(&key);
                replaced.push(key);
            }
            registry.ends.push(Stamped { stamp_ns: until_ns, key: Listed::Network(network.clone()) });
            child = Child { key: network, until_ns };
        }
        while registry.ends.len() > registry.listed_max {
            self.remove_soonest(&mut registry);
        }
        replaced
    }

    fn ban(&self, network: K, until_ns: u64) {
        self.banned.insert(network, NetworkBan { until_ns, answers: Answers::default() });
        self.latest_end_ns.fetch_max(until_ns, Ordering::Relaxed);
    }

    /// Ends all bans at `until_max_ns` that would last longer.
    pub(crate) fn shorten(&self, until_max_ns: u64) {
        let mut registry = lock(&self.registry);
        self.banned.iter_mut().for_each(|mut ban| ban.until_ns = ban.until_ns.min(until_max_ns));
        for child in registry.children.values_mut().flatten() {
            child.until_ns = child.until_ns.min(until_max_ns);
        }
        let ends = std::mem::take(&mut registry.ends).into_iter();
        let shortened = |Stamped { stamp_ns, key }| Stamped { stamp_ns: stamp_ns.min(until_max_ns), key };
        registry.ends = ends.map(shortened).collect();
    }

    /// Runs `read` on the ban of the closest network around the key, if one is in force.
    fn find<T>(&self, key: &K, now_ns: u64, read: impl Fn(&mut NetworkBan) -> T) -> Option<T> {
        if self.latest_end_ns.load(Ordering::Relaxed) <= now_ns {
            return None;
        }
        iter::successors(key.parent(), K::parent).take(LEVELS_MAX).find_map(|network| {
            let ban = self.banned.get_mut(&network).filter(|ban| ban.until_ns > now_ns);
            ban.map(|mut ban| read(&mut ban))
        })
    }

    fn remove_soonest(&self, registry: &mut Registry<K>) {
        match registry.ends.pop() {
            Some(Stamped { stamp_ns, key: Listed::Child { network, key } }) => {
                registry.remove_child(&network, &key, stamp_ns);
            }
            Some(Stamped { stamp_ns, key: Listed::Network(network) }) => {
                self.banned.remove_if(&network, |_, ban| ban.until_ns == stamp_ns);
            }
            None => {}
        }
    }
}

impl<K: Eq + Hash + Clone> Registry<K> {
    /// Adds a banned child. If the network now has [`CHILDREN_MAX`] of them, removes and returns
    /// them.
    fn add_child(&mut self, network: &K, child: Child<K>) -> Option<Vec<Child<K>>> {
        let listed = Listed::Child { network: network.clone(), key: child.key.clone() };
        self.ends.push(Stamped { stamp_ns: child.until_ns, key: listed });
        let children = self.children.entry(network.clone()).or_default();
        match children.iter_mut().find(|known| known.key == child.key) {
            Some(known) => known.until_ns = known.until_ns.max(child.until_ns),
            None => children.push(child),
        }
        if children.len() < CHILDREN_MAX {
            return None;
        }
        let children = self.children.remove(network)?;
        self.ends.retain(|listed| match &listed.key {
            Listed::Child { network: around, .. } => around != network,
            Listed::Network(banned) => children.iter().all(|child| child.key != *banned),
        });
        Some(children)
    }

    /// Removes a child whose ban ends at `until_ns`. A child that was banned again ends later, and
    /// stays.
    fn remove_child(&mut self, network: &K, key: &K, until_ns: u64) {
        if let Some(children) = self.children.get_mut(network) {
            children.retain(|child| child.until_ns != until_ns || child.key != *key);
            if children.is_empty() {
                self.children.remove(network);
            }
        }
    }
}

/// Hides the keys.
impl<K> fmt::Debug for Networks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Networks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand hosts per network, a thousand networks in the internet.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    enum TestAddress {
        Host(u64),
        Network(u64),
        Internet,
    }

    impl Key for TestAddress {
        fn parent(&self) -> Option<Self> {
            match self {
                Self::Host(host) => Some(Self::Network(host / 1000)),
                Self::Network(_) => Some(Self::Internet),
                Self::Internet => None,
            }
        }
    }

    fn sizes(networks: &Networks<TestAddress>) -> (usize, usize, usize) {
        let registry = lock(&networks.registry);
        (registry.children.values().map(Vec::len).sum(), networks.banned.len(), registry.ends.len())
    }

    #[test]
    fn the_list_of_bans_is_bounded() {
        let networks = Networks::new(100);
        // Fifteen of each network, so that no ban climbs.
        for host in (0..1_000_000).filter(|host| host % 1000 < 15) {
            assert!(networks.note_ban(&TestAddress::Host(host), 1_000_000 + host, 0).is_empty());
            let (children, banned, ends) = sizes(&networks);
            assert!(children <= 100 && banned == 0 && ends <= 100, "{children} {banned} {ends}");
        }
    }

    #[test]
    fn ended_bans_leave_the_list() {
        let networks = Networks::new(1000);
        for host in (0..10_000).filter(|host| host % 1000 < 16) {
            networks.note_ban(&TestAddress::Host(host), 500, 0);
        }
        assert_eq!(sizes(&networks), (10, 10, 20), "ten networks, each a child of the internet");
        assert_eq!(networks.banned_until_ns(&TestAddress::Host(3_999), 499), Some(500));
        assert_eq!(networks.banned_until_ns(&TestAddress::Host(3_999), 500), None);
        networks.note_ban(&TestAddress::Host(77_000), 900, 500);
        assert_eq!(sizes(&networks), (1, 0, 1));
    }

    #[test]
    fn a_child_that_is_banned_again_is_listed_until_its_later_end() {
        let networks = Networks::new(1000);
        // As if the limiter had forgotten the first ban in between.
        networks.note_ban(&TestAddress::Host(1), 500, 0);
        networks.note_ban(&TestAddress::Host(1), 900, 100);
        networks.note_ban(&TestAddress::Host(77_000), 1500, 500);
        assert_eq!(sizes(&networks), (2, 0, 2));
        networks.note_ban(&TestAddress::Host(77_001), 1900, 900);
        assert_eq!(sizes(&networks), (2, 0, 2));
    }

    #[test]
    fn replaced_bans_leave_the_list() {
        let networks = Networks::new(1000);
        let mut replaced = 0;
        for host in (0..16_000).filter(|host| host % 1000 < 16) {
            replaced += networks.note_ban(&TestAddress::Host(host), 500 + host, 0).len();
        }
        // All hosts, and then all networks.
        assert_eq!(replaced, 16 * 16 + 16);
        assert_eq!(sizes(&networks), (0, 1, 1));
        assert_eq!(networks.banned_until_ns(&TestAddress::Host(99_000), 0), Some(500 + 15_015));
        let late = networks.note_ban(&TestAddress::Host(99_000), 600, 0);
        assert_eq!(late, [TestAddress::Host(99_000)], "a ban that began at the same time as its network's");
    }
}
