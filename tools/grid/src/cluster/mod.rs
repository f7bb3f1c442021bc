//! A venue of several nodes, as its operator sees it: the `[cluster]` section, the directory that `grid cluster init`
//! makes, the commands that look after a running cluster.
//!
//! Not here: anything that decides. Who leads and what is committed is the replicator's business.

mod admin;
mod init;
mod terms;

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::Outcome;

pub(crate) use terms::{Member, Terms};

/// One `grid cluster` command.
#[derive(Subcommand)]
pub(crate) enum ClusterCommand {
    /// Make the directories of a new cluster: a configuration, certificates and keys for each node and the operator.
    Init(InitArgs),
    /// Who leads, who follows, how far each node is.
    Status {
        #[command(flatten)]
        at: At,
        /// One JSON object instead of a table.
        #[arg(long)]
        json: bool,
    },
    /// Bring one more node in: makes its directory, adds it as a learner, and gives it a vote once it has caught up.
    Add {
        #[command(flatten)]
        at: At,
        /// Its number; one that no node had before.
        #[arg(long)]
        node: u64,
        /// Where it listens.
        #[arg(long)]
        host: IpAddr,
        /// First of its ports.
        #[arg(long)]
        port_base: u16,
        /// It follows and serves reads, and never votes.
        #[arg(long)]
        learner: bool,
    },
    /// Take a node out for good. Its number is not used again.
    Remove {
        #[command(flatten)]
        at: At,
        /// Which.
        #[arg(long)]
        node: u64,
    },
    /// Hand leadership to another node.
    Transfer {
        #[command(flatten)]
        at: At,
        /// To whom; to the one that is furthest where it is left out.
        #[arg(long)]
        to: Option<u64>,
    },
    /// Have a node write a snapshot now.
    Snapshot {
        #[command(flatten)]
        at: At,
        /// Which; all of them where it is left out.
        #[arg(long)]
        node: Option<u64>,
    },
}

/// Which cluster.
#[derive(Args)]
pub(crate) struct At {
    /// The directory that `grid cluster init` made, or the operator's part of it.
    #[arg(long, default_value = "grid-cluster")]
    dir: PathBuf,
}

/// What a new cluster looks like.
#[derive(Args)]
pub(crate) struct InitArgs {
    /// Where to make it.
    #[arg(default_value = "grid-cluster")]
    dir: PathBuf,
    /// How many nodes; three bear the loss of one, five the loss of two.
    #[arg(long, default_value_t = 3)]
    nodes: u64,
    /// Address of the nodes. Given once they share one, with ports ten apart; else once for each node in turn.
    #[arg(long, default_value = "127.0.0.1")]
    host: Vec<IpAddr>,
    /// First of the ports.
    #[arg(long, default_value_t = 7400)]
    port_base: u16,
    /// What differs from the embedded defaults, on every node.
    #[arg(long)]
    config: Option<PathBuf>,
}

pub(crate) fn run(command: ClusterCommand) -> Outcome {
    match command {
        ClusterCommand::Init(args) => init::run(&args),
        ClusterCommand::Status { at, json } => admin::status(&at.dir, json),
        ClusterCommand::Add { at, node, host, port_base, learner } => {
            admin::add(&at.dir, node, host, port_base, learner)
        }
        ClusterCommand::Remove { at, node } => admin::remove(&at.dir, node),
        ClusterCommand::Transfer { at, to } => admin::transfer(&at.dir, to),
        ClusterCommand::Snapshot { at, node } => admin::snapshot(&at.dir, node),
    }
}
