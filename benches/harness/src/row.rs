//! One line of a report: what was measured, and the floor under it. A bare figure says how fast this machine is; only beside the floor of
//! the same path, taken in the same rounds, does it say how good the code is.

use crate::latencies::Latencies;
use crate::rounds::{Rounds, ratios};

/// What a floor is the floor of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Of a throughput, per second: nothing on this path is faster.
    Throughput,
    /// Of a latency, in nanoseconds, at p50.
    Latency,
}

/// The cheapest thing that does what the path cannot do without.
#[derive(Clone, Debug)]
pub struct Floor {
    /// What it is, in words.
    pub name: String,
    /// What it is compared with.
    pub of: Against,
    /// Its figure in each round; see [`Against`] for the unit.
    pub rounds: Rounds,
}

/// Where on a curve of growth a row lies.
#[derive(Clone, Debug, PartialEq)]
pub struct Point {
    /// What grows, e.g. `books`; rows of one scenario with the same axis make one curve.
    pub axis: String,
    /// How many of it.
    pub at: f64,
}

/// What a scenario found out about one contender.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// Who or what, unique within its scenario.
    pub name: String,
    /// How many per second.
    pub throughput: Option<Rounds>,
    /// How long each took.
    pub latency: Option<Latencies>,
    /// What lies below.
    pub floor: Option<Floor>,
    /// Set if the row is one of several that differ in a number only.
    pub point: Option<Point>,
    /// Further figures: name, unit, rounds.
    pub figures: Vec<(String, &'static str, Rounds)>,
    /// What one has to know to read it.
    pub notes: Vec<String>,
}

impl Row {
    /// A row without figures.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), ..Self::default() }
    }

    /// With a throughput per second.
    #[must_use]
    pub fn throughput(mut self, per_second: Rounds) -> Self {
        self.throughput = Some(per_second);
        self
    }

    /// With latencies.
    #[must_use]
    pub fn latency(mut self, latency: Latencies) -> Self {
        self.latency = Some(latency);
        self
    }

    /// With a floor.
    #[must_use]
    pub fn floor(mut self, name: impl Into<String>, of: Against, rounds: Rounds) -> Self {
        self.floor = Some(Floor { name: name.into(), of, rounds });
        self
    }

    /// As one point of a curve over `axis`.
    #[must_use]
    pub fn point(mut self, axis: impl Into<String>, at: f64) -> Self {
        self.point = Some(Point { axis: axis.into(), at });
        self
    }

    /// With one further figure.
    #[must_use]
    pub fn figure(mut self, name: impl Into<String>, unit: &'static str, rounds: Rounds) -> Self {
        self.figures.push((name.into(), unit, rounds));
        self
    }

    /// With a line of explanation.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// The result divided by its floor, round by round; of a throughput at most about 1, of a latency at least about 1.
    /// None without a floor, or without what it is compared with.
    #[must_use]
    pub fn ratio(&self) -> Option<Rounds> {
        let floor = self.floor.as_ref()?;
        let result = match floor.of {
            Against::Throughput => self.throughput.as_ref()?,
            Against::Latency => self.latency.as_ref()?.p50(),
        };
        Some(ratios(result, &floor.rounds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::histogram;

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let floor: Rounds = [10.0, 40.0].into_iter().collect();
        let row = Row::new("ours").throughput([5.0, 30.0].into_iter().collect()).floor(
            "bare",
            Against::Throughput,
            floor,
        );
        let ratio = row.ratio().expect("both are there");
        assert_eq!(ratio.figures(), [0.5, 0.75]);
    }

    #[test]
    fn a_floor_of_what_was_not_measured_gives_no_ratio() {
        let row = Row::new("ours").floor("bare", Against::Latency, [1.0].into_iter().collect());
        assert_eq!(row.ratio(), None);
        let mut latency = Latencies::default();
        let mut round = histogram();
        round.saturating_record(20);
        latency.push(&round);
        let ratio = row.latency(latency).ratio().expect("now it was");
        assert_eq!(ratio.figures(), [20.0]);
    }
}
