//! A book and nothing else: price levels, orders in the order of their arrival, matching. No accounts, no holds, no fees, no events, no ids but the
//! stream's own. What our engine takes beyond it is the price of being a market and not a data structure.
//!
//! Every price up to the highest has its level in one array; three layers of bits, 64 to 1, find the next level that has orders; the best of each side
//! is kept. Orders lie in a slab, linked in a circle per level, and freed slots are used again, the newest first.

use crate::plain::{Book, Message, Tally, Verb};

const NONE: u32 = u32::MAX;
/// Layers of the bits: prices below 64 to the power of this.
const LAYERS: u32 = 3;

#[derive(Clone, Copy)]
struct Order {
    number: u32,
    price: u32,
    qty: u32,
    next: u32,
    prev: u32,
    buy: bool,
}

#[derive(Clone, Copy)]
struct Level {
    head: u32,
    orders: u32,
    qty: u64,
}

/// Which levels of one side have orders.
struct Bits {
    layers: [Vec<u64>; LAYERS as usize],
}

impl Bits {
    fn new(prices: usize) -> Self {
        let words = |layer: u32| prices.div_ceil(64_usize.pow(layer + 1)).max(1);
        Self { layers: [vec![0; words(0)], vec![0; words(1)], vec![0; words(2)]] }
    }

    fn set(&mut self, price: u32) {
        let mut at = price as usize;
        for layer in &mut self.layers {
            layer[at / 64] |= 1 << (at % 64);
            at /= 64;
        }
    }

    fn clear(&mut self, price: u32) {
        let mut at = price as usize;
        for layer in &mut self.layers {
            layer[at / 64] &= !(1 << (at % 64));
            if layer[at / 64] != 0 {
                return;
            }
            at /= 64;
        }
    }

    /// The set price nearest below or above, but not `price` itself.
    fn next(&self, price: u32, down: bool) -> Option<u32> {
        let mut at = price as usize;
        for (nth, layer) in self.layers.iter().enumerate() {
            let (word, bit) = (at / 64, at % 64);
            let beyond = if down { (1_u64 << bit) - 1 } else { (u64::MAX - 1) << bit };
            let found = layer[word] & beyond;
            if found != 0 {
                let mut at = word * 64 + edge(found, down);
                for layer in self.layers[..nth].iter().rev() {
                    at = at * 64 + edge(layer[at], down);
                }
                return Some(at as u32);
            }
            at = word;
        }
        None
    }
}

fn edge(word: u64, highest: bool) -> usize {
    (if highest { 63 - word.leading_zeros() } else { word.trailing_zeros() }) as usize
}

/// The bare book; see the head of this file.
pub struct Ladder {
    levels: Vec<Level>,
    /// Bids, asks.
    bits: [Bits; 2],
    best: [Option<u32>; 2],
    orders: Vec<Order>,
    free: u32,
    /// By number; [`NONE`] if not open.
    slots: Vec<u32>,
    open: usize,
}

impl std::fmt::Debug for Ladder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ladder").field("best", &self.best).field("open", &self.open).finish_non_exhaustive()
    }
}

impl Ladder {
    /// For prices up to `max_price`, and a stream of so many new `orders`, for which room is made now.
    ///
    /// # Panics
    /// If prices go to 64 to the power of 3 or beyond.
    #[must_use]
    pub fn new(max_price: u32, orders: usize) -> Self {
        let prices = max_price as usize + 1;
        assert!(prices <= 64_usize.pow(LAYERS), "the bits reach to {} prices", 64_usize.pow(LAYERS));
        Self {
            levels: vec![Level { head: NONE, orders: 0, qty: 0 }; prices],
            bits: [Bits::new(prices), Bits::new(prices)],
            best: [None; 2],
            orders: Vec::with_capacity(orders),
            free: NONE,
            slots: Vec::with_capacity(orders),
            open: 0,
        }
    }

    fn take_slot(&mut self, order: Order) -> u32 {
        self.open += 1;
        if self.free == NONE {
            self.orders.push(order);
            return self.orders.len() as u32 - 1;
        }
        let slot = self.free;
        self.free = self.orders[slot as usize].next;
        self.orders[slot as usize] = order;
        slot
    }

    fn rest(&mut self, number: u32, price: u32, qty: u32, buy: bool) {
        let slot = self.take_slot(Order { number, price, qty, next: NONE, prev: NONE, buy });
        self.slots[number as usize] = slot;
        let level = &mut self.levels[price as usize];
        let head = if level.head == NONE { slot } else { level.head };
        let tail = if level.head == NONE { slot } else { self.orders[head as usize].prev };
        level.head = head;
        level.orders += 1;
        level.qty += u64::from(qty);
        if level.orders == 1 {
            let side = usize::from(!buy);
            self.bits[side].set(price);
            let better = |best: u32| if buy { price > best } else { price < best };
            if self.best[side].is_none_or(better) {
                self.best[side] = Some(price);
            }
        }
        self.orders[slot as usize].next = head;
        self.orders[slot as usize].prev = tail;
        self.orders[tail as usize].next = slot;
        self.orders[head as usize].prev = slot;
    }

    /// Takes an order out; what is open of it does not count in its level any more.
    fn remove(&mut self, slot: u32) {
        let order = self.orders[slot as usize];
        let level = &mut self.levels[order.price as usize];
        level.qty -= u64::from(order.qty);
        level.orders -= 1;
        if level.orders == 0 {
            level.head = NONE;
            let side = usize::from(!order.buy);
            self.bits[side].clear(order.price);
            if self.best[side] == Some(order.price) {
                self.best[side] = self.bits[side].next(order.price, order.buy);
            }
        } else {
            if level.head == slot {
                level.head = order.next;
            }
            self.orders[order.prev as usize].next = order.next;
            self.orders[order.next as usize].prev = order.prev;
        }
        self.slots[order.number as usize] = NONE;
        self.orders[slot as usize].next = self.free;
        self.free = slot;
        self.open -= 1;
    }

    /// Trades an incoming order as far as its limit reaches; what is left of it.
    fn match_against(&mut self, taker: u32, limit: u32, mut qty: u32, buy: bool, tally: &mut Tally) -> u32 {
        let side = usize::from(buy);
        while qty > 0 {
            let Some(price) =
                self.best[side].filter(|best| if buy { *best <= limit } else { *best >= limit })
            else {
                break;
            };
            let slot = self.levels[price as usize].head;
            let maker = &mut self.orders[slot as usize];
            let traded = qty.min(maker.qty);
            tally.trade(taker, maker.number, price, traded);
            qty -= traded;
            maker.qty -= traded;
            self.levels[price as usize].qty -= u64::from(traded);
            if maker.qty == 0 {
                self.remove(slot);
            }
        }
        qty
    }

    /// Whether so much can be traded within the limit.
    fn can_fill(&self, limit: u32, qty: u32, buy: bool) -> bool {
        let side = usize::from(buy);
        let (mut level, mut found) = (self.best[side], 0);
        while let Some(price) = level.filter(|price| if buy { *price <= limit } else { *price >= limit }) {
            found += self.levels[price as usize].qty;
            if found >= u64::from(qty) {
                return true;
            }
            level = self.bits[side].next(price, !buy);
        }
        false
    }

    fn slot(&self, number: u32) -> Option<u32> {
        self.slots.get(number as usize).copied().filter(|slot| *slot != NONE)
    }
}

impl Book for Ladder {
    fn name(&self) -> &'static str {
        "bare ladder, without accounts"
    }

    fn apply(&mut self, message: &Message, tally: &mut Tally) {
        let Message { order, price, qty, verb, buy } = *message;
        match verb {
            Verb::New | Verb::NewIoc | Verb::NewFok => {
                if self.slots.len() <= order as usize {
                    self.slots.resize(order as usize + 1, NONE);
                }
                if verb == Verb::NewFok && !self.can_fill(price, qty, buy) {
                    return;
                }
                let left = self.match_against(order, price, qty, buy, tally);
                if left > 0 && verb == Verb::New {
                    self.rest(order, price, left, buy);
                }
            }
            Verb::Cancel => {
                if let Some(slot) = self.slot(order) {
                    self.remove(slot);
                }
            }
            Verb::Move => {
                if let Some(slot) = self.slot(order) {
                    self.remove(slot);
                    let left = self.match_against(order, price, qty, buy, tally);
                    if left > 0 {
                        self.rest(order, price, left, buy);
                    }
                }
            }
            Verb::Reduce => {
                if let Some(slot) = self.slot(order) {
                    let resting = &mut self.orders[slot as usize];
                    let less = resting.qty - qty.min(resting.qty);
                    resting.qty -= less;
                    self.levels[resting.price as usize].qty -= u64::from(less);
                }
            }
        }
    }

    fn open(&self) -> Option<usize> {
        Some(self.open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same book as a list: slow, and right at a glance.
    #[derive(Default)]
    struct Naive(Vec<Order>);

    impl Naive {
        fn trade(&mut self, taker: u32, limit: u32, mut qty: u32, buy: bool, tally: &mut Tally) -> u32 {
            while qty > 0 {
                let within = |maker: &Order| {
                    maker.buy != buy && if buy { maker.price <= limit } else { maker.price >= limit }
                };
                let key = |price: u32| if buy { i64::from(price) } else { -i64::from(price) };
                let makers = self.0.iter().enumerate().filter(|(_, maker)| within(maker));
                // The first of equals: the oldest.
                let Some((at, _)) = makers.min_by_key(|(_, maker)| key(maker.price)) else { break };
                let maker = &mut self.0[at];
                let traded = qty.min(maker.qty);
                tally.trade(taker, maker.number, maker.price, traded);
                qty -= traded;
                maker.qty -= traded;
                if maker.qty == 0 {
                    self.0.remove(at);
                }
            }
            qty
        }

        fn fills(&self, limit: u32, qty: u32, buy: bool) -> bool {
            let within = |maker: &&Order| {
                maker.buy != buy && if buy { maker.price <= limit } else { maker.price >= limit }
            };
            self.0.iter().filter(within).map(|maker| maker.qty).sum::<u32>() >= qty
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
            let Message { order: number, price, qty, verb, buy } = *message;
            let enter = match verb {
                Verb::New | Verb::NewIoc => true,
                Verb::NewFok => self.fills(price, qty, buy),
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
                let left = self.trade(number, price, qty, buy, tally);
                if left > 0 && matches!(verb, Verb::New | Verb::Move) {
                    self.0.push(Order { number, price, qty: left, next: NONE, prev: NONE, buy });
                }
            }
        }

        fn open(&self) -> Option<usize> {
            Some(self.0.len())
        }
    }

    #[test]
    fn it_trades_as_a_list_does() {
        let mut seed = 1_u64;
        let mut below = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((seed >> 33) % bound) as u32
        };
        let (mut ladder, mut naive) = (Ladder::new(10_000, 0), Naive::default());
        let (mut ours, mut theirs) = (Tally::default(), Tally::default());
        let mut numbers = 0_u32;
        let mut sides = Vec::new();
        for nth in 0..20_000 {
            let verb =
                [Verb::New, Verb::New, Verb::NewIoc, Verb::NewFok, Verb::Cancel, Verb::Move, Verb::Reduce]
                    [below(7) as usize];
            // Far from each other at times, so that the bits are searched through all layers.
            let price = if below(4) == 0 { below(10_001) } else { 5_000 + below(40) };
            let qty = 1 + below(20);
            let new = matches!(verb, Verb::New | Verb::NewIoc | Verb::NewFok) || numbers == 0;
            let message = if new {
                sides.push(below(2) == 0);
                numbers += 1;
                let verb = if matches!(verb, Verb::NewIoc | Verb::NewFok) { verb } else { Verb::New };
                Message { order: numbers - 1, price, qty, verb, buy: sides[numbers as usize - 1] }
            } else {
                let order = below(u64::from(numbers));
                Message { order, price, qty, verb, buy: sides[order as usize] }
            };
            ladder.apply(&message, &mut ours);
            naive.apply(&message, &mut theirs);
            assert_eq!((ours, ladder.open()), (theirs, naive.open()), "after {nth}: {message:?}");
        }
        assert!(ours.trades > 1_000, "{ours:?}");
    }
}
