//! A venue to measure, in this process: one whole node (raft core, journal, matcher, replica) and its order gateway,
//! with traders who have dollars and Units enough for any run.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use grid_engine::command::{AccountMode, Command};
use grid_engine::{Engine, InstrumentId, Qty, Seq, Usd};
use grid_engine_benches::founding::{Founding, instrument};
use grid_orders::{Config as GatewayConfig, Gateway, LogLine, Rate, Wait, to_be_hosted};
use grid_replicator::{ClusterConfig, Node, NodeConfig};
use grid_sequencer::{Config as SequencerConfig, JournalConfig, ThreadLayout};

use crate::Failure;

/// The instrument that everybody trades.
pub(crate) const INSTRUMENT: InstrumentId = InstrumentId(0);
/// Accounts that the sessions share.
pub(crate) const TRADERS: usize = 16;
/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const OPERATOR: [u8; 32] = [7; 32];
/// Far more than any run trades.
const STOCK: Qty = Qty(1_000_000_000);
const ORDERS: &str = "orders";

/// How the venue is laid out over the machine.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub(crate) name: &'static str,
    pub(crate) threads: ThreadLayout,
    /// What the gateway's thread does when it is idle, and with it the client and the echo.
    pub(crate) wait: Wait,
    /// Where it runs.
    pub(crate) core: Option<usize>,
}

impl Layout {
    fn of(name: &'static str, threads: ThreadLayout) -> Self {
        let config = to_be_hosted(&threads).map_or_else(GatewayConfig::default, GatewayConfig::hosting);
        Self { name, threads, wait: config.wait, core: config.core }
    }

    /// All that this machine has cores for.
    pub(crate) fn all() -> Vec<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let mut asleep = ThreadLayout::fused(cores - 1);
        asleep.threads[0].wait = grid_sequencer::Wait::Park;
        asleep.threads[0].core = None;
        let mut all = vec![Self::of("parked", ThreadLayout::parked()), Self::of("fused, sleeping", asleep)];
        if cores > 1 {
            all.push(Self::of("fused, spinning", ThreadLayout::fused(cores - 1)));
        }
        if cores >= 8 {
            let spread = Self::of("spread", ThreadLayout::spread(cores - 3));
            all.push(Self { wait: Wait::Spin, core: Some(cores - 4), ..spread });
        }
        all
    }
}

/// A venue that serves on loopback.
pub(crate) struct Venue {
    node: Node<Engine>,
    gateway: Gateway,
}

impl Venue {
    /// Starts one whose journal lies in `dir`, which must be new.
    pub(crate) fn start(dir: &Path, layout: &Layout, connections: usize) -> Result<Self, Failure> {
        let sequencer = SequencerConfig { layout: layout.threads.clone(), ..SequencerConfig::new(&[ORDERS]) };
        let mut node = Node::start(
            NodeConfig {
                data_dir: dir.to_owned(),
                journal: JournalConfig::default(),
                sequencer,
                snapshot_every: u64::MAX,
                cluster: ClusterConfig::alone(),
            },
            Engine::new,
            |_| {},
        )?;
        node.leadership().wait_to_lead(PATIENCE).ok_or("the node does not come to lead")?;
        found(&node)?;
        let outputs = node.take_output(ORDERS).ok_or("the output is configured")?;
        let line = LogLine::new(node.submitter(), outputs, node.leadership(), node.leader_address());
        let line = if to_be_hosted(&layout.threads).is_some() { line.hosting(node.lender()) } else { line };
        let unbounded = Rate { per_second: 100_000_000, burst: 100_000_000 };
        let config = GatewayConfig {
            core: layout.core,
            wait: layout.wait,
            connections_max: connections + 16,
            requests: unbounded,
            cancels: unbounded,
            ..GatewayConfig::default()
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gateway = Gateway::start(listener, config, line, Arc::clone(node.replica()))?;
        Ok(Self { node, gateway })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    /// Ends it in good order and checks the books.
    pub(crate) fn stop(self) -> Result<(), Failure> {
        self.gateway.stop();
        let stopped = self.node.shutdown();
        stopped
            .machine
            .check_invariants()
            .map_err(|violation| format!("the books do not balance: {violation:?}"))?;
        Ok(())
    }
}

/// The keys of the traders.
pub(crate) fn keys() -> Vec<SigningKey> {
    (0..TRADERS).map(|trader| SigningKey::from_bytes(&[100 + trader as u8; 32])).collect()
}

/// The first commands of the log: an instrument, and accounts with all that they will ever need.
fn found(node: &Node<Engine>) -> Result<(), Failure> {
    let mut founding = Founding::new(SigningKey::from_bytes(&OPERATOR).verifying_key().to_bytes(), 1);
    founding.instrument(instrument("text-prime", 10_000_000));
    for key in keys() {
        let account = founding.account(AccountMode::Advanced);
        founding.key(account, key.verifying_key().to_bytes());
        founding.ask(account, Command::Deposit { amount: Usd::dollars(100_000_000) });
        founding.ask(account, Command::RegisterSupplier(Box::default()));
        founding.supply(account, INSTRUMENT, STOCK);
    }
    let entries = founding.into_entries();
    let count = entries.len() as u64;
    let mut submitter = node.submitter();
    for entry in entries {
        submitter.try_submit(entry).map_err(|refused| refused.to_string())?;
    }
    // A new log's first entry is the leader's own and has no number among commands.
    node.replica().wait_for_blocking(Seq(count), PATIENCE)?;
    node.replica().read(|engine| {
        let state = engine.state();
        let all_there = state.signing_keys.len() == TRADERS + 1;
        all_there.then_some(()).ok_or_else(|| Failure::from("the venue was not founded as planned"))
    })
}
