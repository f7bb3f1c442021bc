//! A client who has been told a page of reports is written to when the next one's begin, and not only at the end of the turn.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};

use grid_engine::{Entry, Event, Nanos, Seq};
use grid_orders::{Config, Gateway, Line, LineError, Wake};
use grid_wire::{ExecType, Side};

use crate::client::Client;
use crate::execution;
use crate::venue::{Queue, Venue, key};

/// Reports that are more than a page together, and fewer than the line tells in one go.
const PAGE: u64 = 40;

/// A line that tells of commands only when so many are there, all in one go, and then keeps the turn from going on until
/// the first client has read what it was told.
struct Turnstile {
    line: Queue,
    /// Commands that it waits for; none while clients log in.
    awaited: Arc<AtomicUsize>,
    /// The first client has read, or the test is over.
    read: Receiver<()>,
}

impl Line for Turnstile {
    fn submit(&mut self, entry: Entry, epoch: u64) -> Result<(), LineError> {
        self.line.submit(entry, epoch)
    }

    fn poll(&mut self, each: &mut dyn FnMut(Seq, Nanos, &[Event])) -> bool {
        let awaited = self.awaited.load(Ordering::SeqCst);
        if self.line.0.queued() < awaited {
            return false;
        }
        let more = self.line.poll(each);
        if awaited > 0 {
            self.awaited.store(0, Ordering::SeqCst);
            let _ = self.read.recv();
        }
        more
    }

    fn wake_with(&mut self, wake: Wake) {
        self.line.wake_with(wake);
    }

    fn epoch(&self) -> Option<u64> {
        self.line.epoch()
    }

    fn leader_hint(&self) -> Option<SocketAddr> {
        self.line.leader_hint()
    }
}

#[test]
fn whoever_has_been_told_a_page_reads_it_before_the_turn_ends() {
    // Ends last: a test that fails lets go of its thread first.
    let gateway;
    let (has_read, read) = sync_channel(1);
    let (venue, awaited) = (Venue::new(), Arc::new(AtomicUsize::new(0)));
    let line = Turnstile { line: Queue(Arc::clone(&venue)), awaited: Arc::clone(&awaited), read };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    gateway = Gateway::start(listener, Config::default(), line, Arc::clone(&venue)).unwrap();
    let mut much = Client::login(gateway.address(), &key(2), 20);
    let mut little = Client::login(gateway.address(), &key(3), 30);

    awaited.store(PAGE as usize + 1, Ordering::SeqCst);
    for price in 1..=PAGE {
        much.order(Side::Buy, price, 1);
    }
    // Behind the others, in the log as in the turn.
    crate::cluster::wait(|| venue.queued() == PAGE as usize);
    little.order(Side::Buy, 1, 1);
    for client_seq in 1..=PAGE {
        let report = execution(much.next());
        assert_eq!((report.client_seq, report.exec_type), (client_seq, ExecType::New));
    }
    has_read.send(()).unwrap();
    assert_eq!(execution(little.next()).exec_type, ExecType::New);
}
