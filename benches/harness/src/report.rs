//! All that a run measured, as one document for programs. The fields are described in the README of the benches; a field that changes its
//! meaning or goes raises [`SCHEMA`], a new one does not.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::latencies::{Latencies, PERCENTILES};
use crate::machine::Machine;
use crate::rounds::Rounds;
use crate::row::{Against, Row};
use crate::scenario::{Scenario, Settings};

/// Version of the document's form.
pub const SCHEMA: u32 = 1;

/// One scenario's part of a report.
#[derive(Clone, Debug)]
pub struct Measured {
    /// [`Scenario::name`].
    pub name: String,
    /// [`Scenario::shows`].
    pub shows: String,
    /// What it found.
    pub rows: Vec<Row>,
}

/// A run: where, how, and what it found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Where it was made.
    pub machine: Machine,
    /// How it was made.
    pub settings: Settings,
    /// What else one has to know to make it again, name by name: the command line, the thread layout.
    pub facts: Vec<(String, String)>,
    /// When it began.
    pub began: SystemTime,
    /// What was found, in the order in which it was measured.
    pub scenarios: Vec<Measured>,
}

impl Report {
    /// A report of a run that begins now.
    #[must_use]
    pub fn begin(settings: &Settings) -> Self {
        Self {
            machine: Machine::here(&settings.dir),
            settings: settings.clone(),
            facts: Vec::new(),
            began: SystemTime::now(),
            scenarios: Vec::new(),
        }
    }

    /// Adds what a scenario found.
    pub fn push(&mut self, scenario: &dyn Scenario, rows: Vec<Row>) {
        let (name, shows) = (scenario.name().to_owned(), scenario.shows().to_owned());
        self.scenarios.push(Measured { name, shows, rows });
    }

    /// Seconds since 1970 at its beginning.
    pub(crate) fn began_at(&self) -> u64 {
        self.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// The whole report as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let Settings { seconds, rounds, dir: _, commands, rate } = &self.settings;
        let facts: serde_json::Map<_, _> =
            self.facts.iter().map(|(name, fact)| (name.clone(), json!(fact))).collect();
        let scenarios: Vec<_> = self.scenarios.iter().map(measured).collect();
        json!({
            "schema": SCHEMA,
            "began_at_seconds": self.began_at(),
            "machine": self.machine,
            "settings": { "seconds": seconds, "rounds": rounds, "commands": commands, "rate": rate },
            "facts": facts,
            "scenarios": scenarios,
        })
    }
}

fn measured(measured: &Measured) -> Value {
    let rows: Vec<_> = measured.rows.iter().map(row).collect();
    json!({ "name": measured.name, "shows": measured.shows, "rows": rows })
}

/// A figure with its unit: the median of the rounds, their span, and each of them.
fn figure(unit: &str, rounds: &Rounds) -> Value {
    let (from, to) = rounds.span();
    json!({ "unit": unit, "median": rounds.median(), "from": from, "to": to, "rounds": rounds.figures() })
}

fn row(row: &Row) -> Value {
    let mut told = json!({ "name": row.name });
    if let Some(throughput) = &row.throughput {
        told["throughput"] = figure("/s", throughput);
    }
    if let Some(latency) = &row.latency {
        told["latency"] = latencies(latency);
    }
    if let Some(floor) = &row.floor {
        let (of, unit) = match floor.of {
            Against::Throughput => ("throughput", "/s"),
            Against::Latency => ("latency", "ns"),
        };
        told["floor"] = json!({ "name": floor.name, "of": of, "figure": figure(unit, &floor.rounds) });
    }
    if let Some(ratio) = row.ratio() {
        told["ratio"] = figure("times", &ratio);
    }
    if let Some(point) = &row.point {
        told["point"] = json!({ "axis": point.axis, "at": point.at });
    }
    let named = |(name, unit, rounds): &(String, &'static str, Rounds)| {
        let mut told = figure(unit, rounds);
        told["name"] = json!(name);
        told
    };
    told["figures"] = row.figures.iter().map(named).collect();
    told["notes"] = json!(row.notes);
    told
}

fn latencies(latency: &Latencies) -> Value {
    let mut told = json!({ "unit": "ns", "count": latency.count(), "max": latency.max() });
    for (name, quantile) in PERCENTILES {
        told[name] = json!(latency.at(quantile));
    }
    told["p50_rounds"] = json!(latency.p50().figures());
    told["p99_rounds"] = json!(latency.p99().figures());
    told["curve"] = json!(latency.curve());
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::histogram;

    fn report() -> Report {
        let mut record = histogram();
        (1..=10_000).for_each(|ns| record.saturating_record(ns));
        let mut latency = Latencies::default();
        latency.push(&record);
        let rounds = |figure: f64| [figure].into_iter().collect::<Rounds>();
        let row = Row::new("one")
            .throughput(rounds(10.0))
            .latency(latency)
            .floor("bare", Against::Throughput, rounds(20.0))
            .figure("trades", "trades", rounds(3.0))
            .note("a note");
        let mut report = Report::begin(&Settings::small(1));
        report.facts.push(("layout".into(), "fused".into()));
        report.scenarios.push(Measured { name: "named".into(), shows: "it shows".into(), rows: vec![row] });
        report
    }

    #[test]
    fn programs_find_result_floor_and_ratio_under_stable_names() {
        let json = report().json();
        assert_eq!(json["schema"], SCHEMA);
        let row = &json["scenarios"][0]["rows"][0];
        assert_eq!(row["throughput"]["median"], 10.0);
        assert_eq!(row["floor"]["figure"]["median"], 20.0);
        assert_eq!(row["ratio"]["median"], 0.5);
        assert_eq!(row["latency"]["count"], 10_000);
        assert!(row["latency"]["p99.99"].as_u64() >= row["latency"]["p50"].as_u64());
        assert_eq!(row["figures"][0]["name"], "trades");
        assert_eq!(json["facts"]["layout"], "fused");
        assert!(json["machine"]["cores"].as_u64() > Some(0));
    }

    #[test]
    fn the_curve_rises_to_the_slowest_command() {
        let json = report().json();
        let curve = json["scenarios"][0]["rows"][0]["latency"]["curve"].as_array().expect("points").clone();
        let ns: Vec<_> = curve.iter().map(|point| point[1].as_u64().expect("whole nanoseconds")).collect();
        assert!(ns.is_sorted() && ns.len() > 5 && ns.last() >= Some(&9_999), "{ns:?}");
    }
}
