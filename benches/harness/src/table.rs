//! The report as a person reads it in a terminal: one line for each figure of a row, with the rounds' median and span.

use std::fmt::{self, Write};

use crate::figures::number;
use crate::latencies::PERCENTILES;
use crate::rounds::Rounds;
use crate::row::{Against, Row};

fn line(out: &mut String, name: &str, rounds: &Rounds, unit: &str) -> fmt::Result {
    let (from, to) = rounds.span();
    let (median, from, to) = (number(rounds.median()), number(from), number(to));
    writeln!(out, "    {name:<58}{median:>14}{from:>14}{to:>14}  {unit}")
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        writeln!(out, "  {:<60}{:>14}{:>14}{:>14}", self.name, "median", "from", "to")?;
        for note in &self.notes {
            writeln!(out, "    ({note})")?;
        }
        if let Some(throughput) = &self.throughput {
            line(&mut out, "throughput", throughput, "/s")?;
        }
        if let Some(latency) = &self.latency {
            line(&mut out, "latency p50", latency.p50(), "ns")?;
            line(&mut out, "latency p99", latency.p99(), "ns")?;
        }
        if let (Some(floor), Some(ratio)) = (&self.floor, self.ratio()) {
            let unit = if floor.of == Against::Throughput { "/s" } else { "ns" };
            line(&mut out, &format!("floor: {}", floor.name), &floor.rounds, unit)?;
            line(&mut out, "result / floor", &ratio, "times")?;
        }
        for (name, unit, rounds) in &self.figures {
            line(&mut out, name, rounds, unit)?;
        }
        if let Some(latency) = &self.latency {
            write!(out, "    ns of {} in all rounds: ", number(latency.count() as f64))?;
            for (name, quantile) in PERCENTILES {
                write!(out, " {name} {}", number(latency.at(quantile) as f64))?;
            }
            writeln!(out, " max {}", number(latency.max() as f64))?;
        }
        f.write_str(&out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latencies::{Latencies, histogram};

    #[test]
    fn a_row_tells_result_floor_and_ratio() {
        let mut record = histogram();
        record.saturating_record_n(130, 10_000);
        let mut latency = Latencies::default();
        latency.push(&record);
        let row = Row::new("ring only").latency(latency).floor(
            "two hops",
            Against::Latency,
            [100.0].into_iter().collect(),
        );
        let told = row.to_string();
        for part in ["ring only", "floor: two hops", "1.30", "10'000", "p99.99"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }
}
