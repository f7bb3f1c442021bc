//! Commands on their way from the ring into blocks. Each is put down once, behind the room for its block's header, so that sealing
//! a block copies no payload, and the bytes that the producer encoded are those that journal, peers and replicas share.

use std::collections::VecDeque;

use grid_engine::Nanos;

use crate::block::Draft;
use crate::inbound::Taken;
use crate::stages::BlockLimits;

/// Blocks of so many bytes of payload and more are begun with an eighth to spare.
const SPARE_FROM: usize = 1 << 10;

/// Commands taken from the ring and not yet in a block: at most one ring full and one block.
///
/// Invariant: no draft is empty, and all commands of a draft are of one epoch.
pub(crate) struct Pending<C> {
    limits: BlockLimits,
    drafts: VecDeque<Draft<C>>,
    /// Commands in all drafts.
    commands: usize,
    /// Commands and bytes of payload that room is made for in the next draft: as many as the last ones came to. The blocks of one
    /// burst differ, the last is short, so this shrinks by an eighth at a time.
    room: (usize, usize),
}

impl<C> Pending<C> {
    pub(crate) fn new(limits: BlockLimits) -> Self {
        Self { limits, drafts: VecDeque::new(), commands: 0, room: (0, 0) }
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
        self.begin(epoch, framed.len()).push(command, framed, arrived);
    }

    /// The same with a command that is encoded only now, where it will stand. It comes back with the bytes of its log form if
    /// those are more than `most`.
    #[inline]
    pub(crate) fn put(
        &mut self,
        command: C,
        epoch: u64,
        arrived: Option<Nanos>,
        most: usize,
        encode: impl FnOnce(&C, &mut Vec<u8>),
    ) -> Result<(), (C, usize)> {
        let limits = self.limits;
        let takes = |draft: &Draft<C>| {
            draft.epoch() == epoch
                && draft.commands() < limits.commands
                && draft.payload_bytes() < limits.bytes
        };
        if !self.drafts.back().is_some_and(takes) {
            self.begin(epoch, 0);
        }
        let draft = self.drafts.back_mut().expect("one takes it");
        let framed = draft.frame(|out| encode(&command, out));
        let alone = draft.commands() == 0;
        if framed - 4 > most {
            draft.unframe(framed);
            if alone {
                self.drafts.pop_back();
            }
            return Err((command, framed - 4));
        }
        self.commands += 1;
        if alone || draft.payload_bytes() <= limits.bytes {
            draft.push_framed(command, arrived);
        } else {
            let bytes = draft.unframe(framed);
            self.begin(epoch, framed).push(command, &bytes, arrived);
        }
        Ok(())
    }

    /// A new block to be filled, with as much room as the one before came to, and for `bytes` of payload.
    fn begin(&mut self, epoch: u64, bytes: usize) -> &mut Draft<C> {
        if let Some(before) = self.drafts.back() {
            self.room = larger_or_shrunk(self.room, before);
        }
        let (commands, payload) = self.room;
        let commands = commands.next_power_of_two().min(self.limits.commands.max(1));
        // A small block has some room to spare in any case, and one that fills its memory needs no second piece to keep track of it.
        let spare = if payload < SPARE_FROM { 0 } else { payload / 8 };
        self.drafts.push_back(Draft::begin(epoch, commands, (payload + spare).max(bytes)));
        self.drafts.back_mut().expect("just begun")
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
        self.room = larger_or_shrunk(self.room, &draft);
        Some(draft)
    }

    /// Forgets everything; returns how many commands that were.
    pub(crate) fn clear(&mut self) -> usize {
        self.drafts.clear();
        std::mem::take(&mut self.commands)
    }
}

fn larger_or_shrunk<C>((commands, bytes): (usize, usize), draft: &Draft<C>) -> (usize, usize) {
    let shrunk = |room: usize| room - room.div_ceil(8);
    (draft.commands().max(shrunk(commands)), draft.payload_bytes().max(shrunk(bytes)))
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
    fn a_command_put_where_it_will_stand_comes_into_the_same_block_as_one_that_was_encoded_before() {
        let limits = BlockLimits { commands: 3, bytes: 12, ..BlockLimits::default() };
        let (mut pushed, mut put) = (Pending::new(limits), Pending::new(limits));
        let load = [
            ("a", 1),
            ("bb", 1),
            ("c", 1),
            ("ddddddddddddd", 1),
            ("e", 1),
            ("f", 2),
            ("g", 2),
            ("h", 2),
            ("i", 2),
        ];
        for (text, epoch) in load {
            let command = text.chars().next().expect("not empty");
            let mut framed = Vec::new();
            crate::block::push_command(&mut framed, |out| out.extend_from_slice(text.as_bytes()));
            pushed.push(Taken { command, framed: &framed, epoch, arrived: None });
            let encode = |_: &char, out: &mut Vec<u8>| out.extend_from_slice(text.as_bytes());
            assert_eq!(put.put(command, epoch, None, 13, encode), Ok(()));
            let long = |_: &char, out: &mut Vec<u8>| out.extend_from_slice(&[b'z'; 14]);
            assert_eq!(put.put('z', epoch, None, 13, long), Err(('z', 14)), "and nothing of it stays");
        }
        assert_eq!((put.len(), put.fills()), (pushed.len(), pushed.fills()));
        for term in [1, 2] {
            assert_eq!(blocks(&mut put, term), blocks(&mut pushed, term));
        }
    }

    #[test]
    fn what_is_cleared_is_counted() {
        let mut pending = Pending::new(BlockLimits { commands: 2, ..BlockLimits::default() });
        push_all(&mut pending, [('a', 1), ('b', 1), ('c', 1)]);
        assert_eq!((pending.clear(), pending.len()), (3, 0));
        assert!(pending.cut().is_none());
    }
}
