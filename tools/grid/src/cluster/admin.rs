//! The operator's commands to a running cluster, and their answers in words.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use grid_replicator::links::admin::{AdminReply, AdminRequest, MemberStatus, NodeRole, Status, call};
use grid_replicator::links::{Authority, Identity, Tls};

use super::init::{self, Known, NodeToMake, Place, member};
use super::terms::Member;
use crate::secrets::Secrets;
use crate::{Fault, Outcome};

/// How long one node may take to say how it is.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
/// How long the leader may take for what goes through the log, or writes a file.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);
/// How often a node that is being brought in is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The operator's way to the nodes.
struct Operator {
    place: Place,
    known: Known,
    tls: Tls,
}

/// What one node said of itself, or why it said nothing.
type Said = (Member, Result<Box<Status>, String>);

impl Operator {
    fn open(dir: &Path) -> Result<Self, Fault> {
        let place = Place::find(dir)?;
        let known = place.known()?;
        let tls = Tls::Mutual(Identity::load(&place.operator(), Identity::OPERATOR_FILES)?);
        Ok(Self { place, known, tls })
    }

    fn ask(&self, at: SocketAddr, request: &AdminRequest, limit: Duration) -> Result<AdminReply, String> {
        call(at, self.known.id.0, &self.tls, request, limit).map_err(|error| error.to_string())
    }

    fn status_of(&self, at: SocketAddr) -> Result<Box<Status>, String> {
        match self.ask(at, &AdminRequest::Status, STATUS_LIMIT)? {
            AdminReply::Status(status) => Ok(status),
            other => Err(refusal(other)),
        }
    }

    /// Every node's own word, asked all at once.
    fn all(&self) -> Vec<Said> {
        std::thread::scope(|scope| {
            let asked: Vec<_> = self
                .known
                .members
                .iter()
                .map(|member| (*member, scope.spawn(|| self.status_of(member.peer))))
                .collect();
            asked
                .into_iter()
                .map(|(member, said)| (member, said.join().unwrap_or_else(|_| Err("no answer".into()))))
                .collect()
        })
    }

    /// Has the leader do something; whoever answers first knows who that is.
    fn change(&self, request: &AdminRequest) -> Outcome {
        let mut silent = Vec::new();
        for member in &self.known.members {
            match self.ask(member.peer, request, CHANGE_LIMIT) {
                Ok(AdminReply::Done { words }) => {
                    println!("{words}");
                    return Ok(());
                }
                Ok(AdminReply::NotLeader { .. }) => {
                    silent.push(format!("node {} knows no leader", member.node))
                }
                Ok(other) => return Err(refusal(other).into()),
                Err(why) => silent.push(format!("node {} does not answer: {why}", member.node)),
            }
        }
        Err(format!("nobody leads who could do it; {}", silent.join("; ")).into())
    }
}

fn refusal(reply: AdminReply) -> String {
    match reply {
        AdminReply::Refused { words, .. } | AdminReply::Done { words } => words,
        AdminReply::NotLeader { .. } => "the node does not lead".into(),
        AdminReply::Status(_) => "an answer to another question".into(),
    }
}

/// The word of the node that leads the highest term: it knows the members and how far each is.
fn leader(said: &[Said]) -> Option<&Status> {
    let words = said.iter().filter_map(|(_, status)| status.as_deref().ok());
    words.filter(|status| status.role == NodeRole::Leader).max_by_key(|status| status.term)
}

pub(super) fn status(dir: &Path, json: bool) -> Outcome {
    let operator = Operator::open(dir)?;
    let said = operator.all();
    let leader = leader(&said);
    if json {
        let nodes: Vec<_> = said
            .iter()
            .map(|(member, status)| match status {
                Ok(status) => serde_json::json!({ "node": member.node, "status": status }),
                Err(why) => serde_json::json!({ "node": member.node, "error": why }),
            })
            .collect();
        let whole = serde_json::json!({
            "cluster": operator.known.id, "leader": leader.map(|status| status.node),
            "term": leader.map(|status| status.term), "nodes": nodes,
        });
        println!("{}", serde_json::to_string_pretty(&whole)?);
        return Ok(());
    }
    print!("{}", table(&operator.known, &said, leader));
    if leader.is_none() {
        return Err(
            "no node leads: the cluster takes no commands until a majority of its voters can talk".into()
        );
    }
    Ok(())
}

/// The cluster as a person reads it.
fn table(known: &Known, said: &[Said], leader: Option<&Status>) -> String {
    let head = match leader {
        Some(leader) => format!(
            "cluster {}, term {}, led by node {}, {}",
            String::from(known.id),
            leader.term,
            leader.node,
            leader.durability
        ),
        None => format!("cluster {}, no leader", String::from(known.id)),
    };
    let mut rows = vec![
        ["node", "role", "term", "applied", "behind", "snapshot", "peers", "clients"].map(str::to_owned),
    ];
    let mut silent = Vec::new();
    for (member, status) in said {
        let belongs = leader.is_none_or(|leader| leader.members.iter().any(|m| m.node == member.node));
        if let Err(why) = status
            && belongs
        {
            silent.push(format!("node {} does not answer: {why}", member.node));
        }
        let row = match status {
            _ if !belongs => ["removed", "", "", "", ""].map(str::to_owned),
            Err(_) => ["silent", "", "", "", ""].map(str::to_owned),
            Ok(status) => [
                status.role.to_string(),
                status.term.to_string(),
                status.seq.to_string(),
                leader.map_or_else(String::new, |leader| {
                    leader.commit.saturating_sub(status.applied).to_string()
                }),
                if status.snapshot_index == 0 { "none".into() } else { status.snapshot_index.to_string() },
            ],
        };
        let [role, term, applied, behind, snapshot] = row;
        let (peers, clients) = (member.peer.to_string(), member.binary.to_string());
        rows.push([member.node.to_string(), role, term, applied, behind, snapshot, peers, clients]);
    }
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|at| rows.iter().map(|row| row[at].len()).max().unwrap_or(0)).collect();
    let mut text = head + "\n\n";
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text += "\napplied: log sequence; behind: blocks after it that the leader has committed; snapshot: its block\n";
    for line in silent {
        text += &line;
        text.push('\n');
    }
    text
}

pub(super) fn add(dir: &Path, node: u64, host: IpAddr, port_base: u16, learner: bool) -> Outcome {
    let mut operator = Operator::open(dir)?;
    let new = member(node, host, port_base)?;
    match operator.known.members.iter().find(|known| known.node == node) {
        Some(known) if *known != new => {
            return Err(format!(
                "node {node} is known at {}; give a new node a number of its own",
                known.peer
            )
            .into());
        }
        Some(_) => {}
        None => {
            operator.known.members.push(new);
            let authority = Authority::load(&operator.place.operator())?;
            let secrets = Secrets::open(&operator.place.operator().join("keys.json"))?;
            operator.place.make_node(&NodeToMake {
                authority: &authority,
                secrets: &secrets,
                known: &operator.known,
                own: new,
                host,
                port_base,
                common: &init::common(&operator.place)?,
                join: true,
            })?;
            operator.place.remember(&operator.known)?;
        }
    }
    if member_status(&operator, node).is_none() {
        operator.change(&AdminRequest::Add {
            node,
            peer_address: new.peer.to_string(),
            binary_address: new.binary.to_string(),
            learner: true,
        })?;
    }
    println!(
        "start it, on its machine:\n\n  grid serve --config {}/node-{node}/config.toml\n",
        operator.place.root.display()
    );
    if learner {
        return Ok(());
    }
    println!(
        "waiting until it has caught up; it gets its vote then (Ctrl-C is safe, the same command goes on)"
    );
    caught_up(&operator, node);
    operator.change(&AdminRequest::Promote { node })
}

/// How the leader sees a member.
fn member_status(operator: &Operator, node: u64) -> Option<MemberStatus> {
    let said = operator.all();
    leader(&said)?.members.iter().find(|member| member.node == node).cloned()
}

/// Waits until a node holds nearly everything that the leader holds, so that its vote costs nobody time.
fn caught_up(operator: &Operator, node: u64) {
    let mut told = Instant::now();
    loop {
        let said = operator.all();
        if let Some(leader) = leader(&said)
            && let Some(seen) = leader.members.iter().find(|member| member.node == node)
        {
            let matched = seen.matched.unwrap_or(0);
            if seen.voter
                || (seen.active == Some(true) && matched > 0 && leader.commit.saturating_sub(matched) < 64)
            {
                return;
            }
            if told.elapsed() > Duration::from_secs(2) {
                told = Instant::now();
                println!("  it has {matched} of {} blocks", leader.last_index);
            }
        }
        std::thread::park_timeout(LOOK);
    }
}

pub(super) fn remove(dir: &Path, node: u64) -> Outcome {
    let operator = Operator::open(dir)?;
    let said = operator.all();
    let leads = leader(&said).is_some_and(|leader| leader.node == node);
    if leads {
        // It would go on deciding about its own departure; somebody else should.
        transfer(dir, None)?;
    }
    operator.change(&AdminRequest::Remove { node })
}

pub(super) fn transfer(dir: &Path, to: Option<u64>) -> Outcome {
    let operator = Operator::open(dir)?;
    let said = operator.all();
    let leader = leader(&said).ok_or("no node leads")?;
    let to = match to {
        Some(to) if to == leader.node => {
            println!("node {to} leads already");
            return Ok(());
        }
        Some(to) => to,
        None => furthest(leader).ok_or("no other voter is in reach")?,
    };
    operator.change(&AdminRequest::Transfer { to })
}

/// The voter beside the leader that holds the most.
fn furthest(leader: &Status) -> Option<u64> {
    let others = leader.members.iter().filter(|m| m.voter && m.node != leader.node && m.active == Some(true));
    others.max_by_key(|member| member.matched).map(|member| member.node)
}

pub(super) fn snapshot(dir: &Path, node: Option<u64>) -> Outcome {
    let operator = Operator::open(dir)?;
    let wanted: Vec<_> =
        operator.known.members.iter().filter(|member| node.is_none_or(|node| node == member.node)).collect();
    if wanted.is_empty() {
        return Err("no such node".into());
    }
    let mut failed = false;
    for member in wanted {
        match operator.ask(member.peer, &AdminRequest::Snapshot, CHANGE_LIMIT) {
            Ok(AdminReply::Done { words }) => println!("node {}: {words}", member.node),
            Ok(other) => {
                failed = true;
                println!("node {}: {}", member.node, refusal(other));
            }
            Err(why) => {
                failed = true;
                println!("node {}: {why}", member.node);
            }
        }
    }
    if failed { Err("not every node wrote one".into()) } else { Ok(()) }
}
