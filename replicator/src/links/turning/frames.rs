//! What comes on connections, handed to whom it concerns.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use super::super::admin::AdminRequest;
use super::super::connection::{Connection, Purpose, explain_frame};
use super::super::frame::{self, Kind, LOGIN_BODY_MAX, Refusal, Role};
use super::super::repair::RepairRequest;
use super::super::snapshot::{self, Abort, Ack, Begin, End, Incoming, Outcome, Report};
use super::super::{Answer, Frame, Shared, Told};
use super::{Desk, Handler, Loop, NodeId, Receiving};

/// The longest body from a caller, and from a peer that is answering.
const SMALL_BODY_MAX: usize = 64 * 1024;

impl<H: Handler> Loop<H> {
    /// Takes every whole frame that has come.
    pub(super) fn hand_over(&mut self, id: u64, connection: &mut Connection) {
        let input = connection.take_input();
        let mut taken = 0;
        while connection.end.is_none() {
            let limit = match connection.purpose {
                Purpose::Service { busy: true, .. } => break,
                Purpose::Knocking | Purpose::ToPeer { up: false, .. } => LOGIN_BODY_MAX,
                Purpose::ToPeer { up: true, .. } | Purpose::Service { .. } => SMALL_BODY_MAX,
                Purpose::FromPeer(_) => self.desk.limits.frame_bytes_max.max(2 * snapshot::CHUNK),
            };
            match frame::first(&input[taken..], limit) {
                Ok(None) => break,
                Ok(Some(found)) => {
                    self.take(id, connection, found.kind, found.body);
                    taken += found.len;
                }
                Err(error) => {
                    let knocking = connection.purpose == Purpose::Knocking;
                    connection.close_loud(explain_frame(error, knocking));
                }
            }
        }
        connection.put_back(input, taken);
    }

    fn take(&mut self, id: u64, connection: &mut Connection, kind: Kind, body: &[u8]) {
        match (connection.purpose, kind) {
            (Purpose::FromPeer(from), Kind::Raft) => {
                self.handler.received(from, Frame::Raft(Bytes::copy_from_slice(body)));
            }
            (Purpose::FromPeer(from), Kind::Digest) => {
                self.handler.received(from, Frame::Digest(Bytes::copy_from_slice(body)));
            }
            (Purpose::FromPeer(_), Kind::Ping) => connection.put(Kind::Pong, &[]),
            (Purpose::FromPeer(from), Kind::SnapshotBegin) => self.begin_snapshot(id, connection, from, body),
            (Purpose::FromPeer(from), Kind::SnapshotChunk | Kind::SnapshotEnd | Kind::SnapshotAbort) => {
                self.desk.go_on_with_snapshot(id, connection, from, kind, body)
            }
            (Purpose::ToPeer { up: true, .. }, Kind::Pong) => connection.ping_open = false,
            (Purpose::ToPeer { peer, up: true }, Kind::SnapshotAck | Kind::SnapshotOutcome) => {
                self.desk.hear_receiver(connection, peer, kind, body);
            }
            (Purpose::ToPeer { peer, up: false }, Kind::Welcome) => {
                self.desk.welcomed(connection, peer, body);
            }
            (Purpose::ToPeer { up: false, .. }, Kind::Refused) => {
                let words =
                    frame::from_bytes::<Refusal>(body).map_or_else(String::new, |refusal| refusal.words);
                connection.close_loud(format!("it refuses: {words}"));
            }
            (Purpose::Knocking, Kind::Hello) => self.desk.admit(id, connection, body),
            (Purpose::Service { role: role @ Role::Operator, from, .. }, Kind::AdminRequest) => {
                let Some(request) = frame::from_bytes::<AdminRequest>(body) else {
                    return connection.close_loud("a request that cannot be read");
                };
                info!(address = %connection.address, ?request, "an operator asks");
                connection.purpose = Purpose::Service { role, from, busy: true };
                self.handler.admin(request, owe(&self.desk.shared, id, Kind::AdminReply));
            }
            (Purpose::Service { role: role @ Role::Repair, from, .. }, Kind::RepairRequest) => {
                let Some(request) = frame::from_bytes::<RepairRequest>(body) else {
                    return connection.close_loud("a request that cannot be read");
                };
                connection.purpose = Purpose::Service { role, from, busy: true };
                self.handler.repair(from, request, owe(&self.desk.shared, id, Kind::RepairBlocks));
            }
            (Purpose::Service { role: Role::Operator, .. }, kind) => {
                connection.close_loud(format!("{kind:?} is not an operator's to send"));
            }
            (Purpose::Knocking, kind) => connection.close_loud(format!("{kind:?} before a Hello")),
            (_, kind) => connection.close_loud(format!("{kind:?} has no place here")),
        }
    }

    fn begin_snapshot(&mut self, id: u64, connection: &mut Connection, from: NodeId, body: &[u8]) {
        let Some(Begin { id: transfer, bytes, meta }) = frame::from_bytes(body) else {
            return connection.close_loud("the begin of a snapshot that cannot be read");
        };
        let limit = self.desk.limits.snapshot_bytes_max;
        let started = if self.desk.receiving.contains_key(&from) {
            Err("an earlier one is still being put away".to_owned())
        } else if bytes > limit {
            Err(format!("it has {bytes} bytes; at most {limit} are taken"))
        } else {
            self.handler.snapshot_offered(from, &meta, bytes).and_then(|sink| {
                self.desk.last_transfer += 1;
                let serial = self.desk.last_transfer;
                let shared = Arc::clone(&self.desk.shared);
                let report = move |report| shared.tell(Told::Snapshot { from, serial, report });
                let incoming = Incoming::start(transfer, bytes, sink, report)
                    .map_err(|error| format!("no thread to write it: {error}"))?;
                Ok(Receiving { connection: id, serial, meta: Bytes::from(meta), incoming })
            })
        };
        match started {
            Ok(receiving) => {
                info!(from, bytes, "a snapshot is on its way here");
                self.desk.receiving.insert(from, receiving);
            }
            Err(words) => {
                warn!(from, bytes, "a snapshot is not taken: {words}");
                let outcome = Outcome { id: transfer, refused: Some(words) };
                connection.put(Kind::SnapshotOutcome, &frame::to_bytes(&outcome));
            }
        }
    }

    /// The writer of an arriving snapshot says how far it is.
    pub(super) fn hear_writer(&mut self, from: NodeId, serial: u64, report: Report) {
        let desk = &mut self.desk;
        let Some(receiving) = desk.receiving.get_mut(&from).filter(|receiving| receiving.serial == serial)
        else {
            return;
        };
        let connection = desk.connections.get_mut(&receiving.connection);
        let id = receiving.incoming.id();
        match report {
            Report::Written(written) => {
                receiving.incoming.written(written);
                if let Some(connection) = connection {
                    connection.put(Kind::SnapshotAck, &frame::to_bytes(&Ack { id, written }));
                }
            }
            Report::Over(writer) => {
                let Some(Receiving { meta, incoming, .. }) = desk.receiving.remove(&from) else {
                    return;
                };
                let outcome = incoming.outcome(writer);
                match &outcome {
                    Ok(()) => info!(from, "the snapshot has arrived"),
                    Err(words) => warn!(from, "the snapshot has not arrived: {words}"),
                }
                if let Some(connection) = connection {
                    let said = Outcome { id, refused: outcome.clone().err() };
                    connection.put(Kind::SnapshotOutcome, &frame::to_bytes(&said));
                    // The handler may end the node over it; the sender should know before.
                    connection.flush(desk.now);
                }
                self.handler.snapshot_received(from, meta, outcome);
            }
        }
    }
}

/// A reply that is owed to a caller.
fn owe<T: super::super::Owed + serde::Serialize + 'static>(
    shared: &Arc<Shared>,
    connection: u64,
    kind: Kind,
) -> Answer<T> {
    let shared = Arc::clone(shared);
    Answer::to(move |reply| shared.tell(Told::Reply { connection, kind, body: frame::to_bytes(&reply) }))
}

impl Desk {
    /// Sends a caller its reply, if it is still there, and lets it ask again.
    pub(super) fn reply(&mut self, id: u64, kind: Kind, body: &[u8]) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if let Purpose::Service { role, from, busy: true } = connection.purpose {
            connection.purpose = Purpose::Service { role, from, busy: false };
            connection.heard = self.now;
            connection.put(kind, body);
            self.again.insert(id);
        }
    }

    /// A part of an arriving snapshot. Parts of one that was refused or broken off here may still be on their way; they
    /// are passed over.
    fn go_on_with_snapshot(
        &mut self,
        id: u64,
        connection: &mut Connection,
        from: NodeId,
        kind: Kind,
        body: &[u8],
    ) {
        let mine = |receiving: &&mut Receiving, transfer: u64| {
            receiving.connection == id && receiving.incoming.id() == transfer
        };
        let receiving = self.receiving.get_mut(&from);
        let read = match kind {
            Kind::SnapshotChunk => snapshot::read_chunk(body).map(|(transfer, offset, bytes)| {
                if let Some(receiving) = receiving.filter(|receiving| mine(receiving, transfer)) {
                    receiving.incoming.chunk(offset, bytes);
                }
            }),
            Kind::SnapshotEnd => frame::from_bytes::<End>(body).map(|end| {
                if let Some(receiving) = receiving.filter(|receiving| mine(receiving, end.id)) {
                    receiving.incoming.end(end.crc);
                }
            }),
            _ => frame::from_bytes::<Abort>(body).map(|abort| {
                if let Some(receiving) = receiving.filter(|receiving| mine(receiving, abort.id)) {
                    receiving.incoming.break_off(format!("the sender gave up: {}", abort.words));
                }
            }),
        };
        if read.is_none() {
            connection.close_loud(format!("{kind:?} that cannot be read"));
        }
    }

    /// The receiver of our snapshot says how far it is, or what has become of it.
    fn hear_receiver(&mut self, connection: &mut Connection, peer: NodeId, kind: Kind, body: &[u8]) {
        let now = self.now;
        let Some(state) = self.peers.get_mut(&peer) else {
            return;
        };
        if kind == Kind::SnapshotAck {
            let checked = match (frame::from_bytes::<Ack>(body), &mut state.sending) {
                (None, _) => Err("an acknowledgement that cannot be read".to_owned()),
                (Some(ack), Some(sending)) => sending.acked(&ack, now),
                (Some(_), None) => Ok(()),
            };
            if let Err(words) = checked {
                connection.close_loud(words);
            }
            return;
        }
        let Some(Outcome { id, refused }) = frame::from_bytes(body) else {
            return connection.close_loud("an outcome that cannot be read");
        };
        if state.sending.as_ref().is_some_and(|sending| sending.id() == id) {
            match &refused {
                None => info!(peer, "it has the snapshot"),
                Some(words) => warn!(peer, "it does not take the snapshot: {words}"),
            }
            state.sending = None;
            state.queue.lock().snapshot_over();
            self.over.push((peer, refused.is_none()));
        }
    }
}
