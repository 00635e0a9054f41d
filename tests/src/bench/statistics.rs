//! Intervals and tests that assume no shape of the distribution. All are pure functions.

use std::fmt;

use super::figure::{median, quantity};

/// How many resamples a bootstrap draws.
const RESAMPLES: usize = 10_000;

/// An estimate, and the interval that holds the true value with a probability of 95%.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Interval {
    pub(super) middle: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

/// Durations in nanoseconds, in ascending order.
#[derive(Clone, Debug)]
pub(super) struct Sample(Vec<u64>);

/// The Mann-Whitney test of whether values of one sample tend to be greater than those of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RankSum {
    /// The share of pairs in which the value of the first sample is the greater one. Equal values
    /// count half, so 0.5 means no difference.
    pub(super) greater: f64,
    /// The deviation from 0.5 in standard errors. Without a difference, its magnitude is above 3.29
    /// once in a thousand times.
    pub(super) z: f64,
}

impl Interval {
    /// The median of independent values. The interval goes by ranks: whether the true median lies
    /// between two of the values depends on coin tosses alone. With fewer than six values, it is
    /// their range.
    pub(super) fn of_median(values: &[f64]) -> Self {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = outer_rank(sorted.len());
        let at = |rank: usize| sorted.get(rank).copied().unwrap_or_default();
        Self { middle: median(values), low: at(rank), high: at(sorted.len().saturating_sub(1 + rank)) }
    }

    /// By how much the median of the first sample is greater, from bootstrap resamples.
    pub(super) fn of_difference(one: &Sample, other: &Sample) -> Self {
        let mut random = fastrand::Rng::with_seed(1);
        let mut resample = || one.resampled_median(&mut random) - other.resampled_median(&mut random);
        let mut differences: Vec<_> = (0..RESAMPLES).map(|_| resample()).collect();
        differences.sort_by(f64::total_cmp);
        let tail = RESAMPLES / 40;
        let at = |index: usize| differences.get(index).copied().unwrap_or_default();
        Self {
            middle: one.quantile(0.5) - other.quantile(0.5),
            low: at(tail),
            high: at(RESAMPLES - 1 - tail),
        }
    }

    /// The bounds, as text.
    pub(super) fn bounds(&self, unit: &str) -> impl fmt::Display {
        format!("95%: {} to {}", quantity(self.low, unit), quantity(self.high, unit))
    }
}

impl Sample {
    pub(super) fn new(mut values: Vec<u64>) -> Self {
        values.sort_unstable();
        Self(values)
    }

    /// The value at a quantile (0 to 1); 0 if there are none.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        self.at(self.0.len().saturating_sub(1) as f64 * quantile)
    }

    /// The median of a resample of the same size. Its rank in this sample is nearly normal, with a
    /// standard deviation of half the root of the size, so that no resample need be drawn.
    fn resampled_median(&self, random: &mut fastrand::Rng) -> f64 {
        let count = self.0.len() as f64;
        self.at((count - 1.0) / 2.0 + normal(random) * count.sqrt() / 2.0)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped to the ranks")]
    fn at(&self, rank: f64) -> f64 {
        let rank = rank.round().clamp(0.0, self.0.len().saturating_sub(1) as f64);
        self.0.get(rank as usize).copied().unwrap_or_default() as f64
    }
}

impl RankSum {
    pub(super) fn of(one: &Sample, other: &Sample) -> Self {
        let (mut ones, mut others) = (one.0.iter().copied().peekable(), other.0.iter().copied().peekable());
        let (mut greater, mut below, mut ties) = (0.0, 0.0, 0.0);
        while let Some(value) = ones.peek().copied().into_iter().chain(others.peek().copied()).min() {
            let mut equal = 0.0;
            while others.next_if_eq(&value).is_some() {
                equal += 1.0;
            }
            let mut count = equal;
            while ones.next_if_eq(&value).is_some() {
                greater += below + equal / 2.0;
                count += 1.0;
            }
            below += equal;
            ties += f64::powi(count, 3) - count;
        }
        let (m, n) = (one.0.len() as f64, other.0.len() as f64);
        let total = m + n;
        let variance = m * n / 12.0 * (total + 1.0 - ties / (total * (total - 1.0)));
        Self { greater: greater / (m * n), z: (greater - m * n / 2.0) / variance.sqrt() }
    }
}

/// The greatest rank, counted from 0, for which the true median of `count` values lies below it
/// with a probability of at most 2.5%.
fn outer_rank(count: usize) -> usize {
    let (mut probability, mut below, mut rank) =
        (0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX)), 0.0, 0);
    for heads in 0..count {
        below += probability;
        if below > 0.025 {
            break;
        }
        rank = heads;
        probability *= (count - heads) as f64 / (heads + 1) as f64;
    }
    rank
}

/// A random number with the standard normal distribution, by the method of Box and Muller.
fn normal(random: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - random.f64()).ln()).sqrt() * (std::f64::consts::TAU * random.f64()).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(values: impl IntoIterator<Item = u64>) -> Sample {
        Sample::new(values.into_iter().collect())
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // The sign test's two-sided 5% points: from the 1st, 2nd, 4th, 6th and 10th value on.
        for (count, rank) in [(0, 0), (5, 0), (6, 0), (9, 1), (15, 3), (20, 5), (30, 9)] {
            assert_eq!(outer_rank(count), rank, "{count} values");
        }
        let values: Vec<_> = (1..=15).rev().map(f64::from).collect();
        assert_eq!(Interval::of_median(&values), Interval { middle: 8.0, low: 4.0, high: 12.0 });
    }

    #[test]
    fn a_rank_sum_counts_pairs() {
        let test = RankSum::of(&sample([1, 2, 2, 5]), &sample([2, 3]));
        // 1: none; 2 and 2: half a pair each; 5: both.
        assert!((test.greater - 3.0 / 8.0).abs() < 1e-12, "{test:?}");
        let same = RankSum::of(&sample(0..1000), &sample(0..1000));
        assert!((same.greater - 0.5).abs() < 1e-12 && same.z.abs() < 1e-9, "{same:?}");
        // Without ties, z of 10 values all above 10 others is 50 / sqrt(175).
        let apart = RankSum::of(&sample(10..20), &sample(0..10));
        assert!((apart.z - 50.0 / 175.0_f64.sqrt()).abs() < 1e-9 && apart.greater == 1.0, "{apart:?}");
    }

    /// The standard error of a median is 1.25 times that of a mean if the distribution is normal.
    #[test]
    fn a_bootstrap_finds_the_difference_and_its_error() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut draw = |centre: f64| {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far from both ends")]
            sample((0..10_000).map(|_| (centre + 1000.0 * normal(&mut random)) as u64))
        };
        let (one, other) = (draw(50_100.0), draw(50_000.0));
        let Interval { middle, low, high } = Interval::of_difference(&one, &other);
        assert!(low < 100.0 && 100.0 < high && low < middle && middle < high, "{low} {middle} {high}");
        let expected = 2.0 * 1.96 * 1.2533 * 1000.0 * (2.0_f64 / 10_000.0).sqrt();
        assert!(((high - low) / expected - 1.0).abs() < 0.2, "{} instead of {expected}", high - low);
    }
}
