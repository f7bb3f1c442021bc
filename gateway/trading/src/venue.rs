//! The real venue behind the two traits: the binary door through `grid_client`, the view through a replica.

use std::sync::Arc;

use grid_client::{Client, ClientError, Report, Request};
use grid_engine::command::{
    Command, NewOrder, OrderKind, OrderRef, SelfTrade, Side, TimeInForce, TransferDirection,
};
use grid_engine::{AccountId, Engine, Nanos, OrderId, Reject, Seq};
use grid_replicator::Replica;
use grid_wire as wire;

use crate::door::{Answer, Door, DoorError, Outcome, Pending, View};

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
        Report::MassQuote(done, _) => (done.match_time, Outcome::Other),
        Report::QuoteRefused(told) => (told.match_time, Outcome::Other),
        Report::QuotesPulled(told) => (told.match_time, Outcome::Other),
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

    fn promised(&self, account: AccountId) -> Pending<'_, Seq> {
        Box::pin(self.0.promises().settled(account.0.into()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gateways_own_numbers_are_no_engine_rejects() {
        assert_eq!(Reject::from_code(wire::gateway_reject::BUSY), None);
        assert_eq!(Reject::from_code(Reject::UnknownOrder.code()), Some(Reject::UnknownOrder));
    }
}
