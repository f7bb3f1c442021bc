//! A whole venue with an inference tier, in this process: one node (raft core, journal, matcher, replica), its order
//! gateway, and the tier behind a session of the binary protocol, as `grid serve` puts them together. Suppliers have sold
//! Units to consumers, who hold far more tokens than any run uses.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use grid_client::{Client, Config as ClientConfig};
use grid_engine::command::{
    AccountMode, Command, NewOrder, Offer, OrderKind, SelfTrade, Side, SupplierProfile, TimeInForce,
};
use grid_engine::event::{Event, UsageRecord};
use grid_engine::instrument::{InstrumentSpec, MarketTerms, QualityTerms};
use grid_engine::{Engine, InstrumentId, KeyHash, Label, Price, Qty, Seq, Usd};
use grid_engine_benches::founding::{Founding, instrument};
use grid_inference::{Config, Deps, RunningTier, Snapshot};
use grid_orders::{Config as GatewayConfig, Gateway, LogLine, Rate, to_be_hosted};
use grid_replicator::{ClusterConfig, Node, NodeConfig, Replica};
use grid_sequencer::{Config as SequencerConfig, JournalConfig, ThreadLayout};

use crate::Failure;
use crate::part::Ended;
use crate::talk;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const OPERATOR: [u8; 32] = [7; 32];
const ORDERS: &str = "orders";
const TEXT: InstrumentId = InstrumentId(0);
/// Consumers, each with a key.
pub(crate) const CONSUMERS: u32 = 16;
/// Units that each consumer buys of each supplier at a time, and how often in turn.
const UNITS: Qty = Qty(1_000);
const TURNS: u64 = 8;

/// A venue that serves on loopback.
pub(crate) struct Venue {
    node: Node<Engine>,
    gateway: Gateway,
    session: Client,
    runtime: tokio::runtime::Runtime,
    tier: RunningTier,
}

impl Venue {
    /// Starts one whose journal lies in `dir`, which must be new, with a supplier at each of these addresses.
    pub(crate) fn start(
        dir: &Path,
        suppliers: &[String],
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, Failure> {
        let layout = ThreadLayout::auto();
        let sequencer = SequencerConfig { layout: layout.clone(), ..SequencerConfig::new(&[ORDERS]) };
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
        found(&node, suppliers)?;
        let outputs = node.take_output(ORDERS).ok_or("the output is configured")?;
        let line = LogLine::new(node.submitter(), outputs, node.leadership(), node.leader_address());
        // As `grid serve` does it: where that saves a hop, the gateway's thread steps the stages of the order path.
        let hosted = to_be_hosted(&layout);
        let line = if hosted.is_some() { line.hosting(node.lender()) } else { line };
        let usual = hosted.map_or_else(GatewayConfig::default, GatewayConfig::hosting);
        let unbounded = Rate { per_second: 100_000_000, burst: 100_000_000 };
        let config = GatewayConfig { requests: unbounded, cancels: unbounded, ..usual };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gateway = Gateway::start(listener, config, line, Arc::clone(node.replica()))?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("tier").build()?;
        let session = ClientConfig::new(vec![gateway.address()], OPERATOR);
        let session = runtime.block_on(Client::connect_here(session))?;
        let deps = Deps {
            door: Arc::new(session.clone()),
            directory: Arc::new(Replica::clone(node.replica())),
            history: None,
        };
        let mut config = Config::default();
        config.limits.calls = 20_000;
        config.limits.key.concurrent = 20_000;
        config.routing.supplier_concurrent = 20_000;
        // Ten thousand streams that wait for one another are silent for longer than real ones.
        config.clocks.idle = Duration::from_secs(300);
        change(&mut config);
        let tier = runtime.block_on(grid_inference::serve(config, deps))?;
        Ok(Self { node, gateway, session, runtime, tier })
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.tier.inference_addr
    }

    /// Has `hear` called with each bill that follows.
    pub(crate) fn on_bill(&self, mut hear: impl FnMut(UsageRecord) + Send + 'static) {
        self.node.replica().on_output(move |output| {
            for event in output.events() {
                if let Event::Used(bill) = event {
                    hear(*bill);
                }
            }
        });
    }

    /// Tasks of the tier.
    pub(crate) fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// Waits until nobody is connected to the tier, nor the tier to anybody, and it has no more tasks than these.
    pub(crate) fn until_idle(&self, tasks: usize) -> Result<bool, Failure> {
        let begin = std::time::Instant::now();
        loop {
            let now = self.tier.stats();
            let left = now.connections + now.supplier_connections + now.open + now.in_flight + now.attempts;
            if left == 0 && self.tasks() <= tasks {
                return Ok(true);
            }
            if begin.elapsed() > PATIENCE {
                return Err(
                    format!("left behind: {now:?}, {} tasks where there were {tasks}", self.tasks()).into()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it in good order and checks the books.
    pub(crate) fn stop(self) -> Result<Ended, Failure> {
        let Self { node, gateway, session, runtime, tier } = self;
        // The tier's own counts outlive its shutdown no further than this.
        let counted = runtime.block_on(async {
            let mut counted = tier.stats();
            let begin = tokio::time::Instant::now();
            while (counted.open, counted.in_flight) != (0, 0) && begin.elapsed() < PATIENCE {
                tokio::time::sleep(Duration::from_millis(5)).await;
                counted = tier.stats();
            }
            tier.shutdown().await;
            session.closed().await;
            counted
        });
        drop(runtime);
        gateway.stop();
        let engine = node.shutdown().machine;
        engine.check_invariants().map_err(|violation| format!("the books do not balance: {violation:?}"))?;
        let state = engine.state();
        let Snapshot { settled, released, open, in_flight, attempts, .. } = counted;
        Ok(Ended {
            settled,
            released,
            billed: state.instruments[usize::from(TEXT.0)].delivered.0,
            open: open + in_flight + attempts + state.reservations.len() as u64,
        })
    }
}

/// The keys of the consumers.
pub(crate) fn keys() -> Vec<String> {
    (0..CONSUMERS).map(|consumer| format!("sk-or-v1-bench-{consumer:02}")).collect()
}

/// The first commands of the log: an instrument, suppliers who sell Units of it, consumers who buy them in turn.
fn found(node: &Node<Engine>, suppliers: &[String]) -> Result<(), Failure> {
    let mut founding = Founding::new(SigningKey::from_bytes(&OPERATOR).verifying_key().to_bytes(), 1);
    founding.instrument(spec());
    let stock = Qty(UNITS.0 * TURNS * u64::from(CONSUMERS));
    let sell = |(nth, base_url): (usize, &String)| {
        let supplier = founding.account(AccountMode::Advanced);
        let profile = SupplierProfile {
            name: format!("supplier {nth}"),
            base_url: base_url.clone(),
            offers: vec![Offer { instrument: TEXT, model: talk::MODEL.to_owned() }],
            ..SupplierProfile::default()
        };
        founding.ask(supplier, Command::RegisterSupplier(Box::new(profile)));
        founding.supply(supplier, TEXT, stock);
        supplier
    };
    let suppliers: Vec<_> = suppliers.iter().enumerate().map(sell).collect();
    let buy = |key: String| {
        let consumer = founding.account(AccountMode::Advanced);
        let key = Command::AddConsumptionKey {
            hash: KeyHash::of(&key),
            prefix: key[..8].to_owned(),
            name: "bench".to_owned(),
            expires_at: None,
        };
        founding.ask(consumer, key);
        founding.ask(consumer, Command::Deposit { amount: Usd::dollars(1_000_000) });
        for _ in 0..TURNS {
            for &supplier in &suppliers {
                founding.ask(supplier, order(Side::Sell));
                founding.ask(consumer, order(Side::Buy));
            }
        }
        consumer
    };
    let consumers: Vec<_> = keys().into_iter().map(buy).collect();
    let entries = founding.into_entries();
    let count = entries.len() as u64;
    let mut submitter = node.submitter();
    for mut entry in entries {
        // The ring is smaller than the founding of many suppliers.
        while let Err(refused) = submitter.try_submit(entry) {
            match refused {
                grid_sequencer::SubmitError::Full(again) => entry = again,
                refused => return Err(refused.to_string().into()),
            }
            std::thread::yield_now();
        }
    }
    // A new log's first entry is the leader's own and has no number among commands.
    node.replica().wait_for_blocking(Seq(count), PATIENCE)?;
    node.replica().read(|engine| {
        let state = engine.state();
        let bought = consumers.iter().all(|&consumer| {
            let wanted = UNITS.0 * TURNS * suppliers.len() as u64 * 1_000_000;
            state.holding(consumer, TEXT).is_some_and(|holding| holding.free_tokens().0 == wanted)
        });
        bought.then_some(()).ok_or_else(|| Failure::from("the venue was not founded as planned"))
    })
}

fn order(side: Side) -> Command {
    Command::Place(NewOrder {
        instrument: TEXT,
        side,
        kind: OrderKind::Limit { price: Price(50), tif: TimeInForce::Gtc },
        qty: UNITS,
        stp: SelfTrade::Allow,
        label: Label(0),
        tag: String::new(),
        to_consumption: side == Side::Buy,
    })
}

fn spec() -> InstrumentSpec {
    let usual = instrument(talk::MODEL, 100_000);
    InstrumentSpec {
        quality: QualityTerms { output_floor: 16_384, context_floor: 128_000, ..usual.quality },
        market: MarketTerms { tick: Usd(10_000_000), ..usual.market },
        ..usual
    }
}
