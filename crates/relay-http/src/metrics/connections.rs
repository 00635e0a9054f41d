//! Connections that were not let in, by the reason. It counts, and refuses nobody itself.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::admission::WhyRefused;

/// How many there were of each kind.
#[derive(Debug, Default)]
pub(crate) struct RefusedConnections([AtomicU64; 3]);

impl RefusedConnections {
    pub(crate) fn count(&self, why: WhyRefused) {
        let count = self.0.get(why as usize).expect("there is a place for each reason");
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Each reason's name, and how many there were.
    pub(crate) fn counts(&self) -> [(&'static str, u64); 3] {
        let Self([rate, address, ban]) = self;
        let counts = [rate, address, ban].map(|count| count.load(Ordering::Relaxed));
        let mut names = WhyRefused::ALL.map(WhyRefused::name).into_iter();
        counts.map(|count| (names.next().expect("there are as many names"), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place() {
        let refused = RefusedConnections::default();
        for (times, why) in (1..).zip(WhyRefused::ALL) {
            (0..times).for_each(|_| refused.count(why));
        }
        assert_eq!(refused.counts(), [("rate", 1), ("address", 2), ("ban", 3)]);
    }
}
