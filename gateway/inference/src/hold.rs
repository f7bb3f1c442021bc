//! The guard of a reservation: whatever happens, it is settled or released, and only once.
//!
//! A [`Hold`] is owned by the task that runs the call. Ending it hands the last word to the venue, which nothing can
//! cancel and which repeats itself until the venue has answered. Dropping it, in a panic
//! or with its task, does the same with what was delivered so far.
//!
//! Nobody waits for the venue's answer: the last word is on its way before the client sees the end of its call, and is
//! [promised](grid_replicator::Promises) to whoever reads the account next.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use grid_engine::command::{Cover, Usage};
use grid_engine::{AccountId, ReservationId, Seq, Tokens};
use grid_replicator::{Promise, Promises};
use tokio::runtime::Handle;

use crate::answer::Said;
use crate::config::Metering;
use crate::door::{Door, DoorError, Ended};
use crate::insist::Insist;
use crate::meter::{Bill, Meter};
use crate::stats::{Stats, bump, drop_one};

/// First and longest wait before the venue is asked again.
const AGAIN_MIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(2);

/// What holds share with the tier.
#[derive(Clone)]
pub(crate) struct Bureau {
    pub(crate) door: Arc<dyn Door>,
    pub(crate) promises: Promises,
    pub(crate) stats: Arc<Stats>,
    pub(crate) metering: Metering,
    /// How long a reservation lives; after that there is nothing left to settle.
    pub(crate) life: Duration,
}

/// An open reservation with its meter.
pub(crate) struct Hold {
    open: Option<Open>,
}

struct Open {
    bureau: Bureau,
    runtime: Handle,
    account: AccountId,
    reservation: ReservationId,
    made: Instant,
    body: Bytes,
    supplier: AccountId,
    offer: u8,
    /// Why it is that supplier.
    cover: Cover,
    attempts: u8,
    meter: Meter,
    attempt: Instant,
    first_content: Option<Instant>,
    /// The supplier waited so long for the client.
    waited: Duration,
}

/// The last word about a reservation.
#[derive(Clone, Copy, Debug)]
enum Last {
    Settle(Usage),
    Release(AccountId),
}

impl Hold {
    /// Takes charge of a reservation that the venue has just made.
    pub(crate) fn new(bureau: Bureau, account: AccountId, reservation: ReservationId, body: Bytes) -> Self {
        bump(&bureau.stats.reserved);
        bump(&bureau.stats.open);
        let now = Instant::now();
        Self {
            open: Some(Open {
                bureau,
                runtime: Handle::current(),
                account,
                reservation,
                made: now,
                meter: Meter::new(body.clone()),
                body,
                supplier: AccountId::VENUE,
                offer: 0,
                cover: Cover::Issuer,
                attempts: 0,
                attempt: now,
                first_content: None,
                waited: Duration::ZERO,
            }),
        }
    }

    fn open(&mut self) -> &mut Open {
        self.open.as_mut().expect("a hold is open until it is consumed")
    }

    /// Another supplier is tried; what an earlier one sent reached nobody.
    pub(crate) fn attempt(&mut self, supplier: AccountId, offer: u8, cover: Cover) {
        let open = self.open();
        open.supplier = supplier;
        open.offer = offer;
        open.cover = cover;
        open.attempts = open.attempts.saturating_add(1);
        open.meter = Meter::new(open.body.clone());
        open.attempt = Instant::now();
        open.first_content = None;
        open.waited = Duration::ZERO;
    }

    /// The first content came from the supplier.
    pub(crate) fn first_content(&mut self) {
        self.open().first_content.get_or_insert_with(Instant::now);
    }

    /// Who was asked last.
    pub(crate) fn supplier(&mut self) -> AccountId {
        self.open().supplier
    }

    /// The supplier had to wait so long for the client.
    pub(crate) fn waited(&mut self, span: Duration) {
        self.open().waited += span;
    }

    /// This has reached the client.
    pub(crate) fn delivered(&mut self, said: &Said<'_>) {
        self.open().meter.take(said);
    }

    /// The bill of a call that the supplier finished.
    pub(crate) async fn bill(mut self) -> Option<(Self, Bill)> {
        let large = self.open().meter.is_large();
        let count = move || {
            let open = self.open();
            let bill = open.meter.bill(open.bureau.metering);
            (self, bill)
        };
        off_loop(large, count).await
    }

    /// Settles a finished call.
    pub(crate) fn settle(mut self, bill: Bill) {
        let open = self.open.take().expect("a hold is open until it is consumed");
        let usage = open.usage(bill, false);
        open.end(Last::Settle(usage));
    }

    /// Settles a call that ended early: what was delivered, by our own count; released where that is nothing.
    pub(crate) fn cut_short(self) {
        drop(self);
    }

    /// Gives everything back. `failed` is the supplier to blame, or the venue.
    pub(crate) fn release(mut self, failed: AccountId) {
        let open = self.open.take().expect("a hold is open until it is consumed");
        open.end(Last::Release(failed));
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.cut_short();
        }
    }
}

impl Open {
    fn usage(&self, bill: Bill, partial: bool) -> Usage {
        let micros = |span: Duration| u32::try_from(span.as_micros()).unwrap_or(u32::MAX);
        if bill.estimated {
            bump(&self.bureau.stats.estimated);
        }
        if bill.distrusted {
            bump(&self.bureau.stats.distrusted);
            tracing::warn!(
                supplier = self.supplier.0,
                reservation = self.reservation.0,
                "supplier's token count is beyond tolerance; billed by our own"
            );
        }
        if partial {
            bump(&self.bureau.stats.partial);
        }
        Usage {
            supplier: self.supplier,
            offer: self.offer,
            prompt_tokens: Tokens(bill.prompt),
            completion_tokens: Tokens(bill.completion),
            // An answer that comes whole does not show when it began.
            ttft_us: self
                .first_content
                .map_or(0, |first| micros(first.saturating_duration_since(self.attempt)).max(1)),
            // Time that the supplier spent waiting for the client is not the supplier's.
            duration_us: micros(self.attempt.elapsed().saturating_sub(self.waited)),
            estimated: bill.estimated,
            partial,
            distrusted: bill.distrusted,
            cover: self.cover,
            attempts: self.attempts,
        }
    }

    fn cut_short(self) {
        if !self.meter.delivered() {
            return self.end(Last::Release(AccountId::VENUE));
        }
        let (runtime, promise) = (self.runtime.clone(), self.promise());
        begin(&runtime, async move {
            let counted = off_loop(self.meter.is_large(), move || {
                let usage = self.usage(self.meter.partial_bill(), true);
                (self, usage)
            });
            if let Some((open, usage)) = counted.await {
                open.last_word(Last::Settle(usage), promise).await;
            }
        });
    }

    fn end(self, last: Last) {
        let (runtime, promise) = (self.runtime.clone(), self.promise());
        begin(&runtime, async move { self.last_word(last, promise).await });
    }

    fn promise(&self) -> Promise {
        self.bureau.promises.make(self.account.0.into())
    }

    /// Says the last word until the venue has heard it.
    async fn last_word(self, last: Last, promise: Promise) {
        if let Some(seq) = self.say(last).await {
            promise.keep(seq);
        }
        drop_one(&self.bureau.stats.open);
    }

    /// Where it stands in the log, if the answer tells.
    async fn say(&self, last: Last) -> Option<Seq> {
        let Bureau { door, stats, life, .. } = &self.bureau;
        let (mut wait, mut repeated) = (AGAIN_MIN, false);
        loop {
            let answer = match last {
                Last::Settle(usage) => door.settle(self.account, self.reservation, usage).await,
                Last::Release(failed) => door.release(self.account, self.reservation, failed).await,
            };
            match answer {
                // Where the answer to an earlier try was lost, not the try, it ended by that.
                Ok(Ended::Before(seq)) if !repeated => {
                    bump(&stats.refused);
                    tracing::warn!(
                        reservation = self.reservation.0,
                        "a reservation ended before it could be settled"
                    );
                    return Some(seq);
                }
                Ok(Ended::Now(seq) | Ended::Before(seq)) => {
                    bump(match last {
                        Last::Settle(_) => &stats.settled,
                        Last::Release(_) => &stats.released,
                    });
                    return Some(seq);
                }
                Err(DoorError::Rejected(reject)) => {
                    bump(&stats.refused);
                    tracing::warn!(reservation = self.reservation.0, %reject, "the venue refused a settlement");
                    return None;
                }
                Err(lost @ (DoorError::Unavailable(_) | DoorError::Unanswered(_))) => {
                    repeated |= matches!(lost, DoorError::Unanswered(_));
                    bump(&stats.unanswered);
                    if self.made.elapsed() > *life {
                        bump(&stats.refused);
                        tracing::warn!(reservation = self.reservation.0, reason = %lost, "a reservation lapsed before it could be settled");
                        return None;
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(AGAIN_MAX);
                }
            }
        }
    }
}

/// Begins the work here and now, so that what it has to send is sent, and leaves the rest to a task of its own.
fn begin(runtime: &Handle, work: impl Future<Output = ()> + Send + 'static) {
    let _here = runtime.enter();
    let mut work = Insist::at(runtime.clone(), work);
    let _ = Pin::new(&mut work).poll(&mut Context::from_waker(Waker::noop()));
}

/// Counts off the event loop what takes milliseconds to count, in which a hundred other streams could move.
async fn off_loop<T: Send + 'static>(large: bool, count: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if large { tokio::task::spawn_blocking(count).await.ok() } else { Some(count()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answer;
    use crate::door::{Pending, Reserved, Wanted};
    use grid_engine::sla::Fault;
    use parking_lot::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tokio::sync::mpsc;

    /// Notes every last word; the first ones are lost.
    struct Note {
        said: mpsc::UnboundedSender<Last>,
        lost: Mutex<u32>,
        /// The answers to the first words that arrive are lost.
        unheard: Mutex<u32>,
        /// A word has arrived.
        ended: AtomicBool,
    }

    impl Note {
        fn hear(&self, last: Last) -> Result<Ended, DoorError> {
            let mut lost = self.lost.lock();
            if *lost > 0 {
                *lost -= 1;
                return Err(DoorError::Unavailable("lost".into()));
            }
            if self.ended.swap(true, Ordering::SeqCst) {
                return Ok(Ended::Before(Seq(12)));
            }
            self.said.send(last).map_err(|_| DoorError::Unavailable("the test is over".into()))?;
            let mut unheard = self.unheard.lock();
            if *unheard > 0 {
                *unheard -= 1;
                return Err(DoorError::Unanswered("the answer was lost".into()));
            }
            Ok(Ended::Now(Seq(11)))
        }
    }

    impl Door for Note {
        fn reserve(&self, _: Wanted) -> Pending<Reserved> {
            unreachable!("holds make no reservations")
        }

        fn settle(&self, _: AccountId, _: ReservationId, usage: Usage) -> Pending<Ended> {
            let heard = self.hear(Last::Settle(usage));
            Box::pin(async move { heard })
        }

        fn report_fault(&self, _: grid_engine::InstrumentId, _: AccountId, _: Fault) -> Pending<()> {
            unreachable!("holds report no faults")
        }

        fn report_probe(&self, _: grid_engine::InstrumentId, _: AccountId, _: bool) -> Pending<()> {
            unreachable!("holds probe nobody")
        }

        fn release(&self, _: AccountId, _: ReservationId, supplier: AccountId) -> Pending<Ended> {
            let heard = self.hear(Last::Release(supplier));
            Box::pin(async move { heard })
        }
    }

    fn hold(lost: u32) -> (Hold, mpsc::UnboundedReceiver<Last>, Arc<Stats>) {
        let (hold, heard, stats, _) = promised(lost, 0);
        (hold, heard, stats)
    }

    /// A hold of account 1, what it says and counts, and what it promises.
    fn promised(lost: u32, unheard: u32) -> (Hold, mpsc::UnboundedReceiver<Last>, Arc<Stats>, Promises) {
        let (said, heard) = mpsc::unbounded_channel();
        let (stats, promises) = (Arc::new(Stats::default()), Promises::default());
        let bureau = Bureau {
            door: Arc::new(Note {
                said,
                lost: Mutex::new(lost),
                unheard: Mutex::new(unheard),
                ended: AtomicBool::new(false),
            }),
            promises: promises.clone(),
            stats: Arc::clone(&stats),
            metering: Metering::default(),
            life: Duration::from_secs(900),
        };
        let body = Bytes::from_static(br#"{"messages":[{"role":"user","content":"the market"}]}"#);
        let mut hold = Hold::new(bureau, AccountId(1), ReservationId(7), body);
        hold.attempt(AccountId(2), 0, Cover::Issuer);
        (hold, heard, stats, promises)
    }

    fn deliver(hold: &mut Hold) {
        let chunk = br#"{"choices":[{"index":0,"delta":{"content":"the market price"}}]}"#;
        hold.delivered(&answer::read(chunk).unwrap());
    }

    /// The one last word, after which everybody who could say another is gone.
    async fn only(mut heard: mpsc::UnboundedReceiver<Last>) -> Last {
        let last = heard.recv().await.expect("a last word");
        assert!(heard.recv().await.is_none(), "a second last word");
        last
    }

    #[tokio::test]
    async fn a_panic_settles_what_was_delivered_or_releases() {
        for delivered in [false, true] {
            let (mut hold, heard, stats) = hold(2);
            let task = tokio::spawn(async move {
                if delivered {
                    deliver(&mut hold);
                }
                let _hold = hold;
                std::panic::resume_unwind(Box::new("a fault"));
            });
            assert!(task.await.unwrap_err().is_panic());
            match only(heard).await {
                Last::Release(failed) => assert!(!delivered && failed == AccountId::VENUE),
                Last::Settle(usage) => {
                    assert!(delivered && usage.partial && usage.estimated);
                    assert_eq!((usage.supplier, usage.completion_tokens), (AccountId(2), Tokens(3)));
                }
            }
            assert_eq!(stats.snapshot().open, 0);
        }
    }

    #[tokio::test]
    async fn whoever_reads_next_waits_for_the_last_word_even_where_its_answer_was_lost() {
        for (unheard, position) in [(0, Seq(11)), (1, Seq(12))] {
            let (mut hold, heard, stats, promises) = promised(1, unheard);
            deliver(&mut hold);
            hold.cut_short();
            assert_eq!(promises.settled(1).await, position, "{unheard} answers lost");
            assert!(matches!(only(heard).await, Last::Settle(_)));
            assert_eq!((stats.snapshot().settled, stats.snapshot().refused), (1, 0));
        }
    }

    #[tokio::test]
    async fn an_aborted_task_ends_its_hold_and_an_ended_hold_outlives_its_task() {
        let (mut aborted, heard, _) = hold(0);
        deliver(&mut aborted);
        let task = tokio::spawn(async move {
            let _hold = aborted;
            std::future::pending::<()>().await;
        });
        task.abort();
        assert!(matches!(only(heard).await, Last::Settle(usage) if usage.partial));

        let (ended, heard, stats) = hold(3);
        ended.release(AccountId(2));
        assert!(matches!(only(heard).await, Last::Release(_)));
        assert_eq!(stats.snapshot().reserved, 1);
    }
}
