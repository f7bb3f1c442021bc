//! A request trace, replayed open loop: each request leaves at its recorded time whether or not earlier ones have
//! been answered, because that is what makes a burst a burst. Token counts are exact on both ends (the simulated
//! suppliers' counting rule), so what was billed can be compared with what was produced, to the token.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::DataError;

/// One request of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// When it came, after the first of the whole trace.
    pub at: Duration,
    /// Tokens of its prompt.
    pub prompt_tokens: u64,
    /// Tokens that were generated for it.
    pub completion_tokens: u64,
}

/// Reads `count` requests of a trace (`TIMESTAMP,ContextTokens,GeneratedTokens`, xz-compressed), from number `from`
/// on, counted from 0. Their times start with the first of them.
///
/// # Errors
/// A file that can't be read, or a line that is not of the format.
pub fn read_trace(path: &Path, from: usize, count: usize) -> Result<Vec<TraceRow>, DataError> {
    let io = |error| DataError::Io { path: path.into(), error };
    let file = File::open(path).map_err(io)?;
    let mut rows: Vec<TraceRow> = Vec::new();
    let lines = BufReader::new(liblzma::read::XzDecoder::new(file)).lines();
    for (i, line) in lines.enumerate().skip(1 + from).take(count) {
        let row = trace_row(line.map_err(io)?.trim());
        rows.push(row.ok_or_else(|| DataError::Line {
            path: path.into(),
            line: i + 1,
            what: "not a trace's line",
        })?);
    }
    let first = rows.first().map_or(Duration::ZERO, |row| row.at);
    rows.iter_mut().for_each(|row| row.at = row.at.saturating_sub(first));
    Ok(rows)
}

fn trace_row(line: &str) -> Option<TraceRow> {
    let mut fields = line.split(',');
    let at = moment(fields.next()?)?;
    let (prompt, completion) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(TraceRow { at, prompt_tokens: prompt, completion_tokens: completion })
}

/// `2023-11-16 18:17:03.9799600` as time since 0000-03-01, which is as good a start as any.
fn moment(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once(' ')?;
    let mut parts = date.split('-').map(|p| p.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let mut parts = time.split(':');
    let (hours, minutes) = (parts.next()?.parse::<u64>().ok()?, parts.next()?.parse::<u64>().ok()?);
    let (seconds, fraction) = parts.next()?.split_once('.').unwrap_or(("0", "0"));
    let nanos: u64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // Years that begin in March put the leap day last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let whole = ((days * 24 + hours) * 60 + minutes) * 60 + seconds.parse::<u64>().ok()?;
    Some(Duration::from_secs(whole) + Duration::from_nanos(nanos))
}

/// Which answers are asked for as streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Streaming {
    /// None.
    Never,
    /// All.
    Always,
    /// Every other one.
    #[default]
    Mixed,
}

/// Where the trace goes and how fast.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// Base of the OpenAI API, ending in `/v1`.
    pub base_url: String,
    /// The bearer key.
    pub key: String,
    /// The model, or instrument.
    pub model: String,
    /// Recorded time is divided by this.
    pub speed: f64,
    /// Which answers are streamed.
    pub streaming: Streaming,
    /// Requests under way at once, at most; the schedule waits beyond, and the summary says how late it got.
    pub in_flight_max: usize,
    /// Tries again after 402, 429 and 503, so often at most.
    pub retries: u32,
    /// One request may take this long.
    pub timeout: Duration,
}

impl Default for TraceConfig {
    fn default() -> Self {
        Self {
            base_url: String::new(),
            key: String::new(),
            model: String::new(),
            speed: 1.0,
            streaming: Streaming::Mixed,
            in_flight_max: 512,
            retries: 0,
            timeout: Duration::from_secs(120),
        }
    }
}

/// What came of a replay.
#[derive(Clone, Debug, Default, Serialize)]
pub struct TraceSummary {
    /// Requests of the slice.
    pub requests: u64,
    /// Answered 200, whole.
    pub completed: u64,
    /// Last status of each request.
    pub statuses: BTreeMap<u16, u64>,
    /// Tries beyond the first.
    pub retries: u64,
    /// No answer at all, or one that broke off.
    pub broken: u64,
    /// The first few reasons.
    pub errors: Vec<String>,
    /// Prompt tokens by the usage of completed answers.
    pub prompt_tokens: u64,
    /// Completion tokens by the usage of completed answers.
    pub completion_tokens: u64,
    /// Prompt tokens that completed requests had.
    pub prompt_tokens_sent: u64,
    /// Completion tokens that completed requests had asked for.
    pub completion_tokens_wanted: u64,
    /// Completed answers without usage.
    pub without_usage: u64,
    /// From first request to last answer, milliseconds.
    pub duration_ms: u64,
    /// Answer time from the planned moment, milliseconds: median.
    pub latency_ms_p50: u64,
    /// The same: 99th percentile.
    pub latency_ms_p99: u64,
    /// How late the latest request left, milliseconds.
    pub late_ms_max: u64,
}

/// How one request ended.
struct Outcome {
    row: TraceRow,
    status: Option<u16>,
    usage: Option<(u64, u64)>,
    error: Option<String>,
    retries: u64,
    latency: Duration,
}

/// Sends every row at its time and sums up the answers.
pub async fn replay_trace(rows: &[TraceRow], config: &TraceConfig) -> TraceSummary {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(config.in_flight_max).build(connector);
    let sender = Arc::new(Sender { http, config: config.clone() });
    let room = Arc::new(Semaphore::new(config.in_flight_max));
    let begun = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    let mut summary = TraceSummary { requests: rows.len() as u64, ..TraceSummary::default() };
    for (i, row) in rows.iter().copied().enumerate() {
        let planned = begun + row.at.div_f64(config.speed.max(1e-9));
        tokio::time::sleep_until(planned.into()).await;
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            break;
        };
        let late = Instant::now().saturating_duration_since(planned);
        summary.late_ms_max = summary.late_ms_max.max(late.as_millis() as u64);
        let sender = Arc::clone(&sender);
        tasks.spawn(async move {
            let outcome = sender.send(row, i, planned).await;
            drop(place);
            outcome
        });
    }
    let mut latencies = Vec::with_capacity(rows.len());
    while let Some(outcome) = tasks.join_next().await {
        match outcome {
            Ok(outcome) => {
                latencies.push(outcome.latency);
                summary.count(outcome);
            }
            Err(error) => summary.broke(error.to_string()),
        }
    }
    latencies.sort_unstable();
    let percentile = |p: usize| latencies.get(latencies.len() * p / 100).map_or(0, |l| l.as_millis() as u64);
    (summary.latency_ms_p50, summary.latency_ms_p99) = (percentile(50), percentile(99));
    summary.duration_ms = begun.elapsed().as_millis() as u64;
    summary
}

impl TraceSummary {
    fn count(&mut self, outcome: Outcome) {
        self.retries += outcome.retries;
        if let Some(status) = outcome.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        if let Some(error) = outcome.error {
            return self.broke(error);
        }
        if outcome.status != Some(200) {
            return;
        }
        self.completed += 1;
        self.prompt_tokens_sent += outcome.row.prompt_tokens;
        self.completion_tokens_wanted += outcome.row.completion_tokens;
        match outcome.usage {
            Some((prompt, completion)) => {
                self.prompt_tokens += prompt;
                self.completion_tokens += completion;
            }
            None => self.without_usage += 1,
        }
    }

    fn broke(&mut self, error: String) {
        self.broken += 1;
        if self.errors.len() < 10 {
            self.errors.push(error);
        }
    }
}

struct Sender {
    http: Client<HttpConnector, Full<Bytes>>,
    config: TraceConfig,
}

impl Sender {
    async fn send(&self, row: TraceRow, number: usize, planned: Instant) -> Outcome {
        let stream = match self.config.streaming {
            Streaming::Never => false,
            Streaming::Always => true,
            Streaming::Mixed => number % 2 == 1,
        };
        let body = Bytes::from(self.body(row, stream).to_string());
        let mut outcome =
            Outcome { row, status: None, usage: None, error: None, retries: 0, latency: Duration::ZERO };
        loop {
            let tried = tokio::time::timeout(self.config.timeout, self.attempt(body.clone(), stream)).await;
            match tried {
                Err(_) => outcome.error = Some("no whole answer in time".into()),
                Ok(Err(error)) => outcome.error = Some(error),
                Ok(Ok((status, usage, wait))) => {
                    outcome.status = Some(status.as_u16());
                    outcome.usage = usage;
                    let again = matches!(status.as_u16(), 402 | 429 | 503);
                    if again && outcome.retries < u64::from(self.config.retries) {
                        let backoff = Duration::from_millis(100 << outcome.retries.min(6));
                        outcome.retries += 1;
                        tokio::time::sleep(wait.unwrap_or(backoff)).await;
                        continue;
                    }
                }
            }
            outcome.latency = planned.elapsed();
            return outcome;
        }
    }

    fn body(&self, row: TraceRow, stream: bool) -> Value {
        let mut body = json!({
            "model": self.config.model,
            "messages": [{"role": "user", "content": grid_suppliers::filler(row.prompt_tokens)}],
            "max_tokens": row.completion_tokens.max(1),
            "metadata": {"simulate_completion_tokens": row.completion_tokens.to_string()},
        });
        if stream {
            body["stream"] = json!(true);
            body["stream_options"] = json!({"include_usage": true});
        }
        body
    }

    /// One try: the status, the usage of a whole answer, and how long the venue asks to wait.
    async fn attempt(
        &self,
        body: Bytes,
        stream: bool,
    ) -> Result<(StatusCode, Option<(u64, u64)>, Option<Duration>), String> {
        let uri: Uri =
            format!("{}/chat/completions", self.config.base_url).parse().map_err(|e| format!("{e}"))?;
        let request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header("authorization", format!("Bearer {}", self.config.key))
            .header("content-type", "application/json")
            .body(Full::new(body))
            .map_err(|e| e.to_string())?;
        let response = self
            .http
            .request(request)
            .await
            .map_err(|e| format!("{e}: {:?}", std::error::Error::source(&e)))?;
        let status = response.status();
        let wait = response.headers().get("retry-after").and_then(|v| v.to_str().ok()?.parse().ok());
        let wait = wait.map(Duration::from_secs);
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(|e| format!("the answer broke off: {e}"))?
            .to_bytes();
        if status != StatusCode::OK {
            return Ok((status, None, wait));
        }
        let usage = if stream { stream_usage(&body)? } else { plain_usage(&body)? };
        Ok((status, usage, wait))
    }
}

fn plain_usage(body: &[u8]) -> Result<Option<(u64, u64)>, String> {
    let answer: Value = serde_json::from_slice(body).map_err(|e| format!("the answer is not JSON: {e}"))?;
    Ok(usage_of(&answer))
}

fn stream_usage(body: &[u8]) -> Result<Option<(u64, u64)>, String> {
    let text = std::str::from_utf8(body).map_err(|e| format!("the stream is not text: {e}"))?;
    let mut usage = None;
    let mut done = false;
    for data in text.lines().filter_map(|line| line.strip_prefix("data:")).map(str::trim_start) {
        if data.starts_with("[DONE]") {
            done = true;
            continue;
        }
        let event: Value = serde_json::from_str(data).map_err(|e| format!("an event is not JSON: {e}"))?;
        if let Some(error) = event.get("error") {
            return Err(format!("the stream ended with an error: {error}"));
        }
        usage = usage_of(&event).or(usage);
    }
    if done { Ok(usage) } else { Err("the stream ended without [DONE]".into()) }
}

fn usage_of(answer: &Value) -> Option<(u64, u64)> {
    let usage = answer.get("usage")?;
    Some((usage.get("prompt_tokens")?.as_u64()?, usage.get("completion_tokens")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use grid_suppliers::{Faults, Supplier, SupplierConfig};

    fn trace(from: usize, count: usize) -> Option<Vec<TraceRow>> {
        let Some(dir) = crate::data_dir() else {
            eprintln!("skipped: the request trace is not beside this repository");
            return None;
        };
        Some(read_trace(&dir.join(crate::TRACE_FILE), from, count).expect("the trace can be read"))
    }

    fn rows(count: u64) -> Vec<TraceRow> {
        let row =
            |i| TraceRow { at: Duration::from_millis(i), prompt_tokens: 20 + i, completion_tokens: i % 7 };
        (0..count).map(row).collect()
    }

    fn run(rows: &[TraceRow], config: &TraceConfig) -> TraceSummary {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(replay_trace(rows, config))
    }

    fn against(supplier: &grid_suppliers::RunningSupplier) -> TraceConfig {
        let base_url = supplier.url.clone();
        TraceConfig { base_url, model: "simulated-model".into(), speed: 100.0, ..TraceConfig::default() }
    }

    #[test]
    fn the_whole_trace_has_its_published_size() {
        let Some(rows) = trace(0, usize::MAX) else { return };
        assert_eq!(rows.len(), 8_819);
        assert_eq!(rows[1].at, Duration::from_nanos(52_000_000));
        assert!(rows.is_sorted_by_key(|row| row.at));
        let slice = trace(100, 3).expect("it was there");
        let shifted: Vec<Duration> = rows[100..103].iter().map(|row| row.at - rows[100].at).collect();
        assert_eq!(slice.iter().map(|row| row.at).collect::<Vec<_>>(), shifted);
    }

    #[test]
    fn tokens_of_the_answers_are_those_that_the_supplier_produced() {
        let supplier = Supplier::start(SupplierConfig::default()).expect("loopback has free ports");
        let rows = trace(0, 60).unwrap_or_else(|| rows(60));
        let summary = run(&rows, &against(&supplier));
        assert_eq!(
            (summary.completed, summary.broken, summary.without_usage),
            (rows.len() as u64, 0, 0),
            "{summary:?}"
        );
        assert_eq!(summary.prompt_tokens, rows.iter().map(|r| r.prompt_tokens).sum::<u64>());
        assert_eq!(summary.completion_tokens, rows.iter().map(|r| r.completion_tokens).sum::<u64>());
        let produced = supplier.stats();
        assert_eq!(produced.tokens_produced(), summary.prompt_tokens + summary.completion_tokens);
        assert_eq!(produced.completed.requests, rows.len() as u64);
    }

    #[test]
    fn failures_are_counted_by_kind_and_retried_where_that_helps() {
        let supplier = Supplier::start(SupplierConfig::default()).expect("loopback has free ports");
        supplier.set_faults(Faults { status: Some(503), next_requests: Some(4), ..Faults::default() });
        let one_at_a_time = TraceConfig { in_flight_max: 1, ..against(&supplier) };
        let summary = run(&rows(10), &one_at_a_time);
        assert_eq!((summary.completed, summary.statuses[&503], summary.retries), (6, 4, 0));
        supplier.set_faults(Faults { status: Some(503), next_requests: Some(2), ..Faults::default() });
        let summary = run(&rows(5), &TraceConfig { retries: 3, ..one_at_a_time.clone() });
        assert_eq!((summary.completed, summary.retries), (5, 2));
        supplier.set_faults(Faults { die_after_tokens: Some(1), ..Faults::default() });
        let summary = run(&rows(6), &one_at_a_time);
        assert_eq!((summary.completed, summary.broken), (0, 6), "{summary:?}");
    }

    #[test]
    fn a_stream_counts_only_when_it_is_whole() {
        let usage = r#"data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
        assert_eq!(stream_usage(format!("{usage}\n\ndata: [DONE]\n\n").as_bytes()), Ok(Some((3, 4))));
        assert!(stream_usage(format!("{usage}\n\n").as_bytes()).is_err());
        assert!(stream_usage(b"data: {\"error\":{\"message\":\"x\"}}\n\n").is_err());
    }
}
