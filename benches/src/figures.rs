//! What was measured, over repeated rounds: the median, and from where to where the rounds went. A single number would hide that
//! the machine had other things to do, and a mean would let one of them decide.

use std::fmt;
use std::time::Duration;

/// One figure per round.
#[derive(Clone, Debug, Default)]
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

    fn span(&self) -> (f64, f64) {
        let from = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let to = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if self.0.is_empty() { (0.0, 0.0) } else { (from, to) }
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

/// A table of rows, each a name, its unit and its rounds.
#[derive(Debug)]
pub struct Table {
    title: String,
    notes: Vec<String>,
    rows: Vec<(String, &'static str, Rounds)>,
}

impl Table {
    /// `title` says what is measured, `ground` on what kind of file system.
    #[must_use]
    pub fn new(title: &str, ground: &str) -> Self {
        Self { title: format!("{title} [{ground}]"), notes: Vec::new(), rows: Vec::new() }
    }

    /// Adds a line of what one has to know to read the figures.
    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Adds a row.
    pub fn row(&mut self, name: impl Into<String>, unit: &'static str, rounds: Rounds) {
        self.rows.push((name.into(), unit, rounds));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, notes, rows } = self;
        writeln!(f, "{title}")?;
        for note in notes {
            writeln!(f, "  {note}")?;
        }
        writeln!(f, "  {:<52}{:>12}{:>12}{:>12}  unit", "", "median", "from", "to")?;
        for (name, unit, rounds) in rows {
            let (from, to) = rounds.span();
            let (median, from, to) = (number(rounds.median()), number(from), number(to));
            writeln!(f, "  {name:<52}{median:>12}{from:>12}{to:>12}  {unit}")?;
        }
        Ok(())
    }
}

/// Three digits that say something, and no more.
fn number(figure: f64) -> String {
    match figure {
        figure if figure >= 1_000.0 => format!("{figure:.0}"),
        figure if figure >= 100.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// Microseconds.
#[must_use]
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
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
