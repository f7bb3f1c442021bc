//! The venue's recoverable flow as the client sees it: each report handed on once, whatever order they come in.
//! Gaps arise only where a connection broke, so there are few of them, and they fit a short list.

use grid_wire::{MAX_RETRANSMIT, RetransmitRequest};

/// Which report numbers were handed on and which are missing.
#[derive(Debug)]
pub(crate) struct ReportFlow {
    next: u64,
    /// Ranges below `next` that were not handed on: ordered, disjoint, none empty.
    missing: Vec<(u64, u64)>,
    asked_until: u64,
}

impl ReportFlow {
    /// Expects this number first.
    pub(crate) fn from(next: u64) -> Self {
        Self { next: next.max(1), missing: Vec::new(), asked_until: 0 }
    }

    /// The lowest number not yet handed on.
    pub(crate) fn wanted(&self) -> u64 {
        self.missing.first().map_or(self.next, |(from, _)| *from)
    }

    /// Whether this report is new; it is then to be handed on.
    pub(crate) fn arrive(&mut self, number: u64) -> bool {
        if number >= self.next {
            self.announced(number);
            self.next = number.saturating_add(1);
            return true;
        }
        let Some(at) = self.missing.iter().position(|(from, until)| (*from..*until).contains(&number)) else {
            return false;
        };
        let (from, until) = self.missing[at];
        let rest = [(from, number), (number + 1, until)];
        self.missing.splice(at..=at, rest.into_iter().filter(|(from, until)| from < until));
        true
    }

    /// The venue will send this number next: what we lack below it is missing.
    pub(crate) fn announced(&mut self, next: u64) {
        if next > self.next {
            self.missing.push((self.next, next));
            self.next = next;
        }
    }

    /// A new connection: what was asked for on the old one will not come.
    pub(crate) fn reconnected(&mut self) {
        self.asked_until = 0;
    }

    /// The venue has nothing below this number any more. Gives the range that is lost, if any.
    pub(crate) fn give_up_before(&mut self, number: u64) -> Option<(u64, u64)> {
        let first = self.missing.first().map(|(from, _)| *from).filter(|from| *from < number);
        let kept = self.missing.iter().map(|(from, until)| ((*from).max(number), *until));
        self.missing = kept.filter(|(from, until)| from < until).collect();
        self.asked_until = 0;
        first.map(|from| (from, number))
    }

    /// The next request to send, unless one is under way or nothing is missing.
    pub(crate) fn request(&mut self) -> Option<RetransmitRequest> {
        let (from, until) = *self.missing.first()?;
        if from < self.asked_until {
            return None;
        }
        let count = (until - from).min(u64::from(MAX_RETRANSMIT));
        self.asked_until = from + count;
        Some(RetransmitRequest { from, count: count as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_report_is_handed_on_once_whatever_the_order() {
        let mut flow = ReportFlow::from(1);
        let mut handed = Vec::new();
        let arrivals = [1, 2, 6, 7, 3, 3, 11, 4, 5, 6, 8, 9, 10, 10, 12, 1];
        for number in arrivals {
            if flow.arrive(number) {
                handed.push(number);
            }
        }
        handed.sort_unstable();
        assert_eq!(handed, (1..=12).collect::<Vec<_>>());
        assert_eq!((flow.wanted(), flow.request()), (13, None));
    }

    #[test]
    fn gaps_are_asked_for_one_capped_request_at_a_time() {
        let mut flow = ReportFlow::from(1);
        flow.announced(4_001);
        assert_eq!(flow.request(), Some(RetransmitRequest { from: 1, count: 2_500 }));
        assert_eq!(flow.request(), None, "one is under way");
        for number in 1..=2_500 {
            assert!(flow.arrive(number));
        }
        assert_eq!(flow.request(), Some(RetransmitRequest { from: 2_501, count: 1_500 }));
        flow.reconnected();
        assert_eq!(flow.request(), Some(RetransmitRequest { from: 2_501, count: 1_500 }));
    }

    #[test]
    fn what_the_venue_no_longer_keeps_is_named_and_given_up() {
        let mut flow = ReportFlow::from(5);
        flow.announced(20);
        assert_eq!(flow.give_up_before(12), Some((5, 12)));
        assert_eq!(flow.wanted(), 12);
        assert_eq!(flow.give_up_before(12), None);
    }
}
