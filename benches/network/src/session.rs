//! Sessions of the binary protocol, taken up many at a time: every connection says its part before any answer is
//! waited for, so a thousand logins take little longer than one.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signer, SigningKey};
use grid_wire::{Establish, Flow, Message, Negotiate, SCHEMA_VERSION, Signature};

use crate::Failure;

/// Logins under way at one time; a gateway verifies so many and tells the others to come back.
const AT_ONCE: usize = 128;
/// How long a venue may take to answer a login.
const PATIENCE: Duration = Duration::from_secs(30);

/// A live session and its socket, still blocking.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) stream: TcpStream,
    /// The number of its next request.
    pub(crate) client_seq: u64,
    /// The number of the venue's next report.
    pub(crate) report: u64,
    /// Bytes that came behind the last answer.
    pub(crate) input: Vec<u8>,
}

struct Login<'a> {
    stream: TcpStream,
    input: Vec<u8>,
    nonce: [u8; 32],
    session: u128,
    key: &'a SigningKey,
}

impl Login<'_> {
    /// The next message, heartbeats excepted.
    fn hear<R>(&mut self, take: impl Fn(&Message<'_>) -> Option<R>) -> Result<R, Failure> {
        loop {
            if let Some((frame, length)) = grid_wire::scan(&self.input, grid_wire::MAX_FRAME_LEN)? {
                let message = Message::decode(&frame)?;
                let taken = take(&message);
                let is_heartbeat = matches!(message, Message::Sequence(_));
                let said = format!("{message:?}");
                self.input.drain(..length);
                match taken {
                    Some(taken) => return Ok(taken),
                    None if is_heartbeat => continue,
                    None => return Err(format!("the venue answered a login with {said}").into()),
                }
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk)? {
                0 => return Err("the venue closed the connection during the login".into()),
                count => self.input.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn negotiate(&mut self) -> Result<(), Failure> {
        let mut message = Negotiate {
            session: self.session,
            client_nonce: rand::random(),
            fingerprint: fingerprint(self.key),
            timestamp: utc_now(),
            schema_version: SCHEMA_VERSION,
            client_flow: Flow::Idempotent,
            server_flow: Flow::Recoverable,
            ..Negotiate::default()
        };
        let transcript = grid_wire::negotiate_transcript(&self.nonce, &message);
        message.signature = Signature(self.key.sign(&transcript).to_bytes());
        let mut out = Vec::new();
        message.encode(&mut out);
        Ok(self.stream.write_all(&out)?)
    }

    fn establish(&mut self) -> Result<(), Failure> {
        let mut message = Establish {
            session: self.session,
            client_nonce: rand::random(),
            fingerprint: fingerprint(self.key),
            timestamp: utc_now(),
            next_seq: 1,
            // Longer than any round: a session that only listens for a while is not given up.
            keep_alive_ms: 60_000,
            schema_version: SCHEMA_VERSION,
            ..Establish::default()
        };
        let transcript = grid_wire::establish_transcript(&self.nonce, &message);
        message.signature = Signature(self.key.sign(&transcript).to_bytes());
        let mut out = Vec::new();
        message.encode(&mut out);
        Ok(self.stream.write_all(&out)?)
    }
}

fn fingerprint(key: &SigningKey) -> [u8; 32] {
    grid_engine::Fingerprint::of(&key.verifying_key().to_bytes()).0
}

fn utc_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address).map_err(|error| {
        format!("cannot connect to {address}: {error}; many connections need `ulimit -n` above their number, on both sides")
    })?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// New sessions at a venue, `count` of them, their keys in turn from `keys`.
pub(crate) fn open(address: SocketAddr, keys: &[SigningKey], count: usize) -> Result<Vec<Session>, Failure> {
    let mut sessions = Vec::with_capacity(count);
    let mut keys = keys.iter().cycle();
    while sessions.len() < count {
        let batch = AT_ONCE.min(count - sessions.len());
        let mut logins = Vec::with_capacity(batch);
        for key in keys.by_ref().take(batch) {
            let session = rand::random::<u128>() | 1;
            logins.push(Login { stream: connect(address)?, input: Vec::new(), nonce: [0; 32], session, key });
        }
        for login in &mut logins {
            login.nonce = login.hear(|message| match message {
                Message::Hello(hello) => Some(hello.server_nonce),
                _ => None,
            })?;
            login.negotiate()?;
        }
        for login in &mut logins {
            login.hear(|message| matches!(message, Message::NegotiationResponse(_)).then_some(()))?;
            login.establish()?;
        }
        for mut login in logins {
            let (client_seq, report) = login.hear(|message| match message {
                Message::EstablishmentAck(ack) => Some((ack.last_client_seq + 1, ack.next_seq)),
                _ => None,
            })?;
            sessions.push(Session { stream: login.stream, client_seq, report, input: login.input });
        }
    }
    Ok(sessions)
}
