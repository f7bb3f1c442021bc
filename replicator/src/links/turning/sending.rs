//! What waits, put on the sockets: messages first, a chunk of a snapshot only when nothing else waits.

use std::sync::Arc;
use std::time::Instant;

use tracing::{info, warn};

use super::super::connection::{Connection, Purpose};
use super::super::frame;
use super::super::snapshot::{Outgoing, Step};
use super::{Desk, NodeId, Peer, Shared};

/// Bytes put in line for a socket that has not taken them yet; what is beyond waits in the peer's bounded queue.
pub(super) const BACKLOG_MAX: usize = 256 * 1024;
/// Above this a chunk of a snapshot waits: a message must not stand behind many.
const BACKLOG_SHORT: usize = 64 * 1024;
/// Batches for one peer in one turn, so that reading gets its turn too.
const ROUNDS_MAX: usize = 64;

impl Desk {
    /// Sends what every queue and backlog holds, as far as the sockets take it.
    pub(super) fn send_all(&mut self) {
        self.send_again = false;
        let Self { connections, peers, shared, scratch, now, last_transfer, over, .. } = self;
        for connection in connections.values_mut() {
            if let Purpose::ToPeer { peer, up: true } = connection.purpose
                && let Some(state) = peers.get_mut(&peer)
            {
                let mut sending = Sending { shared, scratch, now: *now, last_transfer, over };
                self.send_again |= sending.serve(connection, peer, state);
                // What was dropped since it was last reported is reported in the next turn.
                self.send_again |= state.queue.lock().has_dropped();
            }
            connection.flush(*now);
        }
    }
}

/// What sending to one peer needs of the desk.
struct Sending<'a> {
    shared: &'a Arc<Shared>,
    scratch: &'a mut Vec<u8>,
    now: Instant,
    last_transfer: &'a mut u64,
    over: &'a mut Vec<(NodeId, bool)>,
}

impl Sending<'_> {
    /// Says whether there is more than one turn sends.
    fn serve(&mut self, connection: &mut Connection, peer: NodeId, state: &mut Peer) -> bool {
        let mut batch = Vec::new();
        for _ in 0..ROUNDS_MAX {
            connection.flush(self.now);
            let backlog = connection.backlog();
            if connection.end.is_some() || backlog >= BACKLOG_MAX {
                // The socket says when it takes more.
                return false;
            }
            self.scratch.clear();
            state.queue.lock().take(BACKLOG_MAX - backlog, &mut batch);
            for (kind, body) in batch.drain(..) {
                frame::put(kind, &[&body], self.scratch);
            }
            if self.scratch.is_empty() && (backlog > BACKLOG_SHORT || !self.chunk(peer, state)) {
                return false;
            }
            connection.seal(self.scratch);
        }
        true
    }

    /// Puts the next frame of a snapshot into the scratch, if there is one.
    fn chunk(&mut self, peer: NodeId, state: &mut Peer) -> bool {
        if state.sending.is_none() {
            let Some(job) = state.queue.lock().take_snapshot() else {
                return false;
            };
            *self.last_transfer += 1;
            let shared = Arc::clone(self.shared);
            match Outgoing::start(*self.last_transfer, job, self.now, move || shared.wake()) {
                Ok(outgoing) => {
                    info!(peer, "a snapshot is on its way there");
                    state.sending = Some(outgoing);
                }
                Err(error) => {
                    warn!(peer, "no thread to read a snapshot: {error}");
                    state.queue.lock().snapshot_over();
                    self.over.push((peer, false));
                    return false;
                }
            }
        }
        let Some(outgoing) = &mut state.sending else {
            return false;
        };
        match outgoing.put_next(self.now, self.scratch) {
            Step::Put => true,
            Step::Nothing => false,
            Step::Failed(words) => {
                warn!(peer, "{words}");
                state.sending = None;
                state.queue.lock().snapshot_over();
                self.over.push((peer, false));
                true
            }
        }
    }
}
