//! Looks at what is due, whenever the venue has news of it, and asks for it until it has an end.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use grid_engine::command::Command;
use grid_engine::funding::{PaymentSource, ReloadFailure};
use grid_engine::state::State;
use grid_engine::{AccountId, Nanos, Reject};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::provider::{Charge, Outcome, Pending, Provider};

/// The longest wait that a provider may ask for.
const AFTER_MAX: Duration = Duration::from_secs(3_600);

/// What the worker needs of the venue: sight of its state, and the operator's way into the log.
pub trait Venue: Send + Sync + 'static {
    /// Runs `look` on the state of some recent moment of the log. It holds a lock meanwhile, so `look` is short.
    fn look(&self, look: &mut dyn FnMut(&State));

    /// Enters a command for an account; executed at most once.
    fn enter(&self, account: AccountId, command: Command) -> Pending<Result<(), EnterError>>;

    /// Whether it is this worker that acts; of several all but one may rest.
    fn acts(&self) -> bool;

    /// Changes whenever another reload has become due, or it may have become this worker that acts; asked for once.
    fn news(&self) -> watch::Receiver<()>;

    /// The time of day.
    fn now(&self) -> Nanos;
}

/// What `read` finds in the state.
pub(crate) fn look<T>(venue: &dyn Venue, read: impl FnOnce(&State) -> T) -> T {
    let (mut read, mut found) = (Some(read), None);
    venue.look(&mut |state| found = read.take().map(|read| read(state)));
    found.expect("a venue shows its state exactly once")
}

/// Why a command was not executed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// The engine said no.
    #[error("refused: {0}")]
    Rejected(Reject),
    /// The venue could not be reached, or its answer was lost.
    #[error("the venue is out of reach: {0}")]
    Unavailable(String),
}

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Providers {
    /// Lines of credit.
    pub house: Arc<dyn Provider>,
    /// Cards, where there is a provider for them.
    pub cards: Option<Arc<dyn Provider>>,
}

/// Times and bounds.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The state is looked at for every piece of news, and after this long without any, in which a fault may have been.
    pub look_every: Duration,
    /// Reloads in hand at once; the others wait their turn.
    pub at_once: usize,
    /// First wait before a provider is asked again; doubled each time.
    pub again_min: Duration,
    /// Longest wait.
    pub again_max: Duration,
    /// After so long, in log time, a reload whose end nobody knows is given up as unresolved. Less than providers remember
    /// keys: asked again after that, they would charge again.
    pub give_up: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            look_every: Duration::from_secs(5),
            at_once: 64,
            again_min: Duration::from_secs(1),
            again_max: Duration::from_secs(300),
            give_up: Duration::from_secs(20 * 3_600),
        }
    }
}

/// The worker, until it is stopped or dropped. Neither needs to be orderly.
#[derive(Debug)]
pub struct Worker {
    stop: watch::Sender<bool>,
    task: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts in tasks of the current runtime.
    #[must_use]
    pub fn start(venue: Arc<dyn Venue>, providers: Providers, settings: Settings) -> Self {
        let (stop, stopped) = watch::channel(false);
        let desk = Arc::new(Desk { venue, providers, settings });
        Self { stop, task: Some(tokio::spawn(run(desk, stopped))) }
    }

    /// Begins nothing more and leaves what is in hand as it is: whoever comes next goes on with it.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(task) = self.task.take() {
            let _ = task.await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

struct Desk {
    venue: Arc<dyn Venue>,
    providers: Providers,
    settings: Settings,
}

async fn run(desk: Arc<Desk>, mut stopped: watch::Receiver<bool>) {
    // Dropping it ends every task in it.
    let mut tasks: JoinSet<u64> = JoinSet::new();
    let mut in_hand = BTreeSet::new();
    let mut news = desk.venue.news();
    loop {
        news.mark_unchanged();
        if desk.venue.acts() {
            for charge in desk.due(&in_hand) {
                in_hand.insert(charge.reload);
                tasks.spawn(carry_out(Arc::clone(&desk), charge));
            }
        }
        let stop = async {
            let _ = stopped.wait_for(|stop| *stop).await;
        };
        tokio::select! {
            biased;
            () = stop => return,
            Some(ended) = tasks.join_next() => match ended {
                Ok(reload) => {
                    in_hand.remove(&reload);
                }
                // A fault in one of them; nobody knows which, so all are taken up anew.
                Err(error) => {
                    tracing::error!(%error, "a reload ended by a fault");
                    tasks.abort_all();
                    while tasks.join_next().await.is_some() {}
                    in_hand.clear();
                }
            },
            Ok(()) = news.changed() => {}
            () = tokio::time::sleep(desk.settings.look_every) => {}
        }
    }
}

impl Desk {
    /// What is due and not in hand, oldest first, as far as there is room.
    fn due(&self, in_hand: &BTreeSet<u64>) -> Vec<Charge> {
        let room = self.settings.at_once.saturating_sub(in_hand.len());
        look(&*self.venue, |state| {
            let due = state.reloads.iter().filter(|(reload, _)| !in_hand.contains(reload)).take(room);
            due.filter_map(|(&reload, &account)| charge(state, reload, account)).collect()
        })
    }

    fn is_due(&self, charge: &Charge) -> bool {
        look(&*self.venue, |state| state.reloads.contains_key(&charge.reload))
    }

    fn is_too_old(&self, charge: &Charge) -> bool {
        let age = self.venue.now().0.saturating_sub(charge.due_at.0);
        u128::from(age) > self.settings.give_up.as_nanos()
    }

    fn provider(&self, source: &PaymentSource) -> Option<&Arc<dyn Provider>> {
        match source {
            PaymentSource::House => Some(&self.providers.house),
            PaymentSource::Provider(_) => self.providers.cards.as_ref(),
        }
    }

    /// Asks until there is an answer.
    async fn ask(&self, charge: &Charge) -> Option<Command> {
        let Settings { again_min, again_max, .. } = self.settings;
        let reload = charge.reload;
        let mut wait = again_min;
        while self.is_due(charge) {
            if self.is_too_old(charge) {
                tracing::error!(reload, key = %charge.key, "nobody knows what became of a reload; look at the payment provider");
                return Some(Command::ReloadFailed { reload, reason: ReloadFailure::Unresolved });
            }
            let outcome = match self.provider(&charge.source) {
                Some(provider) => provider.charge(charge.clone()).await,
                None => Outcome::Again { why: "no provider of cards is configured".into(), after: None },
            };
            match outcome {
                Outcome::Paid { amount } => return Some(Command::ReloadPaid { reload, amount }),
                Outcome::Declined { why } => {
                    tracing::info!(reload, account = charge.account.0, %why, "a reload was declined");
                    return Some(Command::ReloadFailed { reload, reason: ReloadFailure::Declined });
                }
                Outcome::Again { why, after } => {
                    tracing::warn!(reload, account = charge.account.0, %why, "a reload has to wait");
                    tokio::time::sleep(after.unwrap_or(wait).clamp(wait, AFTER_MAX.max(wait))).await;
                    wait = (wait * 2).min(again_max);
                }
            }
        }
        None
    }

    /// Says what came of it until the venue has heard it, or knows it already.
    async fn enter(&self, charge: &Charge, command: Command) {
        let mut command = command;
        let mut wait = self.settings.again_min;
        loop {
            match self.venue.enter(charge.account, command.clone()).await {
                Ok(()) | Err(EnterError::Rejected(Reject::UnknownReload)) => return,
                Err(EnterError::Rejected(reject)) => {
                    let reload = charge.reload;
                    let reason = match reject {
                        // The line of credit was cut meanwhile.
                        Reject::InsufficientFunds => ReloadFailure::Declined,
                        _ => ReloadFailure::Unresolved,
                    };
                    let failed = Command::ReloadFailed { reload, reason };
                    tracing::error!(reload, %reject, "the venue refused the outcome of a reload");
                    if std::mem::replace(&mut command, failed.clone()) == failed {
                        return;
                    }
                }
                Err(EnterError::Unavailable(why)) => {
                    tracing::warn!(reload = charge.reload, %why, "the outcome of a reload has to wait");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(self.settings.again_max);
                }
            }
        }
    }
}

fn carry_out(desk: Arc<Desk>, charge: Charge) -> Pin<Box<dyn Future<Output = u64> + Send>> {
    Box::pin(async move {
        if let Some(command) = desk.ask(&charge).await {
            desk.enter(&charge, command).await;
        }
        charge.reload
    })
}

/// A reload as it is asked for. Numbers begin anew with each log, so the key has the moment in which the log began, too.
fn charge(state: &State, reload: u64, account: AccountId) -> Option<Charge> {
    let began = state.accounts.first()?.created_at;
    let pending = state.account(account)?.funding.pending.as_deref()?;
    Some(Charge {
        key: format!("grid-{:x}-{reload}", began.0),
        reload,
        account,
        amount: pending.amount,
        source: pending.source.clone(),
        due_at: pending.due_at,
    })
}
