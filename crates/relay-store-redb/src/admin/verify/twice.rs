//! Finds arrival numbers that several items have. If the numbers do not fit into memory, it divides
//! them into parts and makes a pass over the store for each part.

use relay_core::Seq;
use relay_core::verify::Findings;

use crate::error::StoreError;

/// The most numbers that are compared at once: 64 MiB of them.
const COMPARED_MAX: usize = 1 << 23;

/// Is called with one number after the other.
type Visit<'a> = &'a mut dyn FnMut(Seq);

/// Finds duplicates in one part of all numbers.
pub(super) struct DuplicateFinder {
    seen: Vec<u64>,
    seen_max: usize,
    /// The number of all numbers, also those of other parts.
    count: u64,
    part: u64,
    parts: u64,
    /// This part has more numbers than fit.
    is_full: bool,
}

impl Default for DuplicateFinder {
    fn default() -> Self {
        Self::new(0, 1, COMPARED_MAX)
    }
}

impl DuplicateFinder {
    const fn new(part: u64, parts: u64, seen_max: usize) -> Self {
        Self { seen: Vec::new(), seen_max, count: 0, part, parts, is_full: false }
    }

    pub(super) fn note(&mut self, seq: Seq) {
        self.count += 1;
        if part_of(seq.as_u64(), self.parts) != self.part {
            return;
        }
        if self.seen.len() < self.seen_max {
            self.seen.push(seq.as_u64());
        } else {
            self.is_full = true;
        }
    }

    /// Reports duplicates. If the numbers did not fit, it calls `each` once per part, to visit all
    /// numbers again.
    pub(super) fn check(
        &mut self,
        findings: &mut Findings,
        each: &mut dyn FnMut(Visit<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if !self.is_full {
            self.report(findings);
            return Ok(());
        }
        self.seen = Vec::new();
        // Parts differ in size, so they are half full on average.
        let parts = self.count.div_ceil((self.seen_max as u64 / 2).max(1));
        for part in 0..parts {
            let mut finder = Self::new(part, parts, self.seen_max);
            each(&mut |seq| finder.note(seq))?;
            finder.report(findings);
            // Equal numbers fall into the same part, however many parts there are.
            if finder.is_full {
                findings.add("some arrival numbers were not compared: too many are equal".to_owned());
            }
        }
        Ok(())
    }

    fn report(&mut self, findings: &mut Findings) {
        self.seen.sort_unstable();
        for equal in self.seen.chunk_by(|a, b| a == b) {
            if let [seq, _, ..] = equal {
                findings.add(format!("{} items have arrival number {seq}", equal.len()));
            }
        }
    }
}

/// Hashes the number, because acks can leave any pattern of numbers behind.
fn part_of(number: u64, parts: u64) -> u64 {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % parts.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(numbers: &[u64], seen_max: usize) -> (Vec<String>, u32) {
        let (mut finder, mut findings, mut passes) =
            (DuplicateFinder::new(0, 1, seen_max), Findings::default(), 1);
        numbers.iter().for_each(|number| finder.note(Seq::new(*number)));
        let mut each = |visit: Visit<'_>| {
            passes += 1;
            numbers.iter().for_each(|number| visit(Seq::new(*number)));
            Ok(())
        };
        finder.check(&mut findings, &mut each).unwrap();
        let mut found = findings.into_listed();
        found.sort();
        (found, passes)
    }

    #[test]
    fn duplicates_are_found_in_one_pass_or_many() {
        let mut numbers: Vec<_> = (1..=500).chain([7, 300, 7]).collect();
        let expected = ["2 items have arrival number 300", "3 items have arrival number 7"];
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
    fn more_equal_numbers_than_fit_are_reported() {
        let (found, _) = find(&[5; 100], 10);
        assert_eq!(
            found,
            ["10 items have arrival number 5", "some arrival numbers were not compared: too many are equal",]
        );
    }
}
