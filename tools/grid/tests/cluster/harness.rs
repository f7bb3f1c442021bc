//! Makes a cluster with the operator's own command, starts its nodes as processes, ends them in every way there is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

use crate::net::Net;

/// The most nodes that a cluster has, with those that join it.
const NODES_MAX: u16 = 7;

/// Far above what anything takes; only what hangs reaches it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// What all nodes of the tests have: small segments and frequent snapshots, so that every restart meets both, and an election
/// after about a second.
pub(crate) const COMMON: &str = r#"
[log]
layout = "parked"
segment_bytes = 1048576
snapshot_every_commands = 3000
[cluster]
tick_ms = 50
election_ticks = 20
heartbeat_ticks = 3
[sla]
window_seconds = 0
late_is_free = false
[[instrument]]
symbol = "text-prime"
name = "Text Prime"
index = "intelligence"
score_floor = 38
ttft_ceiling_ms = 4620
context_floor = 128000
output_floor = 128000
tick = "0.01"
maker_fee_bps = 3
taker_fee_bps = 7
status = "live"
[[instrument]]
symbol = "text-standard"
name = "Text Standard"
ttft_ceiling_ms = 1320
context_floor = 128000
output_floor = 128000
tick = "0.001"
status = "live"
"#;

/// The ready file of `grid serve`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ready {
    pub(crate) trading_url: String,
    pub(crate) inference_url: String,
    pub(crate) instruments: Vec<ReadyInstrument>,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ReadyInstrument {
    pub(crate) symbol: String,
    pub(crate) market_id: String,
}

/// Tries until it holds. For what follows by itself from what was done, with nobody to say when.
pub(crate) fn until<T>(what: &str, mut holds: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match holds() {
            Ok(value) => return value,
            Err(reason) => assert!(Instant::now() < deadline, "{what}: {reason}"),
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// A cluster with its directory. Dropping it kills its nodes.
pub(crate) struct Cluster {
    pub(crate) net: Net,
    dir: tempfile::TempDir,
    nodes: BTreeMap<u64, Process>,
    /// Nodes that were taken out of the cluster, whose journals are no longer asked.
    gone: BTreeSet<u64>,
    port_base: u16,
}

struct Process {
    child: Child,
    guard: Child,
}

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the node's process takes signals");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.guard.kill();
        let _ = self.guard.wait();
    }
}

/// The program under test; `GRID_PROGRAM` names another one, a release build for instance.
fn program() -> String {
    std::env::var("GRID_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_grid").into())
}

fn grid() -> Command {
    let mut command = Command::new(program());
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    command
}

impl Cluster {
    /// A cluster on plain loopback; all nodes serve.
    pub(crate) fn start(nodes: u64) -> Self {
        Self::start_on(Net::Loopback, nodes, COMMON)
    }

    pub(crate) fn start_on(net: Net, nodes: u64, common: &str) -> Self {
        let mut cluster = Self::make(net, nodes, common);
        for node in 1..=nodes {
            cluster.spawn(node);
        }
        for node in 1..=nodes {
            cluster.wait_ready(node);
        }
        cluster
    }

    /// The directories, and nobody running.
    pub(crate) fn make(net: Net, nodes: u64, common: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("cluster-").tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let dir = dir.expect("the build directory takes directories");
        let port_base = grid_ports::in_a_row(10 * NODES_MAX).expect("free ports");
        std::fs::write(dir.path().join("common.toml"), common).expect("a small file");
        let mut init = grid();
        init.args(["cluster", "init", "--nodes", &nodes.to_string(), "--port-base", &port_base.to_string()]);
        init.arg("--config").arg(dir.path().join("common.toml"));
        let hosts: BTreeSet<_> = (1..=nodes).map(|node| net.host(node)).collect();
        let apart = hosts.len() > 1;
        for node in 1..=if apart { nodes } else { 1 } {
            init.args(["--host", &net.host(node).to_string()]);
        }
        let output = init.arg(dir.path().join("cluster")).output().expect("grid starts");
        assert!(output.status.success(), "init: {}", String::from_utf8_lossy(&output.stderr));
        let cluster = Self { net, dir, nodes: BTreeMap::new(), gone: BTreeSet::new(), port_base };
        if matches!(cluster.net, Net::Proxies(_)) {
            cluster.stand_proxies(nodes);
        }
        cluster
    }

    /// Puts the proxies' addresses where the nodes' were, in what the nodes are told of each other. The operator keeps
    /// the true ones.
    fn stand_proxies(&self, nodes: u64) {
        let listens =
            |node: u64| SocketAddr::from((self.net.host(node), self.port_base + 10 * (node as u16 - 1) + 5));
        let swaps: Vec<_> = (1..=nodes)
            .map(|node| (listens(node).to_string(), self.net.dialled(node, listens(node)).to_string()))
            .collect();
        for node in 1..=nodes {
            let path = self.node_dir(node).join("config.toml");
            let mut text = std::fs::read_to_string(&path).expect("init wrote it");
            for (true_one, proxy) in &swaps {
                text = text.replace(&format!("peer = \"{true_one}\""), &format!("peer = \"{proxy}\""));
            }
            std::fs::write(path, text).expect("a small file");
        }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    pub(crate) fn scratch(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn node_dir(&self, node: u64) -> PathBuf {
        self.dir().join(format!("node-{node}"))
    }

    pub(crate) fn data(&self, node: u64) -> PathBuf {
        self.node_dir(node).join("data")
    }

    /// Changes what one node is told.
    pub(crate) fn edit_config(&self, node: u64, from: &str, to: &str) {
        let path = self.node_dir(node).join("config.toml");
        let text = std::fs::read_to_string(&path).expect("init wrote it");
        assert!(text.contains(from), "{from}: {text}");
        std::fs::write(path, text.replace(from, to)).expect("a small file");
    }

    /// What the node printed, over all its starts.
    pub(crate) fn printed(&self, node: u64) -> String {
        let text = std::fs::read(self.node_dir(node).join("printed")).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// The end of what each node printed, for failure messages.
    pub(crate) fn all_printed(&self) -> String {
        let tail = |node: u64| {
            let text = self.printed(node);
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(25)..].join("\n")
        };
        let running = std::fs::read_dir(self.dir()).into_iter().flatten().flatten();
        let mut nodes: Vec<u64> = running
            .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("node-")?.parse().ok())
            .collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|node| format!("-- node {node}\n{}\n", tail(node))).collect()
    }

    /// Starts a node's process and does not wait for anything.
    pub(crate) fn spawn(&mut self, node: u64) {
        let dir = self.node_dir(node);
        let ready = dir.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let printed = File::options().append(true).create(true).open(dir.join("printed"));
        let printed = printed.expect("a file for what is printed");
        let mut command = self.net.inside(node, &program());
        command.args(["serve", "--config"]).arg(dir.join("config.toml")).arg("--ready-file").arg(&ready);
        command
            .stdin(Stdio::null())
            .env("RUST_LOG", std::env::var("GRID_CLUSTER_LOG").unwrap_or("warn".into()));
        command.stdout(printed.try_clone().expect("one more descriptor")).stderr(printed);
        let child = command.spawn().expect("the grid binary starts");
        // Ends the node when this test process is gone, however that came about.
        let guard = Command::new("sh")
            .args(["-c", "cat >/dev/null; kill -9 \"$0\" 2>/dev/null", &child.id().to_string()])
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh starts");
        self.net.started(node, child.id());
        self.gone.remove(&node);
        self.nodes.insert(node, Process { child, guard });
    }

    /// Waits until a node serves.
    pub(crate) fn wait_ready(&mut self, node: u64) {
        let deadline = Instant::now() + PATIENCE;
        while !self.node_dir(node).join("ready.json").exists() {
            let process = self.nodes.get_mut(&node).expect("it was spawned");
            if let Some(status) = process.child.try_wait().expect("our own child") {
                panic!("node {node} ended with {status}\n{}", self.all_printed());
            }
            assert!(Instant::now() < deadline, "node {node} does not become ready\n{}", self.all_printed());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn restart(&mut self, node: u64) {
        self.spawn(node);
        self.wait_ready(node);
    }

    pub(crate) fn ready(&self, node: u64) -> Ready {
        let text = std::fs::read(self.node_dir(node).join("ready.json")).expect("it serves");
        serde_json::from_slice(&text).expect("the ready file is written whole")
    }

    pub(crate) fn signal(&self, node: u64, signal: Signal) {
        self.nodes[&node].signal(signal);
    }

    /// The power fails.
    pub(crate) fn kill(&mut self, node: u64) {
        let mut process = self.nodes.remove(&node).expect("it runs");
        process.signal(Signal::KILL);
        process.child.wait().expect("our own child");
    }

    /// A supervisor ends it, in good order.
    pub(crate) fn terminate(&mut self, node: u64) -> ExitStatus {
        self.signal(node, Signal::TERM);
        self.wait_end(node)
    }

    /// Waits for a node to end by itself.
    pub(crate) fn wait_end(&mut self, node: u64) -> ExitStatus {
        let mut process = self.nodes.remove(&node).expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.child.try_wait().expect("our own child") {
                return status;
            }
            assert!(Instant::now() < deadline, "node {node} does not end\n{}", self.all_printed());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub(crate) fn process_id(&self, node: u64) -> u32 {
        self.nodes[&node].child.id()
    }

    pub(crate) fn running(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// A node that counts no more when the run is judged.
    pub(crate) fn leave_out(&mut self, node: u64) {
        self.gone.insert(node);
    }

    /// `grid cluster …`: what it prints, or what it says when it fails.
    pub(crate) fn operator(&self, args: &[&str]) -> Result<String, String> {
        let output =
            grid().arg("cluster").args(args).arg("--dir").arg(self.dir()).output().expect("grid starts");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(printed) } else { Err(printed + &said) }
    }

    pub(crate) fn status(&self) -> Result<Value, String> {
        serde_json::from_str(&self.operator(&["status", "--json"])?).map_err(|error| error.to_string())
    }

    /// The node that leads now, as most of the nodes that answer see it.
    pub(crate) fn leader(&self) -> u64 {
        until("a leader", || {
            let status = self.status()?;
            status["leader"].as_u64().ok_or_else(|| format!("{status:#}\n{}", self.all_printed()))
        })
    }

    /// A node that follows.
    pub(crate) fn follower(&self) -> u64 {
        let leader = self.leader();
        self.running().into_iter().find(|node| *node != leader).expect("more than one node runs")
    }

    /// Binary addresses of all nodes that were made.
    pub(crate) fn binary_addrs(&self) -> Vec<SocketAddr> {
        let text = std::fs::read_to_string(self.dir().join("operator/cluster.toml")).expect("init wrote it");
        let table: toml::Table = text.parse().expect("TOML");
        let members = table["member"].as_array().expect("members");
        members
            .iter()
            .map(|member| member["binary"].as_str().expect("text").parse().expect("an address"))
            .collect()
    }

    pub(crate) fn binary_addr(&self, node: u64) -> SocketAddr {
        self.binary_addrs()[node as usize - 1]
    }

    /// The operator's signing key.
    pub(crate) fn operator_seed(&self) -> [u8; 32] {
        self.seed("operator")
    }

    /// One of the venue's own keys.
    pub(crate) fn seed(&self, name: &str) -> [u8; 32] {
        let text = std::fs::read(self.dir().join("operator/keys.json")).expect("init wrote it");
        let keys: Value = serde_json::from_slice(&text).expect("JSON");
        let seed = STANDARD.decode(keys[name].as_str().expect("Base64")).expect("Base64");
        seed[..32].try_into().expect("32 bytes")
    }

    /// Waits until all running nodes hold the same log, with nobody adding to it but the venue itself.
    pub(crate) fn settle(&self) {
        until("all nodes hold the same log", || {
            let status = self.status()?;
            let said: Vec<_> = status["nodes"].as_array().into_iter().flatten().collect();
            let ends: Vec<_> = self
                .running()
                .into_iter()
                .map(|node| {
                    let of = said.iter().find(|said| said["node"] == node).map(|said| &said["status"]);
                    of.map_or((None, None), |of| (of["last_index"].as_u64(), of["applied"].as_u64()))
                })
                .collect();
            let first = ends[0];
            let same = first.0.is_some() && first.0 == first.1 && ends.iter().all(|end| *end == first);
            if same { Ok(()) } else { Err(format!("{ends:?}\n{}", self.all_printed())) }
        });
    }

    /// Ends all nodes in good order, after they hold the same log.
    pub(crate) fn stop(&mut self) {
        self.settle();
        for node in self.running() {
            self.signal(node, Signal::TERM);
        }
        for node in self.running() {
            let status = self.wait_end(node);
            assert!(status.success(), "node {node}: {status}\n{}", self.all_printed());
        }
    }

    /// Nodes and their data directories, for the checker.
    pub(crate) fn journals(&self) -> Vec<(u64, PathBuf)> {
        let known = self.binary_addrs().len() as u64;
        (1..=known).filter(|node| !self.gone.contains(node)).map(|node| (node, self.data(node))).collect()
    }
}
