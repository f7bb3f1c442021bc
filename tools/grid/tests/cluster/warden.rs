//! The operator's eye on those who sell: while the load trades, suppliers are reported, suspended and let back, each in
//! its turn, so that the checker has terms of service to judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use grid_engine::command::Command;
use grid_engine::sla::{Fault, SlaTerms};
use grid_engine::{AccountId, InstrumentId, Nanos, SECOND, Usd};

use crate::harness::{Cluster, PATIENCE};
use crate::load::{Load, Operator};

/// A breath between suppliers, so that they trade too.
const BREATH: Duration = Duration::from_millis(50);
const INSTRUMENT: InstrumentId = InstrumentId(0);

/// Reports until it is told to stop.
pub(crate) struct Warden {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Warden {
    /// Sets terms under which two failed probes suspend and two passed ones bring back, and every fault costs something
    /// once its window is over; then goes round the load's accounts.
    pub(crate) fn start(cluster: &Cluster, load: &Load) -> Self {
        let operator = Operator::patient(cluster, PATIENCE);
        let terms = SlaTerms {
            window: Nanos(60 * SECOND),
            sample: 1,
            error_max_bps: 0,
            penalty: Usd(10_000_000),
            probes_to_decide: 2,
            ..SlaTerms::NONE
        };
        operator.command(
            operator.client.account(),
            &Command::SetSlaTerms { instrument: INSTRUMENT, terms: Box::new(terms) },
        );
        let accounts: Vec<_> = load.accounts().iter().map(|account| AccountId(account.number)).collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut round = accounts.iter().cycle();
            while let (false, Some(&supplier)) = (stopped.load(Ordering::Acquire), round.next()) {
                let fault = Command::ReportFault { instrument: INSTRUMENT, supplier, fault: Fault::Cut };
                operator.command(operator.client.account(), &fault);
                for passed in [false, false, true, true] {
                    let probe = Command::ReportProbe { instrument: INSTRUMENT, supplier, passed };
                    operator.command(operator.client.account(), &probe);
                }
                std::thread::park_timeout(BREATH);
            }
            operator.client.close();
        });
        Self { stop, thread }
    }

    /// Ends after the supplier whose turn it is, who is let back.
    pub(crate) fn stop(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        self.thread.join().expect("a warden that lived through it all");
    }
}
