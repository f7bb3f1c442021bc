//! The ladder against a list, with its look-ahead and without.

use super::*;

/// The same book as a list: slow, and right at a glance.
#[derive(Default)]
struct Naive(Vec<Order>);

impl Naive {
    fn meets(taker: &Message, maker: &Order) -> bool {
        let reached = if taker.buy { maker.price <= taker.price } else { maker.price >= taker.price };
        maker.book == taker.book && maker.buy != taker.buy && reached
    }

    fn trade(&mut self, taker: &Message, tally: &mut Tally) -> u32 {
        let mut qty = taker.qty;
        while qty > 0 {
            let key = |price: u32| if taker.buy { i64::from(price) } else { -i64::from(price) };
            let makers = self.0.iter().enumerate().filter(|(_, maker)| Self::meets(taker, maker));
            // The first of equals: the oldest.
            let Some((at, _)) = makers.min_by_key(|(_, maker)| key(maker.price)) else { break };
            let maker = &mut self.0[at];
            let traded = qty.min(maker.qty);
            tally.trade(taker.order, maker.number, maker.price, traded);
            qty -= traded;
            maker.qty -= traded;
            if maker.qty == 0 {
                self.0.remove(at);
            }
        }
        qty
    }

    fn fills(&self, taker: &Message) -> bool {
        let makers = self.0.iter().filter(|maker| Self::meets(taker, maker));
        makers.map(|maker| maker.qty).sum::<u32>() >= taker.qty
    }

    fn take(&mut self, number: u32) -> bool {
        let found = self.0.iter().position(|order| order.number == number);
        found.map(|at| self.0.remove(at)).is_some()
    }
}

impl Book for Naive {
    fn name(&self) -> &'static str {
        "naive"
    }

    fn apply(&mut self, message: &Message, tally: &mut Tally) {
        let Message { order: number, price, qty, book, verb, buy } = *message;
        let enter = match verb {
            Verb::New | Verb::NewIoc => true,
            Verb::NewFok => self.fills(message),
            Verb::Cancel => {
                self.take(number);
                false
            }
            Verb::Move => self.take(number),
            Verb::Reduce => {
                if let Some(order) = self.0.iter_mut().find(|order| order.number == number) {
                    order.qty = order.qty.min(qty);
                }
                false
            }
        };
        if enter {
            let left = self.trade(message, tally);
            if left > 0 && matches!(verb, Verb::New | Verb::Move) {
                self.0.push(Order { number, price, qty: left, next: NONE, prev: NONE, book, buy });
            }
        }
    }

    fn open(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// Of a few books at prices that seldom, and then widely, leave the middle, so that bits are searched through all layers.
fn stream(books: u16, count: usize) -> Vec<Message> {
    let mut seed = 1_u64;
    let mut below = |bound: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((seed >> 33) % bound) as u32
    };
    let mut known: Vec<(u16, bool)> = Vec::new();
    let mut messages = Vec::new();
    for _ in 0..count {
        let verb = [Verb::New, Verb::New, Verb::NewIoc, Verb::NewFok, Verb::Cancel, Verb::Move, Verb::Reduce]
            [below(7) as usize];
        let price = 7_000 + if below(4) == 0 { below(10_001) } else { 5_000 + below(40) };
        let qty = 1 + below(20);
        let new = matches!(verb, Verb::New | Verb::NewIoc | Verb::NewFok);
        let order = if new || known.is_empty() {
            known.push((below(books.into()) as u16, below(2) == 0));
            known.len() as u32 - 1
        } else {
            below(known.len() as u64)
        };
        let (book, buy) = known[order as usize];
        messages.push(Message { order, price, qty, book, verb, buy });
    }
    messages
}

#[test]
fn it_trades_as_a_list_does() {
    let messages = stream(3, 20_000);
    let (mut ladder, mut naive) = (Ladder::new(Extent::of(&messages)), Naive::default());
    let (mut ours, mut theirs) = (Tally::default(), Tally::default());
    for (nth, message) in messages.iter().enumerate() {
        ladder.apply(message, &mut ours);
        naive.apply(message, &mut theirs);
        assert_eq!((ours, ladder.open()), (theirs, naive.open()), "after {nth}: {message:?}");
    }
    assert!(ours.trades > 1_000, "{ours:?}");
}

#[test]
fn a_look_ahead_changes_no_trade() {
    let messages = stream(9, 20_000);
    let extent = Extent::of(&messages);
    assert!(9 * (extent.highest - extent.lowest) as usize > NEAR, "there is more than is near");
    let (mut ahead, mut blind) = (Ladder::new(extent), Ladder::new(extent));
    let (mut with, mut without) = (Tally::default(), Tally::default());
    ahead.run(&messages, &mut with);
    messages.iter().for_each(|message| blind.apply(message, &mut without));
    assert_eq!((with, ahead.open()), (without, blind.open()));
    assert!(with.trades > 1_000, "{with:?}");
}

#[test]
fn there_is_room_for_a_book_where_nothing_ever_rests() {
    let message = |order, book, verb| Message { order, price: 5, qty: 1, book, verb, buy: true };
    let messages = [message(0, 0, Verb::New), message(1, 7, Verb::NewIoc), message(2, 8, Verb::NewFok)];
    let (mut ladder, mut tally) = (Ladder::new(Extent::of(&messages)), Tally::default());
    ladder.run(&messages, &mut tally);
    assert_eq!((tally, ladder.open()), (Tally::default(), Some(1)));
}
