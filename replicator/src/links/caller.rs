//! A connection for whoever can wait: the operator's tool, and a node that repairs its journal before it starts. The same
//! frames and sessions as the loop's, over a socket that blocks until a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::connection::explain;
use super::frame::{self, Hello, Kind, Refusal, Welcome};
use super::session::{Security, Session};

/// The longest answer taken.
const BODY_MAX: usize = 64 << 20;

/// Why a call brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The caller's own certificates are no good.
    #[error("this identity is no good: {0}")]
    Identity(String),
    /// Nobody there, or the connection broke.
    #[error("{address}: {source}")]
    Connection {
        /// Who was called.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// No answer in time; a request that was sent may still be done.
    #[error("{0} did not answer in time; what was asked may still be done")]
    Timeout(SocketAddr),
    /// The two do not trust each other.
    #[error("{address}: {words}")]
    Tls {
        /// Who was called.
        address: SocketAddr,
        /// What is wrong with the certificates.
        words: String,
    },
    /// The node does not take the connection.
    #[error("{address} refuses: {refusal}")]
    Refused {
        /// Who was called.
        address: SocketAddr,
        /// What it says.
        refusal: Refusal,
    },
    /// Bytes that are no answer.
    #[error("{address} does not speak as a node does: {words}")]
    Nonsense {
        /// Who was called.
        address: SocketAddr,
        /// What came.
        words: String,
    },
}

/// A connection that waits.
#[derive(Debug)]
pub(crate) struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    session: Session,
    input: Vec<u8>,
    out: Vec<u8>,
    deadline: Instant,
}

impl Caller {
    /// Connects and logs in.
    pub(crate) fn connect(
        address: SocketAddr,
        security: &Security,
        name: &str,
        hello: &Hello,
        deadline: Instant,
    ) -> Result<Self, CallError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(CallError::Timeout(address));
        }
        let session =
            security.dial(name).map_err(|error| CallError::Tls { address, words: explain(&error) })?;
        let stream = TcpStream::connect_timeout(&address, left).map_err(|source| match source.kind() {
            ErrorKind::TimedOut => CallError::Timeout(address),
            _ => CallError::Connection { address, source },
        })?;
        // Requests are small and waited for.
        let _ = stream.set_nodelay(true);
        let mut caller = Self { stream, address, session, input: Vec::new(), out: Vec::new(), deadline };
        let mut frames = Vec::new();
        hello.put(&mut frames);
        caller.send(&frames)?;
        let welcome = caller.receive(Kind::Welcome)?;
        frame::from_bytes::<Welcome>(&welcome)
            .ok_or_else(|| caller.nonsense("a Welcome that cannot be read"))?;
        Ok(caller)
    }

    /// Until when to wait from now on.
    pub(crate) fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn exchange(&mut self, kind: Kind, body: &[u8], answer: Kind) -> Result<Vec<u8>, CallError> {
        let mut frames = Vec::new();
        frame::put(kind, &[body], &mut frames);
        self.send(&frames)?;
        self.receive(answer)
    }

    /// An error about what came.
    pub(crate) fn nonsense(&self, words: impl Into<String>) -> CallError {
        CallError::Nonsense { address: self.address, words: words.into() }
    }

    fn send(&mut self, frames: &[u8]) -> Result<(), CallError> {
        self.session.seal(frames, &mut self.out);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), CallError> {
        let mut sent = 0;
        while sent < self.out.len() {
            self.stream.set_write_timeout(Some(self.left()?)).map_err(|source| self.failed(source))?;
            match self.stream.write(&self.out[sent..]) {
                Ok(0) => return Err(self.failed(ErrorKind::WriteZero.into())),
                Ok(count) => sent += count,
                Err(error) if waits(&error) => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// The next frame, which must be of a kind.
    fn receive(&mut self, wanted: Kind) -> Result<Vec<u8>, CallError> {
        let mut chunk = vec![0; 64 * 1024];
        loop {
            match frame::first(&self.input, BODY_MAX) {
                Ok(Some(found)) => {
                    let (kind, body, len) = (found.kind, found.body.to_vec(), found.len);
                    self.input.drain(..len);
                    if kind == wanted {
                        return Ok(body);
                    }
                    if kind == Kind::Refused
                        && let Some(refusal) = frame::from_bytes::<Refusal>(&body)
                    {
                        return Err(CallError::Refused { address: self.address, refusal });
                    }
                    return Err(self.nonsense(format!("{kind:?} where {wanted:?} was expected")));
                }
                Ok(None) => {}
                Err(error) => return Err(self.nonsense(error.to_string())),
            }
            self.stream.set_read_timeout(Some(self.left()?)).map_err(|source| self.failed(source))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(self.failed(ErrorKind::UnexpectedEof.into())),
                Ok(count) => {
                    let opened = self.session.open(&chunk[..count], &mut self.input, &mut self.out);
                    // An alert, if there is one, is worth a try; the reason is ours either way.
                    let flushed = self.flush();
                    opened
                        .map_err(|error| CallError::Tls { address: self.address, words: explain(&error) })?;
                    flushed?;
                }
                Err(error) if waits(&error) => {}
                Err(source) => return Err(self.failed(source)),
            }
        }
    }

    fn left(&self) -> Result<Duration, CallError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(CallError::Timeout(self.address)) } else { Ok(left) }
    }

    fn failed(&self, source: std::io::Error) -> CallError {
        CallError::Connection { address: self.address, source }
    }
}

/// Whether a read or write only ran out of its time, or was interrupted.
fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
