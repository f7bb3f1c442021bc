//! A book's image built from market data, for whoever must see depth: bots, replayers, tests.

use std::collections::BTreeMap;

use grid_wire::{BookFlags, Level, Side};

use crate::message::Event;

/// One price level: ticks per Unit, Units, orders.
pub type Depth = (u64, u64, u32);

/// One instrument's price levels as last heard.
#[derive(Clone, Debug, Default)]
pub struct BookImage {
    instrument: u16,
    bids: BTreeMap<u64, (u64, u32)>,
    asks: BTreeMap<u64, (u64, u32)>,
    whole: bool,
    log_seq: u64,
    channel_seq: u64,
}

impl BookImage {
    /// An image of nothing yet.
    #[must_use]
    pub fn new(instrument: u16) -> Self {
        Self { instrument, ..Self::default() }
    }

    /// Takes an event in; true when it was about this book.
    pub fn apply(&mut self, event: &Event) -> bool {
        match event {
            Event::Snapshot(snapshot, levels) if snapshot.instrument == self.instrument => {
                if snapshot.flags.has(BookFlags::FIRST) {
                    self.bids.clear();
                    self.asks.clear();
                    self.whole = false;
                }
                self.put(levels);
                self.whole |= snapshot.flags.has(BookFlags::LAST);
                (self.log_seq, self.channel_seq) = (snapshot.log_seq, snapshot.channel_seq);
                true
            }
            Event::Increment(increment, levels) if increment.instrument == self.instrument => {
                // Changes that the snapshot already holds may come after it.
                if self.whole && increment.channel_seq > self.channel_seq {
                    self.put(levels);
                    if increment.flags.has(BookFlags::END_OF_EVENT) {
                        (self.log_seq, self.channel_seq) = (increment.log_seq, increment.channel_seq);
                    }
                }
                true
            }
            Event::Trade(trade) if trade.instrument == self.instrument => {
                let ends = trade.flags.has(BookFlags::END_OF_EVENT) && trade.channel_seq > self.channel_seq;
                if self.whole && ends {
                    (self.log_seq, self.channel_seq) = (trade.log_seq, trade.channel_seq);
                }
                true
            }
            Event::Disconnected => {
                self.whole = false;
                false
            }
            _ => false,
        }
    }

    fn put(&mut self, levels: &[Level]) {
        for level in levels {
            let side = if level.side == Side::Buy { &mut self.bids } else { &mut self.asks };
            if level.qty == 0 {
                side.remove(&level.price);
            } else {
                side.insert(level.price, (level.qty, level.orders));
            }
        }
    }

    /// Whether a whole snapshot has come and no gap since.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Log sequence of the last matching event that is wholly in the image.
    #[must_use]
    pub fn log_seq(&self) -> u64 {
        self.log_seq
    }

    /// Bids, best first.
    pub fn bids(&self) -> impl Iterator<Item = Depth> + '_ {
        self.bids.iter().rev().map(|(price, (qty, orders))| (*price, *qty, *orders))
    }

    /// Asks, best first.
    pub fn asks(&self) -> impl Iterator<Item = Depth> + '_ {
        self.asks.iter().map(|(price, (qty, orders))| (*price, *qty, *orders))
    }
}
