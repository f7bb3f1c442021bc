//! Sending a snapshot beside the messages of raft, never before them.
//!
//! Messages go first; a chunk is put on the wire only when nothing else waits and the socket's backlog is short. At most
//! [`WINDOW`] bytes are on their way unacknowledged, so that a message never stands behind more than that, and the
//! receiver never holds more. Files are read and written by a thread of the transfer's own, because a disk that takes its
//! time must not keep heartbeats waiting. Whatever breaks fails the transfer on both ends; it can be begun again.

use std::fmt;
use std::io::{self, Read};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TryRecvError};
use std::thread::JoinHandle;
use std::time::Instant;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::frame::{self, Kind};

/// Bytes of one chunk, the last one excepted.
pub(crate) const CHUNK: usize = 256 * 1024;
/// Bytes that may be on their way without having been written at the other end.
pub(crate) const WINDOW: u64 = 4 * CHUNK as u64;
/// Chunks read ahead of the wire.
const READ_AHEAD: usize = 2;
/// The writer's thread.
const WRITER: &str = "grid-link-write";
/// Bytes before a chunk's own: transfer, offset.
const CHUNK_HEAD: usize = 16;

/// Where an arriving snapshot goes. Runs on the transfer's own thread. One that is dropped without [`finish`](Self::finish)
/// was broken off: what has been written so far is to be removed.
pub trait SnapshotSink: Send {
    /// The next bytes; offsets come in order and without a gap.
    ///
    /// # Errors
    /// Ends the transfer; the sender is told the words.
    fn chunk(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// All bytes have come and their checksum is right. Returns when the snapshot is durable.
    ///
    /// # Errors
    /// Ends the transfer as failed; the sender is told the words.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A snapshot to be sent.
pub(crate) struct SnapshotJob {
    meta: Bytes,
    bytes: u64,
    source: Box<dyn Read + Send>,
}

impl SnapshotJob {
    pub(crate) fn new(meta: Bytes, bytes: u64, source: Box<dyn Read + Send>) -> Self {
        Self { meta, bytes, source }
    }
}

impl fmt::Debug for SnapshotJob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotJob").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) id: u64,
    pub(crate) bytes: u64,
    pub(crate) meta: Vec<u8>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct End {
    pub(crate) id: u64,
    /// Of all bytes.
    pub(crate) crc: u32,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Abort {
    pub(crate) id: u64,
    pub(crate) words: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Ack {
    pub(crate) id: u64,
    /// Bytes from the start that are written.
    pub(crate) written: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) id: u64,
    /// Why it was not taken; `None` if it was.
    pub(crate) refused: Option<String>,
}

/// A chunk's transfer, offset and bytes.
pub(crate) fn read_chunk(body: &[u8]) -> Option<(u64, u64, &[u8])> {
    let (head, bytes) = body.split_first_chunk::<CHUNK_HEAD>()?;
    let (id, offset) = head.split_first_chunk::<8>()?;
    let offset = offset.first_chunk::<8>()?;
    Some((u64::from_le_bytes(*id), u64::from_le_bytes(*offset), bytes))
}

fn put_chunk(id: u64, offset: u64, bytes: &[u8], out: &mut Vec<u8>) {
    frame::put(Kind::SnapshotChunk, &[&id.to_le_bytes(), &offset.to_le_bytes(), bytes], out);
}

/// Bytes of the file and the checksum of everything up to their end.
struct Part {
    bytes: Vec<u8>,
    crc: u32,
}

/// What [`Outgoing::put_next`] did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Put a frame.
    Put,
    /// Nothing to put at this time.
    Nothing,
    /// Put an abort: the source failed.
    Failed(String),
}

/// A snapshot on its way out.
pub(crate) struct Outgoing {
    id: u64,
    bytes: u64,
    meta: Option<Bytes>,
    offset: u64,
    acked: u64,
    crc: u32,
    ended: bool,
    parts: Receiver<io::Result<Part>>,
    /// When it last came forward.
    moved: Instant,
}

impl Outgoing {
    /// Begins to read. `wake` is called whenever there is something to put.
    pub(crate) fn start(
        id: u64,
        job: SnapshotJob,
        now: Instant,
        wake: impl Fn() + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, parts) = mpsc::sync_channel(READ_AHEAD);
        let SnapshotJob { meta, bytes, source } = job;
        std::thread::Builder::new()
            .name("grid-link-read".to_owned())
            .spawn(move || read_ahead(source, bytes, &sender, wake))?;
        Ok(Self { id, bytes, meta: Some(meta), offset: 0, acked: 0, crc: 0, ended: false, parts, moved: now })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn moved(&self) -> Instant {
        self.moved
    }

    /// Puts the next frame, if the window has room for one and its bytes are read.
    pub(crate) fn put_next(&mut self, now: Instant, out: &mut Vec<u8>) -> Step {
        if let Some(meta) = self.meta.take() {
            let begin = Begin { id: self.id, bytes: self.bytes, meta: meta.to_vec() };
            frame::put_value(Kind::SnapshotBegin, &begin, out);
        } else if self.ended {
            return Step::Nothing;
        } else if self.offset == self.bytes {
            frame::put_value(Kind::SnapshotEnd, &End { id: self.id, crc: self.crc }, out);
            self.ended = true;
        } else if self.offset - self.acked >= WINDOW {
            return Step::Nothing;
        } else {
            let failed = match self.parts.try_recv() {
                Ok(Ok(part)) => {
                    put_chunk(self.id, self.offset, &part.bytes, out);
                    self.offset += part.bytes.len() as u64;
                    self.crc = part.crc;
                    None
                }
                Ok(Err(error)) => Some(format!("the snapshot cannot be read: {error}")),
                Err(TryRecvError::Empty) => return Step::Nothing,
                Err(TryRecvError::Disconnected) => Some("the snapshot's reader is gone".to_owned()),
            };
            if let Some(words) = failed {
                frame::put_value(Kind::SnapshotAbort, &Abort { id: self.id, words: words.clone() }, out);
                return Step::Failed(words);
            }
        }
        self.moved = now;
        Step::Put
    }

    /// The other end has written so much.
    pub(crate) fn acked(&mut self, ack: &Ack, now: Instant) -> Result<(), String> {
        if ack.id != self.id {
            return Ok(());
        }
        if ack.written < self.acked || ack.written > self.offset {
            return Err(format!("{} bytes are acknowledged, {} were sent", ack.written, self.offset));
        }
        self.acked = ack.written;
        self.moved = now;
        Ok(())
    }
}

fn read_ahead(
    mut source: Box<dyn Read + Send>,
    bytes: u64,
    parts: &SyncSender<io::Result<Part>>,
    wake: impl Fn(),
) {
    let mut left = bytes;
    let mut crc = 0;
    while left > 0 {
        let mut chunk = vec![0; left.min(CHUNK as u64) as usize];
        let part = source.read_exact(&mut chunk).map(|()| {
            crc = crc32c::crc32c_append(crc, &chunk);
            left -= chunk.len() as u64;
            Part { bytes: chunk, crc }
        });
        let failed = part.is_err();
        // Nobody waits for it any more when the transfer was given up.
        if parts.send(part).is_err() {
            return;
        }
        wake();
        if failed {
            return;
        }
    }
}

/// What a transfer's writer tells.
#[derive(Debug)]
pub(crate) enum Report {
    /// Bytes from the start that are written.
    Written(u64),
    /// The last word.
    Over(Result<(), String>),
}

enum Write {
    Chunk(u64, Vec<u8>),
    Finish,
}

/// A snapshot on its way in: checks the order and bounds of what comes, and hands it to the writer.
pub(crate) struct Incoming {
    id: u64,
    bytes: u64,
    received: u64,
    written: u64,
    crc: u32,
    /// `None` when nothing more will be written.
    writes: Option<Sender<Write>>,
    ended: bool,
    /// Why it was broken off.
    failed: Option<String>,
    writer: Option<JoinHandle<()>>,
}

impl Incoming {
    /// Begins to write. Reports come from the writer's thread; `Over` is the last one and always comes.
    pub(crate) fn start(
        id: u64,
        bytes: u64,
        sink: Box<dyn SnapshotSink>,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let (writes, jobs) = mpsc::channel();
        let writer = std::thread::Builder::new().name(WRITER.to_owned()).spawn(move || {
            // Without a last word the transfer would never end.
            let outcome = grid_sequencer::abort_on_panic(WRITER, || write_all(sink, &jobs, &report));
            report(Report::Over(outcome));
        })?;
        Ok(Self {
            id,
            bytes,
            received: 0,
            written: 0,
            crc: 0,
            writes: Some(writes),
            ended: false,
            failed: None,
            writer: Some(writer),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Takes a chunk.
    pub(crate) fn chunk(&mut self, offset: u64, bytes: &[u8]) {
        let len = bytes.len() as u64;
        if offset != self.received || self.ended || len > CHUNK as u64 || self.received + len > self.bytes {
            let expected = self.received;
            self.break_off(format!(
                "a chunk of {len} bytes at {offset}, where one at {expected} was expected"
            ));
        } else if self.received + len - self.written > WINDOW {
            self.break_off(format!("more than {WINDOW} bytes are on their way"));
        } else {
            self.received += len;
            self.crc = crc32c::crc32c_append(self.crc, bytes);
            self.give(Write::Chunk(offset, bytes.to_vec()));
        }
    }

    /// The sender says that this was all.
    pub(crate) fn end(&mut self, crc: u32) {
        if self.received != self.bytes {
            self.break_off(format!("it ended after {} of {} bytes", self.received, self.bytes));
        } else if self.crc != crc {
            self.break_off("its checksum is wrong".to_owned());
        } else if !self.ended {
            self.ended = true;
            self.give(Write::Finish);
        }
    }

    /// So much is written.
    pub(crate) fn written(&mut self, written: u64) {
        self.written = written;
    }

    /// Nothing more will come. Changes nothing when everything has come already: then the writer's word counts.
    pub(crate) fn break_off(&mut self, words: String) {
        if !self.ended {
            self.writes = None;
            self.failed.get_or_insert(words);
        }
    }

    /// The transfer's outcome, from the writer's last word.
    pub(crate) fn outcome(mut self, writer: Result<(), String>) -> Result<(), String> {
        self.join();
        match (self.failed.take(), writer) {
            (Some(words), Err(_)) => Err(words),
            (_, outcome) => outcome,
        }
    }

    /// Waits for the writer's thread, which is at its end or about to notice that it is.
    pub(crate) fn join(&mut self) {
        self.writes = None;
        if let Some(writer) = self.writer.take() {
            // A panic in a sink has ended the process already.
            let _ = writer.join();
        }
    }

    fn give(&self, write: Write) {
        if let Some(writes) = &self.writes {
            // The writer is gone when it failed; it has said so in its last report.
            let _ = writes.send(write);
        }
    }
}

fn write_all(
    mut sink: Box<dyn SnapshotSink>,
    jobs: &Receiver<Write>,
    report: &impl Fn(Report),
) -> Result<(), String> {
    while let Ok(job) = jobs.recv() {
        match job {
            Write::Chunk(offset, bytes) => {
                sink.chunk(offset, &bytes).map_err(|error| format!("it cannot be written: {error}"))?;
                report(Report::Written(offset + bytes.len() as u64));
            }
            Write::Finish => {
                return sink.finish().map_err(|error| format!("it cannot be finished: {error}"));
            }
        }
    }
    Err("it was broken off".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Debug, Default)]
    struct Kept {
        bytes: Vec<u8>,
        finished: bool,
        dropped: bool,
    }

    struct Memory {
        kept: Arc<Mutex<Kept>>,
        fails_at: Option<u64>,
    }

    impl SnapshotSink for Memory {
        fn chunk(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
            if self.fails_at.is_some_and(|at| offset >= at) {
                return Err(io::Error::other("no space"));
            }
            let mut kept = self.kept.lock().unwrap();
            assert_eq!(kept.bytes.len() as u64, offset);
            kept.bytes.extend_from_slice(bytes);
            Ok(())
        }

        fn finish(self: Box<Self>) -> io::Result<()> {
            self.kept.lock().unwrap().finished = true;
            Ok(())
        }
    }

    impl Drop for Memory {
        fn drop(&mut self) {
            self.kept.lock().unwrap().dropped = true;
        }
    }

    struct Bench {
        outgoing: Outgoing,
        woken: Receiver<()>,
        incoming: Incoming,
        reports: Receiver<Report>,
        kept: Arc<Mutex<Kept>>,
    }

    fn bench(file: Vec<u8>, said_len: u64, fails_at: Option<u64>) -> Bench {
        let (wake, woken) = mpsc::channel();
        let job = SnapshotJob::new(Bytes::from_static(b"meta"), said_len, Box::new(io::Cursor::new(file)));
        let outgoing = Outgoing::start(5, job, Instant::now(), move || _ = wake.send(())).unwrap();
        let kept = Arc::new(Mutex::new(Kept::default()));
        let sink = Memory { kept: Arc::clone(&kept), fails_at };
        let (report, reports) = mpsc::channel();
        let incoming =
            Incoming::start(5, said_len, Box::new(sink), move |said| _ = report.send(said)).unwrap();
        Bench { outgoing, woken, incoming, reports, kept }
    }

    /// Carries frames over until the writer has its last word or the source fails.
    fn carry(bench: &mut Bench, mut change: impl FnMut(Kind, &mut Vec<u8>)) -> Result<(), String> {
        let mut out = Vec::new();
        loop {
            out.clear();
            match bench.outgoing.put_next(Instant::now(), &mut out) {
                Step::Failed(words) => {
                    bench.incoming.break_off(words);
                    break;
                }
                Step::Put => {
                    let found = frame::first(&out, 1 << 20).unwrap().unwrap();
                    let (kind, mut body) = (found.kind, found.body.to_vec());
                    change(kind, &mut body);
                    match kind {
                        Kind::SnapshotBegin => {
                            let begin: Begin = frame::from_bytes(&body).unwrap();
                            assert_eq!(begin.meta, b"meta");
                        }
                        Kind::SnapshotChunk => {
                            let (_, offset, bytes) = read_chunk(&body).unwrap();
                            bench.incoming.chunk(offset, bytes);
                        }
                        Kind::SnapshotEnd => {
                            bench.incoming.end(frame::from_bytes::<End>(&body).unwrap().crc);
                            break;
                        }
                        other => panic!("{other:?}"),
                    }
                }
                // Either the source or the window; both wake in time.
                Step::Nothing if bench.outgoing.offset - bench.outgoing.acked >= WINDOW => {
                    match bench.reports.recv().unwrap() {
                        Report::Written(written) => {
                            bench.incoming.written(written);
                            bench.outgoing.acked(&Ack { id: 5, written }, Instant::now()).unwrap();
                        }
                        Report::Over(outcome) => return outcome,
                    }
                }
                Step::Nothing => bench.woken.recv().unwrap(),
            }
        }
        loop {
            if let Report::Over(outcome) = bench.reports.recv().unwrap() {
                return outcome;
            }
        }
    }

    fn file(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
    }

    #[test]
    fn a_file_arrives_whole_whatever_its_size() {
        for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 7 * CHUNK + 5] {
            let file = file(len);
            let mut bench = bench(file.clone(), len as u64, None);
            assert_eq!(carry(&mut bench, |_, _| {}), Ok(()));
            let kept = bench.kept.lock().unwrap();
            assert!(kept.finished && kept.bytes == file, "{len} bytes");
        }
    }

    #[test]
    fn a_source_that_ends_early_fails_and_nothing_is_kept() {
        let mut bench = bench(file(CHUNK), 2 * CHUNK as u64, None);
        carry(&mut bench, |_, _| {}).unwrap_err();
        let Bench { incoming, kept, .. } = bench;
        let words = incoming.outcome(Err("it was broken off".to_owned())).unwrap_err();
        assert!(words.contains("cannot be read"), "{words}");
        let kept = kept.lock().unwrap();
        assert!(kept.dropped && !kept.finished);
    }

    #[test]
    fn a_changed_byte_fails_at_the_end() {
        let mut bench = bench(file(3 * CHUNK), 3 * CHUNK as u64, None);
        carry(&mut bench, |kind, body| {
            if kind == Kind::SnapshotChunk {
                body[CHUNK_HEAD + 9] ^= 1;
            }
        })
        .unwrap_err();
        assert_eq!(bench.incoming.failed.as_deref(), Some("its checksum is wrong"));
        assert!(!bench.kept.lock().unwrap().finished);
    }

    #[test]
    fn a_chunk_out_of_order_and_one_outside_the_window_break_it_off() {
        let mut skipped = bench(file(0), 10 * CHUNK as u64, None);
        skipped.incoming.chunk(CHUNK as u64, &[0; 5]);
        assert!(skipped.incoming.failed.is_some());
        let mut rushed = bench(file(0), 10 * CHUNK as u64, None);
        for at in 0..5_u64 {
            assert!(rushed.incoming.failed.is_none());
            // Whatever the writer has done, nobody has noted it here.
            rushed.incoming.chunk(at * CHUNK as u64, &[0; CHUNK]);
        }
        assert!(rushed.incoming.failed.is_some());
    }

    #[test]
    fn a_full_disk_is_the_outcome_in_its_own_words() {
        let mut bench = bench(file(3 * CHUNK), 3 * CHUNK as u64, Some(CHUNK as u64));
        assert_eq!(carry(&mut bench, |_, _| {}), Err("it cannot be written: no space".to_owned()));
    }
}
