//! Tokens and nothing else: what each consumer has, what each open call has set aside, and a bare ladder to buy from. No lots, no issuers to be paid, no
//! fees, no handles, no events. What our engine takes beyond it is the price of knowing whose tokens they were and who is owed for them.

use super::ladder::Ladder;
use crate::plain::{Book as _, Call, Message, Tally, Verb};

/// Tokens in a Unit.
const UNIT: u64 = 1_000_000;

/// See the head of this file.
#[derive(Debug)]
pub struct Balances {
    ladder: Ladder,
    /// By consumer.
    tokens: Vec<u64>,
    /// What is set aside, by call.
    aside: Vec<u32>,
}

impl Balances {
    /// Of consumers without tokens, before a ladder that has asks, with room for a stream.
    #[must_use]
    pub fn new(ladder: Ladder, calls: &[Call]) -> Self {
        let room = |of: fn(&Call) -> u32| calls.iter().map(|call| of(call) as usize + 1).max().unwrap_or(0);
        let (consumers, numbers) = (room(|call| call.consumer), room(|call| call.number));
        Self { ladder, tokens: vec![0; consumers], aside: vec![0; numbers] }
    }

    /// Takes every step, and counts what was bought for it.
    ///
    /// # Panics
    /// When a consumer has too few tokens and nobody sells.
    pub fn run(&mut self, calls: &[Call], tally: &mut Tally) {
        for call in calls {
            let Call { number, consumer, tokens, settles } = *call;
            let (own, aside) = (&mut self.tokens[consumer as usize], &mut self.aside[number as usize]);
            if settles {
                *own += u64::from(*aside - tokens);
                *aside = 0;
                continue;
            }
            if *own < u64::from(tokens) {
                let (before, price, verb) = (tally.qty, u32::MAX, Verb::NewIoc);
                self.ladder.apply(&Message { order: number, price, qty: 1, book: 0, verb, buy: true }, tally);
                *own += (tally.qty - before) * UNIT;
            }
            *own = own.checked_sub(tokens.into()).expect("who has too few tokens finds a Unit to buy");
            *aside = tokens;
        }
    }

    /// Orders that are open in the ladder, where it can say.
    #[must_use]
    pub fn open(&self) -> Option<usize> {
        self.ladder.open()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::floors::Extent;

    #[test]
    fn tokens_are_bought_set_aside_and_given_back() {
        let ask = |order, price| Message { order, price, qty: 1, book: 0, verb: Verb::New, buy: false };
        let asks = [ask(0, 12), ask(1, 11)];
        let mut ladder = Ladder::new(Extent::of(&asks));
        let mut tally = Tally::default();
        ladder.run(&asks, &mut tally);
        let step = |number, tokens, settles| Call { number, consumer: 3, tokens, settles };
        let calls =
            [step(0, 900_000, false), step(0, 100_000, true), step(1, 900_000, false), step(2, 1, false)];
        let mut balances = Balances::new(ladder, &calls);
        balances.run(&calls[..1], &mut tally);
        assert_eq!((tally.trades, balances.tokens[3]), (1, 100_000));
        balances.run(&calls[1..3], &mut tally);
        assert_eq!((tally.trades, balances.tokens[3]), (1, 0));
        balances.run(&calls[3..], &mut tally);
        assert_eq!((tally.trades, balances.tokens[3]), (2, 999_999));
        let mut wanted = Tally::default();
        wanted.trade(0, 1, 11, 1);
        wanted.trade(2, 0, 12, 1);
        assert_eq!(tally, wanted);
    }
}
