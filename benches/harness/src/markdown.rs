//! The report as one table for a README: a line for each row, with what a reader asks first.

use std::fmt::Write;

use crate::figures::{digits, short, time};
use crate::report::Report;
use crate::rounds::Rounds;
use crate::row::{Against, Row};

/// Text that does not end a cell.
fn plain(text: &str) -> String {
    text.replace('|', "\\|")
}

/// The median, and the span where there is one.
fn spread(rounds: &Rounds, say: fn(f64) -> String) -> String {
    let (from, to) = rounds.span();
    let median = say(rounds.median());
    if rounds.figures().len() < 2 { median } else { format!("{median} ({} to {})", say(from), say(to)) }
}

fn line(scenario: &str, row: &Row) -> String {
    let throughput = row.throughput.as_ref().map(|rounds| spread(rounds, short)).unwrap_or_default();
    let latency = |say: fn(&crate::Latencies) -> String| row.latency.as_ref().map(say).unwrap_or_default();
    let p50 = latency(|latency| spread(latency.p50(), time));
    let p99 = latency(|latency| spread(latency.p99(), time));
    let tail =
        latency(|latency| format!("{} / {}", time(latency.at(0.9999) as f64), time(latency.max() as f64)));
    let floor = row.floor.as_ref().map(|floor| {
        let say = if floor.of == Against::Throughput { short } else { time };
        format!("{}: {}", plain(&floor.name), say(floor.rounds.median()))
    });
    let ratio = row.ratio().map(|ratio| spread(&ratio, digits)).unwrap_or_default();
    let (name, floor) = (plain(&row.name), floor.unwrap_or_default());
    format!("| `{scenario}` | {name} | {throughput} | {p50} | {p99} | {tail} | {floor} | {ratio} |")
}

impl Report {
    /// All rows that have a throughput or a latency, as one Markdown table: medians of the rounds, with their spans.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut table = String::from(
            "| scenario | what | per second | p50 | p99 | p99.99 / max | floor | result / floor |\n|---|---|---|---|---|---|---|---|\n",
        );
        for measured in &self.scenarios {
            for row in measured.rows.iter().filter(|row| row.throughput.is_some() || row.latency.is_some()) {
                let _ = writeln!(table, "{}", line(&measured.name, row));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use crate::report::{Measured, Report};
    use crate::row::{Against, Row};
    use crate::scenario::Settings;

    #[test]
    fn every_line_has_as_many_cells_as_the_head() {
        let row = Row::new("a | b").throughput([2e6, 3e6].into_iter().collect()).floor(
            "bare",
            Against::Throughput,
            [4e6, 4e6].into_iter().collect(),
        );
        let mut report = Report::begin(&Settings::small(1));
        report.scenarios.push(Measured { name: "named".into(), shows: String::new(), rows: vec![row] });
        let table = report.markdown();
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        assert!(table.lines().all(|line| cells(line) == 9), "{table}");
        assert!(
            table.contains("2.00 M (2.00 M to 3.00 M)") && table.contains("0.50 (0.50 to 0.75)"),
            "{table}"
        );
    }
}
