//! What befalls the nodes.

use grid_engine::SECOND;
use grid_replicator::core::{Addresses, Member, MemberChange};
use grid_sequencer::NodeId;

use super::{START, World};
use crate::disk::DiskFaults;
use crate::node::{Node, is_segment, journal_dir, snapshot_dir};
use crate::outcome::Lie;
use crate::settings::{Fault, MILLIS};

impl World {
    fn any_node(&mut self) -> NodeId {
        let ids: Vec<_> = self.nodes.keys().copied().collect();
        *self.dice.pick(&ids)
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| {
            node.process.as_ref().is_some_and(|process| process.handle.leadership().epoch().is_some())
        };
        self.nodes.values().filter(leads).map(|node| node.id).next_back()
    }

    /// Often the leader: that is where it hurts.
    fn victim(&mut self) -> NodeId {
        match self.leader() {
            Some(leader) if self.dice.chance(1, 2) => leader,
            _ => self.any_node(),
        }
    }

    pub(super) fn inject(&mut self) -> Result<(), String> {
        let Some(fault) = self.settings.fault(&mut self.dice) else { return Ok(()) };
        let (id, now) = (self.victim(), self.now);
        *self.counts.injected.entry(format!("{fault:?}")).or_default() += 1;
        self.tell(|| format!("{fault:?} at node {id}"));
        self.note(fault as u64);
        match fault {
            Fault::Kill | Fault::PowerCut => {
                if self.nodes[&id].process.is_some() {
                    self.stop_node(id, fault == Fault::PowerCut);
                }
            }
            Fault::Blackout => {
                for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                    self.stop_node(id, true);
                }
            }
            Fault::AtPoint => {
                let countdown = self.dice.below(40);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.trap = Some(countdown);
                }
            }
            Fault::Pause => {
                let until = now + self.dice.between(10, 300) * MILLIS;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.paused_until = until;
                }
            }
            Fault::Partition => self.part(id),
            Fault::Reconnect => self.network.heal(),
            Fault::ClockJump => {
                let by = match self.dice.below(6) {
                    0 => self.dice.between(1, 7_200) as i64 * SECOND as i64,
                    1 => -(self.dice.between(1, 7_200) as i64) * SECOND as i64,
                    _ => self.dice.below(4 * SECOND) as i64 - 2 * SECOND as i64,
                };
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.clock.jump(by);
                }
            }
            Fault::SlowDisk => {
                let until = now + self.dice.between(20, 400) * MILLIS;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.slow_until = until;
                }
            }
            Fault::FullDisk => {
                let (room, until) = (self.dice.below(40 << 10), now + self.dice.between(50, 400) * MILLIS);
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.room_until = until;
                    node.disk.set_room(Some(room));
                }
            }
            Fault::BadDisk => {
                let error_ppm = *self.dice.pick(&[1_000, 20_000, 200_000]);
                let until = now + self.dice.between(20, 200) * MILLIS;
                if let Some(node) = self.nodes.get_mut(&id) {
                    node.bad_until = until;
                    let faults = DiskFaults {
                        lies: self.knobs.lie == Some(Lie::DisksDoNotSync),
                        ..self.settings.disk
                    };
                    node.disk.set_faults(DiskFaults { error_ppm, ..faults });
                }
            }
            Fault::BitFlip => self.flip_a_bit(id),
            Fault::Members => self.change_members(),
            Fault::Transfer => {
                let to = self.any_node();
                if let Some(leader) = self.leader() {
                    self.within(leader, |node, _, _| {
                        if let Some(process) = &node.process {
                            let _ = process.driver.drive(|probe| probe.core().transfer_leadership(to));
                        }
                    })?;
                    self.read_news(leader)?;
                    self.send_out(leader)?;
                }
            }
            Fault::Snapshot => {
                if let Some(process) = self.nodes.get(&id).and_then(|node| node.process.as_ref()) {
                    process.replica.snapshot_now(|_| ());
                }
            }
        }
        Ok(())
    }

    fn part(&mut self, id: NodeId) {
        let with_loss = self.dice.chance(1, 2);
        let others: Vec<_> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        let (outwards, inwards) =
            *self.dice.pick(&[(true, true), (true, true), (true, false), (false, true)]);
        let some = self.dice.chance(1, 3);
        for other in others {
            if some && self.dice.chance(1, 2) {
                continue;
            }
            if outwards {
                self.network.cut(id, other, with_loss);
            }
            if inwards {
                self.network.cut(other, id, with_loss);
            }
        }
    }

    /// One node at a time, and nothing of what was written last: whether that is torn or damaged nobody could tell.
    fn flip_a_bit(&mut self, id: NodeId) {
        if self.nodes.values().any(|node| node.disk.is_flipped()) {
            return;
        }
        let Some(node) = self.nodes.get(&id) else { return };
        let flipped = if self.dice.chance(1, 4) {
            node.disk.flip_bit(&snapshot_dir(), |_, bytes, dice| {
                (!bytes.is_empty()).then(|| dice.below(bytes.len() as u64) as usize)
            })
        } else {
            node.disk.flip_bit(&journal_dir(), |name, bytes, dice| {
                let end = is_segment(name).then(|| settled_end(bytes))??;
                Some(dice.below(end as u64) as usize)
            })
        };
        if let Some(name) = flipped {
            self.counts.bit_flips += 1;
            self.note_bytes(name.as_bytes());
            // Whoever reads it next is a start from disk, or a peer that lags.
            if self.dice.chance(1, 2) && self.nodes[&id].process.is_some() {
                self.stop_node(id, false);
            }
        }
    }

    fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let (now, founders) = (self.now, self.settings.nodes);
        let Some(process) = self.nodes.get(&leader).and_then(|node| node.process.as_ref()) else { return };
        let members = process.driver.drive(|probe| probe.core().members().clone());
        let learners: Vec<_> = members.iter().filter(|(_, m)| m.learner).map(|(node, _)| node).collect();
        let is_voter = |(_, member): &(NodeId, &Member)| member.voter;
        let voters: Vec<_> = members.iter().filter(is_voter).map(|(node, _)| node).collect();
        let change = if !learners.is_empty() && voters.len() < 5 && self.dice.chance(1, 2) {
            MemberChange::Promote { node: *self.dice.pick(&learners) }
        } else if voters.len() + learners.len() > founders as usize && self.dice.chance(1, 2) {
            let all: Vec<_> = members.iter().map(|(node, _)| node).filter(|node| *node != leader).collect();
            MemberChange::Remove { node: *self.dice.pick(&all) }
        } else if members.iter().count() < 6 {
            let node = self.next_node;
            let addresses = Addresses { peer: format!("n{node}:1"), orders: format!("n{node}:2") };
            MemberChange::AddLearner { node, addresses }
        } else {
            return;
        };
        let node = change.node();
        let accepted = process.driver.drive(|probe| probe.core().change_members(&change)).is_ok();
        if !accepted {
            return;
        }
        self.counts.member_changes += 1;
        match change {
            MemberChange::AddLearner { .. } => {
                self.next_node += 1;
                let mut new = Node::new(node, false, &mut self.dice, START, now);
                new.restart_at = now + self.dice.below(40 * MILLIS);
                new.disk.set_faults(DiskFaults {
                    lies: self.knobs.lie == Some(Lie::DisksDoNotSync),
                    ..self.settings.disk
                });
                self.nodes.insert(node, new);
            }
            MemberChange::Remove { .. } => {
                self.leaving.insert(node);
            }
            _ => {}
        }
    }
}

/// Up to where a segment holds blocks that a later write proves to have been synced; `None` if there are none.
fn settled_end(bytes: &[u8]) -> Option<usize> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let (mut at, mut last_group) = (4096, None);
    while let Some(header) = bytes.get(at..at + 64) {
        if header.iter().all(|byte| *byte == 0) {
            break;
        }
        if word(at + 56)? == 0 {
            last_group = Some(at);
        }
        at += (64 + word(at)?).next_multiple_of(64);
    }
    last_group.filter(|at| *at > 4096)
}
