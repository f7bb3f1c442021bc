//! The venue of one process, put together: log, order gateway, replica, history, HTTP tiers. Read `start` from top to
//! bottom for the order in which they depend on each other; `shutdown` goes back the same way.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use grid_client::{Client, Config as ClientConfig};
use grid_engine::command::Command;
use grid_engine::{Engine, Entry, Seq};
use grid_orders::{Gateway, LogLine, Rate};
use grid_replicator::{Replica, ReplicaConfig, ReplicaThread};
use grid_sequencer::{
    Config as SequencerConfig, Handle, JournalConfig, Recovered, Sequencer, ThreadLayout, recover,
};
use grid_trading::{Follower, History};
use serde::Serialize;

use crate::config::Config;
use crate::progress::{self, step};
use crate::secrets::Secrets;
use crate::setup::{self, Operator};

/// Any failure to start, in words for the person at the terminal.
pub(crate) type StartError = Box<dyn std::error::Error>;

/// How long a step of the start may take once its state is there.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where everything is served; HTTP bases end in `/v1`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Urls {
    pub(crate) trading_url: String,
    pub(crate) inference_url: String,
    pub(crate) messages_url: String,
    pub(crate) platform_url: String,
    pub(crate) binary_addr: String,
}

/// A venue that serves.
pub(crate) struct Venue {
    pub(crate) urls: Urls,
    pub(crate) binary_addr: SocketAddr,
    /// The operator's session.
    pub(crate) operator: Client,
    pub(crate) replica: Arc<Replica<Engine>>,
    pub(crate) secrets: Secrets,
    pub(crate) secrets_path: PathBuf,
    runtime: tokio::runtime::Runtime,
    tiers: Tiers,
    gateway: Gateway,
    log: Handle<Engine>,
    replica_thread: ReplicaThread,
    follower: Follower,
}

/// The HTTP listeners and the sessions through which they change the venue.
struct Tiers {
    trading: grid_trading::RunningTier,
    platform: grid_trading::RunningTier,
    inference: grid_inference::RunningTier,
    sessions: Vec<Client>,
}

impl Venue {
    /// Builds up the state from the data directory and serves it.
    pub(crate) fn start(config: &Config) -> Result<Self, StartError> {
        step(&format!("data directory {}", config.data_dir.display()));
        step("durability disk-quorum: acknowledged means on disk on a quorum, which is this node alone");
        let recovered = recover_log(config)?;
        let secrets_path = config.data_dir.join("keys.json");
        let secrets = Secrets::open(&secrets_path)?;
        let copy = recovered.copy_machine();
        let (position, snapshots) = (recovered.position, recovered.snapshots());
        let empty = recovered.machine.state().accounts.is_empty();
        let mut log = Sequencer::start(recovered, sequencer_config(config)?)?;
        let mut seat = |name: &str| log.take_output(name).ok_or("every consumer is configured");
        let (to_gateway, to_replica) = (seat("orders")?, seat("replica")?);
        let snapshots = Some((snapshots, config.log.snapshot_every_commands));
        let (replica, replica_thread) =
            Replica::start(copy, position, to_replica, ReplicaConfig { snapshots, ..ReplicaConfig::default() })?;
        let (history, follower) =
            grid_trading::follow(&config.data_dir.join("history.sqlite"), &replica, &config.data_dir)?;
        let replica = Arc::new(replica);
        if empty {
            found(&log, &replica, &secrets)?;
        }

        let listener = bind(config.listen.at(4))?;
        let line = LogLine::new(log.submitter(), to_gateway, log.leadership(), || None);
        let gateway = Gateway::start(listener, gateway_config(config), line, Arc::clone(&replica))?;
        let binary_addr = gateway.address();
        let operator = Client::connect(ClientConfig::new(vec![binary_addr], secrets.operator.0))?;
        setup::directory(&Operator { client: &operator, replica: &replica }, config, &secrets)?;

        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("http").build()?;
        let tiers = start_tiers(&runtime, config, &secrets, binary_addr, &replica, &history)?;
        let urls = Urls {
            trading_url: format!("http://{}/v1", tiers.trading.addr),
            inference_url: tiers.inference.inference_url(),
            messages_url: tiers.inference.messages_url(),
            platform_url: format!("http://{}/v1", tiers.platform.addr),
            binary_addr: binary_addr.to_string(),
        };
        Ok(Self {
            urls,
            binary_addr,
            operator,
            replica,
            secrets,
            secrets_path,
            runtime,
            tiers,
            gateway,
            log,
            replica_thread,
            follower,
        })
    }

    /// Waits until reads show what the log holds at `seq`.
    pub(crate) fn wait(&self, seq: u64) {
        if let Err(error) = self.replica.wait_for_blocking(Seq(seq), PATIENCE) {
            tracing::warn!(seq, %error, "the replica lags");
        }
    }

    /// Ends in good order: calls in progress are finished and settled, everything taken is on disk, a snapshot
    /// makes the next start quick.
    pub(crate) fn shutdown(self) {
        let Self { operator, replica, runtime, tiers, gateway, log, replica_thread, follower, .. } = self;
        let Tiers { trading, platform, inference, sessions } = tiers;
        runtime.block_on(async {
            inference.shutdown().await;
            trading.shutdown().await;
            platform.shutdown().await;
        });
        operator.close();
        for session in sessions {
            session.close();
        }
        gateway.stop();
        let stopped = log.shutdown();
        replica_thread.join();
        if let Err(error) = follower.join() {
            tracing::error!(%error, "history is behind; the next start brings it up from the journal");
        }
        debug_assert_eq!(replica.applied(), stopped.position.seq, "the replica has seen everything");
        step(&format!("stopped at log sequence {}", stopped.position.seq.0));
    }
}

fn recover_log(config: &Config) -> Result<Recovered<Engine>, StartError> {
    let journal = JournalConfig { segment_bytes: config.log.segment_bytes, ..JournalConfig::default() };
    let mut bar = None;
    let recovered = recover(&config.data_dir, journal, Engine::new, |progress| {
        let bar = bar.get_or_insert_with(|| progress::replay(progress.bytes_total));
        bar.set_position(progress.bytes_done);
        bar.set_message(format!("{} commands", progress.commands));
    })?;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let report = &recovered.report;
    let from = report.snapshot.map_or_else(
        || "the first block".to_owned(),
        |position| format!("the snapshot at sequence {}", position.seq.0),
    );
    if recovered.position.seq > Seq::ZERO {
        step(&format!(
            "log sequence {}: {} commands replayed from {from}",
            recovered.position.seq.0, report.replayed
        ));
    }
    for reason in &report.passed_over {
        step(&format!("snapshot passed over: {reason}"));
    }
    if let Some(torn) = &report.torn {
        step(&format!("cut a torn tail of {} bytes that nobody was told about", torn.bytes));
    }
    Ok(recovered)
}

/// The first command of an empty log.
fn found(log: &Handle<Engine>, replica: &Replica<Engine>, secrets: &Secrets) -> Result<(), StartError> {
    step("an empty log: genesis");
    let genesis = Entry::venue(Command::Genesis { operator_key: secrets.operator.public_key() });
    log.submitter().try_submit(genesis).map_err(|error| error.to_string())?;
    replica.wait_for_blocking(Seq(1), PATIENCE)?;
    Ok(())
}

fn sequencer_config(config: &Config) -> Result<SequencerConfig, StartError> {
    let mut sequencer = SequencerConfig::new(&["orders", "replica"]);
    sequencer.layout = match config.log.layout.as_str() {
        "auto" => ThreadLayout::auto(),
        "spread" => ThreadLayout::spread(0),
        "paired" => ThreadLayout::paired(0),
        "fused" => ThreadLayout::fused(0),
        "parked" => ThreadLayout::parked(),
        other => {
            return Err(format!("log.layout is auto, spread, paired, fused or parked, not {other:?}").into());
        }
    };
    Ok(sequencer)
}

fn gateway_config(config: &Config) -> grid_orders::Config {
    let sessions = &config.sessions;
    let rate = |per_second| Rate { per_second, burst: per_second };
    grid_orders::Config {
        connections_max: sessions.max_connections,
        frame_max: sessions.max_frame_bytes,
        login_timeout: Duration::from_millis(sessions.login_timeout_ms),
        requests: rate(sessions.orders_per_second),
        cancels: rate(sessions.cancels_per_second),
        ..grid_orders::Config::default()
    }
}

fn start_tiers(
    runtime: &tokio::runtime::Runtime,
    config: &Config,
    secrets: &Secrets,
    binary_addr: SocketAddr,
    replica: &Arc<Replica<Engine>>,
    history: &History,
) -> Result<Tiers, StartError> {
    let session = || Client::connect(ClientConfig::new(vec![binary_addr], secrets.tier.0));
    let (trading_session, inference_session) = (session()?, session()?);
    let app = grid_trading::App::new(
        Arc::new(grid_trading::ClientDoor::new(trading_session.clone())),
        Arc::new(grid_trading::ReplicaView::new(Arc::clone(replica))),
        history.clone(),
        trading_limits(config),
    );
    let deps = grid_inference::Deps {
        door: Arc::new(inference_session.clone()),
        directory: Arc::new(Replica::clone(replica)),
    };
    let (trading, platform, inference) = runtime.block_on(async {
        let trading =
            grid_trading::serve(config.listen.at(0), app.clone()).await.map_err(in_use(config, 0))?;
        let platform = grid_trading::serve(config.listen.at(3), app).await.map_err(in_use(config, 3))?;
        let inference = grid_inference::serve(inference_config(config, secrets), deps)
            .await
            .map_err(in_use(config, 1))?;
        Ok::<_, StartError>((trading, platform, inference))
    })?;
    Ok(Tiers { trading, platform, inference, sessions: vec![trading_session, inference_session] })
}

fn trading_limits(config: &Config) -> grid_trading::Limits {
    let defaults = grid_trading::Limits::default();
    grid_trading::Limits {
        body_bytes_max: config.trading.max_body_bytes,
        head_timeout: Duration::from_millis(config.trading.head_timeout_ms),
        body_timeout: Duration::from_millis(config.trading.body_timeout_ms),
        requests_per_second: (config.trading.requests_per_minute / 60).max(1),
        burst: config.trading.requests_per_minute.max(1),
        ..defaults
    }
}

fn inference_config(config: &Config, secrets: &Secrets) -> grid_inference::Config {
    let mut tier = grid_inference::Config {
        inference_addr: config.listen.at(1),
        messages_addr: Some(config.listen.at(2)),
        venue_key: grid_inference::VenueKey::new(secrets.venue_key.0),
        ..grid_inference::Config::default()
    };
    let terms = &config.inference;
    tier.limits.body_bytes = terms.max_body_bytes;
    tier.limits.calls = terms.max_open_streams;
    tier.clocks.head_read = Duration::from_millis(terms.head_timeout_ms);
    tier.clocks.body_read = Duration::from_millis(terms.body_timeout_ms);
    tier.clocks.connect = Duration::from_millis(terms.connect_timeout_ms);
    tier.clocks.first_content = Duration::from_millis(terms.first_token_timeout_ms);
    tier.clocks.idle = Duration::from_millis(terms.idle_timeout_ms);
    tier.clocks.whole_answer = Duration::from_millis(terms.whole_answer_timeout_ms);
    tier.clocks.reservation = Duration::from_secs(terms.reservation_seconds);
    tier
}

fn bind(addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).map_err(|error| format!("cannot listen on {addr}: {error}").into())
}

fn in_use(config: &Config, offset: u16) -> impl FnOnce(std::io::Error) -> StartError {
    let addr = config.listen.at(offset);
    move |error| format!("cannot listen on {addr}: {error}").into()
}

/// Returns when the person or the supervisor wants the venue to end.
pub(crate) fn wait_for_signal() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let waited = runtime.and_then(|runtime| {
        runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            let mut terminate = signal(SignalKind::terminate())?;
            tokio::select! {
                done = tokio::signal::ctrl_c() => done,
                _ = terminate.recv() => Ok(()),
            }
        })
    });
    if let Err(error) = waited {
        tracing::error!(%error, "signals can't be heard; ending");
    }
}
