//! A cluster of raft cores in one thread, driven by one seed: links that drop and delay, disks that are slow and lose what was not
//! synced, processes that die. Production code is only the core; journal, matcher and snapshot store are as small as they can be.
//!
//! Checked at every step: what is committed at an index is the same on every node and for ever; it is durable on whoever hands it out, and
//! handed out once and in order; nobody says a thing that his disk does not know yet.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use grid_engine::Nanos;
use grid_replicator::core::{
    Addresses, ChangeRefused, Compacted, CoreConfig, MemberChange, Members, MessageKind, OldBlocks, Outbox,
    PeerMessage, RaftCore, Received, Recovery,
};
use grid_sequencer::{Block, BlockKind, Consensus, HardState, NodeId, Persist, Position};

/// Chance from a seed (splitmix64).
#[derive(Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True `per_mille` times in a thousand.
    pub(crate) fn hits(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        let nth = self.below(of.len() as u64);
        of.get(nth as usize)
    }
}

/// State after some block, as far as this test has any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    pub(crate) position: Position,
    pub(crate) members: Members,
}

/// What a crash leaves.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: HardState,
    pub(crate) log: BTreeMap<u64, Arc<Block>>,
    /// Index and term of the last block that is gone from the log.
    pub(crate) start: (u64, u64),
    /// The newest snapshot; before any, the founding members.
    pub(crate) saved: Saved,
}

impl Disk {
    fn write(&mut self, persist: &Persist) {
        self.write_part(persist, usize::MAX);
    }

    /// Writes the hard state and so many blocks.
    fn write_part(&mut self, persist: &Persist, blocks: usize) {
        if let Some(state) = persist.hard_state {
            self.hard_state = state;
        }
        for block in persist.blocks.iter().take(blocks) {
            let index = block.header().index;
            self.log.split_off(&index);
            if let Some((last, before)) = self.log.last_key_value() {
                assert_eq!(*last + 1, index, "blocks are journalled without a gap");
                assert_eq!(Position::after(before.header()).refuses(block.header()), None);
            }
            self.log.insert(index, Arc::clone(block));
        }
    }
}

struct DiskReader(Arc<Mutex<Disk>>);

impl OldBlocks for DiskReader {
    fn read(&self, from: u64, max_bytes: usize) -> Result<Vec<Arc<Block>>, Compacted> {
        let disk = self.0.lock().expect("no test thread panicked");
        let mut bytes = 0;
        let blocks: Vec<_> = disk
            .log
            .range(from..)
            .map(|(_, block)| Arc::clone(block))
            .take_while(|block| {
                let first = bytes == 0;
                bytes += block.bytes().len();
                first || bytes <= max_bytes
            })
            .collect();
        match blocks.first() {
            Some(first) if first.header().index == from => Ok(blocks),
            _ => Err(Compacted),
        }
    }
}

type Sent = Arc<Mutex<Vec<(NodeId, PeerMessage)>>>;

struct Letters(Sent);

impl Outbox for Letters {
    fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.0.lock().expect("no test thread panicked").push((to, message));
    }
}

pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) disk: Arc<Mutex<Disk>>,
    pub(crate) core: Option<RaftCore>,
    sent: Sent,
    unwritten: VecDeque<Persist>,
    to_apply: VecDeque<Arc<Block>>,
    /// What its matcher has come to.
    pub(crate) applied: Saved,
    handed_out: u64,
    boots: u64,
    snapshot_on_its_way: Option<Transfer>,
    pub(crate) down_until: u64,
}

#[derive(Clone, Debug)]
struct Transfer {
    from: NodeId,
    saved: Saved,
    arrives: u64,
}

struct Letter {
    arrives: u64,
    bytes: Vec<u8>,
}

/// How bad the world is; every rate is per thousand and step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather {
    pub(crate) drop: u64,
    pub(crate) delay: u64,
    pub(crate) crash: u64,
    pub(crate) cut: u64,
    pub(crate) heal: u64,
    pub(crate) sync: u64,
    pub(crate) apply: u64,
    pub(crate) propose: u64,
    pub(crate) snapshot: u64,
    pub(crate) transfer: u64,
    pub(crate) change: u64,
    pub(crate) slow_clock: u64,
}

impl Weather {
    /// Every seed has its own.
    pub(crate) fn of(chance: &mut Chance) -> Self {
        let mut rate = |most: u64| if chance.hits(300) { 0 } else { chance.below(most) + 1 };
        Self {
            drop: rate(100),
            delay: rate(30),
            crash: rate(6),
            cut: rate(8),
            heal: rate(30) + 5,
            sync: 100 + rate(900),
            apply: 100 + rate(900),
            propose: 50 + rate(600),
            snapshot: rate(10),
            transfer: rate(5),
            change: rate(12),
            slow_clock: rate(300),
        }
    }

    pub(crate) fn fair() -> Self {
        Self { delay: 3, sync: 600, apply: 600, propose: 300, ..Self::default() }
    }
}

/// What happened in a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) committed: u64,
    pub(crate) acked: u64,
    pub(crate) crashes: u64,
    pub(crate) unsynced_lost: u64,
    pub(crate) terms: u64,
    pub(crate) changes: u64,
    pub(crate) transfers: u64,
    pub(crate) snapshots_installed: u64,
    pub(crate) messages: u64,
    pub(crate) fingerprint: u64,
}

pub(crate) struct Cluster {
    pub(crate) seed: u64,
    pub(crate) chance: Chance,
    pub(crate) weather: Weather,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    links: BTreeMap<(NodeId, NodeId), VecDeque<Letter>>,
    cut: BTreeMap<(NodeId, NodeId), ()>,
    /// Chain value after every index that was ever committed, and the term of its block.
    pub(crate) history: BTreeMap<u64, (u64, u64)>,
    /// Blocks whose proposer was told.
    acked: BTreeMap<u64, u64>,
    proposed: BTreeMap<(u64, u64), NodeId>,
    pub(crate) now: u64,
    commands: u64,
    next_node: NodeId,
    pub(crate) tally: Tally,
}

pub(crate) fn addresses(node: NodeId) -> Addresses {
    Addresses { peer: format!("node-{node}:7000"), orders: format!("node-{node}:7001") }
}

impl Cluster {
    pub(crate) fn new(seed: u64, voters: u64, weather: Weather) -> Self {
        let mut made = Self {
            seed,
            chance: Chance::new(seed),
            weather,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            cut: BTreeMap::new(),
            history: BTreeMap::new(),
            acked: BTreeMap::new(),
            proposed: BTreeMap::new(),
            now: 0,
            commands: 0,
            next_node: voters + 1,
            tally: Tally::default(),
        };
        let members =
            Members::founding((1..=voters).map(|id| (id, addresses(id)))).expect("founding members");
        for id in 1..=voters {
            made.add_node(id, members.clone());
        }
        made
    }

    fn add_node(&mut self, id: NodeId, members: Members) {
        let saved = Saved { position: Position::default(), members };
        let disk = Disk { saved: saved.clone(), ..Disk::default() };
        let node = Node {
            id,
            disk: Arc::new(Mutex::new(disk)),
            core: None,
            sent: Sent::default(),
            unwritten: VecDeque::new(),
            to_apply: VecDeque::new(),
            applied: saved,
            handed_out: 0,
            boots: 0,
            snapshot_on_its_way: None,
            down_until: 0,
        };
        self.nodes.insert(id, node);
        self.boot(id);
    }

    fn fail(&self, what: &str) -> ! {
        let mut state = String::new();
        for node in self.nodes.values() {
            let _ = match &node.core {
                Some(core) => writeln!(state, "  {:?}", core.status()),
                None => writeln!(state, "  node {} is down", node.id),
            };
        }
        panic!("seed {}, step {}: {what}\n{state}", self.seed, self.now);
    }

    /// Starts a node from its disk: newest snapshot, then the log as far as it is known to be committed; the rest is raft's.
    pub(crate) fn boot(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        node.boots += 1;
        let recovery = {
            let disk = node.disk.lock().expect("no test thread panicked");
            let mut applied = disk.saved.clone();
            let mut tail = Vec::new();
            for block in disk.log.values() {
                let header = block.header();
                if header.index <= disk.saved.position.index {
                    continue;
                }
                if header.index <= disk.hard_state.commit {
                    apply(&mut applied, block);
                } else {
                    tail.push(Arc::clone(block));
                }
            }
            node.applied = applied;
            let position = disk.saved.position;
            Recovery {
                hard_state: disk.hard_state,
                applied: node.applied.position,
                members: node.applied.members.clone(),
                tail,
                old: Some(Box::new(DiskReader(Arc::clone(&node.disk)))),
                log_start: disk.start,
                snapshot: (position.index > 0).then_some((position.index, position.term)),
            }
        };
        node.handed_out = node.applied.position.index;
        let config = CoreConfig { window_bytes: 2_000, ..CoreConfig::new(id, self.seed ^ node.boots << 32) };
        node.sent.lock().expect("no test thread panicked").clear();
        let core = RaftCore::new(&config, recovery, Box::new(Letters(Arc::clone(&node.sent))));
        node.core =
            Some(core.unwrap_or_else(|error| panic!("seed {}: node {id} starts: {error}", self.seed)));
        let (index, chain) = (node.applied.position.index, node.applied.position.chain);
        if index > 0 && self.history.get(&index).is_none_or(|(known, _)| *known != chain) {
            self.fail(&format!("node {id} recovered block {index} as committed, which it is not"));
        }
        // Its connections are new ones: what was under way on the old is gone.
        self.links.retain(|(from, to), _| *from != id && *to != id);
        self.pump(id);
    }

    /// The process dies: of what was not synced, a part may have reached the disk.
    pub(crate) fn crash(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        node.core = None;
        node.to_apply.clear();
        node.snapshot_on_its_way = None;
        let survive = self.chance.below(node.unwritten.len() as u64 + 1) as usize;
        // A journal may write each hard state ahead of its blocks, or the newest one behind all blocks of a group.
        let state_last = self.chance.hits(500);
        let mut disk = node.disk.lock().expect("no test thread panicked");
        for (nth, mut persist) in node.unwritten.drain(..).enumerate() {
            if state_last {
                persist.hard_state = None;
            }
            if nth < survive {
                disk.write(&persist);
                continue;
            }
            if nth == survive && self.chance.hits(500) {
                let blocks = self.chance.below(persist.blocks.len() as u64 + 1) as usize;
                disk.write_part(&persist, blocks);
            }
            self.tally.unsynced_lost += 1;
        }
        drop(disk);
        self.tally.crashes += 1;
        self.links.retain(|(_, to), _| *to != id);
    }

    /// Carries out what the core wants: the disk's queue, the matcher's, the links.
    pub(crate) fn pump(&mut self, id: NodeId) {
        loop {
            let node = self.nodes.get_mut(&id).expect("a node of this cluster");
            let Some(core) = &mut node.core else { return };
            // As in production, nothing is asked of the core while a queue is full.
            if node.unwritten.len() > 8 || node.to_apply.len() > 64 {
                break;
            }
            let Some(ready) = core.ready() else { break };
            node.unwritten.extend(ready.persist);
            node.to_apply.extend(ready.committed.iter().map(Arc::clone));
            for block in &ready.committed {
                self.check_committed(id, block);
            }
        }
        self.post(id);
    }

    fn check_committed(&mut self, id: NodeId, block: &Arc<Block>) {
        let (index, term, chain) = (block.header().index, block.header().term, block.header().next_chain());
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        let in_order = node.handed_out + 1 == index;
        node.handed_out = index;
        let durable = node
            .disk
            .lock()
            .expect("no test thread panicked")
            .log
            .get(&index)
            .is_some_and(|own| own.header().next_chain() == chain);
        if !in_order {
            self.fail(&format!("node {id} hands out block {index} out of order"));
        }
        if !durable {
            self.fail(&format!("node {id} hands out block {index}, which is not on its disk"));
        }
        match self.history.get(&index) {
            None => {
                let gap = self.history.last_key_value().map_or(0, |(last, _)| *last) + 1 != index;
                if gap {
                    self.fail(&format!("block {index} is committed before the one ahead of it"));
                }
                self.history.insert(index, (chain, term));
                self.tally.committed += 1;
            }
            Some((known, _)) if *known != chain => {
                self.fail(&format!("node {id} has another block {index} than was committed before"))
            }
            Some(_) => {}
        }
        if self.proposed.get(&(index, term)) == Some(&id) {
            self.acked.insert(index, chain);
            self.tally.acked += 1;
        }
        self.tally.fingerprint = self.tally.fingerprint.rotate_left(7) ^ chain ^ id;
    }

    /// Takes what the core sent and puts it on the links, unless it may not be said yet.
    fn post(&mut self, id: NodeId) {
        let letters = {
            let node = &self.nodes[&id];
            std::mem::take(&mut *node.sent.lock().expect("no test thread panicked"))
        };
        for (to, message) in letters {
            self.check_said(id, to, &message);
            self.tally.messages += 1;
            let lost = self.chance.hits(self.weather.drop) || self.cut.contains_key(&(id, to));
            let known = self.nodes.get(&to).is_some_and(|node| node.core.is_some());
            if lost || !known {
                if message.snapshot().is_some() && self.chance.hits(500) {
                    self.core(id, |core| core.report_snapshot(to, false));
                } else if self.chance.hits(100) {
                    self.core(id, |core| core.report_unreachable(to));
                }
                continue;
            }
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            assert_eq!(bytes.len(), message.encoded_len());
            assert_eq!(PeerMessage::decode(&Bytes::from(bytes.clone())).as_ref(), Ok(&message));
            let link = self.links.entry((id, to)).or_default();
            let earliest = link.back().map_or(0, |letter| letter.arrives);
            let late = if self.weather.delay > 0 { self.chance.below(self.weather.delay) } else { 0 };
            link.push_back(Letter { arrives: earliest.max(self.now + 1 + late), bytes });
        }
    }

    /// Nobody may say what a crash could make him forget.
    fn check_said(&self, id: NodeId, to: NodeId, message: &PeerMessage) {
        let node = &self.nodes[&id];
        let disk = node.disk.lock().expect("no test thread panicked");
        let term = message.term();
        let future = matches!(message.kind(), MessageKind::PreVote | MessageKind::PreVoteReply);
        let wrong = if !future && disk.hard_state.term < term {
            Some("in a term that is not on its disk")
        } else if message.kind() == MessageKind::Vote
            && disk.hard_state.term == term
            && disk.hard_state.vote != id
        {
            Some("although its vote for itself is not on its disk")
        } else if message.kind() == MessageKind::AppendReply
            && disk.hard_state.term == term
            && durable(&disk) < acknowledged(message)
        {
            // In an earlier term it was true when it became durable; a later leader has replaced it since.
            Some("for blocks that are not on its disk")
        } else {
            None
        };
        drop(disk);
        if let Some(why) = wrong {
            self.fail(&format!("node {id} sends {:?} to {to} {why}", message.kind()));
        }
    }

    /// Tells a running node's core something.
    pub(crate) fn core<R>(&mut self, id: NodeId, tell: impl FnOnce(&mut RaftCore) -> R) -> Option<R> {
        let node = self.nodes.get_mut(&id)?;
        node.core.as_mut().map(tell)
    }

    pub(crate) fn deliver(&mut self) {
        let due: Vec<(NodeId, NodeId)> = self.links.keys().copied().collect();
        for (from, to) in due {
            let now = self.now;
            let next = |link: &mut VecDeque<Letter>| link.pop_front_if(|letter| letter.arrives <= now);
            while let Some(letter) = self.links.get_mut(&(from, to)).and_then(next) {
                if self.cut.contains_key(&(from, to)) {
                    continue;
                }
                self.take_letter(from, to, letter);
            }
        }
    }

    fn take_letter(&mut self, from: NodeId, to: NodeId, letter: Letter) {
        let message = PeerMessage::decode(&Bytes::from(letter.bytes)).expect("what a node sent decodes");
        let Some(received) = self.core(to, |core| core.receive(from, &message)) else { return };
        match received {
            Received::Taken | Received::Ignored(_) => {}
            Received::SnapshotWanted { from, index, term } => self.start_transfer(from, to, index, term),
            Received::Stop(why) => self.fail(&format!("node {to} stops: {why}")),
        }
        self.pump(to);
    }

    fn start_transfer(&mut self, from: NodeId, to: NodeId, index: u64, _term: u64) {
        let saved = self
            .nodes
            .get(&from)
            .map(|node| node.disk.lock().expect("no test thread panicked").saved.clone());
        let saved = saved.filter(|saved| saved.position.index == index);
        let arrives = self.now + 1 + self.chance.below(60);
        let node = self.nodes.get_mut(&to).expect("a node of this cluster");
        match saved {
            Some(saved) if node.snapshot_on_its_way.is_none() => {
                node.snapshot_on_its_way = Some(Transfer { from, saved, arrives });
            }
            // Announced again while it is on its way: nothing new.
            Some(_) => {}
            // The leader has a newer one by now: it is told that this one failed, and sends that.
            None => {
                self.core(from, |core| core.report_snapshot(to, false));
                self.pump(from);
            }
        }
    }

    fn finish_transfers(&mut self) {
        for id in self.ids() {
            let node = self.nodes.get_mut(&id).expect("a node of this cluster");
            let arrived = node.snapshot_on_its_way.take_if(|transfer| transfer.arrives <= self.now);
            let Some(Transfer { from, saved, .. }) = arrived else { continue };
            let lost = self.cut.contains_key(&(from, id)) || self.chance.hits(self.weather.drop);
            let position = saved.position;
            let install = !lost
                && self.core(id, |core| core.begin_install(position.index, position.term)).unwrap_or(false);
            if install {
                let node = self.nodes.get_mut(&id).expect("a node of this cluster");
                {
                    let mut disk = node.disk.lock().expect("no test thread panicked");
                    node.unwritten.drain(..).for_each(|persist| disk.write(&persist));
                    disk.log.clear();
                    disk.start = (position.index, position.term);
                    disk.hard_state.commit = disk.hard_state.commit.max(position.index);
                    disk.saved = saved;
                }
                node.to_apply.clear();
                node.core = None;
                self.tally.snapshots_installed += 1;
                self.boot(id);
            }
            self.core(from, |core| core.report_snapshot(id, install));
            self.pump(from);
        }
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn sync(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        let group = self.chance.below(node.unwritten.len() as u64 + 1) as usize;
        let Some(core) = &mut node.core else { return };
        let mut ticket = None;
        for persist in node.unwritten.drain(..group) {
            node.disk.lock().expect("no test thread panicked").write(&persist);
            ticket = Some(persist.ticket);
        }
        if let Some(ticket) = ticket {
            core.persisted(ticket);
        }
        self.pump(id);
    }

    pub(crate) fn apply_some(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        let count = self.chance.below(node.to_apply.len() as u64 + 1) as usize;
        let Some(core) = &mut node.core else { return };
        for block in node.to_apply.drain(..count) {
            apply(&mut node.applied, &block);
            if block.header().kind == BlockKind::ConfChange {
                self.tally.changes += 1;
            }
        }
        if count > 0 {
            core.applied(node.applied.position.index);
        }
        self.pump(id);
    }

    pub(crate) fn propose(&mut self, id: NodeId) {
        let blocks = 1 + self.chance.below(3);
        for _ in 0..blocks {
            let Some(Some((before, term))) = self.core(id, |core| core.lead()) else { break };
            self.commands += 1;
            let mut payload = 8_u32.to_le_bytes().to_vec();
            payload.extend_from_slice(&self.commands.to_le_bytes());
            let at = Nanos(before.at.0.max(self.now));
            let block = Arc::new(Block::entry(&before, term, at, 1, &payload));
            self.proposed.insert((block.header().index, term), id);
            self.core(id, |core| core.propose(block));
        }
        self.pump(id);
    }

    /// Adds a node with an empty disk and starts it.
    pub(crate) fn add_member(&mut self, leader: NodeId, learner: bool) -> NodeId {
        let node = self.next_node;
        let change = if learner {
            MemberChange::AddLearner { node, addresses: addresses(node) }
        } else {
            MemberChange::AddVoter { node, addresses: addresses(node) }
        };
        let done = self.core(leader, |core| core.change_members(&change));
        assert!(matches!(done, Some(Ok(_))), "{done:?}");
        self.next_node += 1;
        self.add_node(node, Members::default());
        self.pump(leader);
        node
    }

    /// Saves the machine and lets all of the log go that the snapshot stands for.
    pub(crate) fn save_and_compact(&mut self, id: NodeId) {
        self.save_keeping(id, Some(0));
    }

    /// Saves the machine and lets some of the log go, as a background replica would.
    fn save(&mut self, id: NodeId) {
        let keep = if self.chance.hits(500) { Some(self.chance.below(20)) } else { None };
        self.save_keeping(id, keep);
    }

    fn save_keeping(&mut self, id: NodeId, keep: Option<u64>) {
        let node = self.nodes.get_mut(&id).expect("a node of this cluster");
        let Some(core) = &mut node.core else { return };
        let position = node.applied.position;
        {
            let mut disk = node.disk.lock().expect("no test thread panicked");
            if position.index <= disk.saved.position.index {
                return;
            }
            disk.saved = node.applied.clone();
        }
        core.snapshot_taken(position.index, position.term);
        if let Some(keep) = keep {
            let up_to = core.compact(position.index.saturating_sub(keep));
            let mut disk = node.disk.lock().expect("no test thread panicked");
            if up_to > disk.start.0 {
                let term = disk.log[&up_to].header().term;
                disk.start = (up_to, term);
                disk.log = disk.log.split_off(&(up_to + 1));
            }
        }
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| node.core.as_ref().is_some_and(|core| core.leadership().leads);
        let term = |node: &Node| node.core.as_ref().map(|core| core.leadership().term);
        self.nodes.values().filter(leads).max_by_key(|node| term(node)).map(|node| node.id)
    }

    fn change_members(&mut self) {
        let Some(leader) = self.leader() else { return };
        let members =
            self.nodes[&leader].core.as_ref().map(|core| core.members().clone()).unwrap_or_default();
        let learners: Vec<_> =
            members.iter().filter(|(_, member)| member.learner).map(|(id, _)| id).collect();
        let all: Vec<_> = members.iter().map(|(id, _)| id).collect();
        let grown = members.iter().count();
        let change = match self.chance.below(4) {
            0 | 1 if grown < 7 && self.next_node < 12 => {
                let node = self.next_node;
                if self.chance.hits(300) {
                    MemberChange::AddVoter { node, addresses: addresses(node) }
                } else {
                    MemberChange::AddLearner { node, addresses: addresses(node) }
                }
            }
            2 => match self.chance.pick(&learners) {
                Some(node) => MemberChange::Promote { node: *node },
                None => return,
            },
            // Never so few that two crashes end it for the test's whole run.
            _ if members.voters().count() > 3 || !learners.is_empty() => match self.chance.pick(&all) {
                Some(node) => MemberChange::Remove { node: *node },
                None => return,
            },
            _ => return,
        };
        match self.core(leader, |core| core.change_members(&change)) {
            Some(Ok(_)) => {
                if let MemberChange::AddVoter { node, .. } | MemberChange::AddLearner { node, .. } = change {
                    self.next_node += 1;
                    self.add_node(node, Members::default());
                }
            }
            Some(Err(ChangeRefused::Invalid)) => {
                self.fail("a change that makes sense was refused as invalid")
            }
            _ => {}
        }
        self.pump(leader);
    }

    /// One step of the world.
    pub(crate) fn step(&mut self) {
        self.now += 1;
        let weather = self.weather.clone();
        for id in self.ids() {
            let node = &self.nodes[&id];
            if node.core.is_none() {
                if node.down_until <= self.now {
                    self.boot(id);
                }
                continue;
            }
            if self.now % 10 == id % 10 && !self.chance.hits(weather.slow_clock) {
                self.core(id, |core| core.tick());
                self.pump(id);
            }
            if self.chance.hits(weather.sync) {
                self.sync(id);
            }
            if self.chance.hits(weather.apply) {
                self.apply_some(id);
            }
            if self.chance.hits(weather.propose) {
                self.propose(id);
            }
            if self.chance.hits(weather.snapshot) {
                self.save(id);
            }
            if self.chance.hits(weather.crash) && self.nodes[&id].core.is_some() {
                self.crash(id);
                let down = self.chance.below(400);
                self.nodes.get_mut(&id).expect("a node of this cluster").down_until = self.now + down;
            }
        }
        self.deliver();
        self.finish_transfers();
        if self.chance.hits(weather.cut) {
            self.partition();
        }
        if self.chance.hits(weather.heal) {
            self.cut.clear();
        }
        if self.chance.hits(weather.transfer)
            && let Some(leader) = self.leader()
        {
            let ids = self.ids();
            let to = *self.chance.pick(&ids).expect("a cluster has nodes");
            if self.core(leader, |core| core.transfer_leadership(to)).is_some_and(|done| done.is_ok()) {
                self.tally.transfers += 1;
            }
            self.pump(leader);
        }
        if self.chance.hits(weather.change) {
            self.change_members();
        }
    }

    fn partition(&mut self) {
        let ids = self.ids();
        let one_way = self.chance.hits(400);
        let side: Vec<bool> = ids.iter().map(|_| self.chance.hits(500)).collect();
        for (from, from_side) in ids.iter().zip(&side) {
            for (to, to_side) in ids.iter().zip(&side) {
                if from_side != to_side && (!one_way || *from_side) {
                    self.cut.insert((*from, *to), ());
                }
            }
        }
    }

    pub(crate) fn cut_off(&mut self, id: NodeId) {
        for other in self.ids() {
            if other != id {
                self.cut.insert((id, other), ());
                self.cut.insert((other, id), ());
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// The faults end: within bounds there must be one leader that commits new blocks, and every member must come to the same.
    pub(crate) fn heal_and_converge(&mut self) {
        self.weather = Weather::fair();
        self.cut.clear();
        for _ in 0..40 {
            for _ in 0..500 {
                self.step();
            }
            self.weather.propose = 0;
            for _ in 0..500 {
                self.step();
            }
            self.weather.propose = 300;
            if self.converged() {
                self.check_end();
                return;
            }
        }
        self.fail("the cluster did not converge after the faults had ended");
    }

    fn converged(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let core = self.nodes[&leader].core.as_ref().expect("a leader runs");
        let (members, end) = (core.members(), self.nodes[&leader].applied.position);
        let last = self.history.last_key_value().map_or(0, |(last, _)| *last);
        let status = core.status();
        end.index == last
            && status.last == last
            && !members.is_joint()
            && self.history[&last].1 == status.term
            && members.iter().all(|(id, _)| {
                self.nodes.get(&id).is_some_and(|node| node.core.is_some() && node.applied.position == end)
            })
    }

    fn check_end(&mut self) {
        let leader = self.leader().expect("it converged");
        let members = self.nodes[&leader].applied.members.clone();
        for (id, _) in members.iter() {
            if self.nodes[&id].applied.members != members {
                self.fail(&format!("node {id} knows other members"));
            }
        }
        for (index, chain) in &self.acked {
            if self.history.get(index).is_none_or(|(known, _)| known != chain) {
                self.fail(&format!("acked block {index} is lost"));
            }
        }
        self.tally.terms = self.nodes[&leader].core.as_ref().map_or(0, |core| core.leadership().term);
    }

    /// Steps until `found`, at most `limit` times; false if it is not found.
    pub(crate) fn run_until(&mut self, limit: u64, found: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..limit {
            if found(self) {
                return true;
            }
            self.step();
        }
        found(self)
    }
}

/// The last index on a disk.
fn durable(disk: &Disk) -> u64 {
    disk.log.last_key_value().map_or(disk.start.0, |(index, _)| *index)
}

/// What an answer to an append claims to have, as its bytes say; 0 for a rejection.
fn acknowledged(message: &PeerMessage) -> u64 {
    let head = message.encode_head();
    let rejected = head[2] & 1 != 0;
    if rejected { 0 } else { u64::from_le_bytes(head[16..24].try_into().expect("eight bytes")) }
}

fn apply(saved: &mut Saved, block: &Block) {
    assert_eq!(saved.position.refuses(block.header()), None, "committed blocks follow on each other");
    saved.position = Position::after(block.header());
    if block.header().kind == BlockKind::ConfChange {
        saved.members.apply(block.payload()).expect("a committed change of members applies");
    }
}
