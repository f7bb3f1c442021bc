//! What a scenario is: work that checks itself, and a sentence on what it would mean if it became slower.

use std::error::Error;
use std::path::PathBuf;

use crate::row::Row;

/// How a run is made; the same for all its scenarios.
#[derive(Clone, Debug)]
pub struct Settings {
    /// About how long each contender is measured in each round, where a scenario measures by time.
    pub seconds: f64,
    /// How often each contender is measured; at least 1.
    pub rounds: usize,
    /// Where files go: the disk, or the memory, that one wants to know about.
    pub dir: PathBuf,
    /// Commands of each round, where not the scenario's own number.
    pub commands: Option<u64>,
    /// Planned commands per second of an open loop, where not the scenario's own.
    pub rate: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seconds: 2.0, rounds: 5, dir: std::env::temp_dir(), commands: None, rate: None }
    }
}

impl Settings {
    /// Small enough for a test, which looks at results and never at times.
    #[must_use]
    pub fn small(commands: u64) -> Self {
        Self { seconds: 0.02, rounds: 1, commands: Some(commands), ..Self::default() }
    }

    /// Commands of each round: those asked for, or the scenario's own number.
    #[must_use]
    pub fn commands_or(&self, usual: u64) -> u64 {
        self.commands.unwrap_or(usual).max(1)
    }

    /// Planned commands per second: those asked for, or the scenario's own rate.
    #[must_use]
    pub fn rate_or(&self, usual: f64) -> f64 {
        self.rate.unwrap_or(usual).max(1.0)
    }
}

/// Something to measure.
pub trait Scenario: Sync {
    /// Its name on the command line, in snake case.
    fn name(&self) -> &'static str;

    /// What a regression here would mean, in one sentence or two.
    fn shows(&self) -> &'static str;

    /// Measures and checks.
    ///
    /// # Errors
    /// The world failed, or the work came to a wrong result: nothing was measured then.
    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>>;
}
