//! Where to go next when a connection is gone, or never came about. No sockets and no clock: what became of an attempt
//! comes in, an address and a pause come out.
//!
//! Attempts come in rounds. Within a round each address is tried at most once and without a pause, first the one that a
//! node has named as leader, then the others in turn; so a leader that anybody knows of is found in a few round trips,
//! and nodes that name each other cannot send a client to and fro. A round that found nobody is followed by a pause,
//! drawn at random so that clients do not come in step, and longer each time up to a bound: while nobody leads, nobody
//! spins.

use std::net::SocketAddr;

const PAUSE_MIN_NS: u64 = 10_000_000;
/// What an election that is over is noticed late by, at most.
const PAUSE_MAX_NS: u64 = 250_000_000;
/// Addresses kept that only nodes have told of; a newer one pushes out the oldest.
const LEARNED_MAX: usize = 16;

/// How a connection, or an attempt at one, ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    /// Refused, closed, or not worth going on with.
    Lost,
    /// No word came in time, not even a refusal.
    Silent,
    /// The node does not lead; the one that does, if it knows.
    NotLeader(Option<SocketAddr>),
}

#[derive(Debug)]
pub(crate) struct Route {
    /// As configured, then as told by nodes.
    known: Vec<SocketAddr>,
    configured: usize,
    /// Where in `known` the next look begins.
    next: usize,
    /// Tried in this round.
    tried: Vec<SocketAddr>,
    /// Who leads, by the last node that named one.
    named: Option<SocketAddr>,
    /// Who said nothing when last asked, and until when nobody else should be kept waiting for that.
    silent: Vec<(SocketAddr, u64)>,
    silences: u32,
    /// Rounds in a row that found nobody.
    rounds: u32,
    silence_ns: u64,
}

impl Route {
    /// Over these addresses; `silence_ns` is how long a silent one is left alone.
    pub(crate) fn new(addresses: &[SocketAddr], silence_ns: u64) -> Self {
        let mut known = Vec::with_capacity(addresses.len());
        for address in addresses {
            if !known.contains(address) {
                known.push(*address);
            }
        }
        Self {
            configured: known.len(),
            known,
            next: 0,
            tried: Vec::new(),
            named: None,
            silent: Vec::new(),
            silences: 0,
            rounds: 0,
            silence_ns,
        }
    }

    /// Whom to try now.
    pub(crate) fn dial(&mut self, now: u64) -> Option<SocketAddr> {
        // Where all are silent, one of them is still the best guess.
        let address =
            self.candidate(now).or_else(|| self.known.get(self.next % self.known.len().max(1)).copied())?;
        if let Some(at) = self.known.iter().position(|known| *known == address) {
            self.next = at + 1;
        }
        if !self.tried.contains(&address) {
            self.tried.push(address);
        }
        if self.named == Some(address) {
            self.named = None;
        }
        Some(address)
    }

    /// How long an attempt may go without a word, nanoseconds: longer when nobody has one, because then it may be the
    /// whole cluster that is slow.
    pub(crate) fn patience_ns(&self) -> u64 {
        let rounds = u64::from(self.silences) / self.known.len().max(1) as u64;
        self.silence_ns.saturating_mul(1 + rounds)
    }

    /// Takes note of how it ended there; gives the pause before the next attempt, nanoseconds. `draw` is a random number.
    pub(crate) fn left(&mut self, address: SocketAddr, how: Parting, now: u64, draw: u64) -> u64 {
        self.silent.retain(|(silent, _)| *silent != address);
        match how {
            Parting::Lost | Parting::NotLeader(None) => {}
            Parting::Silent => {
                self.silent.push((address, now.saturating_add(self.silence_ns)));
                self.silences = self.silences.saturating_add(1);
            }
            Parting::NotLeader(Some(leader)) => {
                self.learn(leader);
                self.named = Some(leader);
            }
        }
        if matches!(how, Parting::NotLeader(_)) && !self.tried.contains(&address) {
            self.tried.push(address);
        }
        if self.candidate(now).is_some() {
            return 0;
        }
        self.tried.clear();
        let pause = (PAUSE_MIN_NS << self.rounds.min(10)).min(PAUSE_MAX_NS);
        self.rounds = self.rounds.saturating_add(1);
        pause / 2 + draw % (pause / 2)
    }

    /// A session has lived long enough to forget what came before it.
    pub(crate) fn settled(&mut self) {
        self.tried.clear();
        self.silent.clear();
        self.named = None;
        (self.rounds, self.silences) = (0, 0);
    }

    fn candidate(&self, now: u64) -> Option<SocketAddr> {
        let fresh = |address: &SocketAddr| {
            let silent = self.silent.iter().any(|(silent, until)| silent == address && now < *until);
            !silent && !self.tried.contains(address)
        };
        let (before, from) = self.known.split_at(self.next.min(self.known.len()));
        let in_turn = from.iter().chain(before);
        self.named.iter().chain(in_turn).find(|address| fresh(address)).copied()
    }

    fn learn(&mut self, address: SocketAddr) {
        if self.known.contains(&address) {
            return;
        }
        if self.known.len() - self.configured == LEARNED_MAX {
            self.known.remove(self.configured);
        }
        self.known.push(address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: u64 = 1_000_000_000;

    fn node(number: u16) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, 1], number))
    }

    fn route(nodes: u16) -> Route {
        Route::new(&(1..=nodes).map(node).collect::<Vec<_>>(), SILENCE)
    }

    /// Dials and says how it ended; the address, and the pause after.
    fn attempt(route: &mut Route, now: u64, how: impl Fn(SocketAddr) -> Parting) -> (SocketAddr, u64) {
        let address = route.dial(now).expect("an address");
        (address, route.left(address, how(address), now, 7))
    }

    #[test]
    fn a_leader_that_a_node_names_is_tried_next_whether_or_not_it_was_configured() {
        let mut route = route(3);
        let told = |address| {
            if address == node(1) { Parting::NotLeader(Some(node(9))) } else { Parting::Lost }
        };
        assert_eq!(attempt(&mut route, 0, told), (node(1), 0));
        assert_eq!(attempt(&mut route, 0, told), (node(9), 0));
        assert_eq!(attempt(&mut route, 0, told), (node(2), 0));
        let (third, pause) = attempt(&mut route, 0, told);
        assert!(third == node(3) && pause > 0, "all four were tried: {third} {pause}");
        let round: Vec<_> = (0..4).map(|_| attempt(&mut route, 0, |_| Parting::Lost).0).collect();
        assert!(round.contains(&node(9)), "what was learned is kept: {round:?}");
    }

    #[test]
    fn nodes_that_name_each_other_are_asked_once_a_round_and_rounds_are_paced() {
        let mut route = route(2);
        let other = |address| Parting::NotLeader(Some(if address == node(1) { node(2) } else { node(1) }));
        let (mut attempts, mut waited) = (0, 0);
        while waited < 10_000_000_000 {
            waited += attempt(&mut route, waited, other).1;
            attempts += 1;
        }
        assert!(attempts <= 2 * (10_000 / 125 + 6), "{attempts} attempts in ten seconds");
        assert!(attempts >= 2 * 10_000 / 250, "{attempts} attempts: an election is noticed soon");
    }

    #[test]
    fn a_round_begins_with_the_leader_named_last_even_where_it_was_tried_before_it_led() {
        let mut route = route(3);
        // The first will lead but does not yet; then the others know.
        let told = |address| Parting::NotLeader((address != node(1)).then_some(node(1)));
        assert_eq!(attempt(&mut route, 0, told).0, node(1));
        assert_eq!(attempt(&mut route, 0, told).0, node(2));
        let (third, pause) = attempt(&mut route, 0, told);
        assert!(third == node(3) && pause > 0);
        assert_eq!(route.dial(pause), Some(node(1)));
    }

    #[test]
    fn a_silent_node_holds_nobody_up_again_even_where_others_still_name_it() {
        let mut route = route(3);
        assert_eq!(attempt(&mut route, 0, |_| Parting::Silent), (node(1), 0));
        for now in [0, SILENCE / 4, SILENCE / 2] {
            let stale = |_| Parting::NotLeader(Some(node(1)));
            assert_eq!(attempt(&mut route, now, stale), (node(2), 0));
            let (third, pause) = attempt(&mut route, now, stale);
            assert!(third == node(3) && pause > 0);
        }
        assert_eq!(route.dial(2 * SILENCE), Some(node(1)), "later it may be back");
    }

    #[test]
    fn where_everybody_is_silent_attempts_go_on_and_get_more_time() {
        let mut route = route(2);
        assert_eq!(route.patience_ns(), SILENCE);
        let (first, none) = attempt(&mut route, 0, |_| Parting::Silent);
        let (second, pause) = attempt(&mut route, SILENCE / 2, |_| Parting::Silent);
        assert_eq!((first, none, second), (node(1), 0, node(2)));
        assert!(pause > 0 && route.dial(SILENCE / 2 + pause).is_some());
        assert_eq!(route.patience_ns(), 2 * SILENCE);
        route.settled();
        assert_eq!(route.patience_ns(), SILENCE);
    }

    #[test]
    fn after_a_settled_session_the_next_node_is_tried_at_once_and_the_same_one_too_where_there_is_no_other() {
        let mut pair = route(2);
        let address = pair.dial(0).expect("an address");
        pair.settled();
        assert_eq!(pair.left(address, Parting::Lost, 0, 0), 0);
        assert_eq!(pair.dial(0), Some(node(2)));
        let mut single = route(1);
        let address = single.dial(0).expect("an address");
        single.settled();
        assert_eq!(single.left(address, Parting::Lost, 0, 0), 0);
        assert_eq!(single.dial(0), Some(node(1)));
        assert!(single.left(address, Parting::Lost, 0, 0) > 0, "the second time it waits");
    }

    #[test]
    fn what_nodes_tell_is_bounded() {
        let mut route = route(1);
        for number in 2..1_000 {
            let address = route.dial(0).expect("an address");
            route.left(address, Parting::NotLeader(Some(node(number))), 0, 0);
        }
        assert!(route.known.len() <= 1 + LEARNED_MAX && route.known[0] == node(1));
    }
}
