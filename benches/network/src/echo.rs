//! The floor of every row here: a bare `mio` loop that answers each request frame with one report frame of the usual
//! length. No venue is behind it, but it reads frames, writes frames, and says Hello to a login as a gateway would, so
//! the same generator runs against it. One read and one write per socket and turn.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use grid_wire::{
    CancelOrder, EstablishmentAck, ExecType, ExecutionReport, HEADER_LEN, Hello, Message,
    NegotiationResponse, NewOrder, scan,
};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use crate::{Failure, Wait};

const LISTENER: Token = Token(usize::MAX);
const STOP: Token = Token(usize::MAX - 1);
const CHUNK: usize = 64 * 1024;
/// Where a report says its number, the request's, the order and what happened.
const REPORT_SEQ: usize = HEADER_LEN;
const REPORT_CLIENT_SEQ: usize = HEADER_LEN + 24;
const REPORT_ORDER: usize = HEADER_LEN + 32;
const REPORT_EXEC: usize = HEADER_LEN + 111;
/// Where a request says its number, and a cancel the order.
const CLIENT_SEQ: usize = HEADER_LEN;
const CANCEL_ORDER: usize = HEADER_LEN + 32;

/// A running echo; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl Echo {
    /// Serves on a free port of loopback, pinned to a core where one is given.
    pub(crate) fn start(wait: Wait, core: Option<usize>) -> Result<Self, Failure> {
        let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
        let address = listener.local_addr()?;
        let poll = Poll::new()?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), STOP)?);
        let stop = Arc::new(AtomicBool::new(false));
        let serving = Serving { listener, poll, wait, stop: Arc::clone(&stop) };
        let thread = std::thread::Builder::new().name("echo".to_owned()).spawn(move || {
            if let Some(core) = core {
                crate::pin(core);
            }
            if let Err(error) = serving.run() {
                eprintln!("the echo ended: {error}");
            }
        })?;
        Ok(Self { address, stop, waker, thread: Some(thread) })
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Serving {
    listener: TcpListener,
    poll: Poll,
    wait: Wait,
    stop: Arc<AtomicBool>,
}

struct Line {
    stream: TcpStream,
    held: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    reports: u64,
}

impl Serving {
    fn run(mut self) -> Result<(), Failure> {
        let mut lines: Vec<Option<Line>> = Vec::new();
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 2 * CHUNK];
        let mut report = Vec::new();
        ExecutionReport { exec_type: ExecType::New, ..ExecutionReport::default() }.encode(&mut report);
        let limit = (self.wait == Wait::Spin).then_some(Duration::ZERO);
        while !self.stop.load(Ordering::Acquire) {
            match self.poll.poll(&mut events, limit) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in events.iter() {
                match event.token() {
                    LISTENER => self.accept(&mut lines)?,
                    STOP => {}
                    Token(at) => {
                        let Some(line) = &mut lines[at] else { continue };
                        let whole =
                            if event.is_readable() { line.serve(&mut scratch, &report)? } else { true };
                        if !(whole && line.write()?) {
                            lines[at] = None;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, lines: &mut Vec<Option<Line>>) -> Result<(), Failure> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(lines.len()), both)?;
            let mut line = Line { stream, held: Vec::new(), out: Vec::new(), sent: 0, reports: 0 };
            Hello::default().encode(&mut line.out);
            line.write()?;
            lines.push(Some(line));
        }
    }
}

fn number(frame: &[u8], at: usize) -> u64 {
    frame.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Line {
    /// Reads once and answers every whole frame; false when the client has gone.
    fn serve(&mut self, scratch: &mut [u8], report: &[u8]) -> Result<bool, Failure> {
        loop {
            let held = self.held.len();
            scratch[..held].copy_from_slice(&self.held);
            self.held.clear();
            let room = scratch.len() - held;
            let count = match self.stream.read(&mut scratch[held..]) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Ok(false),
            };
            let bytes = &scratch[..held + count];
            let mut at = 0;
            while let Some((frame, length)) = scan(&bytes[at..], grid_wire::MAX_FRAME_LEN)? {
                let whole = &bytes[at..at + length];
                at += length;
                match frame.template {
                    NewOrder::TEMPLATE => {
                        self.answer(whole, report, number(whole, CLIENT_SEQ), ExecType::New)
                    }
                    CancelOrder::TEMPLATE => {
                        self.answer(whole, report, number(whole, CANCEL_ORDER), ExecType::Cancelled);
                    }
                    _ => match Message::decode(&frame)? {
                        Message::Negotiate(_) => NegotiationResponse::default().encode(&mut self.out),
                        Message::Establish(_) => {
                            EstablishmentAck { next_seq: 1, ..Default::default() }.encode(&mut self.out);
                        }
                        _ => {}
                    },
                }
            }
            self.held.extend_from_slice(&bytes[at..]);
            if count < room {
                return Ok(true);
            }
        }
    }

    fn answer(&mut self, request: &[u8], report: &[u8], order: u64, exec: ExecType) {
        self.reports += 1;
        let start = self.out.len();
        self.out.extend_from_slice(report);
        let out = &mut self.out[start..];
        out[REPORT_SEQ..REPORT_SEQ + 8].copy_from_slice(&self.reports.to_le_bytes());
        out[REPORT_CLIENT_SEQ..REPORT_CLIENT_SEQ + 8].copy_from_slice(&request[CLIENT_SEQ..CLIENT_SEQ + 8]);
        out[REPORT_ORDER..REPORT_ORDER + 8].copy_from_slice(&order.to_le_bytes());
        out[REPORT_EXEC] = exec as u8;
    }

    /// Writes what the socket takes; false when it is dead.
    fn write(&mut self) -> Result<bool, Failure> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(true)
    }
}
