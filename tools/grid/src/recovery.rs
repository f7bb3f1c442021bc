//! What a start found on disk, in words: where the state stands, what of the log waits behind it, and what was passed over or cut.

use std::time::Duration;

use grid_engine::Seq;
use grid_sequencer::RecoveryReport;

/// One line for each thing that there is to tell; `took` is how long the replay did.
pub(crate) fn told(report: &RecoveryReport, took: Duration) -> Vec<String> {
    let RecoveryReport { snapshot, passed_over, replayed, applied, log_end, torn, .. } = report;
    let mut lines = Vec::new();
    if *log_end > Seq::ZERO {
        let from = snapshot.map_or_else(
            || "the first block".to_owned(),
            |position| format!("the snapshot at sequence {}", position.seq.0),
        );
        // Of less than a moment's work there is no rate to tell.
        let rate = if took > Duration::from_millis(100) {
            format!(", {:.0} a second", *replayed as f64 / took.as_secs_f64())
        } else {
            String::new()
        };
        lines.push(format!(
            "applied up to log sequence {}: {replayed} commands replayed from {from}{rate}",
            applied.0
        ));
    }
    if log_end > applied {
        lines.push(format!(
            "commands that wait behind it for consensus: {}, up to log sequence {}",
            log_end.0 - applied.0,
            log_end.0
        ));
    }
    lines.extend(passed_over.iter().map(|reason| format!("snapshot passed over: {reason}")));
    lines.extend(
        torn.iter().map(|torn| format!("cut a torn tail of {} bytes that nobody was told about", torn.bytes)),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_applied_and_what_waits_are_told_apart() {
        let clean =
            RecoveryReport { replayed: 7, applied: Seq(107), log_end: Seq(107), ..RecoveryReport::default() };
        let applied = "applied up to log sequence 107: 7 commands replayed from the first block";
        assert_eq!(told(&clean, Duration::ZERO), [applied]);
        let killed = RecoveryReport { log_end: Seq(160), ..clean };
        let waits = "commands that wait behind it for consensus: 53, up to log sequence 160";
        assert_eq!(told(&killed, Duration::ZERO), [applied, waits]);
        assert!(told(&RecoveryReport::default(), Duration::ZERO).is_empty(), "of a new directory nothing");
    }
}
