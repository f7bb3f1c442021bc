//! A client made of the bare protocol, so that it can also do what a good one would not.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ed25519_dalek::{Signer, SigningKey};
use grid_wire::{
    CancelPolicy, Establish, EstablishmentAck, Flow, MAX_FRAME_LEN, Message, Negotiate, NewOrder,
    SCHEMA_VERSION, Side, Signature, TerminateCode, scan,
};

pub(crate) struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    pub(crate) nonce: [u8; 32],
    pub(crate) client_seq: u64,
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64
}

pub(crate) fn fingerprint(key: &SigningKey) -> [u8; 32] {
    grid_engine::Fingerprint::of(&key.verifying_key().to_bytes()).0
}

impl Client {
    /// Connects and hears Hello.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut client = Self::connect_silently(address);
        match client.next() {
            Message::Hello(hello) => client.nonce = hello.server_nonce,
            other => panic!("{other:?} instead of Hello"),
        }
        client
    }

    /// Connects and reads nothing.
    pub(crate) fn connect_silently(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { stream, input: Vec::new(), nonce: [0; 32], client_seq: 0 }
    }

    /// Connects and takes up a session, opening it first.
    pub(crate) fn login(address: SocketAddr, key: &SigningKey, session: u128) -> Self {
        let mut client = Self::connect(address);
        client.negotiate(key, session);
        assert!(matches!(client.next(), Message::NegotiationResponse(_)));
        client.establish(key, session, 60_000, 1, None);
        client.acknowledged();
        client
    }

    pub(crate) fn signed_negotiate(&self, key: &SigningKey, session: u128) -> Negotiate {
        let mut message = Negotiate {
            session,
            client_nonce: [9; 32],
            fingerprint: fingerprint(key),
            timestamp: now(),
            schema_version: SCHEMA_VERSION,
            client_flow: Flow::Idempotent,
            server_flow: Flow::Recoverable,
            ..Negotiate::default()
        };
        let transcript = grid_wire::negotiate_transcript(&self.nonce, &message);
        message.signature = Signature(key.sign(&transcript).to_bytes());
        message
    }

    pub(crate) fn negotiate(&mut self, key: &SigningKey, session: u128) {
        let message = self.signed_negotiate(key, session);
        self.send(|out| message.encode(out));
    }

    pub(crate) fn establish(
        &mut self,
        key: &SigningKey,
        session: u128,
        keep_alive_ms: u32,
        next: u64,
        grace_ms: Option<u32>,
    ) {
        let mut message = Establish {
            session,
            client_nonce: [9; 32],
            fingerprint: fingerprint(key),
            timestamp: now(),
            next_seq: next,
            keep_alive_ms,
            grace_ms: grace_ms.unwrap_or_default(),
            schema_version: SCHEMA_VERSION,
            cancel_policy: grace_ms.map_or(CancelPolicy::Keep, |_| CancelPolicy::CancelAfterGrace),
            ..Establish::default()
        };
        let transcript = grid_wire::establish_transcript(&self.nonce, &message);
        message.signature = Signature(key.sign(&transcript).to_bytes());
        self.send(|out| message.encode(out));
    }

    pub(crate) fn acknowledged(&mut self) -> EstablishmentAck {
        match self.next() {
            Message::EstablishmentAck(ack) => ack,
            other => panic!("{other:?} instead of an acknowledgement"),
        }
    }

    pub(crate) fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut out = Vec::new();
        encode(&mut out);
        self.send_bytes(&out);
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends what may find the door closed already.
    pub(crate) fn try_send_bytes(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn next_seq(&mut self) -> u64 {
        self.client_seq += 1;
        self.client_seq
    }

    /// A limit order, its number returned.
    pub(crate) fn order(&mut self, side: Side, price: u64, qty: u64) -> u64 {
        let client_seq = self.next_seq();
        let order = NewOrder { client_seq, side, price, qty, ..NewOrder::default() };
        self.send(|out| order.encode(out));
        client_seq
    }

    /// The next message, heartbeats included; `None` when the venue closed.
    pub(crate) fn try_next(&mut self) -> Option<Message<'static>> {
        // A test's few frames may live as long as the test.
        let frame: &'static [u8] = Box::leak(self.try_frame()?.into_boxed_slice());
        let (frame, _) = scan(frame, MAX_FRAME_LEN).unwrap().unwrap();
        Some(Message::decode(&frame).unwrap())
    }

    /// The next frame's bytes.
    pub(crate) fn try_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((_, length)) = scan(&self.input, MAX_FRAME_LEN).unwrap() {
                return Some(self.input.drain(..length).collect());
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next message that is no heartbeat.
    pub(crate) fn next(&mut self) -> Message<'static> {
        loop {
            match self.try_next() {
                Some(Message::Sequence(_)) => {}
                Some(message) => return message,
                None => panic!("the venue closed the connection"),
            }
        }
    }

    /// Everything up to the Terminate with which the venue closes.
    pub(crate) fn terminated(&mut self) -> (Vec<Message<'static>>, TerminateCode) {
        let (before, end) = self.ended();
        (before, end.code)
    }

    /// The same, with all that the Terminate says.
    pub(crate) fn ended(&mut self) -> (Vec<Message<'static>>, grid_wire::Terminate) {
        let (mut before, mut end) = (Vec::new(), None);
        while let Some(message) = self.try_next() {
            match message {
                Message::Terminate(m, _) => end = Some(m),
                other => before.push(other),
            }
        }
        (before, end.expect("a Terminate before the end"))
    }

    pub(crate) fn close(self) {}
}
