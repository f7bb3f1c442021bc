//! Processes that are measured: how they start and end, and what the kernel says they took.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::part::AS_PART;

/// How long a program of others may take to start.
const PATIENCE: Duration = Duration::from_secs(120);

/// A process that ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    /// What a part says; programs of others, which may have children, say nothing to us.
    lines: Option<Lines<BufReader<ChildStdout>>>,
    is_venue: bool,
}

impl Process {
    /// Starts a part of ours; where it listens.
    pub(crate) fn part(program: &Path, words: &[&str]) -> Result<(Self, SocketAddr), Failure> {
        let mut child = Command::new(program)
            .arg(AS_PART)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let lines = child.stdout.take().map(|output| BufReader::new(output).lines());
        let mut process = Self { child, lines, is_venue: words[0] == "venue" };
        let address = process.line()?.parse()?;
        Ok((process, address))
    }

    /// Starts a program of others.
    pub(crate) fn program(command: &mut Command, log: &Path) -> Result<Self, Failure> {
        let out = fs::File::create(log)?;
        let error = out.try_clone()?;
        let child = command.stdin(Stdio::null()).stdout(out).stderr(error).spawn()?;
        Ok(Self { child, lines: None, is_venue: false })
    }

    /// The next line that a part says.
    fn line(&mut self) -> Result<String, Failure> {
        let said = self.lines.as_mut().and_then(Iterator::next);
        Ok(said.ok_or("a part of the bench ended before it said where it is")??)
    }

    /// Waits until `try_it` works, as long as the process lives.
    pub(crate) fn wait_until<T>(
        &mut self,
        mut try_it: impl FnMut() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let begin = Instant::now();
        loop {
            match try_it() {
                Ok(done) => return Ok(done),
                Err(error) if begin.elapsed() > PATIENCE => return Err(error),
                Err(error) => {
                    if let Some(status) = self.child.try_wait()? {
                        return Err(format!("it ended with {status}: {error}").into());
                    }
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
    }

    /// Ends a part in good order; its last line.
    pub(crate) fn end(mut self) -> Result<Option<String>, Failure> {
        drop(self.child.stdin.take());
        let last = self.lines.take().and_then(|lines| lines.map_while(Result::ok).last());
        let status = self.child.wait()?;
        if status.success() {
            Ok(last)
        } else {
            Err(format!("a part of the bench ended with {status}").into())
        }
    }

    /// What it and its children have taken so far.
    pub(crate) fn usage(&self) -> Usage {
        let (mut usage, parents) =
            (Usage::default(), if self.lines.is_some() { Vec::new() } else { parents() });
        let mut found = vec![self.child.id()];
        while let Some(process) = found.pop() {
            usage.add(process, self.is_venue);
            found.extend(parents.iter().filter(|(_, parent)| *parent == process).map(|(child, _)| child));
        }
        usage
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // What has ended already can't be ended again, which is fine. Programs of others end their own children.
        if let Ok(Some(_)) = self.child.try_wait() {
            return;
        }
        let gently = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        if let Some(process) = gently {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
        }
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            if let Ok(Some(_)) = self.child.try_wait() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Processor time and memory of a process and its children. Nothing where the kernel does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Nanoseconds on a core, user and system, of the threads that carry calls: all, but of the venue the tier's only.
    pub(crate) calls_ns: u64,
    /// Of all other threads: the venue's core.
    pub(crate) core_ns: u64,
    /// Bytes in memory.
    pub(crate) resident: u64,
}

/// Threads of a venue that are its tier's.
const TIER: &str = "tier";

impl Usage {
    fn add(&mut self, process: u32, is_venue: bool) {
        for task in fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let read = |file| fs::read_to_string(task.path().join(file)).unwrap_or_default();
            let ns = read("schedstat").split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0);
            let name = read("comm");
            let of_core = is_venue && name.trim() != TIER;
            *(if of_core { &mut self.core_ns } else { &mut self.calls_ns }) += ns;
        }
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes =
            resident.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        self.resident += kilobytes.unwrap_or(0) << 10;
    }

    /// What has been taken since.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            calls_ns: self.calls_ns.saturating_sub(before.calls_ns),
            core_ns: self.core_ns.saturating_sub(before.core_ns),
            resident: self.resident.saturating_sub(before.resident),
        }
    }
}

/// Bytes of this process in memory.
pub(crate) fn own_memory() -> u64 {
    memory("self")
}

fn memory(process: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = resident.and_then(|text| text.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// Every process with its parent, as far as the kernel tells.
fn parents() -> Vec<(u32, u32)> {
    let mut all = Vec::new();
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        // After the name, which may hold anything: the state, then the parent.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        all.extend(parent.map(|parent| (id, parent)));
    }
    all
}
