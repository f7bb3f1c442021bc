//! What was measured, over repeated rounds: the median, and from where to where the rounds went. A single number would hide that
//! the machine had other things to do, and a mean would let one of them decide.

use std::time::Duration;

/// One figure per round, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds(Vec<f64>);

impl Rounds {
    /// Takes the figure of one more round.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// The middle one; of an even number, the lower of the two in the middle. 0 if there are none.
    #[must_use]
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
    }

    /// The smallest and the largest; zeros if there are none.
    #[must_use]
    pub fn span(&self) -> (f64, f64) {
        let from = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let to = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.0.is_empty() { (0.0, 0.0) } else { (from, to) }
    }

    /// Every round's figure.
    #[must_use]
    pub fn figures(&self) -> &[f64] {
        &self.0
    }

    /// True before the first round.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<f64> for Rounds {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

/// The ratios of two rows, round by round: what both were disturbed by falls out.
#[must_use]
pub fn ratios(of: &Rounds, to: &Rounds) -> Rounds {
    of.0.iter().zip(&to.0).map(|(of, to)| of / to).collect()
}

/// Microseconds.
#[must_use]
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Whole nanoseconds, as histograms take them.
#[must_use]
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How many per second.
#[must_use]
pub fn per_second(count: u64, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64().max(1e-9)
}

/// The median of many durations.
#[must_use]
pub fn median_of(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations.get(durations.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_a_figure_that_was_measured() {
        let rounds: Rounds = [3.0, 1.0, 2.0].into_iter().collect();
        assert!((rounds.median() - 2.0).abs() < f64::EPSILON);
        let even: Rounds = [4.0, 1.0, 2.0, 3.0].into_iter().collect();
        assert!((even.median() - 2.0).abs() < f64::EPSILON);
        let ratio = ratios(&rounds, &[1.0, 1.0, 4.0].into_iter().collect());
        assert!((ratio.median() - 1.0).abs() < f64::EPSILON, "3, 1 and a half");
    }
}
