//! What a participant asks for, and each answer.

use grid_engine::Command;
use grid_orders::{Config, Rate};
use grid_wire::{self as wire, Message, NewOrder, ReportFlags, Side, TerminateCode, gateway_reject};

use crate::client::{Client, now};
use crate::venue::{self, key};
use crate::{assert_others_are_served, execution, rejected, start};

#[test]
fn two_clients_trade_and_each_hears_its_own_reports_in_order() {
    let (venue, gateway) = start(Config::default());
    let mut maker = Client::login(gateway.address(), &key(2), 20);
    let mut taker = Client::login(gateway.address(), &key(3), 30);
    maker.order(Side::Sell, 100, 5);
    let opened = execution(maker.next());
    assert_eq!((opened.session_seq, opened.client_seq, opened.leaves_qty), (1, 1, 5));
    assert_eq!((opened.exec_type, opened.ord_status), (wire::ExecType::New, wire::OrdStatus::New));
    assert_eq!((opened.account, opened.instrument, opened.side), (2, 0, Side::Sell));
    let client_seq = taker.next_seq();
    let order =
        NewOrder { client_seq, label: 77, side: Side::Buy, price: 120, qty: 3, ..NewOrder::default() };
    taker.send(|out| order.encode(out));
    let answer = execution(taker.next());
    assert_eq!((answer.exec_type, answer.client_seq, answer.label), (wire::ExecType::New, 1, 77));
    let fill = execution(taker.next());
    assert_eq!((fill.exec_type, fill.last_price, fill.last_qty), (wire::ExecType::Trade, 100, 3));
    assert_eq!((fill.ord_status, fill.leaves_qty, fill.cum_qty), (wire::OrdStatus::Filled, 0, 3));
    assert!(fill.flags.has(ReportFlags::AGGRESSOR));
    let made = execution(maker.next());
    assert_eq!((made.session_seq, made.trade_id, made.leaves_qty), (2, fill.trade_id, 2));
    assert!(made.flags.has(ReportFlags::UNSOLICITED) && !made.flags.has(ReportFlags::AGGRESSOR));
    let client_seq = maker.next_seq();
    let cancel = wire::CancelOrder { client_seq, order_id: opened.order_id, ..wire::CancelOrder::default() };
    maker.send(|out| cancel.encode(out));
    let ended = execution(maker.next());
    assert_eq!((ended.exec_type, ended.closure), (wire::ExecType::Cancelled, wire::Closure::Cancelled));
    venue.engine.read().unwrap().check_invariants().unwrap();
}

#[test]
fn a_gap_is_told_at_once_and_the_session_goes_on() {
    let (_venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    client.client_seq = 4;
    client.order(Side::Buy, 10, 1);
    assert_eq!(client.next(), Message::NotApplied(wire::NotApplied { from: 1, count: 4 }));
    assert_eq!(execution(client.next()).client_seq, 5);
    client.client_seq = 1;
    client.order(Side::Buy, 10, 1);
    assert_eq!(rejected(client.next()).code, gateway_reject::FORGOTTEN, "a skipped number is never executed");
    client.send(|out| wire::Sequence { next_seq: 9 }.encode(out));
    assert_eq!(client.next(), Message::NotApplied(wire::NotApplied { from: 6, count: 3 }));
}

#[test]
fn orders_replace_mass_cancel_and_transfers_have_their_own_answers() {
    let (_venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    client.order(Side::Sell, 100, 5);
    let order_id = execution(client.next()).order_id;
    let client_seq = client.next_seq();
    let replace =
        wire::ReplaceOrder { client_seq, order_id, price: 101, qty: 4, ..wire::ReplaceOrder::default() };
    client.send(|out| replace.encode(out));
    let replaced = execution(client.next());
    assert_eq!((replaced.exec_type, replaced.price, replaced.leaves_qty), (wire::ExecType::Replaced, 101, 4));
    let tag = wire::Tag::new("my-order").unwrap();
    let client_seq = client.next_seq();
    let tagged = NewOrder { client_seq, label: 8, side: Side::Buy, price: 10, qty: 1, ..NewOrder::default() };
    client.send(|out| tagged.tagged(tag).encode(out));
    assert_eq!(execution(client.next()).label, 8);
    let client_seq = client.next_seq();
    let again = NewOrder { client_seq, ..tagged };
    client.send(|out| again.tagged(tag).encode(out));
    let duplicate = rejected(client.next());
    assert_eq!(duplicate.code, grid_engine::Reject::DuplicateLabel.code());
    assert!(duplicate.existing_id > 0 && duplicate.session_seq > 0);
    let client_seq = client.next_seq();
    let all = wire::MassCancel { client_seq, ..wire::MassCancel::default() };
    client.send(|out| all.encode(out));
    assert!(matches!(client.next(), Message::MassCancelReport(m) if m.cancelled == 2));
    let ended: Vec<_> = (0..2).map(|_| execution(client.next()).closure).collect();
    assert_eq!(ended, [wire::Closure::Cancelled; 2]);
    let client_seq = client.next_seq();
    let transfer = wire::Transfer { client_seq, qty: 1, ..wire::Transfer::default() };
    client.send(|out| transfer.encode(out));
    assert!(matches!(client.next(), Message::CommandReport(m) if m.client_seq == client_seq));
    let client_seq = client.next_seq();
    let reserve = wire::Reserve { client_seq, request_id: 1, tokens: 10, ..wire::Reserve::default() };
    client.send(|out| reserve.encode(out));
    assert_eq!(
        rejected(client.next()).code,
        grid_engine::Reject::NotPermitted.code(),
        "delivery is the tiers' alone"
    );
    let foreign =
        wire::MassCancel { client_seq: client.next_seq(), account: 3, ..wire::MassCancel::default() };
    client.send(|out| foreign.encode(out));
    assert_eq!(rejected(client.next()).code, grid_engine::Reject::NotPermitted.code());
}

#[test]
fn the_operator_reaches_the_directory_and_delivery_works_through_the_door() {
    let (_venue, gateway) = start(Config::default());
    let mut tier = Client::login(gateway.address(), &venue::operator_key(), 10);
    let mut payload = Vec::new();
    Command::SetAutoBuy(Default::default()).encode(&mut payload);
    let request = |tier: &mut Client, account, payload: &[u8]| {
        let client_seq = tier.next_seq();
        let head = wire::DirectoryRequest { client_seq, account, ..wire::DirectoryRequest::default() };
        tier.send(|out| head.encode(payload, out));
    };
    request(&mut tier, 2, &payload);
    assert!(matches!(tier.next(), Message::CommandReport(m) if m.account == 2));
    request(&mut tier, 2, b"\xff\xff\xff");
    assert_eq!(rejected(tier.next()).code, gateway_reject::PAYLOAD);
    payload.clear();
    Command::Tick.encode(&mut payload);
    request(&mut tier, 1, &payload);
    assert_eq!(rejected(tier.next()).code, grid_engine::Reject::NotPermitted.code());

    let transfer =
        wire::Transfer { client_seq: tier.next_seq(), account: 2, qty: 2, ..wire::Transfer::default() };
    tier.send(|out| transfer.encode(out));
    assert!(matches!(tier.next(), Message::CommandReport(_)));
    let client_seq = tier.next_seq();
    let reserve =
        wire::Reserve { client_seq, request_id: 5, tokens: 1_000, account: 2, ..wire::Reserve::default() };
    tier.send(|out| reserve.encode(out));
    let Message::ReserveReport(reserved, issuers) = tier.next() else { panic!("no reservation") };
    assert_eq!((reserved.tokens, reserved.account), (1_000, 2));
    assert_eq!(issuers.iter().map(|issuer| issuer.supplier).collect::<Vec<_>>(), [2]);
    let settle = wire::Settle {
        client_seq: tier.next_seq(),
        reservation: reserved.reservation,
        prompt_tokens: 100,
        completion_tokens: 200,
        account: 2,
        supplier: 2,
        ttft_us: 1_000,
        duration_us: 5_000,
        ..wire::Settle::default()
    };
    tier.send(|out| settle.encode(out));
    assert!(matches!(tier.next(), Message::SettleReport(m) if (m.billed, m.unbilled) == (300, 0)));
}

#[test]
fn two_levels_of_throttle_refuse_and_then_end_and_mass_cancel_always_passes() {
    let slow = Rate { per_second: 0, burst: 3 };
    let (_venue, gateway) =
        start(Config { requests: slow, cancels: slow, refusals: slow, ..Config::default() });
    let mut client = Client::login(gateway.address(), &key(2), 20);
    for price in 1..=5 {
        client.order(Side::Buy, price, 1);
    }
    let all = wire::MassCancel { client_seq: client.next_seq(), ..wire::MassCancel::default() };
    client.send(|out| all.encode(out));
    for price in 6..=9 {
        client.order(Side::Buy, price, 1);
    }
    let (said, code) = client.terminated();
    assert_eq!(code, TerminateCode::Throttled);
    let of = |wanted: fn(&Message<'_>) -> bool| said.iter().filter(|message| wanted(message)).count();
    assert_eq!(of(|m| matches!(m, Message::Throttled(_))), 3);
    assert_eq!(of(|m| matches!(m, Message::NotApplied(_))), 0, "a refused number is spent, not a gap");
    assert_others_are_served(&gateway, 40);
}

#[test]
fn stale_and_senseless_requests_are_refused_by_number_and_the_session_goes_on() {
    let (_venue, gateway) = start(Config::default());
    let mut client = Client::login(gateway.address(), &key(2), 20);
    let order = NewOrder { price: 1, qty: 1, ..NewOrder::default() };
    let stale = NewOrder { client_seq: 1, sending_time: now() - 2_000_000, valid_for_us: 1_000, ..order };
    client.send(|out| stale.encode(out));
    let reject = rejected(client.next());
    assert_eq!((reject.code, reject.client_seq, reject.session_seq), (gateway_reject::STALE, 1, 0));
    let contradiction = NewOrder {
        client_seq: 2,
        flags: wire::OrderFlags::POST_ONLY,
        time_in_force: wire::TimeInForce::Ioc,
        ..order
    };
    client.send(|out| contradiction.encode(out));
    assert_eq!(rejected(client.next()).code, gateway_reject::SYNTAX);
    let mut bytes = Vec::new();
    NewOrder { client_seq: 3, ..order }.encode(&mut bytes);
    bytes[wire::HEADER_LEN + 60] = 77;
    client.send_bytes(&bytes);
    let reject = rejected(client.next());
    assert_eq!((reject.code, reject.client_seq), (gateway_reject::SYNTAX, 3));
    client.send(|out| order.encode(out));
    assert_eq!(rejected(client.next()).code, gateway_reject::ZERO_SEQUENCE);
    for (price, qty) in [(0, 1), (1, 0), (u64::MAX, 1), (1, u64::MAX), (2_000_000, 1)] {
        client.client_seq = client.client_seq.max(3);
        client.order(Side::Buy, price, qty);
        let reject = rejected(client.next());
        assert!(reject.code < 1_000 && reject.session_seq > 0, "the engine says what is wrong: {reject:?}");
    }
    let nowhere = NewOrder { client_seq: client.next_seq(), instrument: 999, ..order };
    client.send(|out| nowhere.encode(out));
    assert_eq!(rejected(client.next()).code, grid_engine::Reject::UnknownInstrument.code());
    let unknown =
        wire::CancelOrder { client_seq: client.next_seq(), order_id: 12_345, ..wire::CancelOrder::default() };
    client.send(|out| unknown.encode(out));
    assert_eq!(rejected(client.next()).code, grid_engine::Reject::UnknownOrder.code());
    client.order(Side::Buy, 1, 1);
    assert_eq!(execution(client.next()).exec_type, wire::ExecType::New);
}
