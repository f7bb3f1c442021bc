//! Events as bytes, for comparing what nodes came to: nothing ever reads them. Those of hot commands are put down field by field, each
//! as wide as its type; the others in their log form.

use super::append as append_general;
use crate::command::Side;
use crate::event::{Event, LevelUpdate, OrderOpened, Report, ReportBody, Trade};
use crate::report::Kind;

/// Which event the bytes are of; whatever is not hot begins with the last one.
#[repr(u8)]
enum Tag {
    Report,
    Opened,
    Replaced,
    Traded,
    Closed,
    Level,
    Other,
}

/// Appends bytes that are equal for equal events and different for different ones.
pub(crate) fn append(event: &Event, out: &mut Vec<u8>) {
    // More than any of them takes.
    out.reserve(160);
    match event {
        Event::Report { session, report } if matches!(report.body, ReportBody::Order(_)) => {
            put(out, [Tag::Report as u8]);
            put(out, session.0.to_le_bytes());
            order_report(report, out);
        }
        Event::OrderOpened(opened) if opened.tag.is_empty() => {
            put(out, [Tag::Opened as u8]);
            order_opened(opened, out);
        }
        Event::OrderReplaced { order, account, instrument, price, remaining, levels: [left, joined] } => {
            put(out, [Tag::Replaced as u8]);
            put(out, order.0.to_le_bytes());
            put(out, account.0.to_le_bytes());
            put(out, instrument.0.to_le_bytes());
            put(out, price.0.to_le_bytes());
            put(out, remaining.0.to_le_bytes());
            level(left.as_ref(), out);
            level(joined.as_ref(), out);
        }
        Event::Traded(trade) => {
            put(out, [Tag::Traded as u8]);
            traded(trade, out);
        }
        Event::OrderClosed { order, account, instrument, filled, remaining, reason, level: left } => {
            put(out, [Tag::Closed as u8, *reason as u8]);
            put(out, order.0.to_le_bytes());
            put(out, account.0.to_le_bytes());
            put(out, instrument.0.to_le_bytes());
            put(out, filled.0.to_le_bytes());
            put(out, remaining.0.to_le_bytes());
            level(left.as_ref(), out);
        }
        Event::Level { instrument, level: told } => {
            put(out, [Tag::Level as u8]);
            put(out, instrument.0.to_le_bytes());
            level(Some(told), out);
        }
        other => {
            put(out, [Tag::Other as u8]);
            append_general(other, out);
        }
    }
}

#[inline(always)]
fn put<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    out.extend_from_slice(&bytes);
}

#[inline(always)]
fn level(told: Option<&LevelUpdate>, out: &mut Vec<u8>) {
    let Some(LevelUpdate { price, qty, orders, side }) = told else {
        return put(out, [0]);
    };
    put(out, [if *side == Side::Buy { 1 } else { 2 }]);
    put(out, price.0.to_le_bytes());
    put(out, qty.0.to_le_bytes());
    put(out, orders.to_le_bytes());
}

#[inline(always)]
fn order_report(report: &Report, out: &mut Vec<u8>) {
    let Report { number, client_seq, seq, at, account, body } = report;
    let ReportBody::Order(order) = body else {
        unreachable!("the caller has looked");
    };
    let (subject, kind, fill) = order.parts();
    let (kind, more) = match kind {
        Kind::New => (0, 0),
        Kind::Replaced => (1, 0),
        Kind::Trade { aggressor } => (2, aggressor.into()),
        Kind::Closed(reason) => (3, reason as u8),
    };
    put(out, [kind, more, subject.side as u8, subject.quote]);
    put(out, number.to_le_bytes());
    put(out, client_seq.to_le_bytes());
    put(out, seq.0.to_le_bytes());
    put(out, at.0.to_le_bytes());
    put(out, account.0.to_le_bytes());
    put(out, subject.label.0.to_le_bytes());
    put(out, subject.order.0.to_le_bytes());
    put(out, subject.instrument.0.to_le_bytes());
    put(out, subject.price.to_le_bytes());
    put(out, subject.remaining.to_le_bytes());
    put(out, subject.filled.to_le_bytes());
    put(out, fill.trade.0.to_le_bytes());
    put(out, fill.price.to_le_bytes());
    put(out, fill.qty.to_le_bytes());
}

#[inline(always)]
fn order_opened(opened: &OrderOpened, out: &mut Vec<u8>) {
    let OrderOpened { order, account, instrument, side, price, tif, qty, label, tag: _, level: joined } =
        opened;
    put(out, [*side as u8, *tif as u8, price.is_some().into()]);
    put(out, order.0.to_le_bytes());
    put(out, account.0.to_le_bytes());
    put(out, instrument.0.to_le_bytes());
    put(out, price.unwrap_or_default().0.to_le_bytes());
    put(out, qty.0.to_le_bytes());
    put(out, label.0.to_le_bytes());
    level(joined.as_ref(), out);
}

#[inline(always)]
fn traded(trade: &Trade, out: &mut Vec<u8>) {
    let Trade {
        trade,
        instrument,
        price,
        qty,
        value,
        aggressor,
        taker_order,
        taker,
        taker_fee,
        maker_order,
        maker,
        maker_fee,
    } = trade;
    put(out, [*aggressor as u8]);
    put(out, trade.0.to_le_bytes());
    put(out, instrument.0.to_le_bytes());
    put(out, price.0.to_le_bytes());
    put(out, qty.0.to_le_bytes());
    put(out, value.0.to_le_bytes());
    put(out, taker_order.0.to_le_bytes());
    put(out, taker.0.to_le_bytes());
    put(out, taker_fee.0.to_le_bytes());
    put(out, maker_order.0.to_le_bytes());
    put(out, maker.0.to_le_bytes());
    put(out, maker_fee.0.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::command::TimeInForce;
    use crate::event::{Closure, Exec, OrderReport};
    use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId, TradeId};
    use crate::report::Subject;
    use crate::units::{Nanos, Price, Qty, Seq, Usd};

    /// Every event of a hot command, and each of them with one thing changed.
    fn events() -> Vec<Event> {
        let level = LevelUpdate { price: Price(1), qty: Qty(2), orders: 3, side: Side::Buy };
        let levels = [
            None,
            Some(level),
            Some(LevelUpdate { price: Price(9), ..level }),
            Some(LevelUpdate { qty: Qty(9), ..level }),
            Some(LevelUpdate { orders: 9, ..level }),
            Some(LevelUpdate { side: Side::Sell, ..level }),
        ];
        let mut events = Vec::new();
        let opened = || OrderOpened {
            order: OrderId(1),
            account: AccountId(2),
            instrument: InstrumentId(3),
            side: Side::Buy,
            price: Some(Price(4)),
            tif: TimeInForce::Gtc,
            qty: Qty(5),
            label: Label(6),
            tag: String::new(),
            level: None,
        };
        events.extend(levels.map(|level| Event::OrderOpened(OrderOpened { level, ..opened() })));
        let changes: [fn(&mut OrderOpened); 10] = [
            |it| it.order.0 += 1,
            |it| it.account.0 += 1,
            |it| it.instrument.0 += 1,
            |it| it.side = Side::Sell,
            |it| it.price = None,
            |it| it.price = Some(Price(0)),
            |it| it.tif = TimeInForce::Day,
            |it| it.qty.0 += 1,
            |it| it.label.0 += 1 << 100,
            |it| it.tag = "tag".into(),
        ];
        for change in changes {
            let mut changed = opened();
            change(&mut changed);
            events.push(Event::OrderOpened(changed));
        }
        let replaced =
            |[order, account, instrument, price, remaining]: [u64; 5], levels| Event::OrderReplaced {
                order: OrderId(order),
                account: AccountId(account as u32),
                instrument: InstrumentId(instrument as u16),
                price: Price(price),
                remaining: Qty(remaining),
                levels,
            };
        let closed =
            |[order, account, instrument, filled, remaining]: [u64; 5], reason, level| Event::OrderClosed {
                order: OrderId(order),
                account: AccountId(account as u32),
                instrument: InstrumentId(instrument as u16),
                filled: Qty(filled),
                remaining: Qty(remaining),
                reason,
                level,
            };
        for nth in 0..5 {
            let mut numbers = [1, 2, 3, 4, 5];
            numbers[nth] += 10;
            events.push(replaced(numbers, [None; 2]));
            events.push(closed(numbers, Closure::Filled, None));
        }
        events.push(closed([1, 2, 3, 4, 5], Closure::Cancelled, None));
        for level in levels {
            events.push(replaced([1, 2, 3, 4, 5], [level, None]));
            events.push(closed([1, 2, 3, 4, 5], Closure::Filled, level));
            if let Some(level) = level {
                events.push(replaced([1, 2, 3, 4, 5], [None, Some(level)]));
                events.push(Event::Level { instrument: InstrumentId(3), level });
                events.push(Event::Level { instrument: InstrumentId(4), level });
            }
        }
        let trade = Trade {
            trade: TradeId(1),
            instrument: InstrumentId(2),
            price: Price(3),
            qty: Qty(4),
            value: Usd(5),
            aggressor: Side::Buy,
            taker_order: OrderId(6),
            taker: AccountId(7),
            taker_fee: Usd(8),
            maker_order: OrderId(9),
            maker: AccountId(10),
            maker_fee: Usd(11),
        };
        let changes: [fn(&mut Trade); 13] = [
            |_| {},
            |it| it.trade.0 += 1,
            |it| it.instrument.0 += 1,
            |it| it.price.0 += 1,
            |it| it.qty.0 += 1,
            |it| it.value.0 += 1,
            |it| it.aggressor = Side::Sell,
            |it| it.taker_order.0 += 1,
            |it| it.taker.0 += 1,
            |it| it.taker_fee.0 += 1,
            |it| it.maker_order.0 += 1,
            |it| it.maker.0 += 1,
            |it| it.maker_fee.0 += 1,
        ];
        for change in changes {
            let mut changed = trade;
            change(&mut changed);
            events.push(Event::Traded(changed));
        }
        reports(&mut events);
        events
    }

    fn reports(events: &mut Vec<Event>) {
        let subject = || Subject {
            order: OrderId(1),
            label: Label(2),
            instrument: InstrumentId(3),
            side: Side::Buy,
            price: 4,
            remaining: 5,
            filled: 6,
            quote: 7,
        };
        let trade = |trade, price, qty, aggressor| Exec::Trade {
            trade: TradeId(trade),
            price: Price(price),
            qty: Qty(qty),
            aggressor,
        };
        let execs = [
            Exec::New,
            Exec::Replaced,
            Exec::Closed(Closure::Filled),
            Exec::Closed(Closure::Cancelled),
            trade(1, 2, 3, false),
            trade(1, 2, 3, true),
            trade(9, 2, 3, true),
            trade(1, 9, 3, true),
            trade(1, 2, 9, true),
        ];
        let body = |subject: &Subject, exec: Exec| {
            let (kind, fill) = exec.parts();
            ReportBody::Order(OrderReport::new(subject, kind, &fill))
        };
        let report = |[number, client_seq, seq, at, account]: [u64; 5], body| Report {
            number,
            client_seq,
            seq: Seq(seq),
            at: Nanos(at),
            account: AccountId(account as u32),
            body,
        };
        let mut bodies: Vec<_> = execs.map(|exec| body(&subject(), exec)).into();
        let changes: [fn(&mut Subject); 8] = [
            |it| it.order.0 += 1,
            |it| it.label.0 += 1 << 90,
            |it| it.instrument.0 += 1,
            |it| it.side = Side::Sell,
            |it| it.price += 1,
            |it| it.remaining += 1,
            |it| it.filled += 1,
            |it| it.quote += 1,
        ];
        for change in changes {
            let mut changed = subject();
            change(&mut changed);
            bodies.push(body(&changed, Exec::New));
        }
        bodies.push(ReportBody::Done { created: 1 });
        for body in bodies {
            events.push(Event::Report { session: SessionId(1), report: report([1, 2, 3, 4, 5], body) });
        }
        let first = body(&subject(), Exec::New);
        events.push(Event::Report { session: SessionId(2), report: report([1, 2, 3, 4, 5], first) });
        for nth in 0..5 {
            let mut numbers = [1, 2, 3, 4, 5];
            numbers[nth] += 10;
            events.push(Event::Report { session: SessionId(1), report: report(numbers, first) });
        }
    }

    #[test]
    fn whatever_changes_in_an_event_changes_its_bytes() {
        let events = events();
        let mut seen = BTreeMap::new();
        for event in &events {
            let mut out = Vec::new();
            append(event, &mut out);
            let mut again = Vec::new();
            append(&event.clone(), &mut again);
            assert_eq!(out, again, "{event:?}");
            if let Some(other) = seen.insert(out, event) {
                panic!("the same bytes: {other:?} and {event:?}");
            }
        }
        assert!(events.len() > 80);
    }
}
