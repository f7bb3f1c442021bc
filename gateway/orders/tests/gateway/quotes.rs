//! Mass quotes through the door: what is told of them and what is not, that none is done twice, and what a maker can do
//! wrong.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use grid_engine::command::SupplierProfile;
use grid_engine::{AccountId, Command, Entry, InstrumentId, OrderId, Reject, SessionId, State};
use grid_orders::{Config, Rate};
use grid_wire::{
    self as wire, MassQuote, MassQuoteReport, Message, OrderFlags, QuoteEntry, QuoteProtection, QuoteRefused,
    QuotesPulled, ReportFlags, Side, TerminateCode, gateway_reject,
};

use crate::client::Client;
use crate::failover::retransmitted;
use crate::market_data::{Image, truth};
use crate::venue::{Venue, key};
use crate::{assert_others_are_served, execution, rejected, start};

/// A quote of instrument 0, each side as price and Units.
pub(crate) fn quote(number: u8, bid: (u64, u64), ask: (u64, u64)) -> QuoteEntry {
    QuoteEntry {
        bid_price: bid.0,
        bid_qty: bid.1,
        ask_price: ask.0,
        ask_qty: ask.1,
        instrument: 0,
        quote: number,
    }
}

const NOTHING: (u64, u64) = (0, 0);

/// Sends a post-only mass quote; its number.
pub(crate) fn send(client: &mut Client, entries: &[QuoteEntry]) -> u64 {
    let client_seq = client.next_seq();
    let head = MassQuote { client_seq, flags: OrderFlags::POST_ONLY, ..MassQuote::default() };
    client.send(|out| head.encode(entries, out));
    client_seq
}

/// Sets protection; its number.
pub(crate) fn protect(client: &mut Client, window_us: u32, fills: u32, qty: u64) -> u64 {
    let client_seq = client.next_seq();
    let protection = QuoteProtection { client_seq, window_us, fills, qty, ..QuoteProtection::default() };
    client.send(|out| protection.encode(out));
    client_seq
}

pub(crate) fn quoted(message: Message<'_>) -> MassQuoteReport {
    match message {
        Message::MassQuoteReport(report) => report,
        other => panic!("{other:?} instead of a mass quote's report"),
    }
}

fn refused(message: Message<'_>) -> QuoteRefused {
    match message {
        Message::QuoteRefused(report) => report,
        other => panic!("{other:?} instead of a refused quote"),
    }
}

fn pulled(message: Message<'_>) -> QuotesPulled {
    match message {
        Message::QuotesPulled(report) => report,
        other => panic!("{other:?} instead of pulled quotes"),
    }
}

fn done(message: Message<'_>) -> wire::CommandReport {
    match message {
        Message::CommandReport(report) => report,
        other => panic!("{other:?} instead of a command's report"),
    }
}

/// Price levels with their Units.
type Levels = Vec<(u64, u64)>;

/// Bids and asks of instrument 0.
fn book(venue: &Venue) -> (Levels, Levels) {
    let of = |wanted| {
        let levels = truth(venue).into_iter().filter(move |((side, _), _)| *side == wanted);
        levels.map(|((_, price), (qty, _))| (price, qty)).collect()
    };
    (of(Side::Buy), of(Side::Sell))
}

/// Every order that rests on instrument 0: its quote's number and its price.
pub(crate) fn orders(state: &State) -> BTreeMap<OrderId, (u8, u64)> {
    let book = state.book(InstrumentId(0)).expect("the first instrument");
    let both = [grid_engine::command::Side::Buy, grid_engine::command::Side::Sell];
    both.into_iter().flat_map(|side| book.queue(side)).map(|o| (o.id, (o.quote, o.price.0))).collect()
}

#[test]
fn a_mass_quote_opens_moves_and_withdraws_and_has_one_answer_and_nothing_else() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let elsewhere = QuoteEntry { instrument: 1, ..quote(1, (50, 1), NOTHING) };
    let first = [quote(1, (90, 5), (110, 5)), quote(2, (80, 3), (120, 3)), elsewhere];
    let client_seq = send(&mut maker, &first);
    let opened = quoted(maker.next());
    assert_eq!((opened.session_seq, opened.client_seq, opened.account), (1, client_seq, 2));
    assert_eq!((opened.accepted, opened.refused), (6, 0), "a side where nothing is wanted is as wanted");
    assert_eq!(opened.flags, ReportFlags::none());
    assert_eq!(book(&venue), (vec![(80, 3), (90, 5)], vec![(110, 5), (120, 3)]));
    let ids = |venue: &Venue| orders(venue.engine.read().unwrap().state()).into_keys().collect::<Vec<_>>();
    let before = ids(&venue);
    // Past where the own asks stood: they make way first. The quote that is not named stays.
    send(&mut maker, &[quote(1, (112, 4), (118, 5)), quote(2, (105, 3), (125, 3))]);
    let moved = quoted(maker.next());
    assert_eq!((moved.session_seq, moved.accepted, moved.refused), (2, 4, 0));
    assert_eq!(book(&venue), (vec![(105, 3), (112, 4)], vec![(118, 5), (125, 3)]));
    assert_eq!(ids(&venue), before, "the same orders, moved");
    send(&mut maker, &[quote(1, NOTHING, NOTHING), quote(2, NOTHING, (125, 3))]);
    assert_eq!(quoted(maker.next()).session_seq, 3);
    assert_eq!(book(&venue), (vec![], vec![(125, 3)]));
    // A mass cancel takes quotes as any order, and they can be quoted anew.
    let all = wire::MassCancel { client_seq: maker.next_seq(), ..wire::MassCancel::default() };
    maker.send(|out| all.encode(out));
    assert!(matches!(maker.next(), Message::MassCancelReport(m) if m.cancelled == 2));
    let ended: BTreeMap<_, _> =
        (0..2).map(|_| execution(maker.next())).map(|report| (report.instrument, report.quote)).collect();
    assert_eq!(ended, BTreeMap::from([(0, 2), (1, 1)]), "each with its quote's number");
    send(&mut maker, &[quote(2, NOTHING, (126, 3))]);
    assert_eq!(quoted(maker.next()).accepted, 2);
    assert_eq!(book(&venue), (vec![], vec![(126, 3)]));
    venue.engine.read().unwrap().check_invariants().unwrap();
}

#[test]
fn a_refused_side_is_told_before_the_answer_and_leaves_nothing() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut buyer = Client::login(gateway.address(), &key(3), 30);
    buyer.order(Side::Buy, 100, 1);
    execution(buyer.next());
    send(&mut maker, &[quote(1, (90, 5), (110, 5)), quote(2, (80, 5), (120, 5))]);
    assert_eq!(quoted(maker.next()).accepted, 4);
    // The first one's ask would trade; the second one crosses itself; the third one has a bid off the limits.
    let entries = [
        quote(1, (91, 5), (95, 5)),
        quote(2, (130, 5), (125, 5)),
        quote(3, (u64::MAX, 1), NOTHING),
        quote(4, NOTHING, (140, 1)),
    ];
    let client_seq = send(&mut maker, &entries);
    let told: Vec<_> = (0..4).map(|_| refused(maker.next())).collect();
    let answer = quoted(maker.next());
    assert_eq!((answer.client_seq, answer.accepted, answer.refused), (client_seq, 4, 4));
    for (session_seq, refusal) in (2..).zip(&told) {
        assert_eq!((refusal.session_seq, refusal.log_seq), (session_seq, answer.log_seq));
        assert_eq!((refusal.account, refusal.instrument, refusal.match_time), (2, 0, answer.match_time));
        assert_eq!(refusal.flags, ReportFlags::none(), "it was asked for");
    }
    assert_eq!(answer.session_seq, 6);
    let mut why: Vec<_> = told.iter().map(|m| (m.quote, m.side, m.code)).collect();
    why.sort_unstable();
    let price = Reject::InvalidPrice.code();
    let expected = [
        (1, Side::Sell, Reject::WouldTrade.code()),
        (2, Side::Buy, price),
        (2, Side::Sell, price),
        (3, Side::Buy, price),
    ];
    assert_eq!(why, expected);
    assert_eq!(book(&venue), (vec![(91, 5), (100, 1)], vec![(140, 1)]), "of what was refused nothing stands");
}

#[test]
fn fills_and_ends_of_quotes_carry_their_number_and_those_of_other_orders_none() {
    let (_venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut taker = Client::login(gateway.address(), &key(3), 30);
    send(&mut maker, &[quote(63, (90, 5), (110, 5))]);
    quoted(maker.next());
    taker.order(Side::Buy, 110, 2);
    assert_eq!(execution(taker.next()).quote, 0);
    let taken = execution(taker.next());
    let made = execution(maker.next());
    assert_eq!((made.quote, made.side, made.label, made.client_seq), (63, Side::Sell, 0, 0));
    assert_eq!((made.trade_id, made.last_qty, made.leaves_qty), (taken.trade_id, 2, 3));
    assert!(made.flags.has(ReportFlags::UNSOLICITED) && taken.quote == 0);
    // A quote that may trade: its fill comes before the answer of the mass quote that made it.
    taker.order(Side::Buy, 100, 1);
    execution(taker.next());
    let client_seq = maker.next_seq();
    maker.send(|out| {
        MassQuote { client_seq, ..MassQuote::default() }.encode(&[quote(63, (90, 5), (100, 4))], out)
    });
    let crossed = execution(maker.next());
    assert_eq!((crossed.quote, crossed.client_seq, crossed.last_qty, crossed.leaves_qty), (63, 0, 1, 3));
    assert!(crossed.flags.has(ReportFlags::AGGRESSOR));
    let answer = quoted(maker.next());
    assert_eq!((answer.client_seq, answer.log_seq, answer.accepted), (client_seq, crossed.log_seq, 2));
    // By its id, as any order.
    let cancel = wire::CancelOrder {
        client_seq: maker.next_seq(),
        order_id: crossed.order_id,
        ..wire::CancelOrder::default()
    };
    maker.send(|out| cancel.encode(out));
    let ended = execution(maker.next());
    assert_eq!((ended.quote, ended.closure), (63, wire::Closure::Cancelled));
    maker.order(Side::Sell, 200, 1);
    assert_eq!(execution(maker.next()).quote, 0);
}

#[test]
fn what_was_sent_twice_is_done_once_and_what_was_missed_comes_again_in_the_same_bytes() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut taker = Client::login(gateway.address(), &key(3), 30);
    taker.order(Side::Buy, 60, 1);
    execution(taker.next());
    protect(&mut maker, 1_000, 2, 0);
    // One side of the second quote is refused.
    let entries = [quote(1, (50, 5), (110, 5)), quote(2, (50, 5), (55, 5))];
    let client_seq = send(&mut maker, &entries);
    venue.until(|state| state.sessions[&SessionId(20)].last_client_seq == client_seq);
    for _ in 0..2 {
        taker.order(Side::Buy, 110, 1);
        execution(taker.next());
        execution(taker.next());
    }
    // Done; a refusal, the answer; two fills; pulled, and three orders ended.
    let live: Vec<_> = (0..9).map(|_| maker.try_frame().expect("a report")).collect();
    let decode =
        |frame: &'static [u8]| Message::decode(&wire::scan(frame, 4_096).unwrap().unwrap().0).unwrap();
    let names: Vec<_> = live.iter().map(|frame| decode(frame.clone().leak()).name()).collect();
    let execution = "ExecutionReport";
    let expected = ["CommandReport", "QuoteRefused", "MassQuoteReport", execution, execution, "QuotesPulled"];
    assert_eq!(names[..6], expected);
    assert_eq!(names[6..], [execution; 3]);
    let before = book(&venue);
    // The same number again: the answer of then.
    maker.client_seq = client_seq - 1;
    send(&mut maker, &entries);
    let again = maker.try_frame().expect("an answer");
    let resent = quoted(decode(again.leak()));
    let MassQuoteReport { flags, .. } = resent;
    assert!(flags.has(ReportFlags::POSS_RESEND));
    let first = quoted(decode(live[2].clone().leak()));
    assert_eq!(MassQuoteReport { flags: first.flags, ..resent }, first);
    assert_eq!(book(&venue), before);
    maker.close();
    let mut maker = Client::connect(gateway.address());
    maker.establish(&key(2), 20, 60_000, 1, None);
    let ack = maker.acknowledged();
    assert_eq!((ack.last_client_seq, ack.next_seq), (client_seq, 10));
    for (again, live) in retransmitted(&mut maker, 9).iter().zip(&live) {
        let odd = (0..live.len()).filter(|&at| again[at] != live[at]).count();
        assert!(again.len() == live.len() && odd == 1, "only possResend differs");
    }
    // Nobody else's session is concerned: the numbers are its own.
    let mut other = Client::login(gateway.address(), &key(2), 21);
    send(&mut other, &[quote(1, (40, 1), NOTHING)]);
    assert_eq!(quoted(other.next()).accepted, 2);
}

#[test]
fn protection_pulls_all_quotes_and_nothing_is_quoted_before_it_is_set_again() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut taker = Client::login(gateway.address(), &key(3), 30);
    let mut take = |price, qty| {
        taker.order(Side::Buy, price, qty);
        execution(taker.next());
        execution(taker.next());
    };
    let client_seq = protect(&mut maker, 1_000_000, 2, 0);
    assert_eq!(done(maker.next()).client_seq, client_seq);
    let entries = [quote(1, (90, 5), (110, 5)), quote(2, (80, 5), (120, 5))];
    send(&mut maker, &entries);
    quoted(maker.next());
    // An order of its own that is no quote stays.
    maker.order(Side::Buy, 10, 1);
    execution(maker.next());
    take(110, 1);
    assert_eq!(execution(maker.next()).quote, 1);
    // A second later the count begins anew.
    venue.now.fetch_add(1_000_000_000, Ordering::SeqCst);
    take(110, 1);
    assert_eq!(execution(maker.next()).quote, 1);
    venue.now.fetch_add(999_999_999, Ordering::SeqCst);
    take(110, 1);
    let fill = execution(maker.next());
    let told = pulled(maker.next());
    assert_eq!((told.count, told.account, told.log_seq), (4, 2, fill.log_seq));
    assert!(told.flags.has(ReportFlags::UNSOLICITED));
    let ended: BTreeMap<_, _> = (0..4)
        .map(|_| execution(maker.next()))
        .map(|report| ((report.quote, report.side), (report.closure, report.log_seq)))
        .collect();
    assert!(ended.values().all(|end| *end == (wire::Closure::Cancelled, fill.log_seq)));
    let sides = [(1, Side::Buy), (1, Side::Sell), (2, Side::Buy), (2, Side::Sell)];
    assert!(ended.into_keys().eq(sides), "each once");
    assert_eq!(book(&venue), (vec![(10, 1)], vec![]));
    send(&mut maker, &entries);
    assert_eq!(rejected(maker.next()).code, Reject::QuotesPulled.code());
    assert_eq!(Reject::QuotesPulled.code(), 24);
    for (window_us, fills, qty) in [(0, 1, 0), (0, 0, 1), (1, 0, 0)] {
        protect(&mut maker, window_us, fills, qty);
        assert_eq!(rejected(maker.next()).code, Reject::OutOfRange.code(), "half a protection is none");
    }
    // By Units, of which one fill is enough; and then off.
    protect(&mut maker, 1, 0, 3);
    done(maker.next());
    send(&mut maker, &entries);
    assert_eq!(quoted(maker.next()).accepted, 4);
    take(110, 3);
    assert_eq!(execution(maker.next()).last_qty, 3);
    assert_eq!(pulled(maker.next()).count, 4);
    for _ in 0..4 {
        execution(maker.next());
    }
    protect(&mut maker, 0, 0, 0);
    done(maker.next());
    send(&mut maker, &entries);
    assert_eq!(quoted(maker.next()).accepted, 4);
    for _ in 0..4 {
        take(110, 1);
        assert_eq!(execution(maker.next()).last_qty, 1);
    }
    assert_eq!(book(&venue).1, [(110, 1), (120, 5)]);
}

#[test]
fn quotes_with_anything_wrong_are_refused_by_number_and_nothing_of_them_is_done() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let good = quote(1, (90, 5), (110, 5));
    let many =
        |count: u8| (1..=count).map(|number| quote(number % 64, (90, 1), (110, 1))).collect::<Vec<_>>();
    let elsewhere = QuoteEntry { instrument: 1, ..good };
    let range = Reject::OutOfRange.code();
    let cases = [
        ("no entry", vec![], gateway_reject::SYNTAX),
        ("65 entries", many(65), gateway_reject::SYNTAX),
        ("a group as long as a frame can be", many(255).repeat(3), gateway_reject::SYNTAX),
        ("number 0", vec![quote(0, (90, 5), (110, 5))], range),
        ("number 64", vec![good, quote(64, (80, 5), (120, 5))], range),
        ("number 255", vec![quote(255, (90, 5), (110, 5))], range),
        ("one twice", vec![good, good], range),
        ("numbers that descend", vec![quote(2, (90, 5), (110, 5)), good], range),
        ("instruments that descend", vec![elsewhere, good], range),
    ];
    for (what, entries, code) in cases {
        let client_seq = send(&mut maker, &entries);
        let reject = rejected(maker.next());
        assert_eq!((reject.code, reject.client_seq), (code, client_seq), "{what}");
    }
    let mut head = MassQuote { client_seq: maker.next_seq(), ..MassQuote::default() };
    head.flags = OrderFlags::TO_CONSUMPTION;
    maker.send(|out| head.encode(&[good], out));
    assert_eq!(rejected(maker.next()).code, gateway_reject::SYNTAX, "an ask buys nothing to consume");
    let foreign = MassQuote { client_seq: maker.next_seq(), account: 3, ..MassQuote::default() };
    maker.send(|out| foreign.encode(&[good], out));
    assert_eq!(rejected(maker.next()).code, Reject::NotPermitted.code());
    let stale =
        MassQuote { client_seq: maker.next_seq(), sending_time: 1, valid_for_us: 1, ..MassQuote::default() };
    maker.send(|out| stale.encode(&[good], out));
    assert_eq!(rejected(maker.next()).code, gateway_reject::STALE);
    let client_seq = maker.next_seq();
    let mut bytes = Vec::new();
    MassQuote { client_seq, ..MassQuote::default() }.encode(&[good], &mut bytes);
    bytes[wire::HEADER_LEN + 24] = 77;
    maker.send_bytes(&bytes);
    let reject = rejected(maker.next());
    assert_eq!(
        (reject.code, reject.client_seq),
        (gateway_reject::SYNTAX, client_seq),
        "no such self-trade mode"
    );
    assert_eq!(book(&venue), (vec![], vec![]));
    // An instrument that is not there is a matter of its own sides, and of no other.
    send(&mut maker, &[good, QuoteEntry { instrument: 999, ..good }]);
    for _ in 0..2 {
        let told = refused(maker.next());
        assert_eq!((told.instrument, told.code), (999, Reject::UnknownInstrument.code()));
    }
    assert_eq!(quoted(maker.next()).accepted, 2);
    assert_eq!(book(&venue), (vec![(90, 5)], vec![(110, 5)]));
}

#[test]
fn groups_that_lie_about_their_length_end_the_connection_and_nothing_else() {
    let (venue, gateway) = start(Config::default());
    let mut frame = Vec::new();
    MassQuote { client_seq: 1, ..MassQuote::default() }
        .encode(&[quote(1, (90, 5), (110, 5)), quote(2, (80, 5), (120, 5))], &mut frame);
    let group = wire::HEADER_LEN + usize::from(u16::from_le_bytes([frame[6], frame[7]]));
    let changed = |at: usize, word: u16| {
        let mut frame = frame.clone();
        frame[at..at + 2].copy_from_slice(&word.to_le_bytes());
        frame
    };
    let mut cut = frame[..frame.len() - 1].to_vec();
    let length = cut.len() as u32;
    cut[..4].copy_from_slice(&length.to_le_bytes());
    let cases = [
        ("more entries than there are", changed(group + 2, 3)),
        ("as many as can be said", changed(group + 2, u16::MAX)),
        ("fewer entries than there are", changed(group + 2, 1)),
        ("entries of no length", changed(group, 0)),
        ("entries that are too short", changed(group, 34)),
        ("entries that are too long", changed(group, 36)),
        ("a block that ends early", changed(6, 25)),
        ("a block that swallows the group", changed(6, 26 + 4)),
        ("a byte short", cut),
    ];
    for (session, (what, bytes)) in (100..).zip(cases) {
        let mut maker = Client::login(gateway.address(), &key(2), session);
        maker.send_bytes(&bytes);
        assert_eq!(maker.terminated(), (Vec::new(), TerminateCode::BadMessage), "{what}");
        assert_eq!(book(&venue), (vec![], vec![]), "{what}");
    }
    assert_others_are_served(&gateway, 40);
}

#[test]
fn each_entry_counts_as_a_request() {
    let slow = Rate { per_second: 0, burst: 10 };
    let (venue, gateway) = start(Config { requests: slow, ..Config::default() });
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let six: Vec<_> = (1..=6).map(|number| quote(number, (90, 1), (110, 1))).collect();
    send(&mut maker, &six);
    assert_eq!(quoted(maker.next()).accepted, 12);
    let client_seq = send(&mut maker, &[&six[..5], &[quote(6, NOTHING, NOTHING)]].concat());
    assert!(matches!(maker.next(), Message::Throttled(m) if m.client_seq == client_seq));
    assert_eq!(book(&venue), (vec![(90, 6)], vec![(110, 6)]));
    send(&mut maker, &six[..4]);
    assert_eq!(quoted(maker.next()).accepted, 8, "what was refused took nothing");
    // A mass quote that is larger than the bucket can pass all the same.
    let mut other = Client::login(gateway.address(), &key(2), 21);
    let all: Vec<_> = (1..=63).map(|number| quote(number, (90, 1), (110, 1))).collect();
    send(&mut other, &all);
    assert_eq!(quoted(other.next()).accepted, 126);
}

#[test]
fn quotes_of_a_lost_session_are_cancelled_when_the_grace_has_run_out_in_log_time() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::connect(gateway.address());
    maker.negotiate(&key(2), 20);
    assert!(matches!(maker.next(), Message::NegotiationResponse(_)));
    maker.establish(&key(2), 20, 1_000, 1, Some(500));
    maker.acknowledged();
    send(&mut maker, &[quote(1, (90, 5), (110, 5)), quote(2, (80, 5), (120, 5))]);
    quoted(maker.next());
    maker.close();
    venue.until(|state| state.sessions[&SessionId(20)].connection.is_none());
    assert_eq!(book(&venue).0.len(), 2);
    venue.now.fetch_add(500_000_000, Ordering::SeqCst);
    venue.inject(Entry::venue(Command::Tick));
    venue.until(|state| state.account(AccountId(2)).is_some_and(|account| account.orders.is_empty()));
    let mut maker = Client::connect(gateway.address());
    maker.establish(&key(2), 20, 1_000, 2, Some(500));
    let ack = maker.acknowledged();
    assert_eq!((ack.next_seq, ack.last_client_seq), (6, 1));
    maker.client_seq = 1;
    maker.send(|out| wire::RetransmitRequest { from: 2, count: 4 }.encode(out));
    assert!(matches!(maker.next(), Message::Retransmission(_)));
    let ended: Vec<_> = (0..4).map(|_| execution(maker.next())).collect();
    assert!(ended.iter().all(|report| report.closure == wire::Closure::Cancelled && report.quote != 0));
    send(&mut maker, &[quote(1, (90, 5), (110, 5))]);
    assert_eq!(quoted(maker.next()).accepted, 2);
    assert_eq!(book(&venue), (vec![(90, 5)], vec![(110, 5)]));
}

#[test]
fn a_suspended_suppliers_asks_end_and_are_refused_while_its_bids_go_on() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut other = Client::login(gateway.address(), &key(3), 30);
    let stands = |suspended| {
        let profile = SupplierProfile { suspended, ..SupplierProfile::default() };
        venue.operate(2, Command::RegisterSupplier(Box::new(profile)));
    };
    let elsewhere = QuoteEntry { instrument: 1, ..quote(1, (50, 5), (60, 5)) };
    send(&mut maker, &[quote(1, (90, 5), (110, 5)), quote(2, (80, 5), (120, 5)), elsewhere]);
    assert_eq!(quoted(maker.next()).accepted, 6);
    other.order(Side::Buy, 110, 2);
    assert_eq!(execution(maker.next()).quote, 1);
    for _ in 0..2 {
        execution(other.next());
    }
    stands(true);
    let ended: Vec<_> = (0..3).map(|_| execution(maker.next())).collect();
    for report in &ended {
        assert_eq!((report.exec_type, report.closure), (wire::ExecType::Cancelled, wire::Closure::Suspended));
        assert_eq!((report.client_seq, report.side, report.leaves_qty), (0, Side::Sell, 0));
    }
    let mut which: Vec<_> = ended.iter().map(|m| (m.instrument, m.quote, m.cum_qty)).collect();
    which.sort_unstable();
    assert_eq!(which, [(0, 1, 2), (0, 2, 0), (1, 1, 0)], "every ask, with what was filled of it");
    assert_eq!(book(&venue), (vec![(80, 5), (90, 5)], vec![]), "bids stand");
    // A maker that knows nothing of it goes on: asks are refused each time, bids move, and what is not wanted is as wanted.
    let wanted = [quote(1, (91, 5), (111, 5)), quote(2, (81, 5), NOTHING)];
    for _ in 0..2 {
        send(&mut maker, &wanted);
        let why = refused(maker.next());
        assert_eq!((why.quote, why.side, why.code), (1, Side::Sell, Reject::Suspended.code()));
        let answer = quoted(maker.next());
        assert_eq!((answer.accepted, answer.refused), (3, 1));
        assert_eq!(book(&venue), (vec![(81, 5), (91, 5)], vec![]));
    }
    other.order(Side::Sell, 91, 2);
    let bought = execution(maker.next());
    assert_eq!((bought.quote, bought.side, bought.last_qty), (1, Side::Buy, 2));
    stands(false);
    send(&mut maker, &wanted);
    assert_eq!(quoted(maker.next()).accepted, 4, "nothing of the suspension is left");
    assert_eq!(book(&venue), (vec![(81, 5), (91, 5)], vec![(111, 5)]));
    venue.engine.read().unwrap().check_invariants().unwrap();
}

#[test]
fn subscribers_have_the_exact_book_while_quotes_move() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut watcher = Client::login(gateway.address(), &key(3), 30);
    watcher.send(|out| wire::MarketDataSubscribe { request_id: 5, instrument: 0, depth: 0 }.encode(out));
    let mut image = Image::default();
    image.hear(&watcher.next());
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..300 {
        let entries: Vec<_> = (1..=8)
            .map(|number| {
                let (middle, spread) = (100 + draw(40), 1 + draw(9));
                quote(number, (middle - spread, draw(4)), (middle + spread, draw(4)))
            })
            .collect();
        // Every third may trade, with its own quotes too.
        let client_seq = maker.next_seq();
        let flags = OrderFlags::none().with(OrderFlags::POST_ONLY, round % 3 > 0);
        maker.send(|out| MassQuote { client_seq, flags, ..MassQuote::default() }.encode(&entries, out));
        maker.order(if round % 2 == 0 { Side::Buy } else { Side::Sell }, 100 + draw(40), 1);
    }
    let all = wire::MassCancel { client_seq: maker.next_seq(), ..wire::MassCancel::default() };
    maker.send(|out| all.encode(out));
    send(&mut maker, &[quote(63, (1, 7), (999, 8))]);
    venue.until(|state| state.sessions[&SessionId(20)].last_client_seq == maker.client_seq);
    let truth = truth(&venue);
    assert_eq!(truth.len(), 2);
    while image.levels != truth {
        image.hear(&watcher.next());
    }
    let trades = venue.engine.read().unwrap().state().counters.trade;
    assert!(trades > 50 && image.trades.len() as u64 == trades, "{} of {trades}", image.trades.len());
    venue.engine.read().unwrap().check_invariants().unwrap();
}
