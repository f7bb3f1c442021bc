//! Counters that tests and operators read. Gauges come back to zero when nothing is going on.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters as they are kept.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) calls: AtomicU64,
    pub(crate) in_flight: AtomicU64,
    pub(crate) reserved: AtomicU64,
    pub(crate) open: AtomicU64,
    pub(crate) settled: AtomicU64,
    pub(crate) released: AtomicU64,
    pub(crate) unanswered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) failovers: AtomicU64,
    pub(crate) dispatched: AtomicU64,
    pub(crate) faults_lost: AtomicU64,
    pub(crate) cancelled: AtomicU64,
    pub(crate) partial: AtomicU64,
    pub(crate) estimated: AtomicU64,
    pub(crate) distrusted: AtomicU64,
    pub(crate) connections: AtomicU64,
    pub(crate) attempts: AtomicU64,
    pub(crate) supplier_connections: AtomicU64,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Snapshot {
    /// Calls that passed authentication and validation.
    pub calls: u64,
    /// Calls in progress now.
    pub in_flight: u64,
    /// Reservations made.
    pub reserved: u64,
    /// Reservations neither settled nor released yet.
    pub open: u64,
    /// Reservations settled.
    pub settled: u64,
    /// Reservations released.
    pub released: u64,
    /// Settlements and releases that had to be sent again because the venue was out of reach.
    pub unanswered: u64,
    /// Settlements and releases that the venue refused.
    pub refused: u64,
    /// Times that another supplier was tried.
    pub failovers: u64,
    /// Calls sent on to another node.
    pub dispatched: u64,
    /// Failed attempts that the venue could not be told.
    pub faults_lost: u64,
    /// Calls that ended because the client went away.
    pub cancelled: u64,
    /// Calls billed though the supplier did not finish.
    pub partial: u64,
    /// Calls billed by our own count.
    pub estimated: u64,
    /// Calls whose supplier reported more than we can believe.
    pub distrusted: u64,
    /// Connections of clients that are open now.
    pub connections: u64,
    /// Attempts at suppliers in progress now.
    pub attempts: u64,
    /// Connections to suppliers that are open now, idle ones included.
    pub supplier_connections: u64,
}

/// One more in a gauge, for as long as it lives.
#[derive(Debug)]
pub(crate) struct One {
    stats: Arc<Stats>,
    gauge: fn(&Stats) -> &AtomicU64,
}

impl One {
    pub(crate) fn of(stats: Arc<Stats>, gauge: fn(&Stats) -> &AtomicU64) -> Self {
        bump(gauge(&stats));
        Self { stats, gauge }
    }
}

impl Drop for One {
    fn drop(&mut self) {
        drop_one((self.gauge)(&self.stats));
    }
}

impl Stats {
    pub(crate) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        Snapshot {
            calls: read(&self.calls),
            in_flight: read(&self.in_flight),
            reserved: read(&self.reserved),
            open: read(&self.open),
            settled: read(&self.settled),
            released: read(&self.released),
            unanswered: read(&self.unanswered),
            refused: read(&self.refused),
            failovers: read(&self.failovers),
            dispatched: read(&self.dispatched),
            faults_lost: read(&self.faults_lost),
            cancelled: read(&self.cancelled),
            partial: read(&self.partial),
            estimated: read(&self.estimated),
            distrusted: read(&self.distrusted),
            connections: read(&self.connections),
            attempts: read(&self.attempts),
            supplier_connections: read(&self.supplier_connections),
        }
    }
}

/// Adds one.
pub(crate) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::AcqRel);
}

/// Takes one off a gauge.
pub(crate) fn drop_one(gauge: &AtomicU64) {
    gauge.fetch_sub(1, Ordering::AcqRel);
}
