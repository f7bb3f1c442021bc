//! Failed attempts are told to the venue, each at most once, and no call waits for it.
//!
//! They stand in a queue of bounded length. Where the venue is out of reach for so long that it is full, what does not
//! fit is counted and forgotten: evidence is lost then, never a call. A report is told again only while it is certain
//! that the venue did not take it in, and counted as lost where that is not known: a supplier that pays for its faults
//! must not pay for one of them twice. That is rare: the client repeats by itself under the same number, over new
//! connections and leaders, for as long as it waits for the answer.

use std::sync::Arc;
use std::time::Duration;

use grid_engine::sla::Fault;
use grid_engine::{AccountId, InstrumentId};
use tokio::sync::mpsc;

use crate::door::{Door, DoorError};
use crate::stats::{Stats, bump};

/// Faults that wait at most.
const WAITING_MAX: usize = 4_096;
/// First and longest wait before the venue is told again.
const AGAIN_MIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(2);

type Told = (InstrumentId, AccountId, Fault);

/// Where failed attempts are reported.
#[derive(Clone, Debug)]
pub(crate) struct Faults {
    waiting: mpsc::Sender<Told>,
    stats: Arc<Stats>,
}

impl Faults {
    /// Reports through this door for as long as it lives. Call it in a runtime.
    pub(crate) fn new(door: Arc<dyn Door>, stats: Arc<Stats>) -> Self {
        let (waiting, told) = mpsc::channel(WAITING_MAX);
        tokio::spawn(tell(door, told, Arc::clone(&stats)));
        Self { waiting, stats }
    }

    /// An attempt at the supplier failed.
    pub(crate) fn report(&self, instrument: InstrumentId, supplier: AccountId, fault: Fault) {
        if self.waiting.try_send((instrument, supplier, fault)).is_err() {
            bump(&self.stats.faults_lost);
        }
    }
}

async fn tell(door: Arc<dyn Door>, mut told: mpsc::Receiver<Told>, stats: Arc<Stats>) {
    while let Some((instrument, supplier, fault)) = told.recv().await {
        let mut wait = AGAIN_MIN;
        loop {
            match door.report_fault(instrument, supplier, fault).await {
                Ok(()) => break,
                Err(DoorError::Rejected(reject)) => {
                    tracing::debug!(supplier = supplier.0, ?fault, %reject, "the venue refused the report of a fault");
                    break;
                }
                Err(DoorError::Unanswered(reason)) => {
                    bump(&stats.faults_lost);
                    tracing::info!(
                        supplier = supplier.0,
                        ?fault,
                        reason,
                        "whether the venue counted a fault is not known"
                    );
                    break;
                }
                Err(DoorError::Unavailable(_)) => {
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN_MAX);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::{Ended, Pending, Reserved, Wanted};
    use grid_engine::ReservationId;
    use grid_engine::command::Usage;
    use parking_lot::Mutex;

    /// Notes what it is told; does not get the first ones, or never answers.
    struct Note {
        said: mpsc::UnboundedSender<Fault>,
        lost: Mutex<u32>,
        mute: bool,
    }

    impl Door for Note {
        fn reserve(&self, _: Wanted) -> Pending<Reserved> {
            unreachable!("faults reserve nothing")
        }

        fn settle(&self, _: AccountId, _: ReservationId, _: Usage) -> Pending<Ended> {
            unreachable!("faults settle nothing")
        }

        fn release(&self, _: AccountId, _: ReservationId, _: AccountId) -> Pending<Ended> {
            unreachable!("faults release nothing")
        }

        fn report_probe(&self, _: InstrumentId, _: AccountId, _: bool) -> Pending<()> {
            unreachable!("faults probe nobody")
        }

        fn report_fault(&self, _: InstrumentId, _: AccountId, fault: Fault) -> Pending<()> {
            let mut lost = self.lost.lock();
            if self.mute {
                return Box::pin(std::future::pending());
            }
            if *lost > 0 {
                *lost -= 1;
                return Box::pin(async { Err(DoorError::Unavailable("lost".into())) });
            }
            self.said.send(fault).expect("the test listens");
            Box::pin(async { Ok(()) })
        }
    }

    fn faults(lost: u32, mute: bool) -> (Faults, mpsc::UnboundedReceiver<Fault>, Arc<Stats>) {
        let (said, heard) = mpsc::unbounded_channel();
        let stats = Arc::new(Stats::default());
        (Faults::new(Arc::new(Note { said, lost: Mutex::new(lost), mute }), Arc::clone(&stats)), heard, stats)
    }

    #[tokio::test]
    async fn each_fault_is_told_once_and_in_order_though_the_venue_is_away_at_first() {
        let (faults, mut heard, stats) = faults(2, false);
        for fault in [Fault::Cut, Fault::Slow, Fault::Refused] {
            faults.report(InstrumentId(0), AccountId(2), fault);
        }
        for fault in [Fault::Cut, Fault::Slow, Fault::Refused] {
            assert_eq!(heard.recv().await, Some(fault));
        }
        drop(faults);
        assert_eq!(heard.recv().await, None, "and nothing else");
        assert_eq!(stats.snapshot().faults_lost, 0);
    }

    #[tokio::test]
    async fn what_does_not_fit_is_counted_and_nobody_waits() {
        let (faults, _heard, stats) = faults(0, true);
        for _ in 0..WAITING_MAX + 10 {
            faults.report(InstrumentId(0), AccountId(2), Fault::Cut);
        }
        assert!(stats.snapshot().faults_lost >= 9, "{:?}", stats.snapshot());
    }
}
