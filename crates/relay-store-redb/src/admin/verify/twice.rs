//! Finds numbers that are there more than once, among more than fit into memory: in passes, each
//! over a part of them.

use relay_core::Seq;
use relay_core::verify::Findings;

use crate::error::StoreError;

/// So many numbers are compared at once: 64 MiB of them.
const TOGETHER_MAX: usize = 1 << 23;

/// Is shown numbers, one after the other.
type Visit<'a> = &'a mut dyn FnMut(Seq);

/// Counters of a part of all.
pub(super) struct Twice {
    seen: Vec<u64>,
    seen_max: usize,
    /// How many there are in all.
    count: u64,
    part: u64,
    parts: u64,
    /// There were more of this part than fit.
    is_full: bool,
}

impl Default for Twice {
    fn default() -> Self {
        Self::part(0, 1, TOGETHER_MAX)
    }
}

impl Twice {
    const fn part(part: u64, parts: u64, seen_max: usize) -> Self {
        Self { seen: Vec::new(), seen_max, count: 0, part, parts, is_full: false }
    }

    pub(super) fn note(&mut self, seq: Seq) {
        self.count += 1;
        if part_of(seq.as_u64(), self.parts) != self.part {
            return;
        }
        if self.seen.len() >= self.seen_max {
            // Many may be the same.
            self.is_full = true;
            return;
        }
        self.seen.push(seq.as_u64());
    }

    /// Tells what was noted more than once. If that did not fit, it has `each` show all numbers
    /// again, as often as it takes.
    pub(super) fn check(
        &mut self,
        findings: &mut Findings,
        each: &mut dyn FnMut(Visit<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if !self.is_full {
            self.tell(findings);
            return Ok(());
        }
        self.seen = Vec::new();
        // Parts are not equally large.
        let parts = self.count.div_ceil((self.seen_max as u64 / 2).max(1));
        for part in 0..parts {
            let mut seqs = Self::part(part, parts, self.seen_max);
            each(&mut |seq| seqs.note(seq))?;
            seqs.tell(findings);
            if seqs.is_full {
                findings
                    .add("some arrival numbers were not compared with others: too many are alike".to_owned());
            }
        }
        Ok(())
    }

    fn tell(&mut self, findings: &mut Findings) {
        self.seen.sort_unstable();
        for same in self.seen.chunk_by(|a, b| a == b) {
            if let [seq, _, ..] = same {
                findings.add(format!("arrival number {seq} was given to {} items", same.len()));
            }
        }
    }
}

/// Counters are given away one after the other, but which of them are left is for those who ack to
/// say.
fn part_of(number: u64, parts: u64) -> u64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % parts.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(numbers: &[u64], seen_max: usize) -> (Vec<String>, u32) {
        let (mut seqs, mut findings, mut passes) = (Twice::part(0, 1, seen_max), Findings::default(), 1);
        numbers.iter().for_each(|number| seqs.note(Seq::new(*number)));
        let mut each = |visit: Visit<'_>| {
            passes += 1;
            numbers.iter().for_each(|number| visit(Seq::new(*number)));
            Ok(())
        };
        seqs.check(&mut findings, &mut each).unwrap();
        let mut found = findings.into_listed();
        found.sort();
        (found, passes)
    }

    #[test]
    fn what_is_there_twice_is_found_in_one_pass_or_many() {
        let mut numbers: Vec<_> = (1..=500).chain([7, 300, 7]).collect();
        let expected = ["arrival number 300 was given to 2 items", "arrival number 7 was given to 3 items"];
        for (seen_max, passes) in [(1_000, 1), (503, 1), (502, 4), (100, 12), (20, 52)] {
            assert_eq!(
                find(&numbers, seen_max),
                (expected.map(str::to_owned).to_vec(), passes),
                "{seen_max}"
            );
        }
        numbers.truncate(500);
        for seen_max in [500, 499, 30] {
            assert_eq!(find(&numbers, seen_max).0, Vec::<String>::new(), "{seen_max}");
        }
    }

    #[test]
    fn more_that_are_the_same_than_fit_are_told() {
        let (found, _) = find(&[5; 100], 10);
        assert_eq!(
            found,
            [
                "arrival number 5 was given to 10 items",
                "some arrival numbers were not compared with others: too many are alike",
            ]
        );
    }
}
