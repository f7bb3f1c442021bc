//! What is handed out: blocks to be written, blocks to be applied, and messages, each of which leaves once what it says is durable here.

use std::sync::Arc;

use grid_sequencer::{BlockKind, HardState, NodeId, Persist, Ready};
use raft::eraftpb::Message;

use super::RaftCore;
use crate::core::wire::PeerMessage;

/// Most bytes of committed blocks handed out at once.
pub(super) const COMMITTED_BYTES: u64 = 1 << 20;
/// A commit index alone is journalled once it is this far ahead of the one on disk, and then only with something else.
const COMMIT_LAG: u64 = 64;

/// What was handed out and is not durable yet, or waits behind that.
pub(super) struct Waiting {
    /// The ticket of what is written; of what only waits, that of what is written before it.
    ticket: u64,
    term: u64,
    blocks: Option<Written>,
    /// What may be said when it is durable.
    messages: Vec<(NodeId, PeerMessage)>,
}

/// Blocks that are being written, without a gap.
#[derive(Clone, Copy)]
pub(super) struct Written {
    first: u64,
    last: u64,
    /// Of the last.
    term: u64,
}

impl RaftCore {
    /// Messages of raft's as they go out; those whose blocks are gone are as good as lost.
    fn outgoing(&mut self) -> Vec<(NodeId, PeerMessage)> {
        let messages = std::mem::take(&mut self.raft.msgs);
        let log = self.raft.store();
        let made = |message: &Message| {
            PeerMessage::from_raft(message, |entry| log.block_of(entry)).map(|made| (message.to, made))
        };
        let made = messages.iter().filter_map(made).collect();
        log.forget_reread();
        made
    }

    fn send(&mut self, messages: Vec<(NodeId, PeerMessage)>) {
        for (to, message) in messages {
            self.outbox.send(to, message);
        }
    }

    /// What is new since this was last asked.
    pub(super) fn take_ready(&mut self) -> Ready {
        // What a leader says of its log may leave before that is durable here: others may be faster.
        let messages = if self.raft.msgs.is_empty() { Vec::new() } else { self.outgoing() };
        let (speaks, holds) = if self.leads() { (messages, Vec::new()) } else { (Vec::new(), messages) };
        let log = &self.raft.raft_log;
        let durable = log.committed.min(log.persisted);
        let blocks = log.store.recent_from(self.unwritten, log.store.last(), u64::MAX);
        let committed = log.store.recent_from(self.handed + 1, durable, COMMITTED_BYTES);
        self.unwritten += blocks.len() as u64;
        self.handed += committed.len() as u64;
        for block in committed.iter().filter(|block| block.header().kind == BlockKind::ConfChange) {
            self.changes.push_back(Arc::clone(block));
        }

        let now = HardState { term: self.raft.term, vote: self.raft.vote, commit: durable };
        let voted = (now.term, now.vote) != (self.journalled.term, self.journalled.vote);
        let written = blocks.first().zip(blocks.last()).map(|(first, last)| Written {
            first: first.header().index,
            last: last.header().index,
            term: last.header().term,
        });
        let persist = (voted || written.is_some()).then(|| {
            let worth = voted || now.commit >= self.journalled.commit + COMMIT_LAG;
            self.ticket += 1;
            Persist { ticket: self.ticket, hard_state: worth.then_some(now), blocks }
        });
        if let Some(state) = persist.as_ref().and_then(|persist| persist.hard_state) {
            self.journalled = state;
        }

        if !speaks.is_empty() && now.term > self.term_durable {
            self.unspoken.extend(speaks.into_iter().map(|(to, message)| (now.term, to, message)));
        } else if !speaks.is_empty() {
            self.send(speaks);
        }
        if persist.is_some() || (!self.waiting.is_empty() && !holds.is_empty()) {
            let (ticket, term) = (self.ticket, now.term);
            self.waiting.push_back(Waiting { ticket, term, blocks: written, messages: holds });
        } else if !holds.is_empty() {
            self.send(holds);
        }
        Ready { persist, committed }
    }

    /// Tells the others what is committed when all of the log is. While blocks are under way that is not worth messages of its own, and answers
    /// to them: the next blocks bring it along, else the last ones to be committed.
    pub(super) fn announce(&mut self) {
        let committed = self.raft.raft_log.committed;
        if committed > self.announced && self.leads() && committed == self.last() {
            self.announced = committed;
            self.raft.bcast_append();
        }
    }

    /// There is something to write, to apply or to say.
    pub(super) fn has_news(&self) -> bool {
        let raft = &self.raft;
        let log = &raft.raft_log;
        self.unwritten <= log.store.last()
            || self.handed < log.committed.min(log.persisted)
            || !raft.msgs.is_empty()
            || (raft.term, raft.vote) != (self.journalled.term, self.journalled.vote)
    }

    /// Everything up to and including this ticket is durable here: what waited for that leaves, and raft counts the blocks.
    pub(super) fn written(&mut self, ticket: u64) {
        let mut durable = None;
        let mut messages = Vec::new();
        while let Some(waiting) = self.waiting.pop_front_if(|next| next.ticket <= ticket) {
            self.term_durable = self.term_durable.max(waiting.term);
            if !waiting.messages.is_empty() {
                messages.extend(waiting.messages);
            }
            // If what still has to be written replaces a block of this, the log on disk is not yet what raft would take it for.
            let replaced = |last| {
                self.unwritten <= last
                    || self.waiting.iter().filter_map(|later| later.blocks).any(|later| later.first <= last)
            };
            durable = waiting.blocks.filter(|blocks| !replaced(blocks.last)).or(durable);
        }
        if self.stopped {
            return;
        }
        if !self.unspoken.is_empty() {
            let term_durable = self.term_durable;
            for (_, to, message) in self.unspoken.extract_if(.., |(term, ..)| *term <= term_durable) {
                self.outbox.send(to, message);
            }
        }
        if !messages.is_empty() {
            self.send(messages);
        }
        if let Some(Written { last, term, .. }) = durable {
            self.raft.on_persist_entries(last, term);
            self.settle(&[]);
        }
    }
}
