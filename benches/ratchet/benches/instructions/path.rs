//! Nodes whose stages are stepped by hand on one thread: what a block costs from the ring to its output, apart from what the engine does with it.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use grid_engine::command::{Command, Entry};
use grid_engine::{Nanos, Seq};
use grid_engine_benches::streams::{Hot, hot};
use grid_replicator::core::{
    Addresses, Compacted, CoreConfig, Members, OldBlocks, Outbox, PeerMessage, RaftCore, Received, Recovery,
};
use grid_sequencer::{
    Block, Clock, Config, Driver, Handle, Inline, JournalConfig, Machine, NodeId, Output, OutputPoller,
    Polled, Sequencer, Stage, Step, Submitter, ThreadLayout, Unreadable, recover_on,
};

use crate::no_disk::NoDisk;

/// Says one word to every command of the venue's, whatever it is.
#[derive(Debug)]
pub(crate) struct Mute;

impl Machine for Mute {
    type Command = Entry;
    type Event = Seq;

    const FORMAT: u32 = 1;

    fn encode(command: &Entry, out: &mut Vec<u8>) {
        command.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Entry, Unreadable> {
        Entry::decode(bytes).map_err(|error| Unreadable(error.to_string()))
    }

    fn apply(&mut self, seq: Seq, _: Nanos, _: &Entry, out: &mut Vec<Seq>) {
        out.push(seq);
    }

    fn next_deadline(&self) -> Option<Nanos> {
        None
    }

    fn tick() -> Entry {
        Entry::venue(Command::Tick)
    }

    fn snapshot(&self) -> Vec<u8> {
        Vec::new()
    }

    fn restore(_: &[u8]) -> Result<Self, Unreadable> {
        Ok(Self)
    }

    fn state_hash(&self) -> u64 {
        0
    }
}

/// Messages between the nodes: from whom, to whom.
type Post = Arc<Mutex<Vec<(NodeId, NodeId, PeerMessage)>>>;

struct Mail(NodeId, Post);

impl Outbox for Mail {
    fn send(&mut self, to: NodeId, message: PeerMessage) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push((self.0, to, message));
    }
}

/// Nobody is late, so nobody reads what left memory.
struct NobodyAsks;

impl OldBlocks for NobodyAsks {
    fn read(&self, _: u64, _: usize) -> Result<Vec<Arc<Block>>, Compacted> {
        Err(Compacted)
    }
}

struct Node {
    id: NodeId,
    stages: Vec<Box<dyn Stage>>,
    driver: Driver<RaftCore, Entry>,
    submitter: Submitter<Mute>,
    outputs: OutputPoller<Mute>,
    told: Vec<Arc<Output<Mute>>>,
    _handle: Handle<Mute>,
}

impl Node {
    fn new(id: NodeId, members: &Members, post: &Post) -> Self {
        let (disk, journal) = (NoDisk::shared(), JournalConfig::default());
        let recovered = recover_on(disk, Arc::new(Inline), Path::new("/nowhere"), journal, || Mute, |_| {});
        let recovered = recovered.expect("an empty disk is a new node's");
        let alone = members.voters().count() == 1;
        let usual = CoreConfig::new(id, 1);
        let settings = CoreConfig { window_bytes: if alone { 0 } else { usual.window_bytes }, ..usual };
        let recovery = Recovery {
            hard_state: recovered.hard_state,
            applied: recovered.position,
            members: members.clone(),
            old: Some(Box::new(NobodyAsks)),
            ..Recovery::default()
        };
        let core = RaftCore::new(&settings, recovery, Box::new(Mail(id, Arc::clone(post))));
        let config = Config {
            layout: ThreadLayout::fused(0),
            clock: Clock::manual(Nanos(1)),
            ..Config::new(&["bench"])
        };
        let assembly = Sequencer::assemble(recovered, config, core.expect("a sound core"));
        let mut assembly = assembly.expect("a sound configuration");
        let outputs = assembly.handle.take_output("bench").expect("the output is configured");
        assembly.driver.drive(|_| ());
        Self {
            id,
            stages: assembly.stages.into_iter().map(|(_, stage)| stage).collect(),
            driver: assembly.driver,
            submitter: assembly.handle.submitter(),
            outputs,
            told: Vec::with_capacity(64),
            _handle: assembly.handle,
        }
    }

    /// Steps every stage once, as a thread with the layout `fused` does; how many commands were told of.
    fn turn(&mut self) -> (usize, bool) {
        let mut worked = false;
        for stage in &mut self.stages {
            worked |= stage.step() == Step::Worked;
        }
        self.told.clear();
        let told = match self.outputs.poll(64, &mut self.told) {
            Polled::Some(_) => self.told.iter().map(|output| output.events().len()).sum(),
            Polled::Empty | Polled::Closed => 0,
        };
        (told, worked)
    }
}

/// A cluster of one or of three, the first leading, and what is handed in.
pub(crate) struct Nodes {
    nodes: Vec<Node>,
    post: Post,
    carried: Vec<(NodeId, NodeId, PeerMessage)>,
    commands: Vec<Entry>,
    /// Commands in a block.
    block: usize,
}

impl Nodes {
    /// One that is warm, with `blocks` of `block` commands left to be handed in.
    pub(crate) fn warm(nodes: u64, blocks: usize, block: usize) -> Self {
        let members = Members::founding((1..=nodes).map(|id| (id, Addresses::default())));
        let members = members.expect("sound members");
        let post = Post::default();
        let mut entries = hot(Hot::PlaceResting, (2 * blocks * block) as u32).entries;
        entries.reverse();
        let nodes = (1..=nodes).map(|id| Node::new(id, &members, &post)).collect();
        let mut path = Self { nodes, post, carried: Vec::new(), commands: entries, block };
        path.nodes[0].driver.drive(RaftCore::campaign);
        path.settle();
        path.run(blocks);
        path
    }

    /// Steps all nodes until none has anything to do; how many commands the leader told of.
    fn settle(&mut self) -> usize {
        let mut told = 0;
        loop {
            let mut worked = false;
            for nth in 0..self.nodes.len() {
                let (here, did) = self.nodes[nth].turn();
                told += if nth == 0 { here } else { 0 };
                worked |= did;
                worked |= self.carry();
            }
            if !worked || self.nodes.len() == 1 && told > 0 {
                return told;
            }
        }
    }

    fn carry(&mut self) -> bool {
        std::mem::swap(&mut *self.post.lock().unwrap_or_else(PoisonError::into_inner), &mut self.carried);
        let some = !self.carried.is_empty();
        for (from, to, message) in self.carried.drain(..) {
            let node = self.nodes.iter().find(|node| node.id == to).expect("a member");
            let received = node.driver.drive(|core| core.receive(from, &message));
            assert_eq!(received, Received::Taken);
        }
        some
    }

    /// Hands so many blocks in, each when the one before it is told of.
    pub(crate) fn run(&mut self, blocks: usize) {
        for _ in 0..blocks {
            for _ in 0..self.block {
                let command = self.commands.pop().expect("enough were made");
                self.nodes[0].submitter.try_submit(command).expect("the ring has room");
            }
            assert_eq!(self.settle(), self.block, "each command is told of");
        }
    }
}
