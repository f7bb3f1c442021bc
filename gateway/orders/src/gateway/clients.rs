//! Who is connected: how a client comes, is kept among the others, and goes. There is one way out, [`Desk::end`]
//! with a reason or a dead socket, so a session whose client is gone is always told to the log.

use std::io::ErrorKind;

use grid_wire::{self as wire, Beat, Phase, TerminateCode};
use mio::net::TcpStream;
use mio::{Interest, Token};
use tracing::{debug, info, warn};

use super::{Desk, utc_now};
use crate::connection::Connection;
use crate::venue::View;

/// How often deadlines are looked at.
const SWEEP_NS: u64 = 20_000_000;
/// Connections accepted in one turn.
const ACCEPTS_PER_TURN: usize = 64;

impl<V: View> Desk<V> {
    /// Lets in who is at the door, up to a bound, and remembers whether more may wait.
    pub(super) fn accept(&mut self) {
        self.accept_again = false;
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
                    break;
                }
            }
        }
        self.accept_again = true;
    }

    fn welcome(&mut self, mut stream: TcpStream) {
        let login_ns = self.config.login_timeout.as_nanos() as u64;
        if stream.set_nodelay(true).is_err() {
            return;
        }
        if self.connections.len() >= self.config.connections_max {
            let mut client = Connection::new(stream, [0; 32], self.now, login_ns);
            let deadline = self.now + self.config.linger.as_nanos() as u64;
            client.terminate(TerminateCode::Full, "no room for another connection", None, deadline);
            // One write into an empty socket; those that overflow the house are not kept to linger.
            client.flush(self.now);
            return;
        }
        let id = self.connections.reserve();
        let both = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(id as usize), both).is_err() {
            return self.connections.release(id);
        }
        let mut client = Box::new(Connection::new(stream, rand::random(), self.now, login_ns));
        wire::Hello {
            server_nonce: client.server_nonce,
            server_time: utc_now(),
            cluster_epoch: self.epoch.unwrap_or_default(),
            schema: wire::SCHEMA_ID,
            schema_version: wire::SCHEMA_VERSION,
        }
        .encode(client.out());
        self.serve_again(id, &mut client);
        self.keep_or_drop(id, client);
    }

    /// Remembers what a socket is ready for.
    pub(super) fn note_readiness(&mut self, id: u64, event: &mio::event::Event) {
        let Some(client) = self.connections.get_mut(id) else {
            return;
        };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            client.readable = true;
            client.hung_up |= event.is_read_closed() || event.is_error();
            if !std::mem::replace(&mut client.queued, true) {
                self.again.push(id);
            }
        }
        if event.is_writable() && client.backlog() > 0 && !std::mem::replace(&mut client.listed, true) {
            self.dirty.push(id);
        }
    }

    /// Puts a client back among the others, or lets it go if there is nothing left to do for it.
    pub(super) fn keep_or_drop(&mut self, id: u64, mut client: Box<Connection>) {
        let gone =
            client.broken || (client.eof && client.stalled.is_none() && client.phase != Phase::LoggingIn);
        if gone {
            self.lose(id, &mut client);
            // Best effort: the peer may still read what was answered before it closed.
            client.flush(self.now);
            self.connections.release(id);
            return;
        }
        if client.dirty && !std::mem::replace(&mut client.listed, true) {
            self.dirty.push(id);
        }
        if client.stalled.is_some() {
            self.serve_again(id, &mut client);
        }
        self.connections.put(id, client);
    }

    /// Ends a connection with a reason.
    pub(super) fn end(&mut self, id: u64, client: &mut Connection, code: TerminateCode, reason: &str) {
        debug!(connection = id, ?code, reason, "a connection ends");
        self.lose(id, client);
        let leader = self.leader.filter(|_| code == TerminateCode::NotLeader);
        client.terminate(code, reason, leader, self.now + self.config.linger.as_nanos() as u64);
    }

    /// The session, if any, has lost this connection: the engine must know, and nobody else may think it lives here.
    fn lose(&mut self, id: u64, client: &mut Connection) {
        let Some(live) = client.live.take() else { return };
        if self.sessions.connection(live.session) == Some(id) {
            self.sessions.end(live.session);
        }
        self.feed.leave(id, &live);
        self.retransmitting.remove(&id);
        self.owe_lost(live.session, id);
    }

    /// Ends a connection whose reader leaves too many bytes waiting.
    pub(super) fn drop_slow(&mut self, id: u64) {
        if let Some(mut client) = self.connections.take(id) {
            self.end(id, &mut client, TerminateCode::SlowReader, "too many bytes wait for this reader");
            self.keep_or_drop(id, client);
        }
    }

    /// Ends whoever ran out of time, and breaks our own silence before it counts as one.
    pub(super) fn sweep(&mut self) {
        if self.now < self.next_sweep {
            return;
        }
        self.next_sweep = self.now + SWEEP_NS;
        let late: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, client)| {
                client.deadline.is_some_and(|deadline| self.now >= deadline)
                    || (client.live.is_some() && !matches!(client.liveness.beat(self.now), Beat::Wait(_)))
            })
            .map(|(id, _)| id)
            .collect();
        for id in late {
            let Some(mut client) = self.connections.take(id) else {
                continue;
            };
            if client.phase == Phase::Ended {
                // It had its time to read the last words.
                self.connections.release(id);
                continue;
            }
            match (&client.live, client.liveness.beat(self.now)) {
                (None, _) => self.end(id, &mut client, TerminateCode::LoginTimeout, "no login in time"),
                (Some(_), Beat::Lapsed) => {
                    self.end(id, &mut client, TerminateCode::KeepAliveLapsed, "three intervals of silence");
                }
                (Some(live), Beat::Send) => {
                    let next_seq = live.next_report;
                    wire::Sequence { next_seq }.encode(client.out());
                }
                (Some(_), Beat::Wait(_)) => {}
            }
            self.keep_or_drop(id, client);
        }
    }

    /// Private reports leave before public data, so that nobody reads of his own trade on the tape first. Whatever a
    /// client was told in this turn leaves in one write.
    pub(super) fn flush(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for urgent in [true, false] {
            for &id in &dirty {
                if self.connections.get(id).is_some_and(|client| client.listed && client.urgent == urgent) {
                    self.flush_one(id);
                }
            }
        }
        // Those that ended of it are noted anew.
        dirty.clear();
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
        self.feed.refresh_the_late(&mut self.connections, self.config.conflate_above, self.now);
    }

    pub(super) fn flush_one(&mut self, id: u64) {
        let now = self.now;
        if let Some(client) = self.connections.get_mut(id) {
            client.flush(now);
            if client.broken
                && let Some(client) = self.connections.take(id)
            {
                self.keep_or_drop(id, client);
            }
        }
    }

    /// Tells every client that the venue shuts down.
    pub(super) fn say_goodbye(&mut self) {
        info!(connections = self.connections.len(), "the order gateway ends");
        for (_, client) in self.connections.iter_mut() {
            client.terminate(TerminateCode::Shutdown, "the venue is shutting down", None, 0);
            client.flush(self.now);
        }
    }
}
