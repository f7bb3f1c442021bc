//! From the wire to the log: a client's message becomes an engine command, once, or is refused with a code.

use grid_engine::command::{
    Cover, MassCancelScope, NewOrder, OrderKind, OrderRef, QuoteEntry, QuoteProtection, QuoteSide, SelfTrade,
    Side, Surface, TimeInForce, TransferDirection, Usage,
};
use grid_engine::limits::QUOTE_ENTRIES;
use grid_engine::{
    AccountId, Command, InstrumentId, KeyId, Label, Nanos, OrderId, Price, Qty, ReservationId, SessionId,
    Tokens,
};
use grid_wire as wire;
use grid_wire::gateway_reject;

/// Which bucket a request draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Request,
    Cancel,
    MassCancel,
    /// Of so many entries, each of which counts as a request.
    MassQuote(u32),
}

const _: () = assert!(QUOTE_ENTRIES == wire::MAX_QUOTE_ENTRIES, "the schema says what the engine takes");

/// What every request says beside its command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) client_seq: u64,
    /// Nanoseconds UTC.
    pub(crate) sending_time: u64,
    /// Zero for never.
    pub(crate) valid_for_us: u32,
    /// Zero for the session's own.
    pub(crate) account: AccountId,
    pub(crate) label: u128,
    pub(crate) class: Class,
}

/// The command of a message and its head, or the code with which it is refused. `None` for a message that is no
/// command.
pub(crate) fn read(
    message: &wire::Message<'_>,
    session: SessionId,
    reservation_life: Nanos,
) -> Option<(Head, Result<Command, u16>)> {
    use wire::Message as M;
    let plain = |seq, time, account| head(seq, time, account, 0, 0, Class::Request);
    Some(match message {
        M::NewOrder(m) => new_order(m),
        M::NewOrderTagged(m) => (
            head(m.client_seq, m.sending_time, m.account, m.valid_for_us, m.label, Class::Request),
            place(&m.order(), m.tag.as_str().to_owned()),
        ),
        M::CancelOrder(m) => cancel(m),
        M::ReplaceOrder(m) => replace(m),
        M::MassCancel(m) => (
            head(m.client_seq, m.sending_time, m.account, m.valid_for_us, 0, Class::MassCancel),
            Ok(Command::MassCancel(MassCancelScope {
                instrument: m.instrument.map(InstrumentId),
                side: match m.side {
                    wire::SideScope::Both => None,
                    wire::SideScope::Buy => Some(Side::Buy),
                    wire::SideScope::Sell => Some(Side::Sell),
                },
                session: (m.scope == wire::CancelScope::Session).then_some(session),
            })),
        ),
        M::MassQuote(m, quotes) => {
            let entries = quotes.len().clamp(1, QUOTE_ENTRIES) as u32;
            let class = Class::MassQuote(entries);
            (head(m.client_seq, m.sending_time, m.account, m.valid_for_us, 0, class), mass_quote(m, quotes))
        }
        M::QuoteProtection(m) => (
            plain(m.client_seq, m.sending_time, m.account),
            Ok(Command::SetQuoteProtection(match (m.window_us, m.fills, m.qty) {
                (0, 0, 0) => None,
                (window_us, fills, qty) => Some(QuoteProtection {
                    window: Nanos(u64::from(window_us) * 1_000),
                    fills,
                    qty: Qty(qty),
                }),
            })),
        ),
        M::Reserve(m) => (
            plain(m.client_seq, m.sending_time, m.account),
            Ok(Command::Reserve {
                instrument: InstrumentId(m.instrument),
                tokens: Tokens(m.tokens),
                request: m.request_id,
                valid_for: match m.valid_for_ms {
                    0 => reservation_life,
                    ms => Nanos(u64::from(ms) * 1_000_000),
                },
                key: KeyId(m.key),
                surface: match m.surface {
                    wire::Surface::ChatCompletions => Surface::ChatCompletions,
                    wire::Surface::Messages => Surface::Messages,
                    wire::Surface::Responses => Surface::Responses,
                },
            }),
        ),
        M::Settle(m) => (
            plain(m.client_seq, m.sending_time, m.account),
            Ok(Command::Settle {
                reservation: ReservationId(m.reservation),
                usage: Usage {
                    supplier: AccountId(m.supplier),
                    offer: m.offer,
                    prompt_tokens: Tokens(m.prompt_tokens),
                    completion_tokens: Tokens(m.completion_tokens),
                    ttft_us: m.ttft_us,
                    duration_us: m.duration_us,
                    estimated: m.flags.has(wire::SettleFlags::ESTIMATED),
                    partial: m.flags.has(wire::SettleFlags::PARTIAL),
                    distrusted: m.flags.has(wire::SettleFlags::DISTRUSTED),
                    cover: match m.cover {
                        wire::Cover::Issuer => Cover::Issuer,
                        wire::Cover::Failed => Cover::Failed,
                        wire::Cover::Unable => Cover::Unable,
                    },
                    attempts: m.attempts,
                },
            }),
        ),
        M::Release(m) => (
            plain(m.client_seq, m.sending_time, m.account),
            Ok(Command::Release {
                reservation: ReservationId(m.reservation),
                supplier: AccountId(m.supplier),
            }),
        ),
        M::Transfer(m) => (
            plain(m.client_seq, m.sending_time, m.account),
            Ok(Command::Transfer {
                instrument: InstrumentId(m.instrument),
                qty: Qty(m.qty),
                direction: match m.direction {
                    wire::Direction::ToConsumption => TransferDirection::ToConsumption,
                    wire::Direction::ToTrading => TransferDirection::ToTrading,
                },
            }),
        ),
        M::DirectoryRequest(m, payload) => (
            plain(m.client_seq, m.sending_time, m.account),
            match payload.len() <= wire::MAX_PAYLOAD_LEN {
                true => Command::decode(payload).map_err(|_| gateway_reject::PAYLOAD),
                false => Err(gateway_reject::PAYLOAD),
            },
        ),
        _ => return None,
    })
}

fn head(
    client_seq: u64,
    sending_time: u64,
    account: u32,
    valid_for_us: u32,
    label: u128,
    class: Class,
) -> Head {
    Head { client_seq, sending_time, valid_for_us, account: AccountId(account), label, class }
}

/// See [`read`].
#[inline]
pub(crate) fn new_order(m: &wire::NewOrder) -> (Head, Result<Command, u16>) {
    (
        head(m.client_seq, m.sending_time, m.account, m.valid_for_us, m.label, Class::Request),
        place(m, String::new()),
    )
}

/// See [`read`].
#[inline]
pub(crate) fn cancel(m: &wire::CancelOrder) -> (Head, Result<Command, u16>) {
    (
        head(m.client_seq, m.sending_time, m.account, m.valid_for_us, m.label, Class::Cancel),
        order_ref(m.order_id, m.label).map(|order| Command::Cancel { order }),
    )
}

/// See [`read`].
#[inline]
pub(crate) fn replace(m: &wire::ReplaceOrder) -> (Head, Result<Command, u16>) {
    (
        head(m.client_seq, m.sending_time, m.account, m.valid_for_us, m.label, Class::Request),
        order_ref(m.order_id, m.label).map(|order| Command::Replace {
            order,
            qty: Qty(m.qty),
            price: Price(m.price),
            stp: self_trade(m.self_trade),
            post_only: m.flags.has(wire::OrderFlags::POST_ONLY),
        }),
    )
}

#[inline]
fn place(m: &wire::NewOrder, tag: String) -> Result<Command, u16> {
    let post_only = m.flags.has(wire::OrderFlags::POST_ONLY);
    let kind = match (m.order_type, m.time_in_force, post_only) {
        (wire::OrderType::Market, tif, false) => OrderKind::Market {
            max_slippage_bps: m.max_slippage_bps,
            fill_or_kill: tif == wire::TimeInForce::Fok,
        },
        (wire::OrderType::Limit, tif, false) => {
            let tif = match tif {
                wire::TimeInForce::Gtc => TimeInForce::Gtc,
                wire::TimeInForce::Ioc => TimeInForce::Ioc,
                wire::TimeInForce::Fok => TimeInForce::Fok,
                wire::TimeInForce::Day => TimeInForce::Day,
            };
            OrderKind::Limit { price: Price(m.price), tif }
        }
        (wire::OrderType::Limit, wire::TimeInForce::Gtc, true) => {
            OrderKind::Limit { price: Price(m.price), tif: TimeInForce::PostOnly }
        }
        // Post-only is a way to rest until cancelled; with anything else it contradicts itself.
        _ => return Err(gateway_reject::SYNTAX),
    };
    Ok(Command::Place(NewOrder {
        instrument: InstrumentId(m.instrument),
        side: match m.side {
            wire::Side::Buy => Side::Buy,
            wire::Side::Sell => Side::Sell,
        },
        kind,
        qty: Qty(m.qty),
        stp: self_trade(m.self_trade),
        label: Label(m.label),
        tag,
        to_consumption: m.flags.has(wire::OrderFlags::TO_CONSUMPTION),
    }))
}

fn mass_quote(m: &wire::MassQuote, quotes: &wire::Group<'_, wire::QuoteEntry>) -> Result<Command, u16> {
    // Numbers and their order are the engine's to judge; how much comes in at once is not.
    let fits = (1..=QUOTE_ENTRIES).contains(&quotes.len());
    // A quote has two sides, and only one of them buys.
    if !fits || m.flags.has(wire::OrderFlags::TO_CONSUMPTION) {
        return Err(gateway_reject::SYNTAX);
    }
    let entry = |entry: wire::QuoteEntry| QuoteEntry {
        instrument: InstrumentId(entry.instrument),
        quote: entry.quote,
        bid: QuoteSide { price: Price(entry.bid_price), qty: Qty(entry.bid_qty) },
        ask: QuoteSide { price: Price(entry.ask_price), qty: Qty(entry.ask_qty) },
    };
    Ok(Command::MassQuote {
        entries: quotes.iter().map(entry).collect(),
        stp: self_trade(m.self_trade),
        post_only: m.flags.has(wire::OrderFlags::POST_ONLY),
    })
}

fn order_ref(order_id: u64, label: u128) -> Result<OrderRef, u16> {
    match (order_id, label) {
        (0, 0) => Err(gateway_reject::SYNTAX),
        (0, label) => Ok(OrderRef::Label(Label(label))),
        (id, _) => Ok(OrderRef::Id(OrderId(id))),
    }
}

fn self_trade(mode: wire::SelfTrade) -> SelfTrade {
    match mode {
        wire::SelfTrade::None => SelfTrade::Allow,
        wire::SelfTrade::CancelNewest => SelfTrade::CancelIncoming,
        wire::SelfTrade::CancelOldest => SelfTrade::CancelResting,
        wire::SelfTrade::CancelBoth => SelfTrade::CancelBoth,
        wire::SelfTrade::Decrement => SelfTrade::Decrement,
    }
}
