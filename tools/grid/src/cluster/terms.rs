//! The `[cluster]` section: decoded once, every contradiction refused in words.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Listen;

/// Who this node is and who the others are.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    /// The cluster's number.
    pub(crate) id: ClusterId,
    /// This node.
    pub(crate) node: u64,
    /// Where the other nodes' connections come in.
    pub(crate) listen: SocketAddr,
    /// Where its certificate, its key and the authority's certificate are.
    #[serde(default)]
    pub(crate) identity: Option<PathBuf>,
    /// No TLS between nodes.
    #[serde(default)]
    pub(crate) plain: bool,
    /// It is brought into a cluster that runs, by `grid cluster add`.
    #[serde(default)]
    pub(crate) join: bool,
    #[serde(default = "hundred")]
    tick_ms: u64,
    #[serde(default = "ten")]
    pub(crate) election_ticks: usize,
    #[serde(default = "two")]
    pub(crate) heartbeat_ticks: usize,
    /// The nodes that the cluster was founded with, the same on every node for ever: who belongs to it since is in
    /// the log.
    #[serde(rename = "member")]
    pub(crate) members: Vec<Member>,
    /// Where clients reach this node; known once the file was read.
    #[serde(skip)]
    binary: Option<SocketAddr>,
}

/// One node and how it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Member {
    /// Its number, from 1.
    pub(crate) node: u64,
    /// As other nodes dial it.
    pub(crate) peer: SocketAddr,
    /// As clients of the binary protocol dial it.
    pub(crate) binary: SocketAddr,
}

/// A cluster's number, written as 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ClusterId(pub(crate) u64);

impl TryFrom<String> for ClusterId {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(id) if digits && id != 0 => Ok(Self(id)),
            _ => Err(format!("a cluster's id is 16 hexadecimal digits, not all zero, and not {text:?}")),
        }
    }
}

impl From<ClusterId> for String {
    fn from(id: ClusterId) -> Self {
        format!("{:016x}", id.0)
    }
}

const fn hundred() -> u64 {
    100
}

const fn ten() -> usize {
    10
}

const fn two() -> usize {
    2
}

impl Terms {
    /// One step of the cluster's own time.
    pub(crate) fn tick(&self) -> Duration {
        Duration::from_millis(self.tick_ms)
    }

    /// The binary addresses of this node and of the founding ones, this one's first: a client beside it tries the
    /// shortest way first.
    pub(crate) fn binary_addrs(&self) -> Vec<SocketAddr> {
        let others =
            self.members.iter().filter(|member| member.node != self.node).map(|member| member.binary);
        self.binary.into_iter().chain(others).collect()
    }

    /// As the others dial this node, where that differs from where it listens.
    pub(crate) fn advertised(&self) -> Option<SocketAddr> {
        let own = self.members.iter().find(|member| member.node == self.node)?;
        (own.peer != self.listen).then_some(own.peer)
    }

    /// Makes paths absolute as seen from the file's directory, and refuses what contradicts itself.
    pub(crate) fn settle(&mut self, home: &Path, listen: &Listen) -> Result<(), String> {
        if let Some(identity) = &mut self.identity {
            *identity = home.join(&identity);
        }
        self.check(listen)?;
        self.binary = Some(listen.at(4));
        Ok(())
    }

    fn check(&self, listen: &Listen) -> Result<(), String> {
        if self.members.iter().any(|member| member.node == 0) || self.node == 0 {
            return Err("nodes are numbered from 1".into());
        }
        let nodes: BTreeSet<_> = self.members.iter().map(|member| member.node).collect();
        if nodes.len() < self.members.len() {
            return Err("two members have the same number".into());
        }
        let addresses: BTreeSet<_> = self.members.iter().flat_map(|m| [m.peer, m.binary]).collect();
        if addresses.len() < 2 * self.members.len() {
            return Err("two members, or the two doors of one, have the same address".into());
        }
        match (self.members.iter().find(|member| member.node == self.node), self.join) {
            (None, false) => return Err(format!("member {} is missing: this node itself", self.node)),
            (Some(_), true) => return Err("a node that joins is not among the founding members".into()),
            (None, true) if self.members.is_empty() => return Err("a cluster has members".into()),
            (Some(own), false) if own.binary.port() != listen.at(4).port() => {
                return Err(format!(
                    "member {} is said to serve the binary protocol at port {}, but listens at {}",
                    own.node,
                    own.binary.port(),
                    listen.at(4).port()
                ));
            }
            _ => {}
        }
        if listen.port_base == 0 || self.listen.port() == 0 {
            return Err("the nodes of a cluster need ports of their own, not any free ones".into());
        }
        match (&self.identity, self.plain) {
            (None, false) => {
                return Err("either `identity` names a directory of certificates, or `plain` is true".into());
            }
            (Some(_), true) => return Err("`plain` and `identity` exclude each other".into()),
            (None, true) if !self.only_loopback() => {
                return Err("`plain` is for loopback addresses only; between machines nodes speak TLS".into());
            }
            _ => {}
        }
        if !(5..=10_000).contains(&self.tick_ms) {
            return Err("`tick_ms` is from 5 to 10000".into());
        }
        if self.heartbeat_ticks == 0 || self.election_ticks < 2 * self.heartbeat_ticks {
            return Err("`election_ticks` is at least twice `heartbeat_ticks`, which is at least 1".into());
        }
        Ok(())
    }

    fn only_loopback(&self) -> bool {
        let peers = self.members.iter().map(|member| member.peer);
        peers.chain([self.listen]).all(|addr| addr.ip().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        id = "5f0d2c81a9b3e647"
        node = 1
        listen = "127.0.0.1:7405"
        plain = true
        [[member]]
        node = 1
        peer = "127.0.0.1:7405"
        binary = "127.0.0.1:7404"
        [[member]]
        node = 2
        peer = "127.0.0.1:7415"
        binary = "127.0.0.1:7414"
    "#;

    fn read(text: &str) -> Result<Terms, String> {
        let mut terms: Terms = toml::from_str(text).map_err(|error| error.to_string())?;
        let listen = Listen { host: "127.0.0.1".parse().unwrap(), port_base: 7400 };
        terms.settle(Path::new("/etc/grid"), &listen)?;
        Ok(terms)
    }

    #[test]
    fn a_section_that_says_everything_is_taken() {
        let terms = read(GOOD).unwrap();
        assert_eq!(terms.id, ClusterId(0x5f0d_2c81_a9b3_e647));
        assert_eq!(
            (terms.tick(), terms.election_ticks, terms.heartbeat_ticks),
            (Duration::from_millis(100), 10, 2)
        );
        let own_first: [SocketAddr; 2] =
            ["127.0.0.1:7404", "127.0.0.1:7414"].map(|text| text.parse().unwrap());
        assert_eq!(terms.binary_addrs(), own_first);
    }

    #[test]
    fn paths_are_seen_from_the_file_that_says_them() {
        let text = GOOD.replace("plain = true", "identity = \"identity\"");
        assert_eq!(read(&text).unwrap().identity, Some(PathBuf::from("/etc/grid/identity")));
    }

    #[test]
    fn contradictions_are_refused_in_words() {
        let table = [
            ("node = 1\n        listen", "node = 3\n        listen", "member 3 is missing"),
            ("plain = true", "plain = true\njoin = true", "not among the founding"),
            ("node = 2", "node = 1", "the same number"),
            ("node = 2", "node = 0", "from 1"),
            ("127.0.0.1:7414", "127.0.0.1:7404", "the same address"),
            ("plain = true", "", "either `identity`"),
            ("plain = true", "plain = true\nidentity = \"x\"", "exclude each other"),
            ("peer = \"127.0.0.1:7415\"", "peer = \"10.1.1.1:7415\"", "loopback"),
            ("plain = true", "plain = true\nelection_ticks = 3", "at least twice"),
            ("plain = true", "plain = true\ntick_ms = 1", "tick_ms"),
            ("binary = \"127.0.0.1:7404\"", "binary = \"127.0.0.1:7409\"", "listens at 7404"),
            ("5f0d2c81a9b3e647", "5f0d", "16 hexadecimal digits"),
            ("plain = true", "plain = true\nelection_tikcs = 10", "election_tikcs"),
            ("listen = \"127.0.0.1:7405\"", "listen = \"127.0.0.1:0\"", "ports of their own"),
        ];
        for (good, bad, words) in table {
            let text = GOOD.replace(good, bad);
            assert_ne!(text, GOOD, "{good}");
            let error = read(&text).expect_err(bad);
            assert!(error.contains(words), "{bad}: {error}");
        }
    }
}
