//! Calls of a thousand consumers: tokens are set aside, and some calls later settled for a little less. A consumer whose tokens run out buys
//! one Unit of a resting ask within the same command, at one call in fifty.

use std::collections::VecDeque;

use grid_engine::command::{Command, Side, Surface, TimeInForce, Usage};
use grid_engine::event::{Event, ReportBody};
use grid_engine::{AccountId, InstrumentId, KeyId, Nanos, ReservationId, Tokens};

use crate::dice::Dice;
use crate::flow::{Flow, Wanted};
use crate::tape::Tape;
use crate::venue::Setup;
use grid_harness::plain::Call;

const MARKET: InstrumentId = InstrumentId(0);
const SUPPLIERS: u32 = 16;
const CONSUMERS: u32 = 1_000;
/// Calls that are open at a time.
const OPEN: usize = 256;
/// What a call sets aside, and what it comes to.
const ASIDE: u64 = 25_000;
const USED: u64 = 20_000;
const LIFE: Nanos = Nanos(60_000_000_000);

/// `commands` of it, half of them reservations.
#[must_use]
pub fn reserve_settle(commands: u64) -> Tape {
    let setup = Setup {
        traders: SUPPLIERS,
        instruments: 1,
        sellers: SUPPLIERS,
        sessions: 4,
        max_price: 20_000,
        consumers: CONSUMERS,
    };
    let mut flow = Flow::open(&setup);
    let mut calls = Calls::new();
    for nth in 0..50 * SUPPLIERS {
        let (trader, price) = (nth % SUPPLIERS, 1_000 + nth / SUPPLIERS);
        let ask = Wanted {
            trader,
            instrument: MARKET,
            side: Side::Sell,
            price,
            qty: 1_000_000,
            tif: TimeInForce::Gtc,
        };
        flow.place(ask);
    }
    // Everybody has bought once before and used another part of it, so that purchases come evenly from the beginning.
    for nth in 0..CONSUMERS {
        for _ in 0..=nth % 50 {
            calls.reserve(&mut flow, SUPPLIERS + nth);
            calls.settle(&mut flow);
        }
    }
    (0..50 * u64::from(CONSUMERS)).for_each(|_| calls.next(&mut flow));
    Tape::record(flow, |flow| (0..commands).for_each(|_| calls.next(flow)))
}

pub(super) struct Calls {
    dice: Dice,
    open: VecDeque<Open>,
    /// How many have been reserved.
    count: u32,
}

struct Open {
    number: u32,
    consumer: u32,
    reservation: ReservationId,
    issuer: AccountId,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { dice: Dice::new(3), open: VecDeque::new(), count: 0 }
    }

    fn next(&mut self, flow: &mut Flow) {
        // Two steps up and two down: the number of open calls stays.
        if self.open.len() < OPEN || (self.open.len() == OPEN && self.dice.below(2) == 0) {
            let consumer = SUPPLIERS + self.dice.below(CONSUMERS.into()) as u32;
            self.reserve(flow, consumer);
        } else {
            self.settle(flow);
        }
    }

    pub(super) fn reserve(&mut self, flow: &mut Flow, consumer: u32) {
        let number = self.count;
        self.count += 1;
        // A handle is a hash or a random number in life, and never counted up.
        let request = (u128::from(self.dice.next()) << 64) | u128::from(self.count);
        let command = Command::Reserve {
            instrument: MARKET,
            tokens: Tokens(ASIDE),
            request,
            valid_for: LIFE,
            key: KeyId::NONE,
            surface: Surface::ChatCompletions,
        };
        flow.call(consumer, command, Call { number, consumer, tokens: ASIDE as u32, settles: false });
        let reserved = flow.venue().events().iter().find_map(|event| match event {
            Event::Report { report, .. } => match &report.body {
                ReportBody::Reserved { reservation, issuers, .. } => Some((*reservation, issuers[0])),
                _ => None,
            },
            _ => None,
        });
        let (reservation, issuer) = reserved.expect("there are tokens, or money and asks");
        self.open.push_back(Open { number, consumer, reservation, issuer });
    }

    pub(super) fn settle(&mut self, flow: &mut Flow) {
        let Open { number, consumer, reservation, issuer } = self.open.pop_front().expect("some are open");
        let usage = Usage {
            supplier: issuer,
            prompt_tokens: Tokens(USED / 4),
            completion_tokens: Tokens(USED - USED / 4),
            ttft_us: 200_000,
            duration_us: 3_000_000,
            attempts: 1,
            ..Usage::default()
        };
        let call = Call { number, consumer, tokens: USED as u32, settles: true };
        flow.call(consumer, Command::Settle { reservation, usage }, call);
        let settled = flow.venue().events().iter().any(|event| match event {
            Event::Report { report, .. } => matches!(report.body, ReportBody::Settled { .. }),
            _ => false,
        });
        assert!(settled, "an open reservation is settled");
    }
}
