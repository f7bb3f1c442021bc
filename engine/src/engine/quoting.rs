//! Mass quotes: many pairs of orders moved by one command, and what has them pulled.

use super::{Refusal, Step};
use crate::book::Record;
use crate::command::{
    AccountMode, NewOrder, OrderKind, QuoteEntry, QuoteProtection, QuoteSide, SelfTrade, Side, TimeInForce,
};
use crate::event::{Closure, ReportBody};
use crate::ids::{Label, OrderId};
use crate::limits::{QUOTE_ENTRIES, QUOTE_NUMBERS, QUOTES};
use crate::reject::Reject;
use crate::state::{QuoteGuard, Quotes, SessionIndex};
use crate::units::{Nanos, Qty};

/// The sides of a quote, in the order in which they are done.
const SIDES: [Side; 2] = [Side::Buy, Side::Sell];

/// How a mass quote's orders come in.
struct Manner {
    stp: SelfTrade,
    post_only: bool,
    /// Quotes of which nothing stood that may still get an order: those of the command itself do not count until they do.
    room: usize,
}

impl Manner {
    /// Names what stands for one side of a quote from now on.
    fn name(&mut self, quotes: &mut Quotes, place: usize, side: Side, order: OrderId) {
        let quote = quotes.at_mut(place);
        let was = quote.is_blank();
        *quote.side_mut(side) = order;
        match (was, quote.is_blank()) {
            (true, false) => self.room -= 1,
            (false, true) => self.room += 1,
            _ => {}
        }
    }
}

/// Sides of a mass quote that wait until the others are out of their way: a bit for each entry.
type Waiting = [u64; 2];

const _: () = assert!(QUOTE_ENTRIES <= u64::BITS as usize, "each entry has its bit");

impl Step<'_> {
    #[inline(never)]
    pub(super) fn mass_quote(
        &mut self,
        entries: &[QuoteEntry],
        stp: SelfTrade,
        post_only: bool,
    ) -> Result<(), Refusal> {
        if self.state.accounts[self.account.0 as usize].mode == AccountMode::Easy {
            return Err(Reject::AutoModeTradingRestricted.into());
        }
        let known = |entry: &QuoteEntry| (1..=QUOTE_NUMBERS).contains(&entry.quote);
        let ascend = entries.is_sorted_by(|a, b| (a.instrument, a.quote) < (b.instrument, b.quote));
        if entries.is_empty() || entries.len() > QUOTE_ENTRIES || !ascend || !entries.iter().all(known) {
            return Err(Reject::OutOfRange.into());
        }
        let session = self.state.sessions.at_mut(self.session).expect("whoever asks has a session");
        if session.guard.pulled {
            return Err(Reject::QuotesPulled.into());
        }
        // Taken out while its orders change; what they fill counts with the session's guard, which stays.
        let mut quotes = std::mem::take(&mut session.quotes);
        if quotes.len() + entries.len() > QUOTES {
            self.make_room(&mut quotes, entries);
        }
        let room = QUOTES - quotes.len();
        let refused = self.quote_all(&mut quotes, entries, Manner { stp, post_only, room });
        if let Some(session) = self.state.sessions.at_mut(self.session) {
            session.quotes = quotes;
        }
        let sides = 2 * entries.len() as u16;
        self.answer(ReportBody::Quoted { accepted: sides - refused, refused });
        Ok(())
    }

    /// Where not all that is new has room, drops the quotes of which nothing stands any more: whatever ended their orders did not
    /// look for them.
    #[cold]
    fn make_room(&self, quotes: &mut Quotes, entries: &[QuoteEntry]) {
        let new =
            entries.iter().filter(|entry| quotes.find(entry.instrument, entry.quote, 0).is_err()).count();
        if quotes.len() + new <= QUOTES {
            return;
        }
        let stands = |order: OrderId| order != OrderId::default() && self.state.books.find(order).is_some();
        quotes.retain(|quote| stands(quote.bid) || stands(quote.ask));
    }

    /// Does every side of every entry; how many were refused.
    fn quote_all(&mut self, quotes: &mut Quotes, entries: &[QuoteEntry], mut manner: Manner) -> u16 {
        let mut refused = 0;
        let mut places = [0_u16; QUOTE_ENTRIES];
        let mut waiting: Waiting = [0; 2];
        let mut guess = 0;
        for (nth, entry) in entries.iter().enumerate() {
            let place = quotes.find(entry.instrument, entry.quote, guess).unwrap_or_else(|place| {
                quotes.insert(place, entry.instrument, entry.quote);
                place
            });
            guess = place + 1;
            places[nth] = place as u16;
            for side in SIDES {
                let standing = self.standing(quotes, place, side);
                let wanted = wanted(entry, side);
                if standing.is_some_and(|(_, record)| wanted.qty.is_zero() || retreats(record, wanted)) {
                    refused += self.quote_side(quotes, place, entry, side, &mut manner);
                } else if wanted.qty.is_zero() {
                    manner.name(quotes, place, side, OrderId::default());
                } else {
                    waiting[side as usize] |= 1 << nth;
                }
            }
        }
        for side in SIDES {
            while waiting[side as usize] != 0 {
                let nth = waiting[side as usize].trailing_zeros() as usize;
                waiting[side as usize] &= waiting[side as usize] - 1;
                refused += self.quote_side(quotes, places[nth].into(), &entries[nth], side, &mut manner);
            }
        }
        // From the last one, so that the places before it stay what they are.
        for &place in places[..entries.len()].iter().rev() {
            if quotes.at(place.into()).is_blank() {
                quotes.remove(place.into());
            }
        }
        refused
    }

    /// The order that stands for one side of a quote, and where.
    #[inline]
    fn standing(&self, quotes: &Quotes, place: usize, side: Side) -> Option<(u32, &Record)> {
        let order = quotes.at(place).side(side);
        self.state.books.find(order).filter(|_| order != OrderId::default())
    }

    /// Makes one side of a quote what is wanted; how many were refused, 0 or 1.
    fn quote_side(
        &mut self,
        quotes: &mut Quotes,
        place: usize,
        entry: &QuoteEntry,
        side: Side,
        manner: &mut Manner,
    ) -> u16 {
        let wanted = wanted(entry, side);
        // Looked up anew: what was done since may have traded with it.
        let standing = self.standing(quotes, place, side);
        let stood = standing.map(|(slot, _)| slot);
        let crossed =
            !entry.bid.qty.is_zero() && !entry.ask.qty.is_zero() && entry.bid.price >= entry.ask.price;
        let done = match standing {
            _ if wanted.qty.is_zero() => Ok(OrderId::default()),
            _ if crossed => Err(Reject::InvalidPrice),
            None if manner.room == 0 && quotes.at(place).is_blank() => Err(Reject::LimitReached),
            Some((_, record)) if is_as(record, wanted) => Ok(OrderId(record.id)),
            Some((slot, record)) => {
                let (order, resting) = (OrderId(record.id), *record);
                self.change::<true>((slot, resting), (wanted.qty, wanted.price), manner.stp, manner.post_only)
                    .map(|()| order)
                    .map_err(|refusal| refusal.reject)
            }
            None => {
                let tif = if manner.post_only { TimeInForce::PostOnly } else { TimeInForce::Gtc };
                let new = NewOrder {
                    instrument: entry.instrument,
                    side,
                    kind: OrderKind::Limit { price: wanted.price, tif },
                    qty: wanted.qty,
                    stp: manner.stp,
                    label: Label::default(),
                    tag: String::new(),
                    to_consumption: false,
                };
                self.open::<true>(&new, entry.quote).map_err(|refusal| refusal.reject)
            }
        };
        let order = *done.as_ref().unwrap_or(&OrderId::default());
        manner.name(quotes, place, side, order);
        if let Some(slot) = stood.filter(|_| order == OrderId::default()) {
            self.withdraw_quote(slot);
        }
        let Err(reject) = done else {
            return 0;
        };
        let (instrument, quote) = (entry.instrument, entry.quote);
        self.notify_session(self.session, ReportBody::QuoteRefused { instrument, quote, side, reject });
        1
    }

    #[inline(never)]
    pub(super) fn set_quote_protection(
        &mut self,
        protection: Option<QuoteProtection>,
    ) -> Result<(), Refusal> {
        let set = |protection: &QuoteProtection| {
            protection.window != Nanos::ZERO && (protection.fills != 0 || protection.qty != Qty::ZERO)
        };
        if protection.as_ref().is_some_and(|protection| !set(protection)) {
            return Err(Reject::OutOfRange.into());
        }
        let session = self.state.sessions.at_mut(self.session).expect("whoever asks has a session");
        session.guard = QuoteGuard { protection, ..QuoteGuard::default() };
        self.answer(ReportBody::Done { created: 0 });
        Ok(())
    }

    /// A quote was filled. One too many, and all of its session's are pulled once the order in progress is done: it was promised
    /// what it met.
    #[inline(never)]
    pub(super) fn count_quote_fill(&mut self, session: SessionIndex, qty: Qty) {
        let at = self.at;
        if self.state.sessions.at_mut(session).is_some_and(|session| session.guard.count(at, qty)) {
            self.scratch.overrun.push(session);
        }
    }

    /// Takes the quotes of sessions that were filled too much out of the book.
    #[cold]
    pub(super) fn pull_overrun_quotes(&mut self) {
        let mut overrun = std::mem::take(&mut self.scratch.overrun);
        for index in overrun.drain(..) {
            let Some(session) = self.state.sessions.at_mut(index) else {
                continue;
            };
            let mut quotes = std::mem::take(&mut session.quotes);
            let all = || (0..quotes.len()).flat_map(|place| SIDES.map(|side| (place, side)));
            let standing = all().filter_map(|(place, side)| self.standing(&quotes, place, side));
            let slots: Vec<u32> = standing.map(|(slot, _)| slot).collect();
            self.notify_session(index, ReportBody::QuotesPulled { count: slots.len() as u32 });
            for slot in slots {
                self.close_resting(slot, Closure::Cancelled);
            }
            quotes.clear();
            if let Some(session) = self.state.sessions.at_mut(index) {
                session.quotes = quotes;
            }
        }
        self.scratch.overrun = overrun;
    }
}

/// What is wanted of one side.
const fn wanted(entry: &QuoteEntry, side: Side) -> QuoteSide {
    match side {
        Side::Buy => entry.bid,
        Side::Sell => entry.ask,
    }
}

/// Whether what is wanted lies no nearer to the other side than what stands.
fn retreats(record: &Record, wanted: QuoteSide) -> bool {
    match record.side() {
        Side::Buy => wanted.price.0 <= record.price.into(),
        Side::Sell => wanted.price.0 >= record.price.into(),
    }
}

/// Whether what stands is what is wanted.
fn is_as(record: &Record, wanted: QuoteSide) -> bool {
    u64::from(record.price) == wanted.price.0 && u64::from(record.remaining) == wanted.qty.0
}
