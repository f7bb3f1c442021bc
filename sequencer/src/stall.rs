//! Which stage holds everybody up. A stage stalls when it has work and gets nowhere for longer than it should; it is named in the
//! log once, and again when it goes on, and counted for the metrics.
//!
//! Looking is done from a thread of its own, since the one that stalls cannot; what there is to see are the stages' cursors,
//! so a healthy stage pays nothing for being watched.

use std::fmt;
use std::time::Duration;

use grid_engine::Nanos;

/// Who can hold the others up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Culprit {
    /// Commands wait in the inbound ring.
    Sequencer,
    /// Blocks wait to be written and synced.
    Journal,
    /// Blocks are durable here and wait for a quorum of the other nodes.
    Quorum,
    /// Committed blocks wait to be applied.
    Matcher,
    /// A consumer of outputs is a whole ring behind, and the matcher waits for it.
    Consumer,
}

impl Culprit {
    /// All, in the order of the path.
    pub const ALL: [Self; 5] = [Self::Sequencer, Self::Journal, Self::Quorum, Self::Matcher, Self::Consumer];

    /// As metrics call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequencer => "sequencer",
            Self::Journal => "journal",
            Self::Quorum => "quorum",
            Self::Matcher => "matcher",
            Self::Consumer => "consumer",
        }
    }
}

impl fmt::Display for Culprit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What one look at a stage shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sight {
    /// How far it is.
    pub(crate) cursor: u64,
    /// There is something for it to do, and nobody else to wait for.
    pub(crate) has_work: bool,
}

/// What a look came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// It has got nowhere for so long.
    Stalls(Culprit, Duration),
    /// It moves again, or has nothing to do any more, after so long.
    GoesOn(Culprit, Duration),
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    cursor: u64,
    /// Since when it has work and stands where it stands.
    since: Option<Nanos>,
    told: bool,
}

/// Watches all stages of a node.
#[derive(Debug)]
pub(crate) struct Detector {
    limit: Duration,
    watched: [Watched; Culprit::ALL.len()],
}

impl Detector {
    /// A stage stalls that gets nowhere for longer than `limit`.
    pub(crate) fn new(limit: Duration) -> Self {
        let watched = Watched { cursor: 0, since: None, told: false };
        Self { limit, watched: [watched; Culprit::ALL.len()] }
    }

    /// Looks at every stage in turn.
    pub(crate) fn look(&mut self, now: Nanos, sight: impl Fn(Culprit) -> Sight) -> Vec<News> {
        let mut news = Vec::new();
        for (culprit, watched) in Culprit::ALL.into_iter().zip(&mut self.watched) {
            let seen = sight(culprit);
            let stands = seen.has_work && seen.cursor == watched.cursor;
            let waited = |since: Nanos| Duration::from_nanos(now.0.saturating_sub(since.0));
            match watched.since {
                Some(since) if stands => {
                    if !watched.told && waited(since) > self.limit {
                        watched.told = true;
                        news.push(News::Stalls(culprit, waited(since)));
                    }
                }
                since => {
                    if let Some(since) = since.filter(|_| watched.told) {
                        news.push(News::GoesOn(culprit, waited(since)));
                    }
                    *watched =
                        Watched { cursor: seen.cursor, since: seen.has_work.then_some(now), told: false };
                }
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_nanos(100);

    /// The journal is seen like this and everybody else is idle.
    fn journal(cursor: u64, has_work: bool) -> impl Fn(Culprit) -> Sight {
        move |of| match of {
            Culprit::Journal => Sight { cursor, has_work },
            _ => Sight { cursor: 5, has_work: false },
        }
    }

    #[test]
    fn a_stage_that_stands_with_work_before_it_is_named_once_and_again_when_it_goes_on() {
        let mut detector = Detector::new(LIMIT);
        assert_eq!(detector.look(Nanos(1_000), journal(3, true)), []);
        assert_eq!(detector.look(Nanos(1_100), journal(3, true)), [], "not longer than the limit");
        let stalls = News::Stalls(Culprit::Journal, Duration::from_nanos(101));
        assert_eq!(detector.look(Nanos(1_101), journal(3, true)), [stalls]);
        assert_eq!(detector.look(Nanos(9_000), journal(3, true)), [], "once");
        let goes_on = News::GoesOn(Culprit::Journal, Duration::from_nanos(8_500));
        assert_eq!(detector.look(Nanos(9_500), journal(4, true)), [goes_on]);
        assert_eq!(detector.look(Nanos(9_600), journal(4, true)), []);
        let again = News::Stalls(Culprit::Journal, Duration::from_nanos(150));
        assert_eq!(detector.look(Nanos(9_650), journal(4, true)), [again], "another stall is told again");
    }

    #[test]
    fn a_stage_that_moves_or_has_nothing_to_do_is_not_named_however_long_it_takes() {
        let mut detector = Detector::new(LIMIT);
        for nth in 0..10 {
            assert_eq!(detector.look(Nanos(nth * 1_000), journal(nth, true)), [], "it moves");
        }
        for nth in 10..20 {
            assert_eq!(detector.look(Nanos(nth * 1_000), journal(9, false)), [], "it is idle");
        }
        assert_eq!(detector.look(Nanos(20_000), journal(9, true)), [], "work that has just come");
        assert_eq!(detector.look(Nanos(20_100), journal(9, true)), []);
    }
}
