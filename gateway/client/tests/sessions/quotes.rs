//! Mass quotes: an answer comes with its refusals, whatever came first and whatever was lost.

use grid_client::{Quotes, Request};
use grid_wire::{
    MassQuote, MassQuoteReport, OrderFlags, QuoteEntry, QuoteProtection, QuoteRefused, QuotesPulled,
    RetransmitCode, RetransmitReject, RetransmitRequest,
};

use super::*;

fn quote(instrument: u16, quote: u8) -> QuoteEntry {
    QuoteEntry { instrument, quote, bid_price: 10, bid_qty: 1, ask_price: 12, ask_qty: 2 }
}

fn quotes(entries: Vec<QuoteEntry>) -> Quotes {
    Quotes::new(MassQuote { flags: OrderFlags::POST_ONLY, ..MassQuote::default() }, entries)
}

impl Link {
    fn quotes(&mut self) -> (MassQuote, Vec<QuoteEntry>) {
        self.take("MassQuote", |m| match m {
            Message::MassQuote(head, entries) => Some((*head, entries.iter().collect())),
            _ => None,
        })
    }

    fn retransmit(&mut self) -> RetransmitRequest {
        self.take("RetransmitRequest", |m| match m {
            Message::RetransmitRequest(request) => Some(*request),
            _ => None,
        })
    }

    fn refuse(&mut self, session_seq: u64, log_seq: u64, quote: u8) {
        let refusal = QuoteRefused {
            session_seq,
            log_seq,
            quote,
            code: 22,
            side: Side::Sell,
            ..QuoteRefused::default()
        };
        self.say(&Message::QuoteRefused(refusal));
    }

    fn quoted(&mut self, session_seq: u64, log_seq: u64, client_seq: u64, refused: u16) {
        let accepted = 4 - refused;
        self.say(&Message::MassQuoteReport(MassQuoteReport {
            session_seq,
            log_seq,
            client_seq,
            accepted,
            refused,
            ..MassQuoteReport::default()
        }));
    }
}

/// The numbers of the refused quotes of an answer, and how many the venue refused.
fn refused(answer: Result<Report, ClientError>) -> (Vec<u8>, u16) {
    match answer.expect("an answer") {
        Report::MassQuote(report, refusals) => {
            (refusals.iter().map(|refusal| refusal.quote).collect(), report.refused)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn quotes_go_out_in_order_and_the_answer_brings_what_was_refused() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    let protected = client.submit(QuoteProtection { window_us: 5, fills: 3, ..QuoteProtection::default() });
    let protection = link.take("QuoteProtection", |m| match m {
        Message::QuoteProtection(protection) => Some(*protection),
        _ => None,
    });
    assert_eq!((protection.client_seq, protection.window_us, protection.fills), (1, 5, 3));
    link.say(&Message::CommandReport(CommandReport {
        session_seq: 1,
        client_seq: 1,
        ..CommandReport::default()
    }));
    assert!(matches!(protected.wait(), Ok(Report::Command(_))));

    let pending = client.submit(quotes(vec![quote(1, 2), quote(0, 9), quote(1, 1)]));
    let other = client.submit(quotes(vec![quote(2, 1), quote(2, 2)]));
    let (head, entries) = link.quotes();
    assert_eq!((head.client_seq, head.flags), (2, OrderFlags::POST_ONLY));
    assert!(head.sending_time > 0);
    assert_eq!(entries, [quote(0, 9), quote(1, 1), quote(1, 2)], "ascending, as the venue wants them");
    link.quotes();
    // A fill in between, and the refusals of the next.
    link.refuse(2, 50, 9);
    link.say(&Message::ExecutionReport(ExecutionReport {
        session_seq: 3,
        log_seq: 50,
        quote: 1,
        trade_id: 8,
        ..ExecutionReport::default()
    }));
    link.refuse(4, 50, 2);
    link.quoted(5, 50, 2, 2);
    link.refuse(6, 51, 1);
    link.quoted(7, 51, 3, 1);
    link.say(&Message::QuotesPulled(QuotesPulled { session_seq: 8, count: 3, ..QuotesPulled::default() }));
    assert_eq!(refused(pending.wait()), (vec![9, 2], 2));
    assert_eq!(refused(other.wait()), (vec![1], 1));
    let mut told = Vec::new();
    while told.len() < 8 {
        if let Event::Report(report) = events.blocking_recv().expect("events go on") {
            told.push(report);
        }
    }
    assert!(told.iter().map(Report::session_seq).eq(1..=8));
    assert!(matches!(&told[2], Report::Execution(fill) if fill.quote == 1));
    assert!(matches!(&told[4], Report::MassQuote(_, refusals) if refusals.len() == 2));
    assert!(
        matches!(&told[7], Report::QuotesPulled(pulled) if pulled.count == 3 && told[7].client_seq() == 0)
    );
}

#[test]
fn an_answer_that_overtakes_its_refusals_after_a_break_waits_for_them() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    let pending = client.submit(quotes(vec![quote(0, 1), quote(0, 2)]));
    let sent = link.quotes();
    drop(link);
    // It was applied: its refusals have the numbers 1 and 2, the answer 3.
    let (mut link, _) = venue.again(ack(4, 1));
    let missing = link.retransmit();
    assert_eq!((missing.from, missing.count), (1, 3));
    assert_eq!(link.quotes(), sent, "the same again, under its number");
    link.quoted(3, 50, 1, 2); // from state
    // An order's answer after it shows that it was taken in and is not given.
    let order = client.submit(labelled(1));
    let placed = link.order();
    link.accepted(4, &placed);
    order.wait().expect("an answer");
    link.refuse(1, 50, 1);
    link.refuse(2, 50, 2);
    link.quoted(3, 50, 1, 2);
    assert_eq!(refused(pending.wait()), (vec![1, 2], 2));
    assert_eq!(reports(&mut events, 4), [4, 1, 2, 3], "each once, and the answer after its refusals");
}

#[test]
fn refusals_that_are_lost_are_not_waited_for() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    let mut events = client.events();
    let pending = client.submit(quotes(vec![quote(0, 1), quote(0, 2)]));
    link.quotes();
    drop(link);
    let (mut link, _) = venue.again(ack(4, 1));
    let missing = link.retransmit();
    link.quotes();
    link.quoted(3, 50, 1, 2);
    let code = RetransmitCode::NoLongerKept;
    link.say(&Message::RetransmitReject(RetransmitReject { from: missing.from, count: missing.count, code }));
    assert_eq!(refused(pending.wait()), (vec![], 2), "the answer says that there were some");
    while !matches!(events.blocking_recv(), Ok(Event::ReportsLost { from: 1, until: 4 })) {}
}

#[test]
fn more_quotes_than_fit_are_never_sent_and_none_is_the_venues_to_refuse() {
    let venue = Venue::open();
    let (client, mut link) = session(&venue, config(&[&venue]));
    for entries in [65, 70_000] {
        let error = client.call_blocking(quotes(vec![quote(0, 1); entries])).expect_err("too many");
        assert_eq!(error, ClientError::TooManyQuotes { entries, max: 64 });
        assert!(error.not_applied());
    }
    let pending = client.submit(Request::from(quotes(vec![])));
    assert_eq!(link.quotes().1, []);
    let code = gateway_reject::SYNTAX;
    link.say(&Message::CommandReject(CommandReject { client_seq: 1, code, ..CommandReject::default() }));
    assert_eq!(pending.wait().expect_err("refused").code(), Some(code));
}
