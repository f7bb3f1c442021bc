//! A first binary session: log in, watch a book, enter an order, hear what became of it, take it out again.
//!
//! `cargo run --example first_session -p grid-client -- READY_FILE`, where the file is what `grid demo --ready-file`
//! wrote. It trades as the demo's `trader`.

use std::error::Error;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use grid_client::{BookImage, Client, Config};
use grid_wire::{CancelOrder, NewOrder, OrderType, Side, TimeInForce};

/// `text-prime` is the second instrument of the embedded defaults.
const INSTRUMENT: u16 = 1;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: first_session READY_FILE")?;
    let ready: serde_json::Value = serde_json::from_slice(&std::fs::read(path)?)?;
    let text =
        |value: &serde_json::Value| value.as_str().map(str::to_owned).ok_or("the ready file is incomplete");
    let address = text(&ready["binary_addr"])?.parse()?;
    let seed = STANDARD.decode(text(&ready["accounts"]["trader"]["private_key"])?)?;
    let seed = seed[..32].try_into()?;

    let client = Client::connect(Config::new(vec![address], seed))?;
    println!("session {:032x} of account {}", client.session(), client.account());

    let mut events = client.events();
    client.subscribe(INSTRUMENT, 5)?;
    let mut book = BookImage::new(INSTRUMENT);
    while !book.is_whole() {
        book.apply(&events.blocking_recv()?);
    }
    let (best_bid, qty, _orders) = book.bids().next().ok_or("nobody bids; start the demo with its maker")?;
    println!("best bid {best_bid} ticks for {qty} Units");

    // One tick worse than the best bid: it rests.
    let order = NewOrder {
        instrument: INSTRUMENT,
        side: Side::Buy,
        order_type: OrderType::Limit,
        time_in_force: TimeInForce::Gtc,
        price: best_bid - 1,
        qty: 1,
        label: 1,
        ..NewOrder::default()
    };
    let accepted = client.call_blocking(order)?;
    println!("accepted as order {} at log sequence {}", accepted.id(), accepted.log_seq());

    let cancelled =
        client.call_blocking(CancelOrder { order_id: accepted.id(), ..CancelOrder::default() })?;
    println!("cancelled at log sequence {}", cancelled.log_seq());
    client.close();
    Ok(())
}
