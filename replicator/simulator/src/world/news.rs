//! What nodes say: to the ledger, to each other and, in messages, to whoever is late.

use grid_engine::command::Entry;
use grid_replicator::Digest;
use grid_replicator::core::{PeerMessage, Received};
use grid_sequencer::{NodeId, StageName, Step};

use super::World;
use crate::network::{Parcel, Sent};
use crate::node::{Out, snapshot_file, stage};
use crate::probe::{News, on_majority};
use crate::settings::MILLIS;

impl World {
    pub(super) fn read_news(&mut self, id: NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
        let news = std::mem::take(&mut node.notes.seen().news);
        for item in news {
            match item {
                News::Wrong(what) => return Err(format!("node {id} {what}")),
                News::Truncated => self.counts.truncations += 1,
                News::Leads(term) => {
                    if self.ledger.leads(term, id)? {
                        self.tell(|| format!("node {id} leads in term {term}"));
                        self.note(term << 8 | id);
                    }
                }
                News::CommitKnown(commit) => {
                    let from = self.ledger.position.index + 1;
                    let blocks: Vec<_> = {
                        let Some(node) = self.nodes.get(&id) else { return Ok(()) };
                        let seen = node.notes.seen();
                        (from..=commit).map_while(|index| seen.log.get(&index).cloned()).collect()
                    };
                    self.commit(id, &blocks)?;
                }
                News::Committed { blocks, leading } => {
                    if !leading.is_empty() {
                        for block in &blocks {
                            let index = block.header().index;
                            let durable = |voter: NodeId| {
                                self.nodes.get(&voter).is_some_and(|node| {
                                    node.snapshot >= index
                                        || node
                                            .notes
                                            .seen()
                                            .durable
                                            .get(&index)
                                            .is_some_and(|own| own.bytes() == block.bytes())
                                })
                            };
                            if !leading.iter().any(|members| on_majority(members, durable)) {
                                return Err(format!(
                                    "node {id} has block {index} committed, which is not durable on a majority"
                                ));
                            }
                        }
                    }
                    self.commit(id, &blocks)?;
                }
            }
        }
        Ok(())
    }

    fn commit(&mut self, id: NodeId, blocks: &[std::sync::Arc<grid_sequencer::Block>]) -> Result<(), String> {
        for block in blocks {
            let sent = &self.sent;
            let known = |entry: &Entry| sent.get(&(entry.session, entry.client_seq)) == Some(entry);
            self.ledger.commit(id, block, &known)?;
            self.note(block.header().chain);
        }
        Ok(())
    }

    pub(super) fn send_out(&mut self, id: NodeId) -> Result<(), String> {
        loop {
            let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut()) else {
                return Ok(());
            };
            let Some((to, out)) = process.outgoing.pop() else { return Ok(()) };
            match out {
                Out::Digest(digest) => {
                    let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != id).collect();
                    for other in others {
                        self.network.send(id, other, Parcel::Digest(digest.encode().to_vec()), self.now);
                    }
                }
                Out::Message { bytes, snapshot } => {
                    let parcel = if snapshot {
                        match snapshot_file(&process.snapshots) {
                            Some((_, file)) => Parcel::Snapshot(bytes, file),
                            None => {
                                process.streamed.push((to, false));
                                continue;
                            }
                        }
                    } else {
                        Parcel::Message(bytes)
                    };
                    if snapshot {
                        self.counts.transfers += 1;
                        self.transfers.insert((id, to), self.now + 120 * MILLIS);
                    }
                    let sent = if self.nodes.contains_key(&to) {
                        self.network.send(id, to, parcel, self.now)
                    } else {
                        Sent::Lost
                    };
                    if sent == Sent::Lost
                        && let Some(process) = self.nodes.get_mut(&id).and_then(|node| node.process.as_mut())
                    {
                        if snapshot {
                            self.transfers.remove(&(id, to));
                            process.streamed.push((to, false));
                        } else if !process.unreachable.contains(&to) {
                            process.unreachable.push(to);
                        }
                    }
                }
            }
        }
    }

    pub(super) fn deliver(&mut self) -> Result<(), String> {
        let now = self.now;
        // A process that sleeps finds its messages when it wakes up.
        let nodes = &self.nodes;
        let awake = |id: NodeId| nodes.get(&id).is_none_or(|node| now >= node.paused_until);
        let Some((from, to, parcel)) = self.network.deliver(now, awake) else { return Ok(()) };
        let Some(node) = self.nodes.get_mut(&to) else { return Ok(()) };
        if node.process.is_none() {
            return Ok(());
        }
        node.keep_time(now);
        self.note_bytes(parcel.bytes());
        match parcel {
            Parcel::Message(bytes) => {
                self.receive(from, to, bytes, None)?;
            }
            Parcel::Snapshot(bytes, file) => self.receive(from, to, bytes, Some(file))?,
            Parcel::Digest(bytes) => {
                let digest = Digest::decode(&bytes).ok_or("a digest reads back")?;
                self.within(to, |node, _, _| {
                    if let Some(process) = &node.process {
                        process.replica.observe(from, digest);
                    }
                })?;
            }
            Parcel::Outcome(ok) => {
                if self.transfers.remove(&(to, from)).is_some()
                    && let Some(process) = self.nodes.get_mut(&to).and_then(|node| node.process.as_mut())
                {
                    process.streamed.push((from, ok));
                }
            }
        }
        self.read_news(to)?;
        self.send_out(to)
    }

    fn receive(
        &mut self,
        from: NodeId,
        to: NodeId,
        bytes: Vec<u8>,
        file: Option<Vec<u8>>,
    ) -> Result<(), String> {
        let message =
            PeerMessage::decode(&bytes.into()).map_err(|error| format!("a peer's message: {error}"))?;
        let received = self.within(to, |node, _, _| {
            let process = node.process.as_ref()?;
            Some(process.driver.drive(|probe| probe.core().receive(from, &message)))
        })?;
        match received.flatten() {
            Some(Received::Stop(stop)) => Err(format!("node {to} must stop: {stop}")),
            Some(Received::SnapshotWanted { index, term, .. }) => {
                self.read_news(to)?;
                let Some(file) = file else { return Ok(()) };
                self.install(from, to, index, term, &file)
            }
            Some(_) if file.is_some() => {
                self.network.send(to, from, Parcel::Outcome(true), self.now);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A snapshot has come whole: it is made durable, and the node starts again from disk.
    fn install(
        &mut self,
        from: NodeId,
        to: NodeId,
        index: u64,
        term: u64,
        file: &[u8],
    ) -> Result<(), String> {
        let installed = self.within(to, |node, _, _| {
            let process = node.process.as_mut()?;
            let mut receiver = process.snapshots.receive().ok()?;
            for chunk in file.chunks(4 << 10) {
                receiver.write(chunk).ok()?;
            }
            if !process.driver.drive(|probe| probe.core().begin_install(index, term)) {
                return None;
            }
            // The journal finishes what it was given.
            if let Some(stage) = stage(&mut process.stages, StageName::Journal) {
                while stage.step() == Step::Worked {}
            }
            Some(receiver.finish().map(|meta| meta.position.index).map_err(|error| error.to_string()))
        })?;
        match installed.flatten() {
            Some(Ok(index)) => {
                self.counts.installs += 1;
                self.network.send(to, from, Parcel::Outcome(true), self.now);
                // The links bring the news before the process goes.
                self.read_news(to)?;
                let now = self.now;
                if let Some(node) = self.nodes.get_mut(&to) {
                    node.end(false);
                    node.restart_at = now;
                    node.snapshot = node.snapshot.max(index);
                }
                self.wires.node_gone(to, now);
                self.boot(to)
            }
            Some(Err(error)) => {
                let Some(node) = self.nodes.get(&to) else { return Ok(()) };
                if node.room_until == 0 && node.bad_until == 0 {
                    return Err(format!("node {to} cannot make a snapshot durable: {error}"));
                }
                // The core is over once an installation has begun.
                self.stop_node(to, false);
                Ok(())
            }
            None => {
                self.network.send(to, from, Parcel::Outcome(false), self.now);
                Ok(())
            }
        }
    }
}
