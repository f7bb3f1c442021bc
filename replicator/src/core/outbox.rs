//! The way out of the core: what carries its messages need not be known here.

use grid_sequencer::NodeId;

use super::{Members, PeerMessage};

/// Takes the core's messages to its peers.
///
/// To one peer messages arrive in the order they were sent, none twice; any may be lost. Called with the core locked: it must not block.
pub trait Outbox: Send {
    /// Sends a message to a node, or drops it; a drop is told to [`super::RaftCore::report_unreachable`] later, not from in here.
    ///
    /// A message of kind [`super::MessageKind::Snapshot`] asks the links to stream the snapshot file of that index.
    fn send(&mut self, to: NodeId, message: PeerMessage);

    /// The members changed, at this point of the log: there may be new addresses.
    fn members_changed(&mut self, members: &Members) {
        let _ = members;
    }
}
