//! What the clients ask for: orders and quotes near one price, so that many of them meet, and some that the venue must refuse.
//! Each request comes with the same as the checker reads it in the log.

use grid_client::{Quotes, Request};
use grid_wire::{
    CancelOrder, MassCancel, MassQuote, NewOrder, OrderFlags, QuoteEntry, QuoteProtection, ReplaceOrder,
    SelfTrade, Side, TimeInForce,
};
use serde_json::{Value, json};

use super::Dice;

/// Prices of the orders, in ticks, and how many there are.
const PRICES: (u64, u64) = (78, 5);
/// One that no order may have.
const NO_PRICE: u64 = 2_000_000;
/// Quotes of a session.
const QUOTES: u8 = 3;

/// One session's asking.
pub(super) struct Asker {
    /// The label of the last order.
    label: u64,
    /// Labels of orders that may be open.
    open: Vec<u64>,
}

impl Asker {
    pub(super) fn new(nth: usize) -> Self {
        Self { label: (nth as u64 + 1) << 40, open: Vec::new() }
    }

    /// The next request.
    pub(super) fn ask(&mut self, dice: &mut Dice) -> (Request, Value) {
        let kind = dice.below(100);
        if kind < 25 && self.open.len() > 10 {
            let at = dice.below(self.open.len() as u64) as usize;
            let label = self.open.swap_remove(at);
            let request = CancelOrder { label: label.into(), ..CancelOrder::default() };
            return (request.into(), json!({ "do": "cancel", "order": { "label": label } }));
        }
        if kind < 35 && self.open.len() > 10 {
            let label = self.open[dice.below(self.open.len() as u64) as usize];
            let (qty, price) = (dice.below(6), PRICES.0 + dice.below(PRICES.1));
            let request = ReplaceOrder { label: label.into(), qty, price, ..ReplaceOrder::default() };
            let said = json!({
                "do": "replace", "order": { "label": label }, "qty": qty, "price": price, "stp": "allow", "post_only": false,
            });
            return (request.into(), said);
        }
        match kind {
            99 => {
                self.open.clear();
                let said = json!({ "do": "mass_cancel", "instrument": null, "side": null, "session": null });
                (MassCancel::default().into(), said)
            }
            95..99 => protect(dice),
            75..95 => quote(dice),
            _ => {
                self.label += 1;
                self.open.push(self.label);
                if self.open.len() > 60 {
                    self.open.remove(0);
                }
                place(dice, self.label)
            }
        }
    }
}

fn place(dice: &mut Dice, label: u64) -> (Request, Value) {
    let (side, side_name) = if dice.below(2) == 0 { (Side::Buy, "buy") } else { (Side::Sell, "sell") };
    // One in thirty asks for what it can't have.
    let price = if dice.below(30) == 0 { NO_PRICE } else { PRICES.0 + dice.below(PRICES.1) };
    let qty = 1 + dice.below(9);
    let (time_in_force, post_only, tif) = match dice.below(8) {
        0 => (TimeInForce::Ioc, false, "ioc"),
        1 => (TimeInForce::Fok, false, "fok"),
        2 => (TimeInForce::Gtc, true, "post_only"),
        _ => (TimeInForce::Gtc, false, "gtc"),
    };
    let (self_trade, stp) = self_trade(dice);
    let request = NewOrder {
        instrument: 0,
        side,
        price,
        qty,
        label: label.into(),
        time_in_force,
        self_trade,
        flags: OrderFlags::none().with(OrderFlags::POST_ONLY, post_only),
        ..NewOrder::default()
    };
    let said = json!({
        "do": "place", "instrument": 0, "side": side_name, "kind": "limit", "price": price, "tif": tif, "qty": qty,
        "stp": stp, "label": label, "tag": "", "to_consumption": false,
    });
    (request.into(), said)
}

/// What happens where the other order is of the same account.
fn self_trade(dice: &mut Dice) -> (SelfTrade, &'static str) {
    match dice.below(6) {
        0 => (SelfTrade::CancelNewest, "cancel_incoming"),
        1 => (SelfTrade::CancelOldest, "cancel_resting"),
        2 => (SelfTrade::CancelBoth, "cancel_both"),
        3 => (SelfTrade::Decrement, "decrement"),
        _ => (SelfTrade::None, "allow"),
    }
}

/// Some of the session's quotes anew: some withdrawn, some crossed in themselves, and now and then all under a number that
/// there is not.
fn quote(dice: &mut Dice) -> (Request, Value) {
    let numbers = if dice.below(40) == 0 { 62..=64 } else { 1..=QUOTES };
    let named: Vec<u8> = numbers.filter(|_| dice.below(4) > 0).collect();
    let named = if named.is_empty() { vec![QUOTES] } else { named };
    let entries: Vec<_> = named.into_iter().map(|quote| entry(dice, quote)).collect();
    let post_only = dice.below(4) == 0;
    let (self_trade, stp) = self_trade(dice);
    let said: Vec<_> = entries
        .iter()
        .map(|entry| {
            json!({
                "instrument": entry.instrument, "quote": entry.quote,
                "bid": { "price": entry.bid_price, "qty": entry.bid_qty },
                "ask": { "price": entry.ask_price, "qty": entry.ask_qty },
            })
        })
        .collect();
    let flags = OrderFlags::none().with(OrderFlags::POST_ONLY, post_only);
    let how = MassQuote { self_trade, flags, ..MassQuote::default() };
    let said = json!({ "do": "mass_quote", "entries": said, "stp": stp, "post_only": post_only });
    (Quotes::new(how, entries).into(), said)
}

/// Both sides of a quote, more often apart than crossed.
fn entry(dice: &mut Dice, quote: u8) -> QuoteEntry {
    let bid_price = PRICES.0 - 1 + dice.below(PRICES.1 - 1);
    let ask_price = if dice.below(30) == 0 { NO_PRICE } else { PRICES.0 + 1 + dice.below(PRICES.1 - 1) };
    QuoteEntry { bid_price, bid_qty: dice.below(8), ask_price, ask_qty: dice.below(8), instrument: 0, quote }
}

/// Protection by fills or by Units, or none, or one that is only half said and refused.
fn protect(dice: &mut Dice) -> (Request, Value) {
    let (window_us, fills, qty) = match dice.below(8) {
        0 => (0, 0, 0),
        1 => (0, 3, 0),
        2..5 => (500_000, 2 + dice.below(3) as u32, 0),
        _ => (500_000, 0, 10 + dice.below(20)),
    };
    let request = QuoteProtection { window_us, fills, qty, ..QuoteProtection::default() };
    let off = (window_us, fills, qty) == (0, 0, 0);
    let said = json!({ "window": u64::from(window_us) * 1_000, "fills": fills, "qty": qty });
    let said = if off { Value::Null } else { said };
    (request.into(), json!({ "do": "set_quote_protection", "protection": said }))
}
