//! Commands on their way from the ring into blocks. Each is put down once, behind the room for its block's header, so that sealing
//! a block copies no payload, and the bytes that the producer encoded are those that journal, peers and replicas share.

use std::collections::VecDeque;

use crate::block::Draft;
use crate::inbound::Taken;
use crate::stages::BlockLimits;

/// Commands taken from the ring and not yet in a block: at most one ring full and one block.
///
/// Invariant: no draft is empty, and all commands of a draft are of one epoch.
pub(crate) struct Pending<C> {
    limits: BlockLimits,
    drafts: VecDeque<Draft<C>>,
    /// Commands in all drafts.
    commands: usize,
    /// What the last draft that was begun came to: as much room is made for the next one.
    last: (usize, usize),
}

impl<C> Pending<C> {
    pub(crate) fn new(limits: BlockLimits) -> Self {
        Self { limits, drafts: VecDeque::new(), commands: 0, last: (0, 0) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.drafts.is_empty()
    }

    /// How many commands there are.
    pub(crate) fn len(&self) -> usize {
        self.commands
    }

    /// Takes a command into the block being filled, or the next one.
    pub(crate) fn push(&mut self, taken: Taken<'_, C>) {
        let Taken { command, framed, epoch, arrived } = taken;
        self.commands += 1;
        if let Some(draft) = self.drafts.back_mut()
            && draft.epoch() == epoch
            && draft.commands() < self.limits.commands
            && draft.payload_bytes() + framed.len() <= self.limits.bytes
        {
            draft.push(command, framed, arrived);
            return;
        }
        if let Some(before) = self.drafts.back() {
            self.last = (before.commands(), before.payload_bytes());
        }
        let (commands, bytes) = self.last;
        let mut draft = Draft::begin(epoch, commands.max(1), bytes.max(framed.len()));
        draft.push(command, framed, arrived);
        self.drafts.push_back(draft);
    }

    /// A block is full: no later command can come into it.
    pub(crate) fn fills(&self) -> bool {
        self.drafts.len() > 1
            || self.drafts.front().is_some_and(|draft| {
                draft.commands() >= self.limits.commands || draft.payload_bytes() >= self.limits.bytes
            })
    }

    /// Forgets the commands in front that are of epochs before this term: others before them may be lost with those.
    pub(crate) fn expire(&mut self, term: u64) {
        let mut dropped = 0;
        while let Some(draft) = self.drafts.pop_front_if(|draft| draft.epoch() < term) {
            dropped += draft.commands();
        }
        if dropped > 0 {
            self.commands -= dropped;
            tracing::debug!(
                dropped,
                term,
                "commands of an earlier epoch; nobody was told anything about them"
            );
        }
    }

    /// The next block to be sealed, after [`Pending::expire`] for its term.
    pub(crate) fn cut(&mut self) -> Option<Draft<C>> {
        let draft = self.drafts.pop_front()?;
        self.commands -= draft.commands();
        self.last = (draft.commands(), draft.payload_bytes());
        Some(draft)
    }

    /// Forgets everything; returns how many commands that were.
    pub(crate) fn clear(&mut self) -> usize {
        self.drafts.clear();
        std::mem::take(&mut self.commands)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(pending: &mut Pending<char>, term: u64) -> Vec<(Vec<char>, Vec<u8>)> {
        let mut blocks = Vec::new();
        loop {
            pending.expire(term);
            let Some(draft) = pending.cut() else { return blocks };
            let (commands, bytes, _) = draft.into_parts();
            blocks.push((commands, bytes.payload().to_vec()));
        }
    }

    fn push(pending: &mut Pending<char>, command: char, framed: &str, epoch: u64) {
        pending.push(Taken { command, framed: framed.as_bytes(), epoch, arrived: None });
    }

    fn push_all(pending: &mut Pending<char>, commands: impl IntoIterator<Item = (char, u64)>) {
        for (command, epoch) in commands {
            push(pending, command, &command.to_string(), epoch);
        }
    }

    #[test]
    fn a_block_holds_commands_of_its_own_term_only() {
        let mut pending = Pending::new(BlockLimits::default());
        // A producer that was interrupted in the middle comes late with an old epoch.
        push_all(&mut pending, [('a', 5), ('b', 5), ('c', 7), ('d', 7), ('e', 5), ('f', 7)]);
        assert_eq!(blocks(&mut pending, 7), [(vec!['c', 'd'], b"cd".to_vec()), (vec!['f'], b"f".to_vec())]);
        assert_eq!((pending.len(), pending.is_empty()), (0, true));
    }

    #[test]
    fn a_block_closes_at_its_limits_and_a_command_larger_than_a_block_stands_alone() {
        let limits = BlockLimits { commands: 2, bytes: 3, ..BlockLimits::default() };
        let mut pending = Pending::new(limits);
        push_all(&mut pending, [('a', 1)]);
        assert!(!pending.fills());
        push_all(&mut pending, [('b', 1), ('c', 1)]);
        assert!(pending.fills());
        push(&mut pending, 'd', "dddd", 1);
        assert_eq!(
            blocks(&mut pending, 1),
            [(vec!['a', 'b'], b"ab".to_vec()), (vec!['c'], b"c".to_vec()), (vec!['d'], b"dddd".to_vec())]
        );
    }

    #[test]
    fn what_is_cleared_is_counted() {
        let mut pending = Pending::new(BlockLimits { commands: 2, ..BlockLimits::default() });
        push_all(&mut pending, [('a', 1), ('b', 1), ('c', 1)]);
        assert_eq!((pending.clear(), pending.len()), (3, 0));
        assert!(pending.cut().is_none());
    }
}
