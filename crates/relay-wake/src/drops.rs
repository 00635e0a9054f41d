//! Log lines about wakes that are dropped: at most one in a minute, with counts and without names.
//! Pure: the time is passed in.

/// The shortest time between two lines.
const INTERVAL_MS: u64 = 60_000;

/// Wakes that were dropped, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Drops {
    pub(crate) refused: u64,
    pub(crate) failed: u64,
    pub(crate) full: u64,
}

#[derive(Debug, Default)]
pub(crate) struct DropLog {
    logged: Drops,
    next_ms: u64,
}

impl DropLog {
    /// The drops since the last line, if it is time for the next one. `totals` are all so far.
    pub(crate) fn due(&mut self, totals: Drops, now_ms: u64) -> Option<Drops> {
        if totals == self.logged || now_ms < self.next_ms {
            return None;
        }
        let since = Drops {
            refused: totals.refused.saturating_sub(self.logged.refused),
            failed: totals.failed.saturating_sub(self.logged.failed),
            full: totals.full.saturating_sub(self.logged.full),
        };
        (self.logged, self.next_ms) = (totals, now_ms.saturating_add(INTERVAL_MS));
        Some(since)
    }

    /// When a line is due, if there were drops that no line reports.
    pub(crate) fn next_ms(&self, totals: Drops) -> Option<u64> {
        (totals != self.logged).then_some(self.next_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_has_one_line_and_no_drop_is_left_out() {
        let mut log = DropLog::default();
        let totals = |refused, failed, full| Drops { refused, failed, full };
        assert_eq!(log.due(totals(0, 0, 0), 5), None);
        assert_eq!(log.due(totals(1, 0, 0), 10), Some(totals(1, 0, 0)));
        assert_eq!(log.next_ms(totals(1, 0, 0)), None);
        assert_eq!(log.due(totals(1, 500, 0), 60_009), None);
        assert_eq!(log.next_ms(totals(1, 500, 0)), Some(60_010));
        assert_eq!(log.due(totals(1, 500, 7), 60_010), Some(totals(0, 500, 7)));
        assert_eq!(log.due(totals(1, 500, 7), 200_000), None);
    }
}
