//! Several nodes that apply one log, each with an engine and a gateway of its own. Who leads, what is committed and what is
//! lost with a leadership is the test's to say; elections and disks are other crates' matter.

#![allow(dead_code, reason = "the HTTP tiers' tests use it too, each its own part")]

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use grid_engine::{Engine, Entry, Event, Nanos, Seq, State};
use grid_orders::{Config, Gateway, Line, LineError, View, Wake};

use crate::venue::founded;

#[derive(Default)]
struct Log {
    /// What every node applies, in this order.
    committed: Vec<(Nanos, Entry)>,
    /// What the leader took in and nobody has been told of.
    pipeline: Vec<(Nanos, Entry)>,
    /// Nothing is committed by itself.
    held: bool,
    /// Who leads, in which term, and how much of the log it must have applied first.
    leader: Option<(usize, u64, usize)>,
    term: u64,
    now: u64,
    addresses: Vec<SocketAddr>,
    wakes: Vec<Wake>,
}

impl Log {
    fn wake(&self) {
        for wake in &self.wakes {
            wake();
        }
    }
}

pub(crate) struct Node {
    number: usize,
    log: Arc<Mutex<Log>>,
    pub(crate) engine: RwLock<Engine>,
    applied: Mutex<usize>,
    listener: Mutex<Option<Listener>>,
}

/// Hears what each command did, once it is applied.
pub(crate) type Listener = Box<dyn FnMut(Seq, Nanos, Vec<Event>) + Send>;

impl Node {
    /// Has everything told that is applied from now on.
    pub(crate) fn listen(&self, listener: Listener) {
        *self.listener.lock().unwrap() = Some(listener);
    }
}

struct NodeLine(Arc<Node>);

pub(crate) struct Cluster {
    log: Arc<Mutex<Log>>,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) gateways: Vec<Gateway>,
    /// How often [`Cluster::shuffle`] has changed the leader.
    pub(crate) changes: AtomicUsize,
}

impl Cluster {
    /// So many nodes, and none of them leads.
    pub(crate) fn new(nodes: usize, config: &Config) -> Self {
        let log = Arc::new(Mutex::new(Log { now: 1_000_000, ..Log::default() }));
        let nodes: Vec<_> = (0..nodes)
            .map(|number| {
                let (engine, log) = (RwLock::new(founded()), Arc::clone(&log));
                Arc::new(Node { number, log, engine, applied: Mutex::new(0), listener: Mutex::default() })
            })
            .collect();
        let gateways: Vec<_> = nodes
            .iter()
            .map(|node| {
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let line = NodeLine(Arc::clone(node));
                Gateway::start(listener, config.clone(), line, Arc::clone(node)).unwrap()
            })
            .collect();
        log.lock().unwrap().addresses = gateways.iter().map(Gateway::address).collect();
        Self { log, nodes, gateways, changes: AtomicUsize::new(0) }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap()
    }

    pub(crate) fn address(&self, node: usize) -> SocketAddr {
        self.gateways[node].address()
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.log().addresses.clone()
    }

    /// Lets this node lead the next term, on top of what is committed.
    pub(crate) fn elect(&self, node: usize) {
        let mut log = self.log();
        log.term += 1;
        log.pipeline.clear();
        log.leader = Some((node, log.term, log.committed.len()));
        log.wake();
    }

    /// The leader is deposed; of what it took in, only this much is committed after all.
    pub(crate) fn depose(&self, survives: impl Fn(usize) -> usize) {
        let mut log = self.log();
        log.leader = None;
        let count = survives(log.pipeline.len());
        let pipeline = std::mem::take(&mut log.pipeline);
        log.committed.extend(pipeline.into_iter().take(count));
        log.wake();
    }

    /// From now on what the leader takes in stays uncommitted, or no longer does.
    pub(crate) fn hold(&self, held: bool) {
        let mut log = self.log();
        log.held = held;
        log.wake();
    }

    /// Changes the leader, again and again until `done`, whenever some more commands went through: in the middle of
    /// others, of which some, all or none survive.
    pub(crate) fn shuffle(&self, mut seed: u64, done: &AtomicBool) {
        let mut draw = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (seed >> 33) % below
        };
        let mut length = 0;
        while !done.load(Ordering::SeqCst) {
            wait(|| done.load(Ordering::SeqCst) || self.committed_count() > length + 30);
            self.hold(true);
            wait(|| done.load(Ordering::SeqCst) || self.held() > 0);
            let part = draw(3);
            self.depose(|count| count * part as usize / 2);
            self.hold(false);
            if draw(2) == 0 {
                std::thread::yield_now();
            }
            self.elect(draw(self.nodes.len() as u64) as usize);
            length = self.committed_count();
            self.changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many commands wait to be committed.
    pub(crate) fn held(&self) -> usize {
        self.log().pipeline.len()
    }

    /// Moves the log's clock on.
    pub(crate) fn pass(&self, nanos: u64) {
        self.log().now += nanos;
    }

    /// Commits a command of the venue itself.
    pub(crate) fn inject(&self, entry: Entry) {
        let mut log = self.log();
        let at = Nanos(log.now);
        log.committed.push((at, entry));
        log.wake();
    }

    pub(crate) fn committed_count(&self) -> usize {
        self.log().committed.len()
    }

    pub(crate) fn committed(&self) -> Vec<Entry> {
        self.log().committed.iter().map(|(_, entry)| entry.clone()).collect()
    }

    /// Waits until a node's state is as wanted.
    pub(crate) fn until(&self, node: usize, wanted: impl Fn(&State) -> bool) {
        wait(|| wanted(self.nodes[node].engine.read().unwrap().state()));
    }

    pub(crate) fn hash(&self, node: usize) -> u64 {
        self.nodes[node].engine.read().unwrap().state_hash()
    }
}

/// Waits for a condition.
pub(crate) fn wait(mut wanted: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !wanted() {
        assert!(begun.elapsed().as_secs() < 60, "it never came to be as wanted");
        std::thread::yield_now();
    }
}

impl Line for NodeLine {
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError> {
        let mut log = self.0.log.lock().unwrap();
        match log.leader {
            Some((leader, term, _)) if (leader, term) == (self.0.number, epoch) => {}
            _ => return Err(LineError::NotLeader),
        }
        let at = Nanos(log.now);
        log.pipeline.push((at, entry));
        log.wake();
        Ok(())
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &[Event])) -> bool {
        let mut applied = self.0.applied.lock().unwrap();
        let mut log = self.0.log.lock().unwrap();
        if log.leader.is_some_and(|(leader, ..)| leader == self.0.number) && !log.held {
            let pipeline = std::mem::take(&mut log.pipeline);
            log.committed.extend(pipeline);
            log.wake();
        }
        let batch: Vec<_> = log.committed.iter().skip(*applied).take(64).cloned().collect();
        drop(log);
        for (at, entry) in &batch {
            let mut engine = self.0.engine.write().unwrap();
            let seq = Seq(engine.state().seq.0 + 1);
            let mut events = Vec::new();
            engine.apply(seq, *at, entry, &mut events);
            drop(engine);
            each(seq, *at, &events);
            if let Some(listener) = &mut *self.0.listener.lock().unwrap() {
                listener(seq, *at, events);
            }
        }
        *applied += batch.len();
        batch.len() == 64
    }

    fn wake_with(&mut self, wake: Wake) {
        self.0.log.lock().unwrap().wakes.push(wake);
    }

    fn epoch(&self) -> Option<u64> {
        let applied = *self.0.applied.lock().unwrap();
        let log = self.0.log.lock().unwrap();
        let (leader, term, needs) = log.leader?;
        (leader == self.0.number && applied >= needs).then_some(term)
    }

    fn leader_hint(&self) -> Option<SocketAddr> {
        let log = self.0.log.lock().unwrap();
        log.leader.and_then(|(leader, ..)| log.addresses.get(leader).copied())
    }
}

impl View for Node {
    fn read<R>(&self, look: impl FnOnce(&State) -> R) -> R {
        look(self.engine.read().unwrap().state())
    }

    fn applied(&self) -> Seq {
        self.engine.read().unwrap().state().seq
    }
}
