//! How long single commands took: all of them together for the tail, and each round's median for the comparison with a floor. A tail needs
//! every sample, since p99.99 of a round is one command in ten thousand; a median of medians tells how the rounds differed.

use hdrhistogram::Histogram;

use crate::rounds::Rounds;

/// What every latency row tells, besides the largest.
pub const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999)];

/// An empty record of nanoseconds, to three digits, up to 100 seconds; what takes longer counts as that.
#[must_use]
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 100_000_000_000, 3).expect("these bounds are valid")
}

/// Latencies in nanoseconds over all rounds.
#[derive(Clone, Debug)]
pub struct Latencies {
    merged: Histogram<u64>,
    p50: Rounds,
    p99: Rounds,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { merged: histogram(), p50: Rounds::default(), p99: Rounds::default() }
    }
}

impl Latencies {
    /// Takes what one round recorded.
    pub fn push(&mut self, round: &Histogram<u64>) {
        // Widths are the same unless a caller made its own; then values are put where they belong, one by one.
        self.merged.add(round).unwrap_or_else(|_| {
            for value in round.iter_recorded() {
                self.merged.saturating_record_n(value.value_iterated_to(), value.count_at_value());
            }
        });
        self.p50.push(round.value_at_quantile(0.5) as f64);
        self.p99.push(round.value_at_quantile(0.99) as f64);
    }

    /// Nanoseconds that this share of all commands stayed within; `quantile` from 0 to 1.
    #[must_use]
    pub fn at(&self, quantile: f64) -> u64 {
        self.merged.value_at_quantile(quantile)
    }

    /// Nanoseconds of the slowest command.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.merged.max()
    }

    /// Commands recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.merged.len()
    }

    /// Points of the percentile curve, (quantile, nanoseconds): closer together towards the tail, as far as the commands reach.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, u64)> {
        let count = self.count();
        let mut curve = vec![(0.0, self.merged.min())];
        // Halving what is left, three points a halving, until less than one command is left.
        for step in 1.. {
            let left = 2_f64.powf(-f64::from(step) / 3.0);
            if left * (count as f64) < 1.0 || left < 1e-6 {
                break;
            }
            curve.push((1.0 - left, self.at(1.0 - left)));
        }
        if count > 0 {
            curve.push((1.0, self.max()));
        }
        curve
    }

    /// Each round's median, in nanoseconds.
    #[must_use]
    pub fn p50(&self) -> &Rounds {
        &self.p50
    }

    /// Each round's 99th percentile, in nanoseconds.
    #[must_use]
    pub fn p99(&self) -> &Rounds {
        &self.p99
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_of_all_rounds_and_the_median_of_each() {
        let mut latencies = Latencies::default();
        for value in [100, 200, 300] {
            let mut round = histogram();
            round.saturating_record_n(value, 1_000);
            latencies.push(&round);
        }
        assert_eq!(latencies.count(), 3_000);
        assert_eq!(latencies.p50().figures().len(), 3);
        assert!((latencies.p50().median() - 200.0).abs() < 1.0);
        assert!(latencies.at(0.99) >= 300 && latencies.max() >= 300);
    }

    #[test]
    fn a_record_of_other_bounds_is_taken_too() {
        let mut coarse = Histogram::<u64>::new(2).expect("two digits");
        coarse.record(u64::MAX / 2).expect("it resizes");
        let mut latencies = Latencies::default();
        latencies.push(&coarse);
        assert_eq!(latencies.count(), 1);
    }
}
