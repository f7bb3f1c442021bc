//! `grid cluster init`: everything that the nodes of a new cluster and its operator need, in one directory whose parts can be
//! carried to their machines.
//!
//! ```text
//! DIR/operator/cluster.toml     who the nodes are; authority.pem, operator.pem, operator.key
//! DIR/operator/authority.key    makes certificates: stays with the operator, never on a node
//! DIR/node-1/config.toml        for `grid serve --config`
//! DIR/node-1/identity/          authority.pem, node-1.pem, node-1.key
//! DIR/node-1/data/keys.json     the venue's keys, the same on every node
//! ```

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use grid_replicator::links::{Authority, Identity};
use serde::{Deserialize, Serialize};

use super::InitArgs;
use super::terms::{ClusterId, Member};
use crate::config;
use crate::secrets::Secrets;
use crate::{Fault, Outcome};

/// Ports of one node: trading, inference, messages, platform, binary, peers.
const PORTS_PER_NODE: u16 = 10;
const BINARY: u16 = 4;
const PEER: u16 = 5;

/// `operator/cluster.toml`: what the operator's commands know of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Known {
    /// The cluster's number.
    pub(super) id: ClusterId,
    /// The nodes that it was made with.
    pub(super) founding: Vec<u64>,
    /// Every node that was ever made here, removed ones included.
    #[serde(rename = "member")]
    pub(super) members: Vec<Member>,
}

/// The parts of a cluster's directory.
pub(super) struct Place {
    /// Where the nodes' directories are.
    pub(super) root: PathBuf,
}

impl Place {
    /// The cluster at this directory, or at the directory around it where that is the operator's part.
    pub(super) fn find(dir: &Path) -> Result<Self, Fault> {
        for root in [Some(dir), dir.parent()].into_iter().flatten() {
            let place = Self { root: root.to_owned() };
            if place.known_path().exists() {
                return Ok(place);
            }
        }
        let dir = dir.display();
        Err(format!("{dir} holds no cluster; --dir names the directory that `grid cluster init` made").into())
    }

    pub(super) fn operator(&self) -> PathBuf {
        self.root.join("operator")
    }

    pub(super) fn node(&self, node: u64) -> PathBuf {
        self.root.join(format!("node-{node}"))
    }

    fn known_path(&self) -> PathBuf {
        self.operator().join("cluster.toml")
    }

    pub(super) fn known(&self) -> Result<Known, Fault> {
        let path = self.known_path();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()).into())
    }

    pub(super) fn remember(&self, known: &Known) -> Result<(), Fault> {
        let aside = self.known_path().with_extension("new");
        std::fs::write(&aside, toml::to_string(known)?)?;
        Ok(std::fs::rename(aside, self.known_path())?)
    }

    /// Makes a node's directory: certificate, keys, configuration.
    pub(super) fn make_node(&self, made: &NodeToMake<'_>) -> Result<(), Fault> {
        let (dir, node) = (self.node(made.own.node), made.own.node);
        let (identity, data) = (dir.join("identity"), dir.join("data"));
        std::fs::create_dir_all(&identity)?;
        std::fs::create_dir_all(&data)?;
        made.authority.issue_node(node)?.save(&identity, &Identity::node_files(node))?;
        made.secrets.save(&data.join("keys.json"))?;
        std::fs::write(dir.join("config.toml"), made.config()?)?;
        Ok(())
    }
}

/// One node that is to be made.
pub(super) struct NodeToMake<'a> {
    pub(super) authority: &'a Authority,
    pub(super) secrets: &'a Secrets,
    pub(super) known: &'a Known,
    pub(super) own: Member,
    pub(super) host: IpAddr,
    pub(super) port_base: u16,
    /// What all nodes have besides.
    pub(super) common: &'a toml::Table,
    pub(super) join: bool,
}

impl NodeToMake<'_> {
    /// The node's configuration file.
    fn config(&self) -> Result<String, Fault> {
        let mut table = self.common.clone();
        table.insert("data_dir".into(), "data".into());
        let listen = table.entry("listen").or_insert_with(|| toml::Table::new().into());
        let listen = listen.as_table_mut().ok_or("`listen` is a table")?;
        listen.insert("host".into(), self.host.to_string().into());
        listen.insert("port_base".into(), i64::from(self.port_base).into());
        let cluster = table.entry("cluster").or_insert_with(|| toml::Table::new().into());
        let cluster = cluster.as_table_mut().ok_or("`cluster` is a table")?;
        cluster.insert("id".into(), String::from(self.known.id).into());
        cluster.insert("node".into(), i64::try_from(self.own.node)?.into());
        cluster
            .insert("listen".into(), SocketAddr::from((self.host, self.own.peer.port())).to_string().into());
        cluster.insert("identity".into(), "identity".into());
        if self.join {
            cluster.insert("join".into(), true.into());
        }
        let founding = self.known.members.iter().filter(|member| self.known.founding.contains(&member.node));
        let members: Vec<_> = founding.map(toml::Value::try_from).collect::<Result<_, _>>()?;
        cluster.insert("member".into(), members.into());
        let mut text = format!("# Node {} of a cluster, made by `grid cluster`.\n", self.own.node);
        write!(
            text,
            "# What may be said here besides: `venue.toml` of the program.\n\n{}",
            toml::to_string(&table)?
        )?;
        Ok(text)
    }
}

/// A member at this host and these ports.
pub(super) fn member(node: u64, host: IpAddr, port_base: u16) -> Result<Member, Fault> {
    let port = |offset| port_base.checked_add(offset).ok_or("port numbers end at 65535");
    Ok(Member { node, peer: (host, port(PEER)?).into(), binary: (host, port(BINARY)?).into() })
}

pub(super) fn run(args: &InitArgs) -> Outcome {
    let place = Place { root: args.dir.clone() };
    if std::fs::read_dir(&args.dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(format!(
            "{} is not empty; a cluster is made in a directory of its own",
            args.dir.display()
        )
        .into());
    }
    if args.nodes == 0 || args.nodes > 99 {
        return Err("a cluster has from 1 to 99 nodes".into());
    }
    let shared = args.host.len() == 1;
    if !shared && args.host.len() as u64 != args.nodes {
        return Err(format!("--host is given once, or for each of the {} nodes", args.nodes).into());
    }
    let common = match &args.config {
        Some(path) => config::parse(&path.display().to_string(), &std::fs::read_to_string(path)?)?,
        None => toml::Table::new(),
    };
    let at = |nth: usize| -> Result<(IpAddr, u16), Fault> {
        let apart = if shared { PORTS_PER_NODE.checked_mul(u16::try_from(nth)?) } else { Some(0) };
        let base = apart.and_then(|apart| args.port_base.checked_add(apart));
        Ok((*args.host.get(nth).unwrap_or(&args.host[0]), base.ok_or("port numbers end at 65535")?))
    };
    let places: Vec<_> = (0..usize::try_from(args.nodes)?).map(at).collect::<Result<_, _>>()?;
    let members: Vec<_> =
        (1..).zip(&places).map(|(node, &(host, base))| member(node, host, base)).collect::<Result<_, _>>()?;
    let id = loop {
        let drawn = rand::random();
        if drawn != 0 {
            break ClusterId(drawn);
        }
    };
    let known = Known { id, founding: (1..=args.nodes).collect(), members };

    let operator = place.operator();
    std::fs::create_dir_all(&operator)?;
    let (authority, secrets) = (Authority::make()?, Secrets::generate());
    authority.save(&operator)?;
    authority.issue_operator()?.save(&operator, Identity::OPERATOR_FILES)?;
    secrets.save(&operator.join("keys.json"))?;
    for (own, &(host, port_base)) in known.members.iter().zip(&places) {
        place.make_node(&NodeToMake {
            authority: &authority,
            secrets: &secrets,
            known: &known,
            own: *own,
            host,
            port_base,
            common: &common,
            join: false,
        })?;
        // What a node would say when it starts, it says now.
        config::Config::load(Some(&place.node(own.node).join("config.toml")))?;
    }
    if !common.is_empty() {
        std::fs::write(operator.join("common.toml"), toml::to_string(&common)?)?;
    }
    place.remember(&known)?;

    let dir = args.dir.display();
    println!("A cluster of {} in {dir}. Start its nodes, each on its machine:\n", args.nodes);
    for own in &known.members {
        println!("  grid serve --config {dir}/node-{}/config.toml", own.node);
    }
    println!("\nThen look after it from here:\n\n  grid cluster status --dir {dir}\n");
    println!("{dir}/operator can make members of this cluster: keep it to yourself.");
    Ok(())
}

/// What all nodes have besides, as it was given to `init`.
pub(super) fn common(place: &Place) -> Result<toml::Table, Fault> {
    let path = place.operator().join("common.toml");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(config::parse(&path.display().to_string(), &text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(toml::Table::new()),
        Err(error) => Err(format!("{}: {error}", path.display()).into()),
    }
}
