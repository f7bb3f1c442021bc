//! One client's socket and what the loop knows of it. Bytes in are bounded by one frame and a read; bytes out
//! by the configuration.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::ops::Range;

use grid_engine::{AccountId, Fingerprint, SessionId};
use grid_wire::{self as wire, IdempotentFlow, Liveness, Phase, TerminateCode};
use mio::net::TcpStream;

use crate::throttle::Bucket;

/// Bytes read at one time.
const READ_CHUNK: usize = 64 * 1024;

/// A live session's place on a connection.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) session: SessionId,
    pub(crate) account: AccountId,
    pub(crate) key: Fingerprint,
    pub(crate) flow: IdempotentFlow,
    /// The number of the next report that will be sent live.
    pub(crate) next_report: u64,
    /// Log sequence of the last report, or of the establishment.
    pub(crate) report_log_seq: u64,
    pub(crate) requests: Bucket,
    pub(crate) cancels: Bucket,
    pub(crate) refusals: Bucket,
    pub(crate) retransmit: Option<Retransmit>,
    /// By instrument.
    pub(crate) subscriptions: BTreeMap<u16, Subscription>,
}

/// A market data subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subscription {
    pub(crate) depth: u16,
    /// The reader is too slow: nothing is told until a new snapshot is due.
    pub(crate) behind: bool,
}

/// A retransmission under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retransmit {
    pub(crate) from: u64,
    pub(crate) next: u64,
    pub(crate) until: u64,
    /// The replica must have applied this.
    pub(crate) needs: u64,
    pub(crate) announced: bool,
    /// The back office is reading.
    pub(crate) asked: bool,
}

/// A login that waits for its signature or for the log.
#[derive(Debug)]
pub(crate) enum Login {
    Negotiate(wire::Negotiate),
    Establish(wire::Establish),
}

impl Login {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Negotiate(m) => Fingerprint(m.fingerprint),
            Self::Establish(m) => Fingerprint(m.fingerprint),
        }
    }

    pub(crate) fn session(&self) -> SessionId {
        match self {
            Self::Negotiate(m) => SessionId(m.session),
            Self::Establish(m) => SessionId(m.session),
        }
    }
}

/// A client.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    pub(crate) phase: Phase,
    pub(crate) server_nonce: [u8; 32],
    pub(crate) login: Option<Login>,
    pub(crate) refusals: u32,
    /// When login, or lingering after Terminate, has taken too long; loop nanoseconds.
    pub(crate) deadline: Option<u64>,
    pub(crate) liveness: Liveness,
    pub(crate) live: Option<Live>,
    /// The socket may have more to read.
    pub(crate) readable: bool,
    /// The client has said that it sends no more: only a read of nothing ends the reading.
    pub(crate) hung_up: bool,
    /// It is among those served in the next turn.
    pub(crate) queued: bool,
    /// It is among those written to at the end of the turn.
    pub(crate) listed: bool,
    /// Since when the frame in front waits for room in the line; loop nanoseconds.
    pub(crate) stalled: Option<u64>,
    pub(crate) dirty: bool,
    /// Private reports are among the bytes out; they leave before anybody's market data.
    pub(crate) urgent: bool,
    /// The socket is dead.
    pub(crate) broken: bool,
    /// The client has sent its last byte.
    pub(crate) eof: bool,
    shut: bool,
    /// What was read and is no whole frame yet, or waits.
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    /// The socket took less than there was.
    stuck: bool,
}

/// What a read brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fill {
    /// There may be more.
    More,
    /// Nothing more for now.
    Dry,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, server_nonce: [u8; 32], now: u64, login_ns: u64) -> Self {
        Self {
            stream,
            phase: Phase::Greeted,
            server_nonce,
            login: None,
            refusals: 0,
            deadline: Some(now + login_ns),
            liveness: Liveness::new(now, u32::MAX, u32::MAX),
            live: None,
            readable: true,
            hung_up: false,
            queued: false,
            listed: false,
            stalled: None,
            dirty: false,
            urgent: false,
            broken: false,
            eof: false,
            shut: false,
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            stuck: false,
        }
    }

    /// Puts what is left of earlier reads in front of a buffer with room for one more; where it lies.
    pub(crate) fn take_input(&mut self, buffer: &mut Vec<u8>) -> Range<usize> {
        let held = self.input.len();
        if buffer.len() < held + READ_CHUNK {
            buffer.resize(held + READ_CHUNK, 0);
        }
        buffer[..held].copy_from_slice(&self.input);
        // One burst must not hold its memory for ever.
        if self.input.capacity() > 4 * READ_CHUNK {
            self.input = Vec::new();
        }
        self.input.clear();
        0..held
    }

    /// Reads once, behind what lies in the buffer already.
    pub(crate) fn fill(&mut self, buffer: &mut Vec<u8>, unread: &mut Range<usize>) -> Fill {
        if unread.start > 0 {
            buffer.copy_within(unread.clone(), 0);
            *unread = 0..unread.len();
        }
        if buffer.len() < unread.end + READ_CHUNK {
            buffer.resize(unread.end + READ_CHUNK, 0);
        }
        let room = &mut buffer[unread.end..];
        let most = room.len();
        match self.stream.read(room) {
            Ok(0) => {
                self.eof = true;
                self.readable = false;
                Fill::Dry
            }
            Ok(count) => {
                // Less than was asked for is all there was: what comes later is told by the poll.
                self.readable = count == most || self.hung_up;
                // After Terminate nothing that comes is looked at any more.
                if self.phase != Phase::Ended {
                    unread.end += count;
                }
                Fill::More
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Fill::Dry
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Fill::More,
            Err(_) => {
                self.broken = true;
                self.readable = false;
                Fill::Dry
            }
        }
    }

    /// Keeps what was not taken as frames.
    pub(crate) fn keep_input(&mut self, unread: &[u8]) {
        if self.phase != Phase::Ended {
            self.input.extend_from_slice(unread);
        }
    }

    /// Where to append bytes for the client.
    pub(crate) fn out(&mut self) -> &mut Vec<u8> {
        self.dirty = true;
        &mut self.out
    }

    /// Bytes that the client has not been sent yet.
    pub(crate) fn backlog(&self) -> usize {
        self.out.len() - self.sent
    }

    /// The socket took less than there was when it was last written to: a write now would most likely be for nothing.
    pub(crate) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// Writes what the socket takes.
    pub(crate) fn flush(&mut self, now: u64) {
        self.stuck = false;
        self.dirty = false;
        self.listed = false;
        self.urgent = false;
        while self.sent < self.out.len() && !self.broken {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => self.broken = true,
                Ok(count) => {
                    self.sent += count;
                    self.liveness.sent(now);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stuck = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.broken = true,
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            if self.out.capacity() > 16 * READ_CHUNK {
                self.out = Vec::new();
            }
            if self.phase == Phase::Ended && !self.shut {
                self.shut = true;
                // Half-closed, and read on until the client closes: a full close with unread input would make the
                // kernel throw our last words away. The peer may be gone already; that is fine.
                let _ = self.stream.shutdown(std::net::Shutdown::Write);
            }
        } else if self.sent >= 16 * READ_CHUNK {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Says why this is the end, and where to go on if that is known; what follows from the client is thrown away.
    pub(crate) fn terminate(
        &mut self,
        code: TerminateCode,
        reason: &str,
        leader: Option<SocketAddr>,
        deadline: u64,
    ) {
        if self.phase == Phase::Ended {
            return;
        }
        let (leader_ip, leader_port) = wire::leader_fields(leader);
        wire::Terminate { code, leader_ip, leader_port, ..wire::Terminate::default() }
            .encode(reason.as_bytes(), self.out());
        self.phase = Phase::Ended;
        self.deadline = Some(deadline);
        self.login = None;
        self.input = Vec::new();
        self.stalled = None;
    }
}
