//! The venue of one process, put together: node, order gateway, history, HTTP tiers. Read `start` from top to
//! bottom for the order in which they depend on each other; `shutdown` goes back the same way.
//!
//! Each node of a cluster runs all of it. Reads come from the node's own replica; what changes something goes through
//! sessions at whichever node leads.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use grid_client::{Client, ClientError, Config as ClientConfig};
use grid_engine::command::Command;
use grid_engine::{Engine, Entry, Seq};
use grid_orders::{Gateway, LogLine, Rate};
use grid_replicator::core::{Addresses, Members};
use grid_replicator::links::{Identity, Limits, Tls};
use grid_replicator::{ClusterConfig, LinkSettings, Node, NodeConfig, NodeEvent, Replica};
use grid_sequencer::{
    Config as SequencerConfig, JournalConfig, LeaderWatch, Position, ThreadLayout, ThreadPlan,
};
use grid_trading::{Follower, History, HistoryError};
use serde::Serialize;

use crate::cluster::{Member, Terms};
use crate::config::{Config, Durability};
use crate::progress::{self, step};
use crate::recovery;
use crate::secrets::{Secrets, Seed};
use crate::service;
use crate::setup::{self, Operator};

/// Any failure to start, in words for the person at the terminal.
pub(crate) type StartError = Box<dyn std::error::Error>;

/// How long a step of the start may take once its state is there.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a leader that is to stop waits for another to take over.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How often a running venue looks for a reason to end.
const LOOK: Duration = Duration::from_millis(200);
/// How often a starting one looks whether its step is done.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// The output that the order gateway reads.
const ORDERS: &str = "orders";

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
    base: Base,
    operator: Option<Client>,
    runtime: tokio::runtime::Runtime,
    tiers: Tiers,
    follower: Follower,
}

/// The HTTP listeners and the sessions through which they change the venue.
struct Tiers {
    trading: grid_trading::RunningTier,
    platform: grid_trading::RunningTier,
    inference: grid_inference::RunningTier,
    payments: grid_payments::Worker,
    sessions: Vec<Client>,
}

/// A node with its gateway and its history, before anybody can be told where it serves.
struct Base {
    node: Node<Engine>,
    gateway: Gateway,
    binary_addr: SocketAddr,
    secrets: Secrets,
    secrets_path: PathBuf,
    roles: Roles,
}

/// What became of a start.
pub(crate) enum Started {
    /// It serves.
    Serving(Box<Venue>),
    /// It was ended before it did, and is down again.
    Ended(End),
}

/// Why a venue is to be ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The person or the supervisor wants it.
    Signal,
    /// Its state has to be built up again from disk: shut it down and start it anew.
    Reload,
    /// The node was taken out of its cluster.
    Removed,
    /// It must not go on, and a person has to look.
    Stop(String),
}

impl From<NodeEvent> for End {
    fn from(event: NodeEvent) -> Self {
        match event {
            NodeEvent::Reload => Self::Reload,
            NodeEvent::Removed => Self::Removed,
            NodeEvent::Stop(why) => Self::Stop(why),
        }
    }
}

/// A step of the start that did not come to its end.
enum Unfinished {
    Ended(End),
    Failed(StartError),
}

impl<E: Into<StartError>> From<E> for Unfinished {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Venue {
    /// Builds up the state from the data directory and serves it. In a cluster this lasts until a majority of the nodes
    /// is there.
    pub(crate) fn start(config: &Config, signals: &Signals) -> Result<Started, StartError> {
        let base = Base::start(config, signals)?;
        let operator = match base.bring_up(config, signals) {
            Ok(operator) => operator,
            Err(unfinished) => return base.give_up(unfinished),
        };
        let history = match base.follow_history(config, signals) {
            Ok(history) => history,
            Err(unfinished) => return base.give_up(unfinished),
        };
        let (history, follower) = history;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("http").build()?;
        let sessions = match base.tier_sessions(&runtime, config, signals) {
            Ok(sessions) => sessions,
            Err(unfinished) => {
                drop(history);
                let given_up = base.give_up(unfinished);
                let _ = follower.join();
                return given_up;
            }
        };
        let tiers = start_tiers(&runtime, config, &base.secrets, sessions, &base.node, &history)?;
        let urls = Urls {
            trading_url: format!("http://{}/v1", tiers.trading.addr),
            inference_url: tiers.inference.inference_url(),
            messages_url: tiers.inference.messages_url(),
            platform_url: format!("http://{}/v1", tiers.platform.addr),
            binary_addr: base.binary_addr.to_string(),
        };
        Ok(Started::Serving(Box::new(Self { urls, base, operator, runtime, tiers, follower })))
    }

    /// The binary door of this node.
    pub(crate) fn binary_addr(&self) -> SocketAddr {
        self.base.binary_addr
    }

    /// Copies for reads.
    pub(crate) fn replica(&self) -> &Arc<Replica<Engine>> {
        self.base.node.replica()
    }

    /// The venue's keys, and where they are kept.
    pub(crate) fn secrets(&self) -> (&Secrets, &Path) {
        (&self.base.secrets, &self.base.secrets_path)
    }

    /// The operator's session; made when it is first asked for.
    pub(crate) fn operator(&mut self, config: &Config) -> Result<Client, StartError> {
        if let Some(operator) = &self.operator {
            return Ok(operator.clone());
        }
        let operator =
            Client::connect(ClientConfig::new(self.base.doors(config), self.base.secrets.operator.0))?;
        self.operator = Some(operator.clone());
        Ok(operator)
    }

    /// Waits until reads show what the log holds at `seq`.
    pub(crate) fn wait(&self, seq: u64) {
        if let Err(error) = self.replica().wait_for_blocking(Seq(seq), PATIENCE) {
            tracing::warn!(seq, %error, "the replica lags");
        }
    }

    /// Waits until there is a reason to end.
    pub(crate) fn wait_for_end(&self, signals: &Signals) -> End {
        loop {
            if let Some(end) = self.base.end(signals, LOOK) {
                return end;
            }
        }
    }

    /// Ends in good order: a leader hands leadership over first, calls in progress are finished and settled, everything
    /// taken is on disk, a snapshot makes the next start quick.
    pub(crate) fn shutdown(self) {
        let Self { base, operator, runtime, tiers, follower, .. } = self;
        if base.node.leadership().epoch().is_some() && !base.node.hand_over(HAND_OVER) {
            step("nobody took over the leadership in time; the others elect a leader by themselves");
        }
        let Tiers { trading, platform, inference, payments, sessions } = tiers;
        runtime.block_on(async {
            payments.stop().await;
            inference.shutdown().await;
            trading.shutdown().await;
            platform.shutdown().await;
            for session in sessions {
                session.closed().await;
            }
        });
        if let Some(session) = operator {
            session.close();
        }
        let position = base.shutdown();
        if let Err(error) = follower.join() {
            tracing::error!(%error, "history is behind; the next start brings it up from the journal");
        }
        step(&format!("stopped at log sequence {}", position.seq.0));
    }
}

impl Base {
    /// The log from disk, its place in the cluster, and the door for clients.
    fn start(config: &Config, signals: &Signals) -> Result<Self, StartError> {
        step(&format!("data directory {}", config.data_dir.display()));
        step(&durability(config));
        let (mut bar, mut last) = (None, None);
        let began = Instant::now();
        let node_config = node_config(config)?;
        let hosted = grid_orders::to_be_hosted(&node_config.sequencer.layout).cloned();
        let mut node = Node::start(node_config, Engine::new, |progress| {
            let bar = bar.get_or_insert_with(|| progress::replay(progress.bytes_total));
            bar.set_position(progress.bytes_done);
            bar.set_message(format!("{} commands, {} a second", progress.commands, progress.per_second()));
            last = Some(Instant::now());
            if signals.came() {
                // Nothing is open that would have to be closed: reading changes nothing.
                step("stopping before the state was built up");
                std::process::exit(0);
            }
        })?;
        if let Some(bar) = bar {
            bar.finish_and_clear();
        }
        let took = last.map_or(Duration::ZERO, |last| last - began);
        recovery::told(node.report(), took).iter().for_each(|line| step(line));
        let secrets_path = config.data_dir.join("keys.json");
        let secrets = Secrets::open(&secrets_path)?;
        let roles = Roles::tell(config.cluster.as_ref().map(|terms| terms.node), node.leadership());

        let listener = bind(config.listen.at(4))?;
        let outputs = node.take_output(ORDERS).ok_or("every consumer is configured")?;
        let line = LogLine::new(node.submitter(), outputs, node.leadership(), node.leader_address());
        let line = if hosted.is_some() { line.hosting(node.lender()) } else { line };
        let gateway_config = gateway_config(config, hosted.as_ref());
        let gateway = Gateway::start(listener, gateway_config, line, Arc::clone(node.replica()))?;
        let binary_addr = gateway.address();
        Ok(Self { node, gateway, binary_addr, secrets, secrets_path, roles })
    }

    /// Where the binary door is, on this node and on the others.
    fn doors(&self, config: &Config) -> Vec<SocketAddr> {
        config.cluster.as_ref().map_or_else(|| vec![self.binary_addr], Terms::binary_addrs)
    }

    /// A reason to end, where one comes within `limit`.
    fn end(&self, signals: &Signals, limit: Duration) -> Option<End> {
        if signals.came() {
            return Some(End::Signal);
        }
        self.node.next_event(limit).map(End::from)
    }

    /// Sees to it that the log has its first command, the configured instruments and the tiers' account. Any node may lead
    /// while this goes on, and die of it; so each step looks at what is there, and only a leader begins it. The last
    /// step is the tiers' account: where that is, everything before it is.
    fn bring_up(&self, config: &Config, signals: &Signals) -> Result<Option<Client>, Unfinished> {
        let (leadership, replica) = (self.node.leadership(), self.node.replica());
        let tier = self.secrets.tier.fingerprint();
        let mut operator = None;
        let mut waiting = false;
        loop {
            let (founded, complete) = replica.read(|engine| {
                let state = engine.state();
                (!state.accounts.is_empty(), state.signing_keys.contains_key(&tier))
            });
            if complete {
                break;
            }
            let done = match leadership.epoch() {
                Some(_) if !founded => self.found(),
                Some(_) => self.write_directory(config, &mut operator),
                None => {
                    if !std::mem::replace(&mut waiting, true) {
                        step("waiting for a leader, which makes an empty log a venue");
                    }
                    Ok(())
                }
            };
            match done {
                // Alone there is nobody who could do better.
                Err(error) if config.cluster.is_none() => return Err(Unfinished::Failed(error)),
                Err(error) => tracing::warn!(%error, "not done yet; whoever leads goes on"),
                Ok(()) => {}
            }
            if let Some(end) = self.end(signals, LOOK_AGAIN) {
                return Err(Unfinished::Ended(end));
            }
        }
        // What the configuration lists in addition since.
        let missing = setup::missing_instruments(replica, config);
        if !missing.is_empty() || service::lacks_terms(replica, config) {
            let client = match operator.take() {
                Some(client) => client,
                None => self.connect(Client::connect, config, self.secrets.operator, signals)?,
            };
            let through = Operator { client: &client, replica };
            setup::define(&through, &missing)?;
            service::set_terms(&through, config)?;
            operator = Some(client);
        }
        Ok(operator)
    }

    /// The first command of an empty log; a second one changes nothing.
    fn found(&self) -> Result<(), StartError> {
        step("an empty log: genesis");
        let genesis = Entry::venue(Command::Genesis { operator_key: self.secrets.operator.public_key() });
        self.node.submitter().try_submit(genesis).map_err(|error| error.to_string())?;
        // Lost with the leadership, perhaps; whoever looks again sees.
        let _ = self.node.replica().wait_for_blocking(Seq(1), Duration::from_secs(2));
        Ok(())
    }

    fn write_directory(&self, config: &Config, operator: &mut Option<Client>) -> Result<(), StartError> {
        let client = match operator {
            Some(client) => client,
            None => {
                let doors = ClientConfig::new(self.doors(config), self.secrets.operator.0);
                operator.insert(Client::connect(doors)?)
            }
        };
        Ok(setup::directory(&Operator { client, replica: self.node.replica() }, config, &self.secrets)?)
    }

    /// A session at whoever leads, as soon as somebody does.
    fn connect(
        &self,
        connect: impl Fn(ClientConfig) -> Result<Client, ClientError>,
        config: &Config,
        key: Seed,
        signals: &Signals,
    ) -> Result<Client, Unfinished> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match connect(ClientConfig::new(self.doors(config), key.0)) {
                Ok(client) => return Ok(client),
                Err(error @ ClientError::Refused(_)) => return Err(error.into()),
                Err(error) if config.cluster.is_none() && Instant::now() > deadline => {
                    return Err(error.into());
                }
                Err(error) => tracing::warn!(%error, "no session yet"),
            }
            if let Some(end) = self.end(signals, LOOK_AGAIN) {
                return Err(Unfinished::Ended(end));
            }
        }
    }

    /// One for the trading tier, one for the inference tier, and the operator's for what became of reloads; driven where the
    /// tiers run.
    fn tier_sessions(
        &self,
        runtime: &tokio::runtime::Runtime,
        config: &Config,
        signals: &Signals,
    ) -> Result<[Client; 3], Unfinished> {
        let Secrets { tier, operator, .. } = self.secrets;
        let mut sessions = Vec::new();
        for key in [tier, tier, operator] {
            let here = |doors| runtime.block_on(Client::connect_here(doors));
            match self.connect(here, config, key, signals) {
                Ok(session) => sessions.push(session),
                Err(unfinished) => {
                    sessions.into_iter().for_each(Client::close);
                    return Err(unfinished);
                }
            }
        }
        Ok(sessions.try_into().unwrap_or_else(|_| unreachable!("one session for each key")))
    }

    /// The history may know more than what was recovered: of the last blocks nobody has told this node yet that they are
    /// committed. It waits until the log is where it was.
    fn follow_history(&self, config: &Config, signals: &Signals) -> Result<(History, Follower), Unfinished> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let store = config.data_dir.join("history.sqlite");
            match grid_trading::follow(&store, self.node.replica(), &config.data_dir) {
                Err(HistoryError::Ahead { .. }) if Instant::now() < deadline => {}
                done => return Ok(done?),
            }
            if let Some(end) = self.end(signals, LOOK_AGAIN) {
                return Err(Unfinished::Ended(end));
            }
        }
    }

    /// Ends a start that did not come to its end.
    fn give_up(self, unfinished: Unfinished) -> Result<Started, StartError> {
        self.shutdown();
        match unfinished {
            Unfinished::Ended(end) => Ok(Started::Ended(end)),
            Unfinished::Failed(error) => Err(error),
        }
    }

    /// Ends what is left when nobody is served any more.
    fn shutdown(self) -> Position {
        let Self { node, gateway, roles, .. } = self;
        gateway.stop();
        roles.stop();
        node.shutdown().position
    }
}

/// What an acknowledgement means here, in words.
fn durability(config: &Config) -> String {
    let nodes = config.cluster.as_ref().map_or(1, |terms| terms.members.len());
    match (config.log.durability, nodes) {
        (Durability::DiskQuorum, 1) => {
            "durability disk-quorum: acknowledged means on disk on a quorum, which is this node alone".into()
        }
        (Durability::DiskQuorum, _) => {
            "durability disk-quorum: acknowledged means on disk on a majority of the nodes".into()
        }
        (Durability::MemoryQuorum, 1) => {
            "durability memory-quorum: acknowledged means written, and synced right after; \
             power lost in between can lose it"
                .into()
        }
        (Durability::MemoryQuorum, _) => {
            "durability memory-quorum: acknowledged means written on a majority of the \
             nodes, and synced right after; power lost on a majority in between can lose it"
                .into()
        }
    }
}

/// Tells the person at the terminal who leads, from a thread of its own.
struct Roles {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Roles {
    /// Nothing is told of a node that has no others.
    fn tell(node: Option<u64>, leadership: LeaderWatch) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&stop);
        let thread = node.and_then(|node| {
            let watch = move || watch_roles(node, &leadership, &ends);
            std::thread::Builder::new().name("roles".into()).spawn(watch).ok()
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread {
            let _ = thread.join();
        }
    }
}

fn watch_roles(node: u64, leadership: &LeaderWatch, ends: &AtomicBool) {
    let role = |watch: &LeaderWatch| match (watch.epoch(), watch.leader()) {
        (Some(term), _) => Some(format!("node {node} leads in term {term}")),
        // Elected, and nothing of its own applied yet: a moment.
        (None, Some(leader)) if leader == node => None,
        (None, Some(leader)) => Some(format!("node {node} follows node {leader}")),
        (None, None) => Some(format!("node {node} knows no leader")),
    };
    let mut last = None;
    while !ends.load(Ordering::Acquire) {
        let changed =
            leadership.wait_until(LOOK, |watch| role(watch).filter(|role| last.as_ref() != Some(role)));
        if let Some(role) = changed {
            step(&role);
            last = Some(role);
        }
    }
}

fn node_config(config: &Config) -> Result<NodeConfig, StartError> {
    let log = &config.log;
    let journal = JournalConfig {
        segment_bytes: log.segment_bytes,
        retain_bytes: log.retain_bytes,
        durability: match log.durability {
            Durability::DiskQuorum => grid_sequencer::Durability::DiskQuorum,
            Durability::MemoryQuorum => grid_sequencer::Durability::MemoryQuorum,
        },
        ..JournalConfig::default()
    };
    Ok(NodeConfig {
        data_dir: config.data_dir.clone(),
        journal,
        sequencer: sequencer_config(config)?,
        snapshot_every: log.snapshot_every_commands,
        cluster: config.cluster.as_ref().map_or_else(|| Ok(ClusterConfig::alone()), cluster_config)?,
    })
}

fn cluster_config(terms: &Terms) -> Result<ClusterConfig, StartError> {
    let addresses =
        |member: &Member| Addresses { peer: member.peer.to_string(), orders: member.binary.to_string() };
    let founding = Members::founding(terms.members.iter().map(|member| (member.node, addresses(member))))?;
    let tls = match &terms.identity {
        Some(dir) => Tls::Mutual(Identity::load(dir, &Identity::node_files(terms.node))?),
        None => Tls::Plain,
    };
    Ok(ClusterConfig {
        links: Some(LinkSettings {
            listen: terms.listen,
            advertise: terms.advertised(),
            tls,
            limits: Limits::default(),
        }),
        election_ticks: terms.election_ticks,
        heartbeat_ticks: terms.heartbeat_ticks,
        ..ClusterConfig::new(terms.id.0, terms.node, founding)
    })
}

fn sequencer_config(config: &Config) -> Result<SequencerConfig, StartError> {
    let mut sequencer = SequencerConfig::new(&[ORDERS]);
    if let Some(terms) = &config.cluster {
        sequencer.core_tick = terms.tick();
    }
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

fn gateway_config(config: &Config, hosted: Option<&ThreadPlan>) -> grid_orders::Config {
    let usual = hosted.map_or_else(grid_orders::Config::default, grid_orders::Config::hosting);
    let sessions = &config.sessions;
    let rate = |per_second| Rate { per_second, burst: per_second };
    grid_orders::Config {
        connections_max: sessions.max_connections,
        frame_max: sessions.max_frame_bytes,
        login_timeout: Duration::from_millis(sessions.login_timeout_ms),
        requests: rate(sessions.orders_per_second),
        cancels: rate(sessions.cancels_per_second),
        ..usual
    }
}

fn start_tiers(
    runtime: &tokio::runtime::Runtime,
    config: &Config,
    secrets: &Secrets,
    sessions: [Client; 3],
    node: &Node<Engine>,
    history: &History,
) -> Result<Tiers, StartError> {
    let [trading_session, inference_session, payments_session] = sessions;
    let (replica, metrics) = (node.replica(), node.metrics());
    let app = grid_trading::App::new(
        Arc::new(grid_trading::ClientDoor::new(trading_session.clone())),
        Arc::new(grid_trading::ReplicaView::new(Arc::clone(replica))),
        history.clone(),
        trading_limits(config),
    );
    let deps = grid_inference::Deps {
        door: Arc::new(inference_session.clone()),
        directory: Arc::new(Replica::clone(replica)),
        history: Some(history.clone()),
    };
    let payments_venue = payments_venue(payments_session.clone(), node);
    let (trading, platform, inference, payments) = runtime.block_on(async {
        let trading =
            grid_trading::serve(config.listen.at(0), app.clone()).await.map_err(in_use(config, 0))?;
        // Operators reach the platform's listener, the public reaches the trading tier's.
        let app = app.with_metrics(Arc::new(move || metrics.text()));
        let platform = grid_trading::serve(config.listen.at(3), app).await.map_err(in_use(config, 3))?;
        let inference = grid_inference::serve(inference_config(config, secrets)?, deps)
            .await
            .map_err(in_use(config, 1))?;
        let payments = start_payments(config, payments_venue);
        Ok::<_, StartError>((trading, platform, inference, payments))
    })?;
    let sessions = vec![trading_session, inference_session, payments_session];
    Ok(Tiers { trading, platform, inference, payments, sessions })
}

fn payments_venue(session: Client, node: &Node<Engine>) -> Arc<dyn grid_payments::Venue> {
    Arc::new(grid_payments::venue::NodeVenue::new(session, Arc::clone(node.replica()), node.leadership()))
}

fn start_payments(config: &Config, venue: Arc<dyn grid_payments::Venue>) -> grid_payments::Worker {
    let house = Arc::new(grid_payments::House::new(Arc::clone(&venue)));
    let cards = config
        .payments
        .stripe()
        .map(|settings| Arc::new(grid_payments::Stripe::new(settings)) as Arc<dyn grid_payments::Provider>);
    let providers = grid_payments::Providers { house, cards };
    grid_payments::Worker::start(venue, providers, grid_payments::Settings::default())
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

fn inference_config(config: &Config, secrets: &Secrets) -> Result<grid_inference::Config, StartError> {
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
    tier.dispatch.nodes.clone_from(&terms.dispatch_to);
    tier.dispatch.here.clone_from(&terms.dispatch_here);
    tier.probing = config.probes.terms();
    let word = terms.operator_key.clone().unwrap_or_else(|| secrets.operator_word());
    tier.operator = Some(grid_engine::KeyHash::of(&word));
    for model in &terms.models {
        let lacks = model.lacks.iter().map(|word| {
            grid_inference::Need::from_word(word)
                .ok_or_else(|| format!("inference.model {}: no ability is called {word}", model.name))
        });
        tier.lacks.insert(model.name.clone(), lacks.collect::<Result<_, _>>()?);
    }
    Ok(tier)
}

fn bind(addr: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(addr).map_err(|error| format!("cannot listen on {addr}: {error}").into())
}

fn in_use(config: &Config, offset: u16) -> impl FnOnce(std::io::Error) -> StartError {
    let addr = config.listen.at(offset);
    move |error| format!("cannot listen on {addr}: {error}").into()
}

/// Whether the person or the supervisor wants the venue to end.
#[derive(Clone)]
pub(crate) struct Signals(Arc<AtomicBool>);

impl Signals {
    /// Listens from now on: neither Ctrl-C nor SIGTERM ends the process any more.
    pub(crate) fn listen() -> std::io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (mut interrupt, mut terminate) = runtime.block_on(async {
            use tokio::signal::unix::{SignalKind, signal};
            Ok::<_, std::io::Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?))
        })?;
        let told = Arc::clone(&came);
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
            });
            told.store(true, Ordering::Release);
        })?;
        Ok(Self(came))
    }

    fn came(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
