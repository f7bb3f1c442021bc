//! The last reports of a session, in a ring: keeping one more takes no memory and moves none.
//!
//! Each takes one cache line, since nearly every command keeps one or two and the ring comes round long after it has left the
//! caches. What few reports have lies beside the ring, in arrays that are there only once it was needed.

#![allow(
    missing_docs,
    reason = "rkyv derives public resolvers whose fields it can't document; every item here is"
)]

use rkyv::{Archive, Deserialize as Thaw, Serialize as Freeze};

use crate::command::Side;
use crate::event::{OrderReport, Report, ReportBody};
use crate::ids::{AccountId, InstrumentId, Label, OrderId, TradeId};
use crate::limits::REPORTS_KEPT;
use crate::prefetch::ask_for;
use crate::reject::Reject;
use crate::report::{Fill, Kind, Subject};
use crate::units::{Nanos, Seq};

/// The last [`REPORTS_KEPT`] reports.
///
/// Invariant: the report after the newest, `next`, is the oldest one once the ring is full.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
pub struct Kept {
    ring: Vec<Line>,
    next: u32,
    /// The newest one's number.
    last: u64,
    /// By place in the ring, as far as orders had labels.
    labels: Vec<u128>,
    /// By place in the ring, as far as there was anything that a line can't hold.
    others: Vec<Option<ReportBody>>,
}

/// One report without its number, which its place implies, and without its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
#[repr(C, align(64))]
struct Line {
    seq: Seq,
    at: Nanos,
    /// The client sequence that it answers; of a trade, which answers none, its number.
    client_seq: u64,
    /// The order, or what was created.
    id: u64,
    account: AccountId,
    /// Of an order; of a mass cancel the count; of a mass quote the sides that were accepted.
    price: u32,
    /// Of an order; of a mass quote the sides that were refused.
    remaining: u32,
    filled: u32,
    traded_price: u32,
    traded_qty: u32,
    instrument: InstrumentId,
    form: Form,
    labelled: bool,
    /// Of a quote its number, else 0.
    quote: u8,
}

const _: () = assert!(size_of::<Line>() == 64, "one cache line");

impl Line {
    const BLANK: Self = Self {
        seq: Seq::ZERO,
        at: Nanos::ZERO,
        client_seq: 0,
        id: 0,
        account: AccountId::VENUE,
        price: 0,
        remaining: 0,
        filled: 0,
        traded_price: 0,
        traded_qty: 0,
        instrument: InstrumentId(0),
        form: Form::Done,
        labelled: false,
        quote: 0,
    };
}

/// A session that was told so much will be told more.
const BUSY: usize = 256;

/// Which body it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Freeze, Thaw)]
enum Form {
    Order(Side, Kind),
    Rejected(Reject),
    MassCancelled,
    Quoted,
    QuoteRefused(Side, Reject),
    Done,
    /// It lies beside.
    Other,
}

/// To whom a report answers, and when.
#[derive(Clone, Copy)]
pub(crate) struct Heading {
    pub(crate) client_seq: u64,
    pub(crate) seq: Seq,
    pub(crate) at: Nanos,
    pub(crate) account: AccountId,
}

impl Kept {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.ring.len()
    }

    /// True while nothing was told.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ring.is_empty()
    }

    /// Oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Report> {
        (0..self.len()).map(|nth| self.report(nth))
    }

    /// The first report that answered a client sequence, if it is still kept.
    pub(crate) fn answer_to(&self, client_seq: u64) -> Option<Report> {
        let answers = |line: &Line| {
            line.client_seq == client_seq && !matches!(line.form, Form::Order(_, Kind::Trade { .. }))
        };
        let nth = (0..self.len()).rev().find(|&nth| answers(&self.ring[self.place(nth)]))?;
        Some(self.report(nth))
    }

    /// Where the nth oldest lies.
    fn place(&self, nth: usize) -> usize {
        let oldest = if self.len() == REPORTS_KEPT { self.next as usize } else { 0 };
        (oldest + nth) % REPORTS_KEPT
    }

    fn report(&self, nth: usize) -> Report {
        let place = self.place(nth);
        let line = &self.ring[place];
        let label = if line.labelled { Label(self.labels[place]) } else { Label::default() };
        let quote = line.quote;
        let mut client_seq = line.client_seq;
        let body = match line.form {
            Form::Order(side, kind) => {
                let mut fill =
                    Fill { trade: TradeId::default(), price: line.traded_price, qty: line.traded_qty };
                if let Kind::Trade { .. } = kind {
                    fill.trade = TradeId(std::mem::take(&mut client_seq));
                }
                let subject = Subject {
                    id: OrderId(line.id),
                    account: line.account,
                    label,
                    instrument: line.instrument,
                    side,
                    price: line.price,
                    remaining: line.remaining,
                    filled: line.filled,
                    quote,
                };
                ReportBody::Order(OrderReport::new(&subject, kind, &fill))
            }
            Form::Rejected(reject) => ReportBody::Rejected { reject, label, order: OrderId(line.id) },
            Form::MassCancelled => ReportBody::MassCancelled { count: line.price },
            Form::Quoted => {
                ReportBody::Quoted { accepted: line.price as u16, refused: line.remaining as u16 }
            }
            Form::QuoteRefused(side, reject) => {
                ReportBody::QuoteRefused { instrument: line.instrument, quote, side, reject }
            }
            Form::Done => ReportBody::Done { created: line.id },
            Form::Other => {
                self.others.get(place).copied().flatten().expect("what a line can't hold lies beside it")
            }
        };
        let number = self.last - (self.len() - 1 - nth) as u64;
        Report { number, client_seq, seq: line.seq, at: line.at, account: line.account, body }
    }

    /// Keeps one of an order; the oldest makes room when there are enough. Its number is the next one.
    #[inline(always)]
    pub(crate) fn keep_order(&mut self, heading: Heading, subject: &Subject, kind: Kind, fill: &Fill) {
        let labelled = subject.label != Label::default();
        if labelled {
            self.put_label(subject.label);
        }
        // A trade answers nobody, and only a trade has a number.
        let line = Line {
            seq: heading.seq,
            at: heading.at,
            client_seq: heading.client_seq | fill.trade.0,
            id: subject.id.0,
            account: heading.account,
            price: subject.price,
            remaining: subject.remaining,
            filled: subject.filled,
            traded_price: fill.price,
            traded_qty: fill.qty,
            instrument: subject.instrument,
            form: Form::Order(subject.side, kind),
            labelled,
            quote: subject.quote,
        };
        self.put(line);
    }

    /// Keeps one of another kind.
    pub(crate) fn keep(&mut self, heading: Heading, body: &ReportBody) {
        let (mut id, mut counts, mut label) = (0, (0, 0), Label::default());
        let (mut instrument, mut quote) = (InstrumentId::default(), 0);
        let form = match *body {
            ReportBody::Order(report) => {
                let (subject, kind, fill) = report.parts(heading.account);
                return self.keep_order(heading, &subject, kind, &fill);
            }
            ReportBody::Rejected { reject, label: refused, order } => {
                (id, label) = (order.0, refused);
                Form::Rejected(reject)
            }
            ReportBody::MassCancelled { count: orders } => {
                counts.0 = orders;
                Form::MassCancelled
            }
            ReportBody::Quoted { accepted, refused } => {
                counts = (accepted.into(), refused.into());
                Form::Quoted
            }
            ReportBody::QuoteRefused { instrument: of, quote: number, side, reject } => {
                (instrument, quote) = (of, number);
                Form::QuoteRefused(side, reject)
            }
            ReportBody::Done { created } => {
                id = created;
                Form::Done
            }
            _ => {
                self.put_beside(*body);
                Form::Other
            }
        };
        let labelled = label != Label::default();
        if labelled {
            self.put_label(label);
        }
        self.put(Line {
            seq: heading.seq,
            at: heading.at,
            client_seq: heading.client_seq,
            id,
            account: heading.account,
            price: counts.0,
            remaining: counts.1,
            filled: 0,
            traded_price: 0,
            traded_qty: 0,
            instrument,
            form,
            labelled,
            quote,
        });
    }

    /// Written field by field where it is to stay: a line made elsewhere would be copied in larger pieces than it was made
    /// of, and would wait for them.
    #[inline(always)]
    fn put(&mut self, line: Line) {
        if self.next as usize == self.ring.len() {
            self.grow();
        }
        self.ring[self.next as usize] = line;
        self.last += 1;
        self.next = (self.next + 1) % REPORTS_KEPT as u32;
    }

    /// Room for one more.
    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let len = self.ring.len();
        if len == self.ring.capacity() {
            // A session that is told much gets its whole room at once: to double it again and again would copy up to half a
            // megabyte within a command. Memory that was never written to takes none.
            let more = if len < BUSY { (BUSY - len).min(len.max(4)) } else { REPORTS_KEPT - len };
            self.ring.reserve_exact(more);
        }
        self.ring.push(Line::BLANK);
    }

    #[inline(never)]
    fn put_label(&mut self, label: Label) {
        let place = self.next as usize;
        if self.labels.len() <= place {
            self.labels.resize(place + 1, 0);
        }
        self.labels[place] = label.0;
    }

    fn put_beside(&mut self, body: ReportBody) {
        let place = self.next as usize;
        if self.others.len() <= place {
            self.others.resize(place + 1, None);
        }
        self.others[place] = Some(body);
    }

    /// Asks for where the next reports will lie: the ring has long left the caches when it comes round.
    #[inline]
    pub(crate) fn ask_for_next(&self) {
        if let Some([first, second, ..]) = self.ring.get(self.next as usize..) {
            ask_for(first);
            ask_for(second);
        }
    }
}

const _: () = assert!(REPORTS_KEPT.is_power_of_two() && BUSY < REPORTS_KEPT);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Exec;
    use crate::units::{Price, Qty, Tokens, Usd};

    fn bodies() -> Vec<ReportBody> {
        let subject = |label| Subject {
            id: OrderId(0xFFFF_0000_0001),
            account: AccountId(9),
            label: Label(label),
            instrument: InstrumentId(7),
            side: Side::Sell,
            price: 5,
            remaining: 6,
            filled: 7,
            quote: 0,
        };
        let trade = Exec::Trade { trade: TradeId(u64::MAX), price: Price(3), qty: Qty(2), aggressor: true };
        let order = |label, exec: Exec| {
            let (kind, fill) = exec.parts();
            ReportBody::Order(OrderReport::new(&subject(label), kind, &fill))
        };
        vec![
            order(0, Exec::New),
            order(u128::MAX, Exec::Replaced),
            order(9, trade),
            ReportBody::Order(OrderReport::new(
                &Subject { quote: 63, ..subject(0) },
                trade.parts().0,
                &trade.parts().1,
            )),
            order(0, Exec::Closed(crate::event::Closure::SelfTrade)),
            ReportBody::Rejected { reject: Reject::UnknownOrder, label: Label(8), order: OrderId(4) },
            ReportBody::Rejected { reject: Reject::OutOfRange, label: Label(0), order: OrderId(0) },
            ReportBody::MassCancelled { count: u32::MAX },
            ReportBody::Quoted { accepted: u16::MAX, refused: 5 },
            ReportBody::QuoteRefused {
                instrument: InstrumentId(8),
                quote: 63,
                side: Side::Sell,
                reject: Reject::WouldTrade,
            },
            ReportBody::QuotesPulled { count: u32::MAX },
            ReportBody::Done { created: u64::MAX },
            ReportBody::Settled {
                reservation: crate::ids::ReservationId(5),
                billed: Tokens(6),
                unbilled: Tokens(7),
                cost: Usd(-8),
            },
        ]
    }

    #[test]
    fn every_kind_of_report_is_given_back_as_it_was_told_however_often_the_ring_came_round() {
        let (mut kept, mut told) = (Kept::default(), Vec::new());
        for (number, body) in (1..).zip(bodies().iter().cycle().take(2 * REPORTS_KEPT + 5)) {
            let trade =
                matches!(body, ReportBody::Order(order) if matches!(order.exec(), Exec::Trade { .. }));
            let client_seq = if trade { 0 } else { number + 100 };
            let (seq, at, account) = (Seq(number + 1), Nanos(number + 2), AccountId(number as u32));
            kept.keep(Heading { client_seq, seq, at, account }, body);
            told.push(Report { number, client_seq, seq, at, account, body: *body });
        }
        let last = &told[told.len() - REPORTS_KEPT..];
        assert!(kept.iter().eq(last.iter().copied()));
        let answer = last.iter().find(|report| report.client_seq != 0).copied();
        assert_eq!(kept.answer_to(answer.unwrap().client_seq), answer);
        assert_eq!(kept.answer_to(told[0].client_seq), None);
    }
}
