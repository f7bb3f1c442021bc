//! The operator's eye on those who sell: while the load trades, suppliers are reported, attested to be good and to be bad,
//! suspended and let back, and issue as much as their collateral covers, each in its turn, so that the checker has terms of
//! service to judge.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use grid_client::{ClientError, Report, Request};
use grid_engine::command::{Command, Offer, SupplierProfile};
use grid_engine::sla::{Attestation, Fault, SlaTerms};
use grid_engine::{AccountId, Fingerprint, InstrumentId, Nanos, Qty, Reject, SECOND, Usd};

use crate::harness::{Cluster, PATIENCE};
use crate::load::{Account, Load, Operator};

/// A breath between suppliers, so that they trade too.
const BREATH: Duration = Duration::from_millis(50);
const INSTRUMENT: InstrumentId = InstrumentId(0);
/// What the harness says of it.
const SYMBOL: &str = "text-prime";
const INDEX: &str = "intelligence";
const FLOOR: u32 = 38;
const MODEL: &str = "some-model";
/// Behind each Unit that a supplier owes, and how many more it may issue in its turn.
const PER_UNIT: Usd = Usd(1_000);
const MORE: u64 = 3;

/// Reports until it is told to stop.
pub(crate) struct Warden {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Who states the quality of models.
struct Benchmark(Account);

impl Benchmark {
    fn new(operator: &Operator) -> Self {
        let account = operator.open("benchmark", Usd::dollars(1));
        operator.command(account.number, &Command::SetBenchmark { allowed: true });
        Self(account)
    }

    /// What it says of a supplier's model from now on.
    fn says(&self, supplier: AccountId, score: u32) -> Command {
        let key = SigningKey::from_bytes(&self.0.seed);
        let mut said = Attestation {
            supplier,
            instrument: INSTRUMENT,
            model: MODEL.into(),
            score,
            valid_until: Nanos(u64::MAX / 2),
            key: Fingerprint::of(&key.verifying_key().to_bytes()),
            signature: Vec::new(),
        };
        said.signature = key.sign(said.statement(SYMBOL, INDEX).as_bytes()).to_bytes().to_vec();
        Command::Attest(Box::new(said))
    }

    /// The same, changed after it was signed.
    fn forged(&self, supplier: AccountId, score: u32) -> Command {
        let Command::Attest(mut said) = self.says(supplier, score) else { unreachable!("it attests") };
        said.score += 1;
        Command::Attest(said)
    }
}

/// Commands that the venue must refuse, for this reason.
fn refused(operator: &Operator, account: u32, command: &Command, reject: Reject) {
    let mut payload = Vec::new();
    command.encode(&mut payload);
    let answer: Result<Report, ClientError> =
        operator.client.call_blocking(Request::Directory { account, payload });
    match answer {
        Err(ClientError::Rejected(no)) => assert_eq!(no.code, reject.code(), "{command:?}"),
        other => panic!("{command:?}: {other:?}"),
    }
}

impl Warden {
    /// Sets terms under which two failed probes or a bad attestation suspend, two passed ones or a good one bring back, and every
    /// fault costs something once its window is over; then goes round the load's accounts.
    pub(crate) fn start(cluster: &Cluster, load: &Load) -> Self {
        let operator = Operator::patient(cluster, PATIENCE);
        let benchmark = Benchmark::new(&operator);
        let accounts: Vec<_> = load.accounts().iter().map(|account| AccountId(account.number)).collect();
        let offers = vec![Offer { instrument: INSTRUMENT, model: MODEL.into() }];
        for &supplier in &accounts {
            let profile =
                SupplierProfile { name: "offers".into(), offers: offers.clone(), ..Default::default() };
            operator.command(supplier.0, &Command::RegisterSupplier(Box::new(profile)));
        }
        let terms = SlaTerms {
            window: Nanos(60 * SECOND),
            sample: 1,
            error_max_bps: 0,
            penalty: Usd(10_000_000),
            probes_to_decide: 2,
            collateral_per_unit: PER_UNIT,
            attested: true,
            ..SlaTerms::NONE
        };
        operator.command(
            operator.client.account(),
            &Command::SetSlaTerms { instrument: INSTRUMENT, terms: Box::new(terms) },
        );
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            for &supplier in &accounts {
                operator.command(benchmark.0.number, &benchmark.says(supplier, FLOOR));
            }
            let mut issued = vec![crate::load::ISSUED; accounts.len()];
            let mut round = accounts.iter().zip(0..).cycle();
            while let (false, Some((&supplier, nth))) = (stopped.load(Ordering::Acquire), round.next()) {
                let fault = Command::ReportFault { instrument: INSTRUMENT, supplier, fault: Fault::Cut };
                operator.command(operator.client.account(), &fault);
                for passed in [false, false, true, true] {
                    let probe = Command::ReportProbe { instrument: INSTRUMENT, supplier, passed };
                    operator.command(operator.client.account(), &probe);
                }
                let (said, forged) = (benchmark.says(supplier, FLOOR - 1), benchmark.forged(supplier, FLOOR));
                operator.command(benchmark.0.number, &said);
                refused(&operator, benchmark.0.number, &forged, Reject::BadSignature);
                operator.command(benchmark.0.number, &benchmark.says(supplier, FLOOR));
                issued[nth] += MORE;
                let amount = Usd(PER_UNIT.0 * issued[nth] as i64);
                operator.command(supplier.0, &Command::SetCollateral { instrument: INSTRUMENT, amount });
                let more = |qty| Command::Issue { instrument: INSTRUMENT, qty: Qty(qty) };
                refused(&operator, supplier.0, &more(MORE + 1), Reject::BeyondCollateral);
                operator.command(supplier.0, &more(MORE));
                let qty = Qty(MORE);
                operator.command(supplier.0, &Command::TransferIssuance { instrument: INSTRUMENT, qty });
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
