//! One socket and what the loop knows of it. Bytes in are bounded by one frame and a read; bytes out by what the loop
//! puts, which looks at the backlog first.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;

use super::NodeId;
use super::frame::{self, FrameError, Kind, Role};
use super::session::Session;

/// Bytes read at one time.
pub(super) const READ_CHUNK: usize = 64 * 1024;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It was accepted and has not said yet.
    Knocking,
    /// A peer's frames come on it.
    FromPeer(NodeId),
    /// Ours go to a peer on it; `up` once it was welcomed.
    ToPeer { peer: NodeId, up: bool },
    /// Requests are answered on it, one at a time.
    Service { role: Role, from: NodeId, busy: bool },
}

/// Why a connection is over, and how loud that is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// As connections end.
    Plain(String),
    /// Somebody should look.
    Loud(String),
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) address: SocketAddr,
    pub(super) purpose: Purpose,
    /// The system has not said yet whether the other side answers.
    pub(super) connecting: bool,
    /// The socket may have more to read.
    pub(super) readable: bool,
    /// It may take more.
    pub(super) writable: bool,
    /// When it was accepted, or dialled, or reached.
    pub(super) opened: Instant,
    /// When bytes last came.
    pub(super) heard: Instant,
    /// When the last ping was sent, and whether it waits for its answer.
    pub(super) pinged: Instant,
    pub(super) ping_open: bool,
    pub(super) end: Option<End>,
    session: Session,
    input: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    /// Since when the socket has taken nothing of what waits.
    stalled: Option<Instant>,
}

impl Connection {
    pub(super) fn new(
        stream: TcpStream,
        address: SocketAddr,
        session: Session,
        purpose: Purpose,
        now: Instant,
    ) -> Self {
        Self {
            stream,
            address,
            purpose,
            connecting: matches!(purpose, Purpose::ToPeer { .. }),
            readable: false,
            writable: false,
            opened: now,
            heard: now,
            pinged: now,
            ping_open: false,
            end: None,
            session,
            input: Vec::new(),
            out: Vec::new(),
            sent: 0,
            stalled: None,
        }
    }

    /// Ends it, unless it has ended already: the first reason counts.
    pub(super) fn close(&mut self, words: impl Into<String>) {
        self.end.get_or_insert_with(|| End::Plain(words.into()));
    }

    /// Ends it for a reason that somebody should look at.
    pub(super) fn close_loud(&mut self, words: impl Into<String>) {
        self.end.get_or_insert_with(|| End::Loud(words.into()));
    }

    /// Whether the other side's certificate bears a name.
    pub(super) fn certified(&self, name: &str) -> bool {
        self.session.certified(name)
    }

    /// Reads once, into `chunk`. Says whether anything came.
    pub(super) fn fill(&mut self, chunk: &mut [u8; READ_CHUNK], now: Instant) -> bool {
        match self.stream.read(chunk) {
            Ok(0) => {
                self.readable = false;
                self.close("the other side closed it");
                false
            }
            Ok(count) => {
                self.heard = now;
                if let Err(error) = self.session.open(&chunk[..count], &mut self.input, &mut self.out) {
                    self.close_loud(explain(&error));
                }
                true
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                false
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => {
                self.readable = false;
                self.close(error.to_string());
                false
            }
        }
    }

    /// Gives the bytes that are not yet frames out of hand; [`Self::put_back`] returns what is left of them.
    pub(super) fn take_input(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Keeps what follows the first `taken` bytes.
    pub(super) fn put_back(&mut self, mut input: Vec<u8>, taken: usize) {
        // One burst must not hold its memory for ever.
        if taken == input.len() && input.capacity() > 16 * READ_CHUNK {
            input = Vec::new();
        } else {
            input.drain(..taken);
        }
        self.input = input;
    }

    /// Puts a frame in line for the socket.
    pub(super) fn put(&mut self, kind: Kind, body: &[u8]) {
        let mut plain = Vec::with_capacity(frame::HEADER_LEN + body.len());
        frame::put(kind, &[body], &mut plain);
        self.seal(&plain);
    }

    /// Puts whole frames in line for the socket.
    pub(super) fn seal(&mut self, frames: &[u8]) {
        self.session.seal(frames, &mut self.out);
    }

    /// Bytes that the socket has not taken yet.
    pub(super) fn backlog(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether the socket has taken nothing of what waits for so long.
    pub(super) fn stalled_since(&self) -> Option<Instant> {
        self.stalled
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self, now: Instant) {
        if self.connecting {
            return;
        }
        while self.sent < self.out.len() && self.writable {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(0) => {
                    self.writable = false;
                    self.close("the socket takes nothing any more");
                }
                Ok(count) => {
                    self.sent += count;
                    self.stalled = None;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.stalled.get_or_insert(now);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    self.writable = false;
                    self.close(error.to_string());
                }
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            if self.out.capacity() > 64 * READ_CHUNK {
                self.out = Vec::new();
            }
        } else if self.sent > 16 * READ_CHUNK {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// When it is to be looked at again, if nothing happens before.
    pub(super) fn deadline(&self, limits: &super::Limits) -> Instant {
        let own = match self.purpose {
            Purpose::ToPeer { .. } if self.connecting => self.opened + limits.connect_timeout,
            Purpose::Knocking | Purpose::ToPeer { up: false, .. } => self.opened + limits.login_timeout,
            Purpose::FromPeer(_) => self.heard + limits.idle_limit,
            Purpose::ToPeer { up: true, .. } if self.ping_open => self.pinged + limits.idle_limit,
            Purpose::ToPeer { up: true, .. } => self.pinged + limits.ping_interval,
            Purpose::Service { busy: false, .. } => self.heard + limits.service_idle,
            // The answer comes when it comes; the caller has a deadline of its own.
            Purpose::Service { busy: true, .. } => self.heard + Duration::from_secs(3600),
        };
        self.stalled.map_or(own, |since| own.min(since + limits.idle_limit))
    }
}

/// Says a TLS failure in words that name what to look at.
pub(super) fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};
    match error {
        Error::InvalidMessage(_) => format!("what came is not TLS, or damaged: {error}"),
        Error::NoCertificatesPresented => "it showed no certificate".to_owned(),
        Error::InvalidCertificate(Certificate::UnknownIssuer) => {
            "its certificate is of another authority (UnknownIssuer)".to_owned()
        }
        Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. }) => {
            format!("its certificate has expired: {error}")
        }
        Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        ) => {
            format!("its certificate is another node's: {error}")
        }
        Error::InvalidCertificate(_) => format!("its certificate is no good here: {error}"),
        Error::AlertReceived(Alert::UnknownCA) => "it does not know our authority (UnknownCA)".to_owned(),
        Error::AlertReceived(alert) => format!("it refuses ours: {alert:?}"),
        other => other.to_string(),
    }
}

/// Says a framing failure, with what was probably meant.
pub(super) fn explain_frame(error: FrameError, knocking: bool) -> String {
    if knocking { format!("what came is no link's Hello: {error}") } else { error.to_string() }
}
