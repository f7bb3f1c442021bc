//! Clusters in process, for measuring: whole nodes, each with a directory of its own, linked over loopback as they are over a network.

use std::collections::VecDeque;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grid_engine::command::Entry;
use grid_engine::{Engine, Seq};
use grid_engine_benches::market::Market;
use grid_orders::to_be_hosted;
use grid_replicator::core::{Addresses, Members};
use grid_replicator::links::{Authority, Limits, Tls};
use grid_replicator::{ClusterConfig, LinkSettings, Node, NodeConfig};
use grid_sequencer::{
    Config as SequencerConfig, Durability, Hosted, JournalConfig, NodeId, Output, OutputPoller, Polled, Step,
    Stopped, SubmitError, Submitter, ThreadLayout,
};

use grid_harness::Ground;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The benches' own output.
const OUTPUT: &str = "bench";
/// Longest sleep of one who waits for something to be told; a wake-up ends it earlier.
const NAP: Duration = Duration::from_millis(1);

/// The mix from its first command, `commands` of them beyond those that open the market.
#[must_use]
pub fn entries(commands: u64) -> VecDeque<Entry> {
    let mut market = Market::open();
    let mut entries = VecDeque::from(market.take_tape());
    entries.extend((0..commands).map(|_| market.next()));
    entries
}

/// Stages of the leader's in the hands of this thread.
struct Host {
    hosted: Hosted,
    /// The term in which commands are handed in.
    epoch: u64,
}

impl Host {
    /// Steps them, or sleeps until they have something to do.
    fn go_on(&mut self) {
        if self.hosted.turn() == Step::Idle {
            let limit = self.hosted.doze(Some(NAP)).unwrap_or(NAP);
            if !limit.is_zero() {
                std::thread::park_timeout(limit);
            }
            self.hosted.rouse();
        }
    }
}

/// Nodes that run, and the leader's way in and out.
pub struct Cluster {
    nodes: Vec<Node<Engine>>,
    dirs: Vec<PathBuf>,
    submitter: Submitter<Engine>,
    outputs: OutputPoller<Engine>,
    batch: Vec<Arc<Output<Engine>>>,
    /// The last command that the leader has told.
    told: Seq,
    leader: usize,
    host: Option<Host>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// How the nodes of a cluster are configured, one like the other.
pub(crate) struct Plan {
    /// Where each node's links listen; one node has none.
    pub(crate) peers: Vec<SocketAddr>,
    /// Where each node takes orders, if it does.
    pub(crate) orders: Vec<SocketAddr>,
    pub(crate) durability: Durability,
}

/// What elections are measured against.
pub(crate) struct Timing {
    pub(crate) election_min: Duration,
    pub(crate) election_max: Duration,
    pub(crate) heartbeat: Duration,
}

impl Plan {
    fn founding(&self) -> Result<Members, Box<dyn Error>> {
        let member = |(nth, peer): (usize, &SocketAddr)| {
            let orders = self.orders.get(nth).map(ToString::to_string).unwrap_or_default();
            (nth as NodeId + 1, Addresses { peer: peer.to_string(), orders })
        };
        Ok(Members::founding(self.peers.iter().enumerate().map(member))?)
    }

    /// The configuration of one node.
    pub(crate) fn node(
        &self,
        node: NodeId,
        data_dir: PathBuf,
        tls: Tls,
        outputs: &[&str],
    ) -> Result<NodeConfig, Box<dyn Error>> {
        let mut cluster = ClusterConfig::new(1, node, self.founding()?);
        if self.peers.len() > 1 {
            let listen = self.peers[node as usize - 1];
            cluster.links = Some(LinkSettings { listen, advertise: None, tls, limits: Limits::default() });
        }
        Ok(NodeConfig {
            data_dir,
            journal: JournalConfig { durability: self.durability, ..JournalConfig::default() },
            sequencer: SequencerConfig::new(outputs),
            snapshot_every: u64::MAX,
            cluster,
        })
    }

    /// The settings of every plan.
    pub(crate) fn timing() -> Timing {
        let cluster = ClusterConfig::alone();
        let tick = SequencerConfig::new(&[]).core_tick;
        let election_min = tick * cluster.election_ticks as u32;
        Timing {
            election_min,
            election_max: 2 * election_min,
            heartbeat: tick * cluster.heartbeat_ticks as u32,
        }
    }
}

impl Cluster {
    /// Starts `nodes` nodes with mutual TLS between them and waits for a leader.
    ///
    /// # Errors
    /// A node did not start, or none came to lead.
    pub fn start(
        ground: &Ground,
        name: &str,
        nodes: usize,
        durability: Durability,
    ) -> Result<Self, Box<dyn Error>> {
        let plan = Plan { peers: grid_ports::addresses(nodes)?, orders: Vec::new(), durability };
        let authority = Authority::make()?;
        let dirs: Vec<_> = (1..=nodes).map(|node| ground.at(&format!("{name}-{node}"))).collect();
        let mut running = Vec::new();
        for (nth, dir) in dirs.iter().enumerate() {
            let node = nth as NodeId + 1;
            let tls = Tls::Mutual(authority.issue_node(node)?);
            running.push(Node::start(plan.node(node, dir.clone(), tls, &[OUTPUT])?, Engine::new, |_| {})?);
        }
        let begin = Instant::now();
        let leader = loop {
            if let Some(leader) = running.iter().position(|node| node.leadership().epoch().is_some()) {
                break leader;
            }
            if begin.elapsed() > PATIENCE {
                return Err("no node came to lead".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let outputs = running[leader].take_output(OUTPUT).ok_or("the output is configured")?;
        // Followers' outputs are nobody's business here: dropped, the ring goes on without a reader.
        for node in &mut running {
            drop(node.take_output(OUTPUT));
        }
        let submitter = running[leader].submitter();
        let batch = Vec::new();
        Ok(Self { nodes: running, dirs, submitter, outputs, batch, told: Seq(0), leader, host: None })
    }

    /// From now on the calling thread steps the leader's stages itself, as an order gateway's thread does with this layout, if it does:
    /// nothing is sequenced or matched but in [`Cluster::commit`] and [`Cluster::take_told`].
    ///
    /// # Errors
    /// The leader leads no longer.
    pub fn host(&mut self) -> Result<(), Box<dyn Error>> {
        let leader = &self.nodes[self.leader];
        let epoch = leader.leadership().epoch().ok_or("the leader leads no longer")?;
        let lender = leader.lender().filter(|_| to_be_hosted(&ThreadLayout::auto()).is_some());
        let here = std::thread::current();
        let hosted = lender.and_then(|lender| lender.lend(Arc::new(move || here.unpark())));
        self.host = hosted.map(|hosted| Host { hosted, epoch });
        Ok(())
    }

    /// The leader's own thread steps them again.
    pub fn give_back(&mut self) {
        self.host = None;
    }

    /// The data directory of a node, counted from 0.
    #[must_use]
    pub fn data_dir(&self, node: usize) -> PathBuf {
        self.dirs[node].clone()
    }

    /// Hands a command to the leader; gives it back if its ring is full.
    ///
    /// # Errors
    /// The leader does not take commands any more.
    pub fn try_submit(&mut self, entry: Entry) -> Result<Option<Entry>, Box<dyn Error>> {
        let submitted = match &mut self.host {
            Some(host) => host.hosted.submit(&mut self.submitter, entry, host.epoch),
            None => self.submitter.try_submit(entry),
        };
        match submitted {
            Ok(()) => Ok(None),
            Err(SubmitError::Full(entry)) => Ok(Some(entry)),
            Err(refused) => Err(refused.to_string().into()),
        }
    }

    /// Takes what the leader has told and gives each block to `see`; waits for something if there is nothing.
    ///
    /// # Errors
    /// The leader ended.
    pub fn take_told(&mut self, mut see: impl FnMut(&Output<Engine>)) -> Result<(), Box<dyn Error>> {
        match self.outputs.poll(64, &mut self.batch) {
            Polled::Some(_) => {
                for output in self.batch.drain(..) {
                    self.told = output.block.last_seq();
                    see(&output);
                }
            }
            Polled::Empty => match &mut self.host {
                Some(host) => host.go_on(),
                None => self.outputs.wait(NAP),
            },
            Polled::Closed => return Err("the leader ended".into()),
        }
        Ok(())
    }

    /// Hands one command in and waits until it is told; how long that took.
    ///
    /// # Errors
    /// The leader ended, or its ring is full, which that of an idle one is not.
    pub fn commit(&mut self, entry: Entry) -> Result<Duration, Box<dyn Error>> {
        let begin = Instant::now();
        if self.try_submit(entry)?.is_some() {
            return Err("an idle ring has room".into());
        }
        let mut told = false;
        while !told {
            self.take_told(|output| told |= output.block.commands().len() > 0)?;
        }
        Ok(begin.elapsed())
    }

    /// Waits until every node's replica has what the leader has told, so that nobody still works when the next thing is measured.
    ///
    /// # Errors
    /// A node does not get there.
    pub fn settle(&self) -> Result<(), Box<dyn Error>> {
        for node in &self.nodes {
            node.replica().wait_for_blocking(self.told, PATIENCE)?;
        }
        Ok(())
    }

    /// Waits until all nodes stand at the same place, at what the leader has told last or later, and compares what they came to there;
    /// where that is.
    ///
    /// It is asked of nodes that run: one that stops before the others goes no further, while they may have another leader, and with
    /// that its first block.
    ///
    /// # Errors
    /// A node does not get there, or two came to different states.
    pub fn agree(&self) -> Result<Seq, Box<dyn Error>> {
        let begin = Instant::now();
        loop {
            let mut states = Vec::new();
            for node in &self.nodes {
                node.replica().wait_for_blocking(self.told, PATIENCE)?;
                states.push(node.replica().read_at(|engine, position| (position, engine.state_hash())));
            }
            let (first, _) = states[0];
            if states.iter().all(|(position, _)| *position == first) {
                return match states.iter().all(|state| *state == states[0]) {
                    true => Ok(first.seq),
                    false => Err(format!("the nodes came to different states: {states:x?}").into()),
                };
            }
            // The timer gave the log a block between two of the looks.
            if begin.elapsed() > PATIENCE {
                return Err(format!("the nodes do not come to the same place: {states:x?}").into());
            }
        }
    }

    /// Ends all nodes in good order.
    #[must_use]
    pub fn stop(self) -> Vec<Stopped<Engine>> {
        let Self { nodes, outputs, submitter, host, .. } = self;
        drop((host, outputs, submitter));
        nodes.into_iter().map(Node::shutdown).collect()
    }
}

/// Submits everything as fast as the leader takes it, and waits until the last one is told; how long that took.
///
/// # Errors
/// The leader ended.
pub fn submit_all(cluster: &mut Cluster, mut load: VecDeque<Entry>) -> Result<Duration, Box<dyn Error>> {
    let (all, mut told) = (load.len() as u64, 0);
    let begin = Instant::now();
    while told < all {
        // A ring full at a time, so that this thread does not keep the order path from its core.
        for _ in 0..1024 {
            let Some(entry) = load.pop_front() else { break };
            if let Some(entry) = cluster.try_submit(entry)? {
                load.push_front(entry);
                break;
            }
        }
        cluster.take_told(|output| told += output.block.commands().len() as u64)?;
    }
    Ok(begin.elapsed())
}
