//! The real venue behind the two traits: the binary door through `grid_client`, the view through a replica, and the
//! history kept in step with the log.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use grid_client::{Client, ClientError, Report, Request};
use grid_engine::command::{
    Command, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce, TransferDirection,
};
use grid_engine::{AccountId, Engine, Event, Nanos, OrderId, Reject, Seq};
use grid_replicator::{Overflow, Replica, Subscription, SubscriptionEnd};
use grid_sequencer::{Output, RecoverError};
use grid_wire as wire;

use crate::door::{Answer, Door, DoorError, Outcome, Pending, View};
use crate::history::{Applied, Feed, History, HistoryError, Resumption, Writer};

/// Committed blocks that may wait for the history; beyond it they are read again from the journal.
const BLOCKS_QUEUED: usize = 16_384;
/// Commands read again from the journal that are handed over together.
const REPLAY_BATCH: usize = 4_096;

/// The binary door, through a session whose account may act for others (capability `tier`).
#[derive(Clone, Debug)]
pub struct ClientDoor {
    client: Client,
}

impl ClientDoor {
    /// A door through this session.
    #[must_use]
    pub const fn new(client: Client) -> Self {
        Self { client }
    }
}

impl Door for ClientDoor {
    fn submit(&self, account: AccountId, command: Command) -> Pending<'_, Result<Answer, DoorError>> {
        let pending = self.client.submit(request(account, &command));
        Box::pin(async move {
            match pending.await {
                Ok(report) => Ok(answer(&report)),
                Err(error) => refused(&error),
            }
        })
    }
}

/// Orders go as messages of their own kind, the rest in the directory message.
fn request(account: AccountId, command: &Command) -> Request {
    let (order_id, label) = match command {
        Command::Cancel { order } | Command::Replace { order, .. } => match *order {
            OrderRef::Id(id) => (id.0, 0),
            OrderRef::Label(label) => (0, label.0),
        },
        _ => (0, 0),
    };
    match command {
        Command::Place(order) => {
            if let Some(tag) = wire::Tag::new(&order.tag) {
                let message = new_order(account, order);
                return if order.tag.is_empty() { message.into() } else { message.tagged(tag).into() };
            }
        }
        Command::Cancel { .. } => {
            return wire::CancelOrder { account: account.0, order_id, label, ..wire::CancelOrder::default() }
                .into();
        }
        Command::Replace { qty, price, stp, post_only, .. } => {
            return wire::ReplaceOrder {
                account: account.0,
                order_id,
                label,
                qty: qty.0,
                price: price.0,
                self_trade: self_trade(*stp),
                flags: wire::OrderFlags::none().with(wire::OrderFlags::POST_ONLY, *post_only),
                ..wire::ReplaceOrder::default()
            }
            .into();
        }
        Command::MassCancel(scope) if scope.session.is_none() => {
            return wire::MassCancel {
                account: account.0,
                instrument: scope.instrument.map(|id| id.0),
                side: match scope.side {
                    None => wire::SideScope::Both,
                    Some(Side::Buy) => wire::SideScope::Buy,
                    Some(Side::Sell) => wire::SideScope::Sell,
                },
                scope: wire::CancelScope::Account,
                ..wire::MassCancel::default()
            }
            .into();
        }
        Command::Transfer { instrument, qty, direction } => {
            return wire::Transfer {
                account: account.0,
                instrument: instrument.0,
                qty: qty.0,
                direction: match direction {
                    TransferDirection::ToConsumption => wire::Direction::ToConsumption,
                    TransferDirection::ToTrading => wire::Direction::ToTrading,
                },
                ..wire::Transfer::default()
            }
            .into();
        }
        _ => {}
    }
    let mut payload = Vec::new();
    command.encode(&mut payload);
    Request::Directory { account: account.0, payload }
}

fn new_order(account: AccountId, order: &NewOrder) -> wire::NewOrder {
    let (order_type, price, tif, slippage) = match order.kind {
        OrderKind::Limit { price, tif } => (wire::OrderType::Limit, price.0, tif, None),
        OrderKind::Market { max_slippage_bps, fill_or_kill } => {
            let tif = if fill_or_kill { TimeInForce::Fok } else { TimeInForce::Ioc };
            (wire::OrderType::Market, 0, tif, max_slippage_bps)
        }
    };
    wire::NewOrder {
        account: account.0,
        label: order.label.0,
        price,
        qty: order.qty.0,
        instrument: order.instrument.0,
        max_slippage_bps: slippage,
        side: match order.side {
            Side::Buy => wire::Side::Buy,
            Side::Sell => wire::Side::Sell,
        },
        order_type,
        time_in_force: match tif {
            TimeInForce::Gtc | TimeInForce::PostOnly => wire::TimeInForce::Gtc,
            TimeInForce::Ioc => wire::TimeInForce::Ioc,
            TimeInForce::Fok => wire::TimeInForce::Fok,
            TimeInForce::Day => wire::TimeInForce::Day,
        },
        self_trade: self_trade(order.stp),
        flags: wire::OrderFlags::none()
            .with(wire::OrderFlags::POST_ONLY, tif == TimeInForce::PostOnly)
            .with(wire::OrderFlags::TO_CONSUMPTION, order.to_consumption),
        ..wire::NewOrder::default()
    }
}

const fn self_trade(stp: SelfTrade) -> wire::SelfTrade {
    match stp {
        SelfTrade::Allow => wire::SelfTrade::None,
        SelfTrade::CancelIncoming => wire::SelfTrade::CancelNewest,
        SelfTrade::CancelResting => wire::SelfTrade::CancelOldest,
        SelfTrade::CancelBoth => wire::SelfTrade::CancelBoth,
        SelfTrade::Decrement => wire::SelfTrade::Decrement,
    }
}

fn answer(report: &Report) -> Answer {
    let (at, outcome) = match report {
        Report::Execution(execution) => (execution.match_time, Outcome::Order(OrderId(execution.order_id))),
        Report::MassCancel(done) => (done.match_time, Outcome::MassCancelled { count: done.cancelled }),
        Report::Command(done) => (done.match_time, Outcome::Done { created: done.id }),
        Report::Reserve(done, _) => (done.match_time, Outcome::Other),
        Report::Settle(done) => (done.match_time, Outcome::Other),
        Report::Reject(reject) => (reject.match_time, Outcome::Other),
    };
    Answer { seq: Seq(report.log_seq()), at: Nanos(at), outcome }
}

fn refused(error: &ClientError) -> Result<Answer, DoorError> {
    if let ClientError::Rejected(reject) = error
        && let Some(code) = Reject::from_code(reject.code)
    {
        let outcome = Outcome::Rejected { reject: code, existing: OrderId(reject.existing_id) };
        return Ok(Answer { seq: Seq(reject.log_seq), at: Nanos(reject.match_time), outcome });
    }
    let reason = error.to_string();
    Err(if error.not_applied() { DoorError::Busy { reason } } else { DoorError::Unreachable { reason } })
}

/// A replica as this tier's view.
#[derive(Clone, Debug)]
pub struct ReplicaView(Arc<Replica<Engine>>);

impl ReplicaView {
    /// A view of this replica.
    #[must_use]
    pub const fn new(replica: Arc<Replica<Engine>>) -> Self {
        Self(replica)
    }
}

impl View for ReplicaView {
    fn read(&self, reader: &mut dyn FnMut(&Engine)) {
        self.0.read(|engine| reader(engine));
    }

    fn applied(&self) -> Seq {
        self.0.applied()
    }

    fn wait_for(&self, seq: Seq) -> Pending<'_, ()> {
        Box::pin(async move {
            // A venue that stops answers no more reads; whoever waits is told by its own timeout.
            if self.0.wait_for(seq).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// What keeps a history in step with the log. It ends when the venue does.
pub struct Follower {
    thread: JoinHandle<Result<(), HistoryError>>,
    writer: Writer,
}

impl Follower {
    /// Waits until everything that was committed is stored; call it after the venue was shut down.
    pub fn join(self) -> Result<(), HistoryError> {
        let fed = self.thread.join().unwrap_or(Err(HistoryError::Stopped));
        self.writer.join().and(fed)
    }
}

/// Opens the history at `store` and keeps it in step with a replica. What it missed while it was not running, or when
/// it fell behind, it reads again from the journal in `data_dir`; it never holds the replica back. Where that journal
/// does not reach back so far, because this node was brought up from another's snapshot, a gap goes on record.
///
/// # Errors
/// [`HistoryError`]; of these [`HistoryError::Ahead`] may pass: a node that was restarted may find out only from the others
/// that the last blocks in its log, which its history has heard of, are committed.
pub fn follow(
    store: &Path,
    replica: &Replica<Engine>,
    data_dir: &Path,
) -> Result<(History, Follower), HistoryError> {
    let (history, feed, writer) = History::open(store)?;
    let subscription = replica.subscribe(BLOCKS_QUEUED, Overflow::Drop);
    let (stored, log) = (feed.stored(), subscription.after().seq);
    if stored > log {
        return Err(HistoryError::Ahead { stored: stored.0, log: log.0 });
    }
    let (replica, data_dir) = (replica.clone(), data_dir.to_owned());
    let thread = std::thread::Builder::new().name("history-feed".into()).spawn(move || {
        let mut pump = Pump { pushed: feed.stored(), feed, data_dir };
        let result = pump.run(&replica, subscription);
        if let Err(error) = &result {
            tracing::error!(%error, "the history no longer follows the log");
        }
        result
    })?;
    Ok((history, Follower { thread, writer }))
}

struct Pump {
    feed: Feed,
    /// The last command handed over.
    pushed: Seq,
    data_dir: PathBuf,
}

impl Pump {
    fn run(&mut self, replica: &Replica<Engine>, first: Subscription<Engine>) -> Result<(), HistoryError> {
        let mut subscription = first;
        loop {
            let after = subscription.after().seq;
            if self.pushed < after {
                self.catch_up(replica, after)?;
            }
            loop {
                match subscription.recv() {
                    Ok(output) => self.push(batch(&output))?,
                    Err(SubscriptionEnd::Lagged) => break,
                    Err(SubscriptionEnd::Stopped) => return Ok(()),
                }
            }
            subscription = replica.subscribe(BLOCKS_QUEUED, Overflow::Drop);
        }
    }

    fn push(&mut self, commands: Vec<Applied>) -> Result<(), HistoryError> {
        if let Some(last) = commands.last() {
            self.pushed = self.pushed.max(last.seq);
            self.feed.push(commands)?;
        }
        Ok(())
    }

    /// Hands over what followed the last command handed over, up to and including `until`, as far as it can be had.
    fn catch_up(&mut self, replica: &Replica<Engine>, until: Seq) -> Result<(), HistoryError> {
        while self.pushed < until {
            let error = match self.read_again(until)? {
                None => break,
                Some(error) => error,
            };
            let next = self.next_state(until).unwrap_or_else(|| replica.read(Resumption::at));
            tracing::warn!(
                after = self.pushed.0,
                until = next.seq().0,
                reason = %error,
                "the history has a gap: the journal here does not reach back so far"
            );
            self.pushed = next.seq();
            self.feed.resume(next)?;
        }
        Ok(())
    }

    /// The state of the oldest snapshot that is of use: from there on the journal may be whole.
    fn next_state(&self, until: Seq) -> Option<Resumption> {
        let snapshots = grid_sequencer::SnapshotStore::new(grid_sequencer::snapshot_dir(&self.data_dir));
        let paths = snapshots.list().ok()?;
        let positions = paths.iter().filter_map(|path| Some(snapshots.read_meta(path).ok()?.0.position.seq));
        let mut useful: Vec<Seq> = positions.filter(|seq| self.pushed < *seq && *seq <= until).collect();
        useful.sort_unstable();
        useful.into_iter().find_map(|seq| {
            let at = |_: Seq, _: Nanos, _: &[Event]| {};
            let state =
                grid_sequencer::replay_events::<Engine>(&self.data_dir, seq, seq, Engine::new, at).ok()?;
            (state.position.seq == seq).then(|| Resumption::at(&state.machine))
        })
    }

    /// Hands over what the journal holds after the last command handed over, up to and including `until`, or says why
    /// it does not reach back so far.
    fn read_again(&mut self, until: Seq) -> Result<Option<RecoverError>, HistoryError> {
        let (mut commands, mut failed) = (Vec::with_capacity(REPLAY_BATCH), None);
        let (data_dir, from) = (self.data_dir.clone(), self.pushed);
        let mut sink = |seq: Seq, at: Nanos, events: &[Event]| {
            if failed.is_some() {
                return;
            }
            commands.push(Applied { seq, at, events: events.to_vec() });
            if commands.len() == REPLAY_BATCH {
                failed = self.push(std::mem::take(&mut commands)).err();
            }
        };
        let replayed =
            grid_sequencer::replay_events::<Engine>(&data_dir, from, until, Engine::new, &mut sink);
        if let Some(error) = failed {
            return Err(error);
        }
        self.push(commands)?;
        use grid_sequencer::JournalError::{Foreign, Missing, NeedsSnapshot};
        match replayed {
            Ok(_) => Ok(None),
            Err(error @ RecoverError::Journal(Foreign { .. } | Missing { .. } | NeedsSnapshot { .. })) => {
                Ok(Some(error))
            }
            Err(error) => Err(HistoryError::Journal { reason: error.to_string() }),
        }
    }
}

/// What each command of a block did; commands without events too, so that the store sees no gap.
fn batch(output: &Arc<Output<Engine>>) -> Vec<Applied> {
    let at = output.block.at();
    output.by_command().map(|(seq, _, events)| Applied { seq, at, events: events.to_vec() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_own_numbers_are_no_engine_rejects() {
        assert_eq!(Reject::from_code(wire::gateway_reject::BUSY), None);
        assert_eq!(Reject::from_code(Reject::UnknownOrder.code()), Some(Reject::UnknownOrder));
    }
}
