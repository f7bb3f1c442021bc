//! How long a venue of three nodes is away when its leader is killed. Every node is a process with an order gateway, and the leader's is
//! ended by SIGKILL; one client keeps its session and is answered by the next leader.
//!
//! A regression in detection or election means other settings or a lost message; one in the rest, that clients find the new
//! leader later or that it begins to serve later.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime};

use grid_client::{Client, Config as ClientConfig, Request};
use grid_engine::command::{Command, Entry};
use grid_engine::{Engine, Usd};
use grid_harness::{Ground, Rounds, Row, Scenario, Settings};
use grid_orders::{Config as GatewayConfig, Gateway, LogLine, Rate};
use grid_replicator::Node;
use grid_replicator::links::{Authority, Identity, Tls};
use grid_sequencer::NodeId;

use crate::cluster::{PATIENCE, Plan};

const NODES: usize = 3;
/// Seed of the operator's key, with which the client logs in.
const OPERATOR_SEED: [u8; 32] = [7; 32];
/// Commands before each kill, so that it hits a venue that works.
const BEFORE: usize = 50;
/// The argument with which this program runs as a node.
pub const AS_NODE: &str = "as-node";

/// What a node says of itself at each change: when, whom it follows, and the epoch it leads.
#[derive(Clone, Copy, Debug)]
struct Word {
    node: NodeId,
    at: SystemTime,
    leader: NodeId,
    epoch: u64,
}

impl Word {
    fn write(self) -> String {
        let at = self.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        format!("{} {at} {} {}", self.node, self.leader, self.epoch)
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ').map(|word| word.parse::<u64>().ok());
        let mut word = || words.next().flatten();
        let (node, at, leader, epoch) = (word()?, word()?, word()?, word()?);
        Some(Self { node, at: SystemTime::UNIX_EPOCH + Duration::from_nanos(at), leader, epoch })
    }
}

/// Where the parts of one cluster are.
struct Places {
    dir: PathBuf,
    peers: Vec<SocketAddr>,
    orders: Vec<SocketAddr>,
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Runs as one node until standard input ends: `NODE DIR PEERS ORDERS`.
///
/// # Errors
/// The node does not start.
pub fn run_as_node(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [node, dir, peers, orders] = arguments else {
        return Err(format!("{AS_NODE} NODE DIR PEERS ORDERS").into());
    };
    let addresses = |list: &str| list.split(',').map(str::parse).collect::<Result<Vec<SocketAddr>, _>>();
    let (node, peers, orders): (NodeId, _, _) = (node.parse()?, addresses(peers)?, addresses(orders)?);
    let dir = Path::new(dir);
    let identity = Identity::load(&dir.join("identity"), &Identity::node_files(node))?;
    let plan = Plan { peers, orders: orders.clone(), durability: Default::default() };
    let config = plan.node(node, dir.join(format!("data-{node}")), Tls::Mutual(identity), &["orders"])?;
    let mut running = Node::start(config, Engine::new, |_| {})?;
    let watch = running.leadership();
    let (changed, changes) = channel();
    watch.wake_with(Arc::new(move || {
        let _ = changed.send(());
    }));
    let outputs = running.take_output("orders").ok_or("the output is configured")?;
    let leader = running.leader_address();
    let line = LogLine::new(running.submitter(), outputs, running.leadership(), leader);
    let unbounded = Rate { per_second: 1_000_000, burst: 1_000_000 };
    let gateway_config = GatewayConfig { requests: unbounded, ..GatewayConfig::default() };
    let listener = TcpListener::bind(orders[node as usize - 1])?;
    let _gateway = Gateway::start(listener, gateway_config, line, Arc::clone(running.replica()))?;
    std::thread::spawn(|| {
        // Whoever started this is gone, or wants it to go.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let operator_key = ed25519_dalek::SigningKey::from_bytes(&OPERATOR_SEED).verifying_key().to_bytes();
    let mut out = std::io::stdout();
    loop {
        let (leader, epoch) = (watch.leader().unwrap_or(0), watch.epoch().unwrap_or(0));
        writeln!(out, "{}", Word { node, at: SystemTime::now(), leader, epoch }.write())?;
        out.flush()?;
        if epoch > 0 && running.replica().read(|engine| engine.state().accounts.is_empty()) {
            // The gateway answers no client before there is an operator.
            let _ = running.submitter().try_submit(Entry::venue(Command::Genesis { operator_key }));
        }
        changes.recv()?;
    }
}

/// One node's process. Dropping it kills it.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn spawn(node: NodeId, places: &Places, words: &Sender<Word>) -> Result<Self, Box<dyn Error>> {
        let mut process = Process::new(std::env::current_exe()?);
        process.args([AS_NODE, &node.to_string()]).arg(&places.dir);
        process.args([list(&places.peers), list(&places.orders)]);
        process.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = process.spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("its output is piped")?).lines();
        let words = words.clone();
        std::thread::spawn(move || {
            let said = lines.map_while(Result::ok).filter_map(|line| Word::read(&line));
            for word in said {
                if words.send(word).is_err() {
                    return;
                }
            }
        });
        Ok(Self(child))
    }
}

/// Waits for a word that `fits`.
fn hear(words: &Receiver<Word>, mut fits: impl FnMut(&Word) -> bool) -> Result<Word, Box<dyn Error>> {
    let until = Instant::now() + PATIENCE;
    loop {
        match words.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(word) if fits(&word) => return Ok(word),
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return Err("the nodes do not come to an agreement".into()),
            Err(RecvTimeoutError::Disconnected) => return Err("the nodes ended".into()),
        }
    }
}

/// A command that always does something: a cent for the operator.
fn cent() -> Request {
    let mut payload = Vec::new();
    Command::Deposit { amount: Usd(10_000_000) }.encode(&mut payload);
    Request::Directory { account: 0, payload }
}

/// The leader of three processes is killed in each round; the killed node comes back before the next.
#[derive(Debug)]
pub struct Failover;

impl Scenario for Failover {
    fn name(&self) -> &'static str {
        "failover"
    }

    fn shows(&self) -> &'static str {
        "The leader of three processes is killed: how long until a client's next command is acknowledged. Worse in detection or election \
         means other settings or a lost message; in the rest, that clients find the new leader later or that it serves later."
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        failover(&Ground::under(&settings.dir)?, settings.rounds)
    }
}

fn failover(ground: &Ground, rounds: usize) -> Result<Vec<Row>, Box<dyn Error>> {
    let mut ports = grid_ports::addresses(2 * NODES)?;
    let places = Places { dir: ground.at("failover"), orders: ports.split_off(NODES), peers: ports };
    let authority = Authority::make()?;
    let identities = places.dir.join("identity");
    std::fs::create_dir_all(&identities)?;
    for node in 1..=NODES as NodeId {
        authority.issue_node(node)?.save(&identities, &Identity::node_files(node))?;
    }
    let (tell, words) = channel();
    let spawn = |node| Running::spawn(node, &places, &tell);
    let mut nodes = (1..=NODES as NodeId).map(spawn).collect::<Result<Vec<_>, _>>()?;
    let mut leads = hear(&words, |word| word.epoch > 0)?;
    let client = Client::connect(ClientConfig::new(places.orders.clone(), OPERATOR_SEED))?;
    let [mut detection, mut election, mut rest, mut total] = [(); 4].map(|()| Rounds::default());
    for _ in 0..rounds {
        for _ in 0..BEFORE {
            client.call_blocking(cent())?;
        }
        while words.try_recv().is_ok() {}
        let killed = (leads.node, SystemTime::now());
        nodes[killed.0 as usize - 1].0.kill()?;
        client.call_blocking(cent())?;
        let acked = SystemTime::now();
        let mut noticed = None;
        leads = hear(&words, |word| {
            let lost = word.node != killed.0 && word.leader != killed.0;
            if lost && noticed.is_none() {
                noticed = Some(word.at);
            }
            word.node != killed.0 && word.epoch > 0
        })?;
        let noticed = noticed.ok_or("a new leader is one that noticed")?;
        let millis = |from: SystemTime, to: SystemTime| {
            to.duration_since(from).unwrap_or_default().as_secs_f64() * 1e3
        };
        detection.push(millis(killed.1, noticed));
        election.push(millis(noticed, leads.at));
        rest.push(millis(leads.at, acked));
        total.push(millis(killed.1, acked));
        nodes[killed.0 as usize - 1] = spawn(killed.0)?;
        hear(&words, |word| word.node == killed.0 && word.leader == leads.node)?;
    }
    client.close();
    let cluster = Plan::timing();
    Ok(vec![
        Row::new("SIGKILL of the leader of three processes")
            .figure("detection: kill until a follower misses its leader", "ms", detection)
            .figure("election: until a new leader may answer clients", "ms", election)
            .figure("until the client's first command is acknowledged", "ms", rest)
            .figure("kill until first ack", "ms", total)
            .note(format!(
                "settings: a node stands for election after {} to {} ms without a word from its leader; heartbeats every {} ms",
                cluster.election_min.as_millis(),
                cluster.election_max.as_millis(),
                cluster.heartbeat.as_millis()
            ))
            .note("detection is bounded by that setting; the rest is what the code takes"),
    ])
}
