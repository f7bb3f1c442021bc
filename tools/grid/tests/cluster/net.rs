//! What lies between the nodes. Where the test may make network namespaces, each node gets one with a cable to a bridge, and
//! `nft` in it drops packets to a peer: a real partition. Elsewhere all nodes share loopback, with proxies in between.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::proxy::{Line, Proxies};

/// How a cluster's nodes are joined.
pub(crate) enum Net {
    /// One namespace each.
    Namespaces(Namespaces),
    /// One loopback, a proxy before each node.
    Proxies(Proxies),
    /// One loopback, nothing in between.
    Loopback,
}

impl Net {
    /// A net in which lines can be cut, the best that this machine allows. Says which.
    pub(crate) fn that_can_be_cut(nodes: u64) -> Self {
        match Namespaces::make(nodes) {
            Ok(namespaces) => {
                println!("net: {nodes} network namespaces on a bridge; nft parts them");
                Self::Namespaces(namespaces)
            }
            Err(why) => {
                println!("net: loopback with a proxy before each node, because {why}");
                Self::Proxies(Proxies::default())
            }
        }
    }

    /// A net whose lines can be slow.
    pub(crate) fn that_can_be_slow() -> Self {
        println!("net: loopback with a proxy before each node, which delays");
        Self::Proxies(Proxies::default())
    }

    pub(crate) fn host(&self, node: u64) -> IpAddr {
        match self {
            Self::Namespaces(namespaces) => namespaces.host(node).into(),
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Drops what `from` sends to `to`.
    pub(crate) fn cut(&self, from: u64, to: u64) {
        match self {
            Self::Namespaces(namespaces) => namespaces.cut(from, to),
            Self::Proxies(proxies) => proxies.set(from, to, Some(Line::Cut)),
            Self::Loopback => panic!("a test that cuts lines asks for a net that can"),
        }
    }

    /// Makes what `from` sends to `to` arrive later.
    pub(crate) fn slow(&self, from: u64, to: u64, by: Duration) {
        match self {
            Self::Proxies(proxies) => proxies.set(from, to, Some(Line::Slow(by))),
            _ => panic!("a test that slows lines asks for a net that can"),
        }
    }

    /// Everybody reaches everybody again, at once.
    pub(crate) fn mend(&self) {
        match self {
            Self::Namespaces(namespaces) => namespaces.mend(),
            Self::Proxies(proxies) => proxies.mend(),
            Self::Loopback => {}
        }
    }

    /// The command that runs a program where this node lives.
    pub(crate) fn inside(&self, node: u64, program: &str) -> Command {
        match self {
            Self::Namespaces(namespaces) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", &namespaces.name(node), program]);
                command
            }
            _ => Command::new(program),
        }
    }

    /// The address that others dial instead of this one.
    pub(crate) fn dialled(&self, node: u64, listens: SocketAddr) -> SocketAddr {
        match self {
            Self::Proxies(proxies) => proxies.stand_before(node, listens),
            _ => listens,
        }
    }

    pub(crate) fn started(&self, node: u64, process: u32) {
        if let Self::Proxies(proxies) = self {
            proxies.is_process(node, process);
        }
    }
}

/// Namespaces, cables and a bridge; gone when this is dropped, or when the test process is.
pub(crate) struct Namespaces {
    stem: String,
    subnet: u8,
    nodes: u64,
    guard: Child,
}

impl Namespaces {
    fn make(nodes: u64) -> Result<Self, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            return Err("this is not root".into());
        }
        let nth = MADE.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        let stem = format!("gr{}x{nth}", process % 100_000);
        let subnet = u8::try_from((process + nth * 83) % 250).expect("below 250");
        let clear = format!(
            "cat; for n in $(seq {nodes}); do ip netns del {stem}n$n 2>/dev/null; done; ip link del {stem} 2>/dev/null"
        );
        let guard = Command::new("sh").args(["-c", &clear]).stdin(Stdio::piped()).spawn();
        let made = Self { stem, subnet, nodes, guard: guard.map_err(|error| error.to_string())? };
        made.join()?;
        made.works()?;
        Ok(made)
    }

    fn host(&self, node: u64) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, u8::try_from(node).expect("few nodes"))
    }

    fn bridge_host(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.subnet, 254)
    }

    fn name(&self, node: u64) -> String {
        format!("{}n{node}", self.stem)
    }

    fn join(&self) -> Result<(), String> {
        let bridge = &self.stem;
        done("ip", &["link", "add", bridge, "type", "bridge"])?;
        done("ip", &["addr", "add", &format!("{}/24", self.bridge_host()), "dev", bridge])?;
        done("ip", &["link", "set", bridge, "up"])?;
        for node in 1..=self.nodes {
            let (space, cable) = (self.name(node), format!("{bridge}c{node}"));
            done("ip", &["netns", "add", &space])?;
            done("ip", &["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            done("ip", &["link", "set", &cable, "master", bridge, "up"])?;
            done("ip", &["-n", &space, "addr", "add", &format!("{}/24", self.host(node)), "dev", "eth0"])?;
            done("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            done("ip", &["-n", &space, "link", "set", "lo", "up"])?;
            self.nft(node, "add table inet cut")?;
            self.nft(node, "add chain inet cut out { type filter hook output priority 0; }")?;
        }
        Ok(())
    }

    /// A firewall of this machine may be in the way of a bridge; then it is of no use.
    fn works(&self) -> Result<(), String> {
        let listener = TcpListener::bind((self.bridge_host(), 0)).map_err(|error| error.to_string())?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let dial = format!(
            "import socket; socket.create_connection(({:?}, {}), 2)",
            address.ip().to_string(),
            address.port()
        );
        for node in 1..=self.nodes {
            done("ip", &["netns", "exec", &self.name(node), "python3", "-c", &dial])?;
        }
        Ok(())
    }

    fn nft(&self, node: u64, rule: &str) -> Result<(), String> {
        done("ip", &["netns", "exec", &self.name(node), "nft", rule])
    }

    fn cut(&self, from: u64, to: u64) {
        let rule = format!("add rule inet cut out ip daddr {} drop", self.host(to));
        self.nft(from, &rule).expect("nft worked before");
    }

    fn mend(&self) {
        for node in 1..=self.nodes {
            self.nft(node, "flush chain inet cut out").expect("nft worked before");
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The guard clears up when its input ends.
        drop(self.guard.stdin.take());
        let _ = self.guard.wait();
    }
}

fn done(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{program} {}` says {}", args.join(" "), said.trim()))
}
