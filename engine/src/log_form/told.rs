//! Events as bytes, for comparing what nodes came to: nothing ever reads them. Those of hot commands are put down field by field, each
//! as wide as its type; the others in their log form.

use super::append as append_general;
use crate::event::{
    Event, LevelAfter, LevelUpdate, OrderClosed, OrderOpened, Report, ReportBody, Subject, Told, Trade,
};
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

/// More bytes than any of them takes.
const MOST: usize = 160;

/// One event's bytes, until they are appended.
struct Form {
    bytes: [u8; MOST],
    len: usize,
}

/// Appends what `fill` puts down, which has one length for each kind of event, in one go.
#[inline(always)]
fn at_once(out: &mut Vec<u8>, fill: impl FnOnce(&mut Form)) {
    let mut form = Form { bytes: [0; MOST], len: 0 };
    fill(&mut form);
    out.extend_from_slice(&form.bytes[..form.len]);
}

#[inline(always)]
fn put<const N: usize>(form: &mut Form, bytes: [u8; N]) {
    form.bytes[form.len..form.len + N].copy_from_slice(&bytes);
    form.len += N;
}

/// Appends bytes that are equal for equal events and different for different ones.
pub(crate) fn append(event: &Event, out: &mut Vec<u8>) {
    match event {
        Event::Report { session, report } if matches!(report.body, ReportBody::Order(_)) => {
            at_once(out, |form| {
                put(form, [Tag::Report as u8]);
                put(form, session.0.to_le_bytes());
                order_report(report, form);
            })
        }
        Event::OrderOpened(OrderOpened { told, order, level, tag: None, tif }) => at_once(out, |form| {
            put(form, [Tag::Opened as u8, *tif as u8]);
            told_of(told, order, form);
            after(*level, form);
        }),
        Event::OrderReplaced(replaced) => at_once(out, |form| {
            put(form, [Tag::Replaced as u8]);
            told_of(&replaced.told, &replaced.order, form);
            put(form, replaced.left_qty.0.to_le_bytes());
            put(form, replaced.left_orders.to_le_bytes());
            put(form, replaced.left_price.to_le_bytes());
            put(form, replaced.joined_qty.0.to_le_bytes());
            put(form, replaced.joined_orders.to_le_bytes());
        }),
        Event::Traded(trade) => at_once(out, |form| {
            put(form, [Tag::Traded as u8]);
            traded(trade, form);
        }),
        Event::OrderClosed(OrderClosed { told, order, level, unfilled, reason }) => at_once(out, |form| {
            put(form, [Tag::Closed as u8, *reason as u8]);
            told_of(told, order, form);
            after(*level, form);
            put(form, unfilled.to_le_bytes());
        }),
        Event::Level { instrument, level: LevelUpdate { price, qty, orders, side } } => {
            at_once(out, |form| {
                put(form, [Tag::Level as u8, *side as u8]);
                put(form, instrument.0.to_le_bytes());
                put(form, price.0.to_le_bytes());
                put(form, qty.0.to_le_bytes());
                put(form, orders.to_le_bytes());
            })
        }
        other => {
            out.push(Tag::Other as u8);
            append_general(other, out);
        }
    }
}

#[inline(always)]
fn told_of(told: &Told, order: &Subject, form: &mut Form) {
    put(form, told.session.0.to_le_bytes());
    put(form, told.number.to_le_bytes());
    put(form, told.client_seq.to_le_bytes());
    put(form, order.label.0.to_le_bytes());
    put(form, order.id.0.to_le_bytes());
    put(form, order.account.0.to_le_bytes());
    put(form, order.price.to_le_bytes());
    put(form, order.remaining.to_le_bytes());
    put(form, order.filled.to_le_bytes());
    put(form, order.instrument.0.to_le_bytes());
    put(form, [order.side as u8, order.quote]);
}

#[inline(always)]
fn after(level: LevelAfter, form: &mut Form) {
    put(form, level.qty.0.to_le_bytes());
    put(form, level.orders.to_le_bytes());
}

#[inline(always)]
fn order_report(report: &Report, form: &mut Form) {
    let Report { number, client_seq, seq, at, account, body } = report;
    let ReportBody::Order(order) = body else {
        unreachable!("the caller has looked");
    };
    let (subject, kind, fill) = order.parts(*account);
    let (kind, more) = match kind {
        Kind::New => (0, 0),
        Kind::Replaced => (1, 0),
        Kind::Trade { aggressor } => (2, aggressor.into()),
        Kind::Closed(reason) => (3, reason as u8),
    };
    put(form, [kind, more, subject.side as u8, subject.quote]);
    put(form, number.to_le_bytes());
    put(form, client_seq.to_le_bytes());
    put(form, seq.0.to_le_bytes());
    put(form, at.0.to_le_bytes());
    put(form, account.0.to_le_bytes());
    put(form, subject.label.0.to_le_bytes());
    put(form, subject.id.0.to_le_bytes());
    put(form, subject.instrument.0.to_le_bytes());
    put(form, subject.price.to_le_bytes());
    put(form, subject.remaining.to_le_bytes());
    put(form, subject.filled.to_le_bytes());
    put(form, fill.trade.0.to_le_bytes());
    put(form, fill.price.to_le_bytes());
    put(form, fill.qty.to_le_bytes());
}

#[inline(always)]
fn traded(trade: &Trade, form: &mut Form) {
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
    put(form, [*aggressor as u8]);
    put(form, trade.0.to_le_bytes());
    put(form, instrument.0.to_le_bytes());
    put(form, price.0.to_le_bytes());
    put(form, qty.0.to_le_bytes());
    put(form, value.0.to_le_bytes());
    put(form, taker_order.0.to_le_bytes());
    put(form, taker.0.to_le_bytes());
    put(form, taker_fee.0.to_le_bytes());
    put(form, maker_order.0.to_le_bytes());
    put(form, maker.0.to_le_bytes());
    put(form, maker_fee.0.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::command::{Side, TimeInForce};
    use crate::event::{Closure, Exec, OrderReplaced, OrderReport};
    use crate::ids::{AccountId, InstrumentId, Label, OrderId, SessionId, TradeId};
    use crate::units::{Nanos, Price, Qty, Seq, Usd};

    fn subject() -> Subject {
        Subject {
            label: Label(1),
            id: OrderId(2),
            account: AccountId(3),
            price: 4,
            remaining: 5,
            filled: 6,
            instrument: InstrumentId(7),
            side: Side::Buy,
            quote: 8,
        }
    }

    /// One as it is, and with each thing of it changed.
    fn varied<T: Clone>(one: &T, changes: &[fn(&mut T)]) -> Vec<T> {
        let mut all = vec![one.clone()];
        for change in changes {
            let mut changed = one.clone();
            change(&mut changed);
            all.push(changed);
        }
        all
    }

    fn subjects() -> Vec<Subject> {
        varied(
            &subject(),
            &[
                |it| it.label.0 += 1 << 100,
                |it| it.id.0 += 1,
                |it| it.account.0 += 1,
                |it| it.price += 1,
                |it| it.remaining += 1,
                |it| it.filled += 1,
                |it| it.instrument.0 += 1,
                |it| it.side = Side::Sell,
                |it| it.quote += 1,
            ],
        )
    }

    fn tolds() -> Vec<Told> {
        let told = Told { session: SessionId(1), number: 2, client_seq: 3 };
        varied(
            &told,
            &[
                |it| it.session.0 += 1 << 90,
                |it| it.number += 1,
                |it| it.client_seq += 1,
                |it| *it = Told::NOBODY,
            ],
        )
    }

    fn levels() -> Vec<LevelAfter> {
        let level = LevelAfter { qty: Qty(1), orders: 2 };
        varied(&level, &[|it| it.qty.0 += 1, |it| it.orders += 1, |it| *it = LevelAfter::APART])
    }

    /// Every event of a hot command, and each of them with one thing changed.
    fn events() -> Vec<Event> {
        let (told, order, level) = (tolds()[0], subject(), levels()[0]);
        let opened = OrderOpened { told, order, level, tag: None, tif: TimeInForce::Gtc };
        let replaced = OrderReplaced {
            told,
            order,
            left_qty: Qty(1),
            joined_qty: Qty(2),
            left_orders: 3,
            joined_orders: 4,
            left_price: 5,
        };
        let closed = OrderClosed { told, order, level, unfilled: 1, reason: Closure::Filled };
        let mut events = Vec::new();
        for told in tolds() {
            events.push(Event::OrderOpened(OrderOpened { told, ..opened.clone() }));
            events.push(Event::OrderReplaced(OrderReplaced { told, ..replaced }));
            events.push(Event::OrderClosed(OrderClosed { told, ..closed }));
        }
        for order in subjects().into_iter().skip(1) {
            events.push(Event::OrderOpened(OrderOpened { order, ..opened.clone() }));
            events.push(Event::OrderReplaced(OrderReplaced { order, ..replaced }));
            events.push(Event::OrderClosed(OrderClosed { order, ..closed }));
        }
        for level in levels().into_iter().skip(1) {
            events.push(Event::OrderOpened(OrderOpened { level, ..opened.clone() }));
            events.push(Event::OrderClosed(OrderClosed { level, ..closed }));
        }
        let tag = Some(Box::new("tag".to_owned()));
        events.push(Event::OrderOpened(OrderOpened { tag, ..opened.clone() }));
        events.push(Event::OrderOpened(OrderOpened { tif: TimeInForce::Day, ..opened }));
        events.push(Event::OrderClosed(OrderClosed { unfilled: 2, ..closed }));
        events.push(Event::OrderClosed(OrderClosed { reason: Closure::Cancelled, ..closed }));
        let changes: [fn(&mut OrderReplaced); 5] = [
            |it| it.left_qty.0 += 1,
            |it| it.joined_qty.0 += 1,
            |it| it.left_orders += 1,
            |it| it.joined_orders += 1,
            |it| it.left_price += 1,
        ];
        events.extend(varied(&replaced, &changes).into_iter().skip(1).map(Event::OrderReplaced));
        let told = LevelUpdate { price: Price(1), qty: Qty(2), orders: 3, side: Side::Buy };
        let changes: [fn(&mut LevelUpdate); 4] =
            [|it| it.price.0 += 1, |it| it.qty.0 += 1, |it| it.orders += 1, |it| it.side = Side::Sell];
        for level in varied(&told, &changes) {
            events.push(Event::Level { instrument: InstrumentId(3), level });
        }
        events.push(Event::Level { instrument: InstrumentId(4), level: told });
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
        // Whose order it is says the report.
        let others = subjects().into_iter().skip(1).filter(|it| it.account == subject().account);
        bodies.extend(others.map(|it| body(&it, Exec::New)));
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

    #[test]
    fn the_bytes_are_those_of_every_version() {
        let mut bytes = Vec::new();
        events().iter().for_each(|event| append(event, &mut bytes));
        let found = (bytes.len(), xxhash_rust::xxh3::xxh3_64(&bytes));
        assert_eq!(found, (9_150, 7_120_285_113_206_158_548), "nodes of two versions compare them");
    }
}
