//! The real venue: the operator's session of the binary protocol, and a replica of the engine.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use grid_client::{Client, ClientError, Request};
use grid_engine::command::Command;
use grid_engine::event::Event;
use grid_engine::state::State;
use grid_engine::{AccountId, Engine, Nanos, Reject};
use grid_replicator::Replica;
use grid_sequencer::LeaderWatch;
use tokio::sync::watch;

use crate::provider::Pending;
use crate::worker::{EnterError, Venue};

/// A node's own venue. The node that leads acts; a moment in which two believe so does no harm.
pub struct NodeVenue {
    client: Client,
    replica: Arc<Replica<Engine>>,
    leadership: LeaderWatch,
}

impl NodeVenue {
    /// Through this session, whose account is the operator's.
    #[must_use]
    pub const fn new(client: Client, replica: Arc<Replica<Engine>>, leadership: LeaderWatch) -> Self {
        Self { client, replica, leadership }
    }
}

impl std::fmt::Debug for NodeVenue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeVenue").finish_non_exhaustive()
    }
}

impl Venue for NodeVenue {
    fn look(&self, look: &mut dyn FnMut(&State)) {
        self.replica.read(|engine| look(engine.state()));
    }

    fn enter(&self, account: AccountId, command: Command) -> Pending<Result<(), EnterError>> {
        let mut payload = Vec::new();
        command.encode(&mut payload);
        let answer = self.client.submit(Request::Directory { account: account.0, payload });
        Box::pin(async move { answer.await.map(drop).map_err(refused) })
    }

    fn acts(&self) -> bool {
        self.leadership.epoch().is_some()
    }

    fn news(&self) -> watch::Receiver<()> {
        let (tell, news) = watch::channel(());
        let leads = tell.clone();
        self.leadership.wake_with(Arc::new(move || leads.send_replace(())));
        self.replica.on_output(move |output| {
            if output.events().iter().any(|event| matches!(event, Event::ReloadDue { .. })) {
                tell.send_replace(());
            }
        });
        news
    }

    fn now(&self) -> Nanos {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let log = self.replica.read(|engine| engine.state().now);
        Nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)).max(log)
    }
}

fn refused(error: ClientError) -> EnterError {
    match error.code().and_then(Reject::from_code) {
        Some(reject) => EnterError::Rejected(reject),
        None => EnterError::Unavailable(error.to_string()),
    }
}
