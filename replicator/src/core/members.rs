//! Who belongs to the cluster, and how that changes: the payload of conf-change blocks and a part of every snapshot.
//!
//! A change says what it does *and* what the members are afterwards. So a node that joins with an empty directory and replays the log knows
//! the members from the first change on (its own addition is one), recovery needs no arithmetic, and whoever knows the members before
//! checks that the two agree. This is sound because only one change is under way at a time: the leader seals it on top of
//! members that nothing in the log can change before it.
//!
//! Voters change through a joint configuration: decisions need a majority of the old and of the new voters until the leader has
//! written the leave. Learners come and go at once, they decide nothing.

use std::collections::BTreeMap;

use grid_sequencer::NodeId;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};

const FORMAT: u16 = 1;
/// Longest address in bytes; host names have at most 253.
const MAX_ADDRESS: usize = 300;
/// Most nodes a cluster may name; far above any use, it bounds what a decoder allocates.
const MAX_MEMBERS: usize = 1024;

/// Where a node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// `host:port` of its link listener, for the other nodes.
    pub peer: String,
    /// `host:port` of its order gateway, for clients that look for the leader.
    pub orders: String,
}

/// What a node is in the cluster. Invariants: a learner is in neither set of voters; `learner_next` only with `outgoing`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Votes in the (incoming) configuration.
    pub voter: bool,
    /// Votes in the configuration that is being left.
    pub outgoing: bool,
    /// Gets the log and never votes.
    pub learner: bool,
    /// Becomes a learner when the outgoing configuration is left.
    pub learner_next: bool,
    /// Where it is reached.
    pub addresses: Addresses,
}

impl Member {
    const ROLES: u8 = 0b1111;

    fn is_any(&self) -> bool {
        self.roles() != 0
    }

    fn roles(&self) -> u8 {
        u8::from(self.voter)
            | (u8::from(self.outgoing) << 1)
            | (u8::from(self.learner) << 2)
            | (u8::from(self.learner_next) << 3)
    }
}

/// One step of a change of the members, as an operator asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A new node that votes at once. Safer is a learner first: until it caught up it counts and cannot help.
    AddVoter {
        /// Its number.
        node: NodeId,
        /// Where it is reached.
        addresses: Addresses,
    },
    /// A new node that gets the log and never votes.
    AddLearner {
        /// Its number.
        node: NodeId,
        /// Where it is reached.
        addresses: Addresses,
    },
    /// A learner that caught up becomes a voter.
    Promote {
        /// Its number.
        node: NodeId,
    },
    /// A node leaves.
    Remove {
        /// Its number.
        node: NodeId,
    },
}

impl MemberChange {
    /// The node it is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        match *self {
            Self::AddVoter { node, .. }
            | Self::AddLearner { node, .. }
            | Self::Promote { node }
            | Self::Remove { node } => node,
        }
    }
}

/// Bytes that are no members or no change of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembersError {
    /// They end too early or go on too long.
    #[error("the length of the members' bytes does not add up")]
    Length,
    /// Written by a newer program.
    #[error("members of format {0}; this program reads {FORMAT}")]
    Format(u16),
    /// A value that cannot be.
    #[error("the members' bytes are invalid: {0}")]
    Invalid(&'static str),
}

/// The members of a cluster at some place of the log. Empty on a node that joins and has not read that far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    nodes: BTreeMap<NodeId, Member>,
    auto_leave: bool,
}

impl Members {
    /// The founding voters of a new cluster. Every founding node must be started with the same.
    ///
    /// # Errors
    /// When there is none, one is 0, or an address is too long.
    pub fn founding(voters: impl IntoIterator<Item = (NodeId, Addresses)>) -> Result<Self, MembersError> {
        let nodes = voters
            .into_iter()
            .map(|(node, addresses)| (node, Member { voter: true, addresses, ..Member::default() }))
            .collect::<BTreeMap<_, _>>();
        if nodes.is_empty() {
            return Err(MembersError::Invalid("a cluster needs a voter"));
        }
        let members = Self { nodes, auto_leave: false };
        members.check()?;
        Ok(members)
    }

    /// True on a node that joins and does not know the members yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Every node with what it is, by number.
    pub fn iter(&self) -> impl Iterator<Item = (NodeId, &Member)> {
        self.nodes.iter().map(|(node, member)| (*node, member))
    }

    /// What a node is, if it belongs to the cluster.
    #[must_use]
    pub fn get(&self, node: NodeId) -> Option<&Member> {
        self.nodes.get(&node)
    }

    /// True if the node votes, in the configuration that is entered or in the one that is left.
    #[must_use]
    pub fn is_voter(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|member| member.voter || member.outgoing)
    }

    /// The nodes that vote in the (incoming) configuration, by number.
    pub fn voters(&self) -> impl Iterator<Item = NodeId> {
        self.iter().filter(|(_, member)| member.voter).map(|(node, _)| node)
    }

    /// True while a change of voters is under way.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        self.nodes.values().any(|member| member.outgoing)
    }

    /// True if this node alone decides everything.
    #[must_use]
    pub fn is_sole_voter(&self, node: NodeId) -> bool {
        !self.is_joint() && self.voters().eq([node])
    }

    /// The members' bytes, for snapshots and configuration.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_to(&mut out);
        out
    }

    fn encode_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&[u8::from(self.auto_leave), 0]);
        out.extend_from_slice(&(self.nodes.len() as u32).to_le_bytes());
        for (node, member) in &self.nodes {
            let Addresses { peer, orders } = &member.addresses;
            out.extend_from_slice(&node.to_le_bytes());
            out.extend_from_slice(&[member.roles(), 0, 0, 0]);
            out.extend_from_slice(&(peer.len() as u16).to_le_bytes());
            out.extend_from_slice(&(orders.len() as u16).to_le_bytes());
            out.extend_from_slice(peer.as_bytes());
            out.extend_from_slice(orders.as_bytes());
        }
    }

    /// Reads what [`Members::encode`] wrote; no bytes at all are no members.
    ///
    /// # Errors
    /// When they are anything else.
    pub fn decode(bytes: &[u8]) -> Result<Self, MembersError> {
        if bytes.is_empty() {
            return Ok(Self::default());
        }
        let mut bytes = Bytes(bytes);
        let members = Self::decode_from(&mut bytes)?;
        bytes.end()?;
        Ok(members)
    }

    fn decode_from(bytes: &mut Bytes<'_>) -> Result<Self, MembersError> {
        let format = bytes.u16()?;
        if format != FORMAT {
            return Err(MembersError::Format(format));
        }
        let [auto_leave, zero] = bytes.take()?;
        let count = u32::from_le_bytes(bytes.take()?) as usize;
        if auto_leave > 1 || zero != 0 || count > MAX_MEMBERS {
            return Err(MembersError::Invalid("head"));
        }
        let mut members = Self { nodes: BTreeMap::new(), auto_leave: auto_leave == 1 };
        for _ in 0..count {
            let node = u64::from_le_bytes(bytes.take()?);
            let [roles, zeros @ ..] = bytes.take::<4>()?;
            let (peer, orders) = (usize::from(bytes.u16()?), usize::from(bytes.u16()?));
            if roles & !Member::ROLES != 0 || zeros != [0; 3] {
                return Err(MembersError::Invalid("roles"));
            }
            if members.nodes.last_key_value().is_some_and(|(last, _)| *last >= node) {
                return Err(MembersError::Invalid("order of nodes"));
            }
            let member = Member {
                voter: roles & 1 != 0,
                outgoing: roles & 2 != 0,
                learner: roles & 4 != 0,
                learner_next: roles & 8 != 0,
                addresses: Addresses { peer: bytes.text(peer)?, orders: bytes.text(orders)? },
            };
            members.nodes.insert(node, member);
        }
        members.check()?;
        Ok(members)
    }

    /// Applies the payload of a conf-change block to the members before it.
    ///
    /// # Errors
    /// When the bytes are no change, or one of other members than these.
    pub fn apply(&mut self, payload: &[u8]) -> Result<ConfChange, MembersError> {
        let change = ConfChange::decode(payload)?;
        if !self.is_empty() && change.effect_on(self).as_ref() != Some(&change.after) {
            return Err(MembersError::Invalid("a change of other members"));
        }
        self.clone_from(&change.after);
        Ok(change)
    }

    fn check(&self) -> Result<(), MembersError> {
        let fine = |found: bool, what| if found { Ok(()) } else { Err(MembersError::Invalid(what)) };
        let joint = self.is_joint();
        fine(self.nodes.is_empty() || self.voters().next().is_some(), "no voter")?;
        fine(joint || !self.auto_leave, "leaves nothing")?;
        for (node, member) in &self.nodes {
            fine(*node != 0, "node 0")?;
            fine(member.is_any(), "a node without a role")?;
            fine(!(member.learner && (member.voter || member.outgoing)), "a learner that votes")?;
            fine(!member.learner_next || (member.outgoing && !member.voter), "a next learner")?;
            let Addresses { peer, orders } = &member.addresses;
            fine(peer.len() <= MAX_ADDRESS && orders.len() <= MAX_ADDRESS, "a long address")?;
        }
        Ok(())
    }

    pub(super) fn conf_state(&self) -> ConfState {
        let of = |has: fn(&Member) -> bool| {
            self.iter().filter(|(_, member)| has(member)).map(|(node, _)| node).collect::<Vec<_>>()
        };
        let mut state = ConfState::default();
        state.set_voters(of(|m| m.voter));
        state.set_voters_outgoing(of(|m| m.outgoing));
        state.set_learners(of(|m| m.learner));
        state.set_learners_next(of(|m| m.learner_next));
        state.auto_leave = self.auto_leave;
        state
    }

    /// True if raft sees the same configuration.
    pub(super) fn agrees_with(&self, state: &ConfState) -> bool {
        let mut state = state.clone();
        for nodes in
            [&mut state.voters, &mut state.voters_outgoing, &mut state.learners, &mut state.learners_next]
        {
            nodes.sort_unstable();
        }
        state == self.conf_state()
    }
}

/// What a step does to one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Voter = 1,
    Learner = 2,
    Remove = 3,
}

/// How a change gets to the members after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Way {
    /// At once; no voter changes.
    Simple = 1,
    /// Into a joint configuration, which the leader leaves by itself.
    Enter = 2,
    /// Out of it.
    Leave = 3,
}

/// A change of the members as it stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfChange {
    pub(super) way: Way,
    pub(super) steps: Vec<(NodeId, Step)>,
    /// The members from this block on.
    pub after: Members,
}

impl ConfChange {
    /// The change that an operator's step makes of these members; the caller has checked that it makes sense.
    pub(super) fn of(before: &Members, change: &MemberChange) -> Option<Self> {
        let step = match change {
            MemberChange::AddVoter { .. } | MemberChange::Promote { .. } => Step::Voter,
            MemberChange::AddLearner { .. } => Step::Learner,
            MemberChange::Remove { .. } => Step::Remove,
        };
        let node = change.node();
        let way = if step != Step::Learner && (step == Step::Voter || before.is_voter(node)) {
            Way::Enter
        } else {
            Way::Simple
        };
        let mut made = Self { way, steps: vec![(node, step)], after: Members::default() };
        made.after = made.effect_on(before)?;
        if let MemberChange::AddVoter { addresses, .. } | MemberChange::AddLearner { addresses, .. } = change
        {
            made.after.nodes.get_mut(&node)?.addresses = addresses.clone();
        }
        made.after.check().ok()?;
        Some(made)
    }

    /// The change that leaves a joint configuration.
    pub(super) fn leave(before: &Members) -> Option<Self> {
        let mut made = Self { way: Way::Leave, steps: Vec::new(), after: Members::default() };
        made.after = made.effect_on(before)?;
        Some(made)
    }

    /// What the members are after this, on top of `before`; `None` if it cannot follow there. Addresses of new nodes are taken from `after`.
    fn effect_on(&self, before: &Members) -> Option<Members> {
        let mut members = before.clone();
        if before.is_joint() != (self.way == Way::Leave) {
            return None;
        }
        match self.way {
            Way::Simple => {}
            Way::Enter => {
                members.auto_leave = true;
                for member in members.nodes.values_mut() {
                    member.outgoing = member.voter;
                }
            }
            Way::Leave => {
                members.auto_leave = false;
                for member in members.nodes.values_mut() {
                    member.learner |= member.learner_next;
                    (member.outgoing, member.learner_next) = (false, false);
                }
            }
        }
        for (node, step) in &self.steps {
            let member = members.nodes.entry(*node).or_insert_with(|| Member {
                addresses: self.after.get(*node).map(|made| made.addresses.clone()).unwrap_or_default(),
                ..Member::default()
            });
            match step {
                Step::Voter => {
                    (member.voter, member.learner, member.learner_next) = (true, false, false);
                }
                Step::Learner if member.learner => {}
                Step::Learner => {
                    (member.voter, member.learner, member.learner_next) =
                        (false, !member.outgoing, member.outgoing);
                }
                Step::Remove => {
                    (member.voter, member.learner, member.learner_next) = (false, false, false);
                }
            }
        }
        members.nodes.retain(|_, member| member.is_any());
        (members.check().is_ok() && !members.is_empty()).then_some(members)
    }

    /// The payload of its block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&FORMAT.to_le_bytes());
        out.extend_from_slice(&(self.way as u16).to_le_bytes());
        out.extend_from_slice(&(self.steps.len() as u32).to_le_bytes());
        for (node, step) in &self.steps {
            out.extend_from_slice(&node.to_le_bytes());
            out.extend_from_slice(&[*step as u8, 0, 0, 0, 0, 0, 0, 0]);
        }
        self.after.encode_to(&mut out);
        out
    }

    /// Reads a block's payload.
    ///
    /// # Errors
    /// When it is no change of members.
    pub fn decode(payload: &[u8]) -> Result<Self, MembersError> {
        let mut bytes = Bytes(payload);
        let format = bytes.u16()?;
        if format != FORMAT {
            return Err(MembersError::Format(format));
        }
        let code = bytes.u16()?;
        let way = [Way::Simple, Way::Enter, Way::Leave]
            .into_iter()
            .find(|way| *way as u16 == code)
            .ok_or(MembersError::Invalid("way"))?;
        let count = u32::from_le_bytes(bytes.take()?) as usize;
        if count > MAX_MEMBERS || (count == 0) != (way == Way::Leave) {
            return Err(MembersError::Invalid("number of steps"));
        }
        let mut steps = Vec::with_capacity(count);
        for _ in 0..count {
            let node = u64::from_le_bytes(bytes.take()?);
            let [code, zeros @ ..] = bytes.take::<8>()?;
            let step = [Step::Voter, Step::Learner, Step::Remove]
                .into_iter()
                .find(|step| *step as u8 == code)
                .filter(|_| zeros == [0; 7] && node != 0)
                .ok_or(MembersError::Invalid("step"))?;
            steps.push((node, step));
        }
        let after = Members::decode_from(&mut bytes)?;
        bytes.end()?;
        if after.is_empty() {
            return Err(MembersError::Invalid("no voter"));
        }
        Ok(Self { way, steps, after })
    }

    pub(super) fn to_raft(&self) -> ConfChangeV2 {
        let mut made = ConfChangeV2::default();
        if self.way == Way::Enter {
            made.set_transition(ConfChangeTransition::Implicit);
        }
        let changes = self.steps.iter().map(|(node, step)| single(*node, *step));
        made.set_changes(changes.collect::<Vec<_>>().into());
        made
    }
}

/// A step as raft takes it.
pub(super) fn single(node: NodeId, step: Step) -> ConfChangeSingle {
    let mut single = ConfChangeSingle::default();
    single.set_node_id(node);
    single.set_change_type(match step {
        Step::Voter => ConfChangeType::AddNode,
        Step::Learner => ConfChangeType::AddLearnerNode,
        Step::Remove => ConfChangeType::RemoveNode,
    });
    single
}

/// Bytes yet to be read.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MembersError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(MembersError::Length)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, MembersError> {
        Ok(u16::from_le_bytes(self.take()?))
    }

    fn text(&mut self, len: usize) -> Result<String, MembersError> {
        let (text, rest) = self.0.split_at_checked(len).ok_or(MembersError::Length)?;
        self.0 = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| MembersError::Invalid("an address"))
    }

    fn end(&self) -> Result<(), MembersError> {
        if self.0.is_empty() { Ok(()) } else { Err(MembersError::Length) }
    }
}
