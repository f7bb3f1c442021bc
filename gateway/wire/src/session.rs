//! The session as arithmetic: who expects which number next, and who has been silent too long.
//! No sockets and no clock: time comes in as `now` in nanoseconds of any steady clock, and what to
//! do comes out. Both ends use it, the gateway and the client.

use crate::messages::{MAX_RETRANSMIT, RetransmitRequest};

/// How many keep-alive intervals of silence end a connection.
pub const SILENT_INTERVALS: u64 = 3;

/// The phases of one connection, as the venue sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Hello was sent; a Negotiate or Establish must come.
    Greeted,
    /// A login is being checked or waits for the log; nothing else may come.
    LoggingIn,
    /// Negotiated on this connection; an Establish must come.
    Negotiated,
    /// Live.
    Established,
    /// Terminate was sent; only closing remains.
    Ended,
}

impl Phase {
    /// Whether a message of this template may come from a client in this phase.
    #[inline]
    pub fn admits(self, template: u16) -> bool {
        use crate::messages as m;
        match template {
            m::Negotiate::TEMPLATE => self == Self::Greeted,
            m::Establish::TEMPLATE => matches!(self, Self::Greeted | Self::Negotiated | Self::Established),
            m::Terminate::TEMPLATE => true,
            m::Sequence::TEMPLATE => !matches!(self, Self::Ended),
            m::RetransmitRequest::TEMPLATE
            | m::MarketDataSubscribe::TEMPLATE
            | m::MarketDataUnsubscribe::TEMPLATE => self == Self::Established,
            other => m::COMMAND_TEMPLATES.contains(&other) && self == Self::Established,
        }
    }
}

/// What to do about time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing before this moment, nanoseconds of the caller's clock.
    Wait(u64),
    /// Send a Sequence now.
    Send,
    /// The peer has been silent for three intervals: terminate.
    Lapsed,
}

/// Heartbeats and silence of one connection.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    own_ns: u64,
    peer_ns: u64,
    sent: u64,
    heard: u64,
}

impl Liveness {
    /// Starts at `now`; we promise a word every `own_ms`, the peer one every `peer_ms`.
    pub fn new(now: u64, own_ms: u32, peer_ms: u32) -> Self {
        let ns = |ms: u32| u64::from(ms.max(1)) * 1_000_000;
        Self { own_ns: ns(own_ms), peer_ns: ns(peer_ms), sent: now, heard: now }
    }

    /// Something arrived.
    #[inline]
    pub fn heard(&mut self, now: u64) {
        self.heard = self.heard.max(now);
    }

    /// Something was sent.
    #[inline]
    pub fn sent(&mut self, now: u64) {
        self.sent = self.sent.max(now);
    }

    /// What the clock asks for.
    pub fn beat(&self, now: u64) -> Beat {
        let lapse = self.heard + SILENT_INTERVALS * self.peer_ns;
        let due = self.sent + self.own_ns;
        if now >= lapse {
            Beat::Lapsed
        } else if now >= due {
            Beat::Send
        } else {
            Beat::Wait(lapse.min(due))
        }
    }
}

/// How a request's number relates to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one.
    Next,
    /// Some were skipped: say NotApplied, and go on with this one.
    Gap {
        /// The first missing.
        from: u64,
        /// How many.
        count: u64,
    },
    /// Seen before: pass it through, the engine answers it from state.
    Duplicate,
}

/// The venue's view of the client's idempotent flow.
#[derive(Clone, Copy, Debug)]
pub struct IdempotentFlow {
    next: u64,
}

impl IdempotentFlow {
    /// Resumes after the highest number applied.
    pub fn after(last_applied: u64) -> Self {
        Self { next: last_applied.saturating_add(1) }
    }

    /// The number expected next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Takes note of a request's number.
    #[inline]
    pub fn arrive(&mut self, client_seq: u64) -> Arrival {
        if client_seq < self.next {
            return Arrival::Duplicate;
        }
        let (from, count) = (self.next, client_seq - self.next);
        self.next = client_seq.saturating_add(1);
        if count == 0 { Arrival::Next } else { Arrival::Gap { from, count } }
    }

    /// Takes note of a Sequence; a gap before its number was lost too.
    pub fn announced(&mut self, next_seq: u64) -> Option<Arrival> {
        let (from, count) = (self.next, next_seq.checked_sub(self.next).filter(|count| *count > 0)?);
        self.next = next_seq;
        Some(Arrival::Gap { from, count })
    }
}

/// The client's view of the venue's recoverable flow: everything exactly once, gaps asked for one
/// request at a time. Reports of a gap may be handed on after later, live ones.
#[derive(Clone, Debug)]
pub struct RecoverableFlow {
    next: u64,
    /// Disjoint ranges below `next`, ascending.
    missing: Vec<std::ops::Range<u64>>,
    asked_until: u64,
}

impl RecoverableFlow {
    /// Expects this number first.
    pub fn from(next: u64) -> Self {
        Self { next: next.max(1), missing: Vec::new(), asked_until: 0 }
    }

    /// The lowest number not yet handed on: what to ask for in the next Establish.
    pub fn wanted(&self) -> u64 {
        self.missing.first().map_or(self.next, |range| range.start)
    }

    /// Whether reports are still missing.
    pub fn recovering(&self) -> bool {
        !self.missing.is_empty()
    }

    /// Takes note of a report; whether it is new, and so to be handed on.
    pub fn arrive(&mut self, session_seq: u64) -> bool {
        if session_seq >= self.next {
            self.announced(session_seq);
            self.next = session_seq.saturating_add(1);
            return true;
        }
        let Some(at) = self.missing.iter().position(|range| range.contains(&session_seq)) else {
            return false;
        };
        let whole = self.missing.remove(at);
        let after = session_seq + 1..whole.end;
        let before = whole.start..session_seq;
        for part in [after, before] {
            if !part.is_empty() {
                self.missing.insert(at, part);
            }
        }
        true
    }

    /// The venue will send this number next: anything below it that we lack is missing.
    pub fn announced(&mut self, next_seq: u64) {
        if next_seq > self.next {
            self.missing.push(self.next..next_seq);
            self.next = next_seq;
        }
    }

    /// A new connection: what was asked for on the old one will not come.
    pub fn reconnected(&mut self) {
        self.asked_until = 0;
    }

    /// The venue no longer keeps what lies below this number.
    pub fn give_up_before(&mut self, seq: u64) {
        for range in &mut self.missing {
            range.start = range.start.max(seq);
        }
        self.missing.retain(|range| !range.is_empty());
        self.next = self.next.max(seq);
        self.asked_until = 0;
    }

    /// The next request to send, if something is missing and none is under way.
    pub fn request(&mut self) -> Option<RetransmitRequest> {
        let range = self.missing.first()?;
        if range.start < self.asked_until {
            return None;
        }
        let count = (range.end - range.start).min(u64::from(MAX_RETRANSMIT));
        self.asked_until = range.start + count;
        Some(RetransmitRequest { from: range.start, count: count as u32 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_are_due_after_own_interval_and_silence_ends_after_three_of_the_peers() {
        let ms = 1_000_000;
        let mut live = Liveness::new(0, 10, 20);
        assert_eq!(live.beat(0), Beat::Wait(10 * ms));
        assert_eq!(live.beat(10 * ms), Beat::Send);
        live.sent(10 * ms);
        assert_eq!(live.beat(11 * ms), Beat::Wait(20 * ms));
        live.heard(15 * ms);
        live.sent(70 * ms);
        assert_eq!(live.beat(74 * ms), Beat::Wait(75 * ms));
        assert_eq!(live.beat(75 * ms), Beat::Lapsed);
        live.heard(75 * ms);
        assert_eq!(live.beat(75 * ms), Beat::Wait(80 * ms));
    }

    #[test]
    fn a_gap_is_told_once_and_the_flow_goes_on() {
        let mut flow = IdempotentFlow::after(4);
        assert_eq!(flow.arrive(5), Arrival::Next);
        assert_eq!(flow.arrive(9), Arrival::Gap { from: 6, count: 3 });
        assert_eq!(flow.arrive(7), Arrival::Duplicate);
        assert_eq!(flow.arrive(9), Arrival::Duplicate);
        assert_eq!(flow.arrive(10), Arrival::Next);
        assert_eq!(flow.announced(11), None);
        assert_eq!(flow.announced(13), Some(Arrival::Gap { from: 11, count: 2 }));
        assert_eq!(flow.arrive(u64::MAX), Arrival::Gap { from: 13, count: u64::MAX - 13 });
        assert_eq!(flow.arrive(u64::MAX), Arrival::Next, "the last number there is cannot be passed");
    }

    #[test]
    fn every_report_is_handed_on_exactly_once_over_any_loss_and_reconnects() {
        for seed in 0..200_u64 {
            let mut state = seed;
            let mut flow = RecoverableFlow::from(1);
            let (mut sent, mut handed) = (0_u64, std::collections::BTreeMap::<u64, u32>::new());
            for round in 0..12 {
                let lost = if round == 11 { 0 } else { crate::field::draw(&mut state) % 5000 };
                sent += lost;
                flow.reconnected();
                flow.announced(sent + 1);
                let mut cut = false;
                while let Some(request) = flow.request() {
                    assert!(request.count <= MAX_RETRANSMIT && request.from == flow.wanted());
                    for seq in request.from..request.from + u64::from(request.count) {
                        if round < 11 && crate::field::draw(&mut state).is_multiple_of(2000) {
                            cut = true;
                            break;
                        }
                        if flow.arrive(seq) {
                            *handed.entry(seq).or_default() += 1;
                        }
                        if crate::field::draw(&mut state).is_multiple_of(100) {
                            sent += 1;
                            assert!(flow.arrive(sent));
                            *handed.entry(sent).or_default() += 1;
                        }
                    }
                    if cut {
                        break;
                    }
                }
            }
            assert!(!flow.recovering(), "seed {seed}");
            assert_eq!(handed.len() as u64, sent, "seed {seed}");
            assert!(handed.values().all(|times| *times == 1), "seed {seed}");
        }
    }

    #[test]
    fn what_the_venue_no_longer_keeps_is_given_up() {
        let mut flow = RecoverableFlow::from(1);
        flow.announced(100);
        assert_eq!(flow.request().map(|request| (request.from, request.count)), Some((1, 99)));
        assert_eq!(flow.request(), None, "one at a time");
        flow.give_up_before(60);
        assert_eq!(flow.request().map(|request| (request.from, request.count)), Some((60, 40)));
    }

    #[test]
    fn phases_admit_only_what_belongs_to_them() {
        use crate::messages::*;
        assert!(Phase::Greeted.admits(Negotiate::TEMPLATE) && Phase::Greeted.admits(Establish::TEMPLATE));
        assert!(!Phase::Greeted.admits(NewOrder::TEMPLATE) && !Phase::LoggingIn.admits(Establish::TEMPLATE));
        assert!(
            Phase::Negotiated.admits(Establish::TEMPLATE) && !Phase::Negotiated.admits(Negotiate::TEMPLATE)
        );
        assert!(Phase::Established.admits(NewOrder::TEMPLATE) && !Phase::Established.admits(Hello::TEMPLATE));
        assert!(!Phase::Ended.admits(NewOrder::TEMPLATE) && Phase::Ended.admits(Terminate::TEMPLATE));
    }
}
