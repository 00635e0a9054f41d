//! Bans of whole networks: where many keys of one network are banned at once, the network is banned
//! in their place. It never bans a single key and never looks at an entry.
//!
//! A check looks here only while there is a ban, and then takes one short lock for each wider
//! network of its key. All else happens when a ban begins, under one lock. What is held is bounded:
//! whatever is listed has its element in `ends`, and beyond the bound the one that ends soonest is
//! struck.

use std::collections::{BinaryHeap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;

use crate::answers::Answers;
use crate::key::Key;
use crate::lock::lock;
use crate::roster::Stamped;

/// So many banned children of one network are replaced by a ban of the network.
pub(crate) const CHILDREN_MAX: usize = 16;

/// How many steps a ban climbs at most, so that a key that is its own ancestor does no harm.
const LEVELS_MAX: usize = 8;

pub(crate) struct Networks<K> {
    banned: DashMap<K, NetworkBan>,
    /// No ban of a network ends later; so one look tells if there is any.
    latest_end_ns: AtomicU64,
    register: Mutex<Register<K>>,
}

#[derive(Debug)]
struct NetworkBan {
    until_ns: u64,
    answers: Answers,
}

/// The bans in force, by network and by end.
struct Register<K> {
    /// Fewer than [`CHILDREN_MAX`] to each network, none twice.
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
    /// Lists up to `listed_max` bans, but no fewer than one network needs.
    pub(crate) fn new(listed_max: usize) -> Self {
        let listed_max = listed_max.max(CHILDREN_MAX);
        let register = Register { children: HashMap::new(), ends: BinaryHeap::new(), listed_max };
        Self { banned: DashMap::new(), latest_end_ns: AtomicU64::new(0), register: Mutex::new(register) }
    }

    /// When the ban of a network around this key ends; `None` if there is none.
    pub(crate) fn banned_until_ns(&self, key: &K, now_ns: u64) -> Option<u64> {
        self.find(key, now_ns, |ban| ban.until_ns)
    }

    /// The same for a connection, with whether it still gets an answer. All keys of a network share
    /// its answers.
    pub(crate) fn answer(&self, key: &K, now_ns: u64) -> Option<(u64, bool)> {
        self.find(key, now_ns, |ban| (ban.until_ns, ban.answers.take(now_ns)))
    }

    /// Notes the ban of a key. Returns the keys whose bans that of a network has taken the place
    /// of.
    pub(crate) fn note_ban(&self, key: &K, until_ns: u64, now_ns: u64) -> Vec<K> {
        let mut register = lock(&self.register);
        // Its last request and the ban of its network may have crossed.
        if self.banned_until_ns(key, now_ns).is_some() {
            return vec![key.clone()];
        }
        let mut replaced = Vec::new();
        let mut child = Child { key: key.clone(), until_ns };
        self.strike_ended(&mut register, now_ns);
        for _ in 0..LEVELS_MAX {
            let Some(network) = child.key.parent() else { break };
            let Some(children) = register.add_child(&network, child) else { break };
            let until_ns = children.iter().map(|child| child.until_ns).fold(0, u64::max);
            self.ban(network.clone(), until_ns);
            for Child { key, .. } in children {
                self.banned.remove(&key);
                replaced.push(key);
            }
            register.ends.push(Stamped { stamp_ns: until_ns, key: Listed::Network(network.clone()) });
            child = Child { key: network, until_ns };
        }
        while register.ends.len() > register.listed_max {
            self.strike_soonest(&mut register);
        }
        replaced
    }

    fn ban(&self, network: K, until_ns: u64) {
        self.banned.insert(network, NetworkBan { until_ns, answers: Answers::default() });
        self.latest_end_ns.fetch_max(until_ns, Ordering::Relaxed);
    }

    fn find<T>(&self, key: &K, now_ns: u64, tell: impl Fn(&mut NetworkBan) -> T) -> Option<T> {
        if self.latest_end_ns.load(Ordering::Relaxed) <= now_ns {
            return None;
        }
        let mut network = key.parent()?;
        for _ in 0..LEVELS_MAX {
            if let Some(mut ban) = self.banned.get_mut(&network)
                && ban.until_ns > now_ns
            {
                return Some(tell(&mut ban));
            }
            network = network.parent()?;
        }
        None
    }

    fn strike_ended(&self, register: &mut Register<K>, now_ns: u64) {
        while register.ends.peek().is_some_and(|first| first.stamp_ns <= now_ns) {
            self.strike_soonest(register);
        }
    }

    fn strike_soonest(&self, register: &mut Register<K>) {
        match register.ends.pop() {
            Some(Stamped { stamp_ns, key: Listed::Child { network, key } }) => {
                register.strike_child(&network, &key, stamp_ns);
            }
            Some(Stamped { stamp_ns, key: Listed::Network(network) }) => {
                self.banned.remove_if(&network, |_, ban| ban.until_ns == stamp_ns);
            }
            None => {}
        }
    }
}

impl<K: Eq + Hash + Clone> Register<K> {
    /// Returns the children of the network if there are now enough of them; they are no longer
    /// listed then.
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

    /// Forgets a child whose ban ends then; one that has been banned anew since ends later, and
    /// stays.
    fn strike_child(&mut self, network: &K, key: &K, until_ns: u64) {
        if let Some(children) = self.children.get_mut(network) {
            children.retain(|child| child.until_ns != until_ns || child.key != *key);
            if children.is_empty() {
                self.children.remove(network);
            }
        }
    }
}

/// Tells nothing of the keys.
impl<K> fmt::Debug for Networks<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Networks").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thousand hosts to a network, a thousand networks to the whole.
    #[derive(Debug, Clone, PartialEq, Eq, Hash)]
    enum Place {
        Host(u64),
        Network(u64),
        Whole,
    }

    impl Key for Place {
        fn parent(&self) -> Option<Self> {
            match self {
                Self::Host(host) => Some(Self::Network(host / 1000)),
                Self::Network(_) => Some(Self::Whole),
                Self::Whole => None,
            }
        }
    }

    fn sizes(networks: &Networks<Place>) -> (usize, usize, usize) {
        let register = lock(&networks.register);
        (register.children.values().map(Vec::len).sum(), networks.banned.len(), register.ends.len())
    }

    #[test]
    fn what_is_listed_is_bounded_whoever_is_banned() {
        let networks = Networks::new(100);
        // Fifteen of each network, so that none of their bans climbs.
        for host in (0..1_000_000).filter(|host| host % 1000 < 15) {
            assert!(networks.note_ban(&Place::Host(host), 1_000_000 + host, 0).is_empty());
            let (children, banned, ends) = sizes(&networks);
            assert!(children <= 100 && banned == 0 && ends <= 100, "{children} {banned} {ends}");
        }
    }

    #[test]
    fn nothing_is_left_of_bans_that_have_ended() {
        let networks = Networks::new(1000);
        for host in (0..10_000).filter(|host| host % 1000 < 16) {
            networks.note_ban(&Place::Host(host), 500, 0);
        }
        assert_eq!(sizes(&networks), (10, 10, 20), "ten networks, each a child of the whole");
        assert_eq!(networks.banned_until_ns(&Place::Host(3_999), 499), Some(500));
        assert_eq!(networks.banned_until_ns(&Place::Host(3_999), 500), None);
        networks.note_ban(&Place::Host(77_000), 900, 500);
        assert_eq!(sizes(&networks), (1, 0, 1));
    }

    #[test]
    fn a_child_that_is_banned_anew_is_listed_until_its_later_end() {
        let networks = Networks::new(1000);
        // The first ban had given way in between.
        networks.note_ban(&Place::Host(1), 500, 0);
        networks.note_ban(&Place::Host(1), 900, 100);
        networks.note_ban(&Place::Host(77_000), 1500, 500);
        assert_eq!(sizes(&networks), (2, 0, 2));
        networks.note_ban(&Place::Host(77_001), 1900, 900);
        assert_eq!(sizes(&networks), (2, 0, 2));
    }

    #[test]
    fn what_a_ban_takes_the_place_of_is_no_longer_listed() {
        let networks = Networks::new(1000);
        let mut replaced = 0;
        for host in (0..16_000).filter(|host| host % 1000 < 16) {
            replaced += networks.note_ban(&Place::Host(host), 500 + host, 0).len();
        }
        // All hosts, and then all networks.
        assert_eq!(replaced, 16 * 16 + 16);
        assert_eq!(sizes(&networks), (0, 1, 1));
        assert_eq!(networks.banned_until_ns(&Place::Host(99_000), 0), Some(500 + 15_015));
        let late = networks.note_ban(&Place::Host(99_000), 600, 0);
        assert_eq!(late, [Place::Host(99_000)], "a ban that began beside that of its network");
    }
}
