//! What the tests hold a journal to: the log as a list, and a machine that is a hash over it.

use std::sync::Arc;

use grid_engine::{Nanos, Seq};

use super::Dice;
use crate::block::{Block, Position, push_command};
use crate::consensus::{HardState, Persist};
use crate::machine::{Machine, Unreadable};

/// A machine that is a hash over everything it was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hash {
    commands: u64,
    hash: u64,
}

impl Machine for Hash {
    type Command = Vec<u8>;
    type Event = u64;

    const FORMAT: u32 = 1;

    fn encode(command: &Vec<u8>, out: &mut Vec<u8>) {
        out.extend_from_slice(command);
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, Unreadable> {
        Ok(bytes.to_vec())
    }

    fn apply(&mut self, seq: Seq, at: Nanos, command: &Vec<u8>, out: &mut Vec<u64>) {
        assert_eq!(seq.0, self.commands + 1, "commands come without a gap");
        self.commands += 1;
        for byte in command.iter().chain(&at.0.to_le_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        out.push(self.hash);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> Vec<u8> {
        Vec::new()
    }

    fn snapshot(&self) -> Vec<u8> {
        [self.commands.to_le_bytes(), self.hash.to_le_bytes()].concat()
    }

    fn restore(bytes: &[u8]) -> Result<Self, Unreadable> {
        let bytes: &[u8; 16] = bytes.try_into().map_err(|_| Unreadable("no such snapshot".to_owned()))?;
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self { commands: word(0), hash: word(8) })
    }

    fn state_hash(&self) -> u64 {
        self.hash
    }
}

/// What a journal should hold: the log of the cluster as this node knows it, from the first block on.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    pub(super) log: Vec<Arc<Block>>,
    pub(super) hard_state: HardState,
    /// The journal goes on behind the block of this index; those before are in a snapshot only.
    pub(super) floor: u64,
}

impl Model {
    pub(super) fn last(&self) -> Position {
        self.at(self.log.len() as u64)
    }

    pub(super) fn at(&self, index: u64) -> Position {
        match index {
            0 => Position::default(),
            index => Position::after(self.log[index as usize - 1].header()),
        }
    }

    pub(super) fn take(&mut self, block: &Arc<Block>) {
        self.log.truncate(block.header().index as usize - 1);
        assert_eq!(self.last().refuses(block.header()), None, "the test makes sound logs");
        self.log.push(Arc::clone(block));
    }

    /// The machine after the block of an index.
    pub(super) fn machine(&self, index: u64) -> Hash {
        let mut machine = Hash::default();
        for block in &self.log[..index as usize] {
            let header = block.header();
            let mut seq = header.first_seq;
            for command in crate::block::CommandBytes::new(block.payload()) {
                machine.apply(seq, header.at, &command.to_vec(), &mut Vec::new());
                seq = seq.next();
            }
        }
        machine
    }

    /// The next block in a term: commands, now and then a change of members or nothing.
    pub(super) fn next_block(&self, dice: &mut Dice, term: u64) -> Arc<Block> {
        let before = self.last();
        Arc::new(match dice.below(8) {
            0 => Block::empty(&before, term),
            1 => Block::conf_change(&before, term, &dice.next().to_le_bytes()),
            _ => {
                let mut payload = Vec::new();
                let commands = 1 + dice.below(3);
                for _ in 0..commands {
                    let most = if dice.one_in(4) { 900 } else { 60 };
                    let len = dice.below(most);
                    push_command(&mut payload, |out| out.extend((0..len).map(|_| dice.next() as u8)));
                }
                Block::entry(&before, term, Nanos(before.at.0 + dice.below(5)), commands as u32, &payload)
            }
        })
    }

    /// What consensus might want persisted next; this model becomes what the log is after it.
    pub(super) fn next_persist(&mut self, dice: &mut Dice, ticket: u64) -> Persist {
        let mut persist = Persist { ticket, ..Persist::default() };
        let mut state = self.hard_state;
        if dice.one_in(4) {
            state = HardState { term: state.term.max(self.last().term) + 1, vote: dice.below(4), ..state };
        }
        let term = state.term.max(self.last().term).max(1);
        state.term = term;
        if dice.one_in(5) && self.last().index > state.commit {
            // Another leader's log takes the place of what was not committed.
            let keep = state.commit + dice.below(self.last().index - state.commit);
            self.log.truncate(keep as usize);
            state.term += 1;
            let block = self.next_block(dice, state.term);
            self.take(&block);
            persist.blocks.push(block);
        }
        for _ in 0..dice.below(4) {
            let block = self.next_block(dice, state.term);
            self.take(&block);
            persist.blocks.push(block);
        }
        if dice.one_in(2) {
            state.commit += dice.below(self.last().index - state.commit + 1);
        }
        if state != self.hard_state {
            self.hard_state = state;
            persist.hard_state = Some(state);
        }
        persist
    }
}
