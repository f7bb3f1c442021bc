//! Quotes while leaders change: the next one knows them, and a maker on our client notices nothing but the time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use grid_engine::SessionId;
use grid_orders::Config;
use grid_wire::{MassQuote, QuoteEntry, QuoteProtection, ReportFlags, Side};

use crate::cluster::Cluster;
use crate::failover::{establish, login};
use crate::quotes::{orders, quote, quoted, send};

#[test]
fn the_next_leader_knows_the_quotes_and_moves_the_same_orders() {
    let cluster = Cluster::new(3, &Config::default());
    cluster.elect(0);
    let mut maker = login(&cluster, 0, 2, 20, None);
    let first = [quote(1, (90, 5), (110, 5)), quote(2, (80, 5), (120, 5))];
    send(&mut maker, &first);
    quoted(maker.next());
    let at = |node: usize| grid_orders::View::read(&*cluster.nodes[node], orders);
    let before = at(0);
    assert_eq!(before.len(), 4);
    // The second is under way when the leader falls; whether it survives is known only at the next.
    for (node, survives) in [(1, 0), (2, 1)] {
        cluster.hold(true);
        let shift = 10 * node as u64;
        let moved = first.map(|entry| QuoteEntry {
            bid_price: entry.bid_price + shift,
            ask_price: entry.ask_price + shift,
            ..entry
        });
        let client_seq = send(&mut maker, &moved);
        crate::cluster::wait(|| cluster.held() == 1);
        cluster.depose(|_| survives);
        cluster.hold(false);
        cluster.elect(node);
        let (again, ack) = establish(&cluster, node, 2, 20, 1, None);
        assert_eq!(ack.last_client_seq, client_seq - 1 + survives as u64);
        maker = again;
        maker.client_seq = client_seq - 1;
        assert_eq!(send(&mut maker, &moved), client_seq, "the same again, under its number");
        let answer = quoted(maker.next());
        assert_eq!((answer.client_seq, answer.accepted, answer.refused), (client_seq, 4, 0));
        assert_eq!(answer.flags.has(ReportFlags::POSS_RESEND), survives == 1);
        let after = at(node);
        let same = before.iter().map(|(id, (quote, price))| (*id, (*quote, price + shift)));
        assert!(after.clone().into_iter().eq(same), "the same orders, moved once: {after:?}");
    }
    crate::cluster::wait(|| cluster.hash(0) == cluster.hash(1) && cluster.hash(1) == cluster.hash(2));
}

#[test]
fn makers_on_our_client_quote_through_changes_of_leaders_and_are_told_every_refusal() {
    // At least, and until the leader has changed that often.
    const STEPS: u64 = 100;
    const CHANGES: usize = 12;
    let cluster = Arc::new(Cluster::new(3, &Config::default()));
    cluster.elect(0);
    let done = Arc::new(AtomicBool::new(false));
    let changes = {
        let (cluster, done) = (Arc::clone(&cluster), Arc::clone(&done));
        std::thread::spawn(move || cluster.shuffle(99, &done))
    };
    let config = grid_client::Config {
        call_timeout: Duration::from_secs(60),
        ..grid_client::Config::new(cluster.addresses(), [2; 32])
    };
    let client = grid_client::Client::connect(config).expect("a session");
    let mut events = client.events();
    client.call_blocking(QuoteProtection { window_us: 1, fills: 9, ..QuoteProtection::default() }).unwrap();
    let mut steps = 0;
    while steps < STEPS || cluster.changes.load(Ordering::SeqCst) < CHANGES {
        let pending: Vec<_> = (steps..steps + 8)
            .map(|step| {
                // The third one's bid is not below its ask, every other time.
                let entries = [
                    quote(9, (90 + step % 5, 3), (110 - step % 7, 3)),
                    quote(2, (80, 1), (120 + step % 3, 1)),
                    quote(5, (100, 2), (101 - step % 2, 2)),
                ];
                client.submit(grid_client::Quotes::new(MassQuote::default(), entries.to_vec()))
            })
            .collect();
        for (step, pending) in (steps..).zip(pending) {
            match pending.wait().expect("an answer, however long it takes") {
                grid_client::Report::MassQuote(report, refusals) => {
                    let refused: Vec<_> = refusals.iter().map(|m| (m.quote, m.side)).collect();
                    let expected = [(5, Side::Buy), (5, Side::Sell)];
                    assert_eq!(refused, expected[..if step % 2 == 1 { 2 } else { 0 }], "step {step}");
                    assert_eq!(usize::from(report.refused), refused.len());
                    assert_eq!(report.accepted + report.refused, 6);
                }
                other => panic!("{other:?}"),
            }
        }
        steps += 8;
    }
    done.store(true, Ordering::SeqCst);
    changes.join().unwrap();
    let mut reports = BTreeSet::new();
    while let Ok(event) = events.try_recv() {
        if let grid_client::Event::Report(report) = event {
            assert!(reports.insert(report.session_seq()), "{report:?} twice");
        }
    }
    assert!(reports.len() as u64 >= 2 * steps, "answers and refusals");
    let last = steps - 1;
    cluster.until(0, |state| {
        state.sessions.get(&SessionId(client.session())).is_some_and(|s| s.last_client_seq == steps + 1)
    });
    let left: Vec<_> =
        grid_orders::View::read(&*cluster.nodes[0], |state| orders(state).into_values().collect());
    let expected = [(9, 90 + last % 5), (9, 110 - last % 7), (2, 80), (2, 120 + last % 3)];
    assert_eq!(left.into_iter().collect::<BTreeSet<_>>(), expected.into_iter().collect());
    crate::cluster::wait(|| cluster.hash(0) == cluster.hash(1) && cluster.hash(1) == cluster.hash(2));
}
