//! How many answers the connections of a banned key still get.

use crate::tokens::SECOND_NS;

/// How many answers are available at once; one more becomes available each second.
const BURST: u32 = 5;

/// The second at which all answers are available again. By default they are.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answers(u32);

impl Answers {
    /// Takes one answer, if one is available.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let second = u32::try_from(now_ns / SECOND_NS).unwrap_or(u32::MAX);
        let full_at = self.0.max(second).saturating_add(1);
        let available = full_at.saturating_sub(second) <= BURST;
        if available {
            self.0 = full_at;
        }
        available
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_at_once_and_one_per_second() {
        let mut answers = Answers::default();
        let mut taken = |now_ns| (0..100).filter(|_| answers.take(now_ns)).count();
        assert_eq!([0, 1, 2, 3].map(|second| taken(second * SECOND_NS)), [5, 1, 1, 1]);
        assert_eq!(taken(60 * SECOND_NS), 5);
        assert_eq!(taken(59 * SECOND_NS), 0, "an earlier time finds less");
    }

    #[test]
    fn the_largest_time_does_not_panic() {
        let mut answers = Answers::default();
        assert!((0..100).filter(|_| answers.take(u64::MAX)).count() >= 1);
    }
}
