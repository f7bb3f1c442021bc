//! Connections between nodes: one per direction, first in first out, each with an epoch. A message waits for its time; a connection
//! may break and lose its tail, stall, or, when it is made anew, bring the last messages of the old one again.

use std::collections::{BTreeMap, VecDeque};

use grid_sequencer::NodeId;

use crate::dice::Dice;

/// How the network misbehaves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NetworkFaults {
    /// Shortest and longest time of a message on its way, in nanoseconds.
    pub(crate) delay: (u64, u64),
    /// Most messages that wait on a connection; more are dropped.
    pub(crate) queue: usize,
    /// Messages lost for no reason that anybody knows, in a million.
    pub(crate) drop_ppm: u32,
    /// Messages that break their connection, in a million.
    pub(crate) break_ppm: u32,
    /// A new connection brings up to so many of the old one's last messages again.
    pub(crate) again: u64,
}

/// What travels between nodes.
#[derive(Clone, Debug)]
pub(crate) enum Parcel {
    /// A consensus message as its bytes.
    Message(Vec<u8>),
    /// A snapshot: the message as its bytes, and the file that the links stream after it.
    Snapshot(Vec<u8>, Vec<u8>),
    /// What a node came to.
    Digest(Vec<u8>),
    /// What became of a snapshot that was streamed.
    Outcome(bool),
}

impl Parcel {
    /// Its bytes, for telling runs apart.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Message(bytes) | Self::Snapshot(bytes, _) | Self::Digest(bytes) => bytes,
            Self::Outcome(ok) => {
                if *ok {
                    b"ok"
                } else {
                    b"no"
                }
            }
        }
    }
}

#[derive(Debug, Default)]
struct Link {
    waiting: VecDeque<(u64, Parcel)>,
    /// The last ones delivered, oldest first.
    delivered: VecDeque<Parcel>,
    /// Nothing leaves before this: messages keep their order.
    last_due: u64,
    /// Nothing passes; what waits goes on waiting.
    stalled: bool,
    /// Nothing passes, and what is sent is lost.
    cut: bool,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way, or lost without anybody knowing.
    Yes,
    /// The sender knows that it is lost.
    Lost,
}

/// All connections.
#[derive(Debug)]
pub(crate) struct Network {
    dice: Dice,
    pub(crate) faults: NetworkFaults,
    links: BTreeMap<(NodeId, NodeId), Link>,
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) repeated: u64,
}

impl Network {
    pub(crate) fn new(dice: Dice, faults: NetworkFaults) -> Self {
        Self { dice, faults, links: BTreeMap::new(), sent: 0, lost: 0, repeated: 0 }
    }

    pub(crate) fn send(&mut self, from: NodeId, to: NodeId, parcel: Parcel, now: u64) -> Sent {
        self.sent += 1;
        let (shortest, longest) = self.faults.delay;
        let mut delay = self.dice.between(shortest, longest);
        if self.dice.chance(1, 500) {
            delay *= 20;
        }
        if let Parcel::Snapshot(_, file) = &parcel {
            delay += file.len() as u64 * 20;
        }
        let lost = self.dice.ppm(self.faults.drop_ppm);
        let breaks = self.dice.ppm(self.faults.break_ppm);
        let link = self.links.entry((from, to)).or_default();
        if link.cut || link.waiting.len() >= self.faults.queue {
            self.lost += 1;
            return Sent::Lost;
        }
        if lost {
            self.lost += 1;
            return Sent::Yes;
        }
        link.last_due = link.last_due.max(now + delay);
        link.waiting.push_back((link.last_due, parcel));
        if breaks {
            self.reconnect(from, to);
        }
        Sent::Yes
    }

    /// The connection breaks: of what is under way a tail is lost. The new one may bring delivered messages again.
    pub(crate) fn reconnect(&mut self, from: NodeId, to: NodeId) {
        let again = self.dice.below(self.faults.again + 1) as usize;
        let link = self.links.entry((from, to)).or_default();
        let keep = self.dice.below(link.waiting.len() as u64 + 1) as usize;
        self.lost += (link.waiting.len() - keep) as u64;
        link.waiting.truncate(keep);
        if keep == 0 {
            let again = again.min(link.delivered.len());
            let from = link.delivered.len() - again;
            for parcel in link.delivered.iter().skip(from) {
                link.waiting.push_back((link.last_due, parcel.clone()));
            }
            self.repeated += again as u64;
        }
    }

    /// The next message whose time has come, if any; connections take turns.
    pub(crate) fn deliver(
        &mut self,
        now: u64,
        awake: impl Fn(NodeId) -> bool,
    ) -> Option<(NodeId, NodeId, Parcel)> {
        let ready = |to: NodeId, link: &Link| {
            let due = link.waiting.front().is_some_and(|(due, _)| *due <= now);
            due && !link.cut && !link.stalled && awake(to)
        };
        let count = self.links.iter().filter(|((_, to), link)| ready(*to, link)).count();
        if count == 0 {
            return None;
        }
        let turn = self.dice.below(count as u64) as usize;
        let (&(from, to), link) =
            self.links.iter_mut().filter(|((_, to), link)| ready(*to, link)).nth(turn)?;
        let (_, parcel) = link.waiting.pop_front()?;
        link.delivered.push_back(parcel.clone());
        if link.delivered.len() > 8 {
            link.delivered.pop_front();
        }
        Some((from, to, parcel))
    }

    /// A node's process is gone: so are its connections and what was on them.
    pub(crate) fn node_gone(&mut self, node: NodeId) {
        for ((from, to), link) in &mut self.links {
            if *from == node || *to == node {
                self.lost += link.waiting.len() as u64;
                link.waiting.clear();
                link.delivered.clear();
            }
        }
    }

    /// Parts one direction: with loss, or only so that everything waits.
    pub(crate) fn cut(&mut self, from: NodeId, to: NodeId, with_loss: bool) {
        let link = self.links.entry((from, to)).or_default();
        if with_loss {
            link.cut = true;
            self.lost += link.waiting.len() as u64;
            link.waiting.clear();
        } else {
            link.stalled = true;
        }
    }

    /// Everything is connected again.
    pub(crate) fn heal(&mut self) {
        for link in self.links.values_mut() {
            link.cut = false;
            link.stalled = false;
        }
    }
}
