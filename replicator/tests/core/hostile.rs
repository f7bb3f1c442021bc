//! Peers that say anything at all: nothing that decodes may reach an assertion, and nothing committed may change.

use std::sync::Arc;

use grid_replicator::core::{CoreConfig, Members, Outbox, PeerMessage, RaftCore, Received, Recovery, Stop};
use grid_sequencer::{Block, Consensus, Position};

use super::cluster::{Chance, addresses};
use super::codec;

struct Nowhere;

impl Outbox for Nowhere {
    fn send(&mut self, _to: u64, _message: PeerMessage) {}
}

/// A node of up to four with a disk and a matcher that never lag.
struct Victim {
    core: RaftCore,
    applied: Position,
    committed: Vec<u64>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let voters = 1..=1 + seed % 4;
        let members = Members::founding(voters.map(|node| (node, addresses(node)))).expect("voters");
        let recovery = Recovery { members, ..Recovery::default() };
        let core = RaftCore::new(&CoreConfig::new(1, seed), recovery, Box::new(Nowhere)).expect("it starts");
        Self { core, applied: Position::default(), committed: Vec::new() }
    }

    fn pump(&mut self, lazy_disk: bool) {
        while let Some(ready) = self.core.ready() {
            for block in &ready.committed {
                assert_eq!(self.applied.refuses(block.header()), None);
                self.applied = Position::after(block.header());
                self.committed.push(self.applied.chain);
            }
            if let Some(persist) = ready.persist
                && !lazy_disk
            {
                self.core.persisted(persist.ticket);
            }
            self.core.applied(self.applied.index);
        }
    }
}

/// A message with numbers near those that matter to this node.
fn anything(chance: &mut Chance, victim: &Victim, tail: &[Block]) -> Option<PeerMessage> {
    let status = victim.core.status();
    let near = |chance: &mut Chance, of: u64| (of + chance.below(4)).saturating_sub(chance.below(4));
    let kind = 1 + chance.below(10) as u8;
    let term = if chance.hits(800) { status.term } else { near(chance, status.term) };
    let at = match chance.below(3) {
        0 => near(chance, status.last),
        1 => near(chance, status.commit),
        _ => chance.below(status.last + 3),
    };
    let known = tail.iter().find(|block| block.header().index == at).map_or(0, |block| block.header().term);
    let log_term = if chance.hits(800) { known } else { near(chance, status.term) };
    let commit = if chance.hits(500) { near(chance, status.commit) } else { near(chance, status.last) };
    let sends = kind == 1 && chance.hits(700);
    let blocks = if sends {
        let before = if at == 0 {
            Some(Position::default())
        } else {
            tail.iter().find(|block| block.header().index == at).map(|block| Position::after(block.header()))
        };
        let count = chance.below(4) as usize;
        codec::blocks(before?, near(chance, term).max(1), count)
    } else {
        Vec::new()
    };
    let uses = |kinds: &[u8], value: u64| if kinds.contains(&kind) { value } else { 0 };
    let words = [
        term,
        uses(&[1, 2, 5, 7, 9], at),
        uses(&[1, 2, 5, 7, 9], log_term),
        uses(&[1, 2, 3, 4, 5, 6, 7, 8], commit),
        uses(&[5, 6, 7, 8], near(chance, status.term)),
        uses(&[2], chance.below(status.last + 3)),
    ];
    let flags = match kind {
        2 | 6 | 8 => chance.below(2) as u8,
        5 | 7 => chance.below(2) as u8 * 2,
        _ => 0,
    };
    PeerMessage::decode(&codec::bytes(kind, flags, words, &blocks)).ok()
}

#[test]
fn nothing_a_peer_says_stops_the_process() {
    let (mut taken, mut stopped, mut led) = (0_u64, 0_u64, 0_u64);
    for seed in 1..=400 {
        let mut chance = Chance::new(seed);
        let mut victim = Victim::new(seed);
        // The longest log this node is known to have had, for messages that fit.
        let mut tail: Vec<Block> = Vec::new();
        for _ in 0..400 {
            let lazy = chance.hits(100);
            if chance.hits(100) {
                victim.core.tick();
            }
            if let Some((before, term)) = victim.core.lead() {
                led += 1;
                let block = codec::blocks(before, term, 1).remove(0);
                tail.retain(|old| old.header().index <= before.index);
                tail.push(block.clone());
                victim.core.propose(Arc::new(block));
            }
            let Some(message) = anything(&mut chance, &victim, &tail) else { continue };
            let from = 2 + chance.below(3);
            match victim.core.receive(from, &message) {
                Received::Taken => {
                    taken += 1;
                    for block in message.blocks() {
                        tail.retain(|old| old.header().index < block.header().index);
                        tail.push(Block::clone(block));
                    }
                }
                Received::Ignored(_) => {}
                Received::SnapshotWanted { index, term, .. } => {
                    if chance.hits(50) && victim.core.begin_install(index, term) {
                        break;
                    }
                }
                Received::Stop(Stop::LogLost { .. } | Stop::Diverged { .. }) => {
                    stopped += 1;
                    if chance.hits(200) {
                        break;
                    }
                }
            }
            victim.pump(lazy);
        }
    }
    assert!(taken > 10_000 && stopped > 100 && led > 100, "{taken} taken, {stopped} stops, {led} led");
}
