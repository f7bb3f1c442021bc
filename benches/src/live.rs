//! The mix as clients send it: through one binary session of the operator's, which may act for every account, over loopback to the order
//! gateway of a whole node. This is the rate at which a venue really comes by its log.

use std::collections::VecDeque;
use std::error::Error;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use grid_client::{Client, Config as ClientConfig, Pending, Request};
use grid_engine::command::{Command, Entry, NewOrder, OrderKind, OrderRef, Side, TimeInForce};
use grid_engine::{Engine, Seq};
use grid_orders::{Config as GatewayConfig, Gateway, LogLine, Rate};
use grid_replicator::Node;
use grid_replicator::links::{Authority, Tls};

use crate::cluster::{PATIENCE, Plan};
use grid_harness::Ground;

/// Requests whose answers are not looked at yet.
const OPEN: usize = 16_384;
const OPERATOR_SEED: [u8; 32] = [7; 32];
/// The first commands of the mix, which found the venue and open its session: here the gateway's own do that.
const FOUNDING: usize = 2;

/// A run that is over: its journal is all that is left.
#[derive(Debug)]
pub(crate) struct Live {
    /// How long the commands took that were measured.
    pub(crate) took: Duration,
    /// The data directory.
    pub(crate) dir: PathBuf,
    /// Where the log ended.
    pub(crate) last: Seq,
    /// The state then.
    pub(crate) hash: u64,
}

/// Sends the whole mix through one session, and measures its last `measured` commands, until the last of them is answered.
pub(crate) fn over_a_session(
    ground: &Ground,
    name: &str,
    mix: &VecDeque<Entry>,
    measured: usize,
) -> Result<Live, Box<dyn Error>> {
    let dir = ground.at(name);
    let plan = Plan { peers: grid_ports::addresses(1)?, orders: Vec::new(), durability: Default::default() };
    let tls = Tls::Mutual(Authority::make()?.issue_node(1)?);
    let mut node = Node::start(plan.node(1, dir.clone(), tls, &["orders"])?, Engine::new, |_| {})?;
    let outputs = node.take_output("orders").ok_or("the output is configured")?;
    let line = LogLine::new(node.submitter(), outputs, node.leadership(), node.leader_address());
    let unbounded = Rate { per_second: 10_000_000, burst: 10_000_000 };
    let config = GatewayConfig { requests: unbounded, cancels: unbounded, ..GatewayConfig::default() };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let gateway = Gateway::start(listener, config, line, Arc::clone(node.replica()))?;
    let operator_key = SigningKey::from_bytes(&OPERATOR_SEED).verifying_key().to_bytes();
    node.submitter()
        .try_submit(Entry::venue(Command::Genesis { operator_key }))
        .map_err(|refused| refused.to_string())?;
    node.replica().wait_for_blocking(Seq(1), PATIENCE)?;
    let client = Client::connect(ClientConfig::new(vec![gateway.address()], OPERATOR_SEED))?;

    let opening = mix.len() - measured;
    let mut open = VecDeque::with_capacity(OPEN);
    let (mut begin, mut orders) = (Instant::now(), 0);
    for (nth, entry) in mix.iter().enumerate().skip(FOUNDING) {
        if nth == opening {
            open.drain(..).try_for_each(answered)?;
            begin = Instant::now();
        }
        if open.len() == OPEN {
            open.drain(..OPEN / 2).try_for_each(answered)?;
        }
        open.push_back(client.submit(request(entry, &mut orders)));
    }
    open.drain(..).try_for_each(answered)?;
    let took = begin.elapsed();
    client.close();
    gateway.stop();
    let stopped = node.shutdown();
    Ok(Live { took, dir, last: stopped.position.seq, hash: stopped.machine.state_hash() })
}

fn answered(pending: Pending) -> Result<(), Box<dyn Error>> {
    pending.wait()?;
    Ok(())
}

/// As a client sends a command of the mix, which has placed so many `orders` before. The mix knows orders by ids that need not be theirs in this
/// log, so their numbers go along as labels.
fn request(entry: &Entry, orders: &mut u64) -> Request {
    let account = entry.account.0;
    match &entry.command {
        Command::Place(order) => {
            *orders += 1;
            Request::from(wire_order(order, account, *orders))
        }
        Command::Cancel { order: OrderRef::Id(order) } => {
            let label = u128::from(order.number());
            Request::from(grid_wire::CancelOrder { label, account, ..Default::default() })
        }
        other => {
            let mut payload = Vec::new();
            other.encode(&mut payload);
            Request::Directory { account, payload }
        }
    }
}

fn wire_order(order: &NewOrder, account: u32, nth: u64) -> grid_wire::NewOrder {
    let (price, tif) = match order.kind {
        OrderKind::Limit { price, tif: TimeInForce::Ioc } => (price, grid_wire::TimeInForce::Ioc),
        OrderKind::Limit { price, .. } => (price, grid_wire::TimeInForce::Gtc),
        OrderKind::Market { .. } => unreachable!("the mix has limit orders only"),
    };
    grid_wire::NewOrder {
        account,
        label: u128::from(nth),
        instrument: order.instrument.0,
        side: if order.side == Side::Buy { grid_wire::Side::Buy } else { grid_wire::Side::Sell },
        order_type: grid_wire::OrderType::Limit,
        time_in_force: tif,
        self_trade: grid_wire::SelfTrade::None,
        price: price.0,
        qty: order.qty.0,
        ..Default::default()
    }
}
