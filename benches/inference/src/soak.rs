//! `inference_soak`: every request of a production trace (Azure's of 2023, code) at twenty times its pace, whole and streamed
//! in turn, with three suppliers that fail at random: errors, stalls, sockets closed in the middle. What a regression means is
//! no matter of time: somebody pays for what nobody got, or something is left behind.
//!
//! Checked at the end, call by call: an answer that came whole is billed once, for the counts that the client saw and the
//! words that it got; one that broke is billed once, for what the client got of it; any other is not billed. All bills
//! together are what the engine says was delivered. No reservation, call, connection or task is left.
//!
//! And memory is flat. With each call that is sent it is looked at what is asked of the allocator and not freed, and what
//! the kernel says. The least of the last quarter of the run is at most a tenth above the least of the second: the first is when
//! threads, tables, pools and buffers come into being, and the least of many moments has no bodies of calls in it. Client,
//! suppliers and venue are one process, so all of it is judged, this scenario's own notes too. What grows by design is
//! bounded, and small: reports kept for the tier's session, two of each call and 8,192 at most, in the engine and in its replica;
//! this scenario's calls and bills and the suppliers' records, some hundred bytes of each call, 100,000 records at most. No text
//! is kept of any, nor a block of the log: a node alone has no followers that might be late. A burst of calls leaves connections with their buffers, which go when pools let them; and what the kernel says
//! has peaks in it that the allocator keeps for the next one: that may grow by a quarter.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use grid_engine::event::UsageRecord;
use grid_harness::{Ground, Latencies, Row, Scenario, Settings, heap, histogram, nanos};
use grid_replay::trace::{TraceRow, read_trace};
use grid_suppliers::{Faults, Supplier, SupplierConfig, filler};
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Failure;
use crate::contenders::PATH;
use crate::process;
use crate::talk;
use crate::venue::{Venue, keys};

/// Recorded time is divided by this.
const SPEED: f64 = 20.0;
const SUPPLIERS: usize = 3;
/// Longer than any call takes.
const PATIENCE: Duration = Duration::from_secs(240);
/// The last quarter's memory in hundredths of the second's, at most: what is in use, and what the kernel says.
const FLAT: [u64; 2] = [110, 125];
/// Runs of fewer calls are all beginning; nothing is said of their memory.
const LONG: usize = 4_000;
/// How far our count of a cut text may be from the bill's, which counts it in slices: one in so many tokens, and a few.
const CLOSE: u64 = 50;

/// See the module.
#[derive(Debug)]
pub struct Soak;

impl Scenario for Soak {
    fn name(&self) -> &'static str {
        "inference_soak"
    }

    fn shows(&self) -> &'static str {
        "failing: after a day with failing suppliers a bill is wrong, or something is left behind"
    }

    fn run(&self, settings: &Settings) -> Result<Vec<Row>, Box<dyn Error>> {
        measure(settings).map_err(|error| error as Box<dyn Error>)
    }
}

/// How a call went for the client.
#[derive(Debug, Default)]
struct Call {
    status: u16,
    /// The call's handle, as the answer names it.
    request: u128,
    /// What was generated, as the suppliers count: a word is a token.
    words: u64,
    /// What of it came before the answer broke, by our own count.
    own: u64,
    usage: Option<(u64, u64)>,
    /// It came to its end.
    whole: bool,
    took: Duration,
}

fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let Some(rows) = rows(settings)? else {
        let row = Row::new("the trace is not here")
            .note("GRID_DATA names the directory that has it; nothing was measured");
        return Ok(vec![row]);
    };
    let ground = Ground::under(&settings.dir)?;
    let suppliers = (0..SUPPLIERS as u64)
        .map(|seed| {
            Supplier::start(SupplierConfig {
                seed,
                models: vec![talk::MODEL.to_owned()],
                ..SupplierConfig::default()
            })
        })
        .collect::<Result<Vec<_>, _>>()?;
    for supplier in &suppliers {
        supplier.set_faults(Faults {
            error_rate: 0.03,
            stall_rate: 0.005,
            stall_ms: 3_000,
            die_mid_stream_rate: 0.03,
            ..Faults::default()
        });
    }
    let urls: Vec<String> = suppliers.iter().map(|supplier| supplier.url.clone()).collect();
    let venue = Venue::start(&ground.at("venue"), &urls, |config| {
        config.clocks.first_content = Duration::from_secs(2);
    })?;
    let bills = Arc::new(Mutex::new(Vec::<UsageRecord>::new()));
    let into = Arc::clone(&bills);
    venue.on_bill(move |bill| into.lock().push(bill));
    let tasks_before = venue.tasks();

    let address = venue.address();
    let load = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("load")
        .enable_all()
        .build()?;
    let (calls, memory) = load.block_on(send(rows, format!("http://{address}{PATH}")))?;
    // The client's connections end with its runtime.
    drop(load);
    drop(suppliers);
    let idle = venue.until_idle(tasks_before)?;
    let ended = venue.stop()?;

    let bills = std::mem::take(&mut *bills.lock());
    let told = check(&calls, &bills)?;
    let billed: u64 = bills.iter().map(|bill| bill.billed.0).sum();
    if (billed, ended.open, idle) != (ended.billed, 0, true) || ended.settled != bills.len() as u64 {
        return Err(format!(
            "bills of {billed} tokens in {} settlements, but {ended:?}; idle: {idle}",
            bills.len()
        )
        .into());
    }
    let quarters = [1, 3].map(|quarter| least(&memory, quarter));
    if calls.len() >= LONG && (0..2).any(|kind| quarters[1][kind] * 100 > quarters[0][kind] * FLAT[kind]) {
        return Err(format!("memory grew: {quarters:?} bytes, in use and resident").into());
    }
    let [[early, early_resident], [late, late_resident]] = quarters;
    let mut latency = Latencies::default();
    let mut record = histogram();
    calls.iter().filter(|call| call.whole).for_each(|call| record.saturating_record(nanos(call.took)));
    latency.push(&record);
    let one = |figure: u64| [figure as f64].into_iter().collect();
    Ok(vec![
        Row::new(format!("{} calls of the trace at {SPEED} times its pace, {SUPPLIERS} failing suppliers", calls.len()))
            .latency(latency)
            .figure("answered whole, and billed for what came", "calls", one(told.whole))
            .figure("broken off, and billed for what came", "calls", one(told.partial))
            .figure("not answered, and not billed", "calls", one(told.refused))
            .figure("tokens billed, all delivered", "tokens", one(billed))
            .figure("memory in use, second quarter", "KiB", one(early >> 10))
            .figure("memory in use, last quarter", "KiB", one(late >> 10))
            .figure("memory resident, second quarter", "KiB", one(early_resident >> 10))
            .figure("memory resident, last quarter", "KiB", one(late_resident >> 10))
            .note("from the planned moment to the last byte, of answers that came whole; client, suppliers and venue are one process"),
    ])
}

/// The trace, or so many rows like it where a test has none.
fn rows(settings: &Settings) -> Result<Option<Vec<TraceRow>>, Failure> {
    let most = settings.commands.map_or(usize::MAX, |most| most as usize);
    if let Some(dir) = grid_replay::data_dir() {
        let trace: PathBuf = dir.join(grid_replay::TRACE_FILE);
        return Ok(Some(read_trace(&trace, 0, most)?));
    }
    let made_up = |nth: u64| TraceRow {
        at: Duration::from_millis(40 * nth),
        prompt_tokens: 200 + nth % 300,
        completion_tokens: 1 + nth % 30,
    };
    Ok(settings.commands.map(|count| (0..count).map(made_up).collect()))
}

/// Bytes in use, where the program counts them, and bytes in memory.
type Memory = [u64; 2];

/// The least of each in a quarter of the samples, counted from 0.
fn least(samples: &[Memory], quarter: usize) -> Memory {
    let at = |quarter: usize| samples.len() * quarter / 4;
    let of = &samples[at(quarter)..at(quarter + 1)];
    [0, 1].map(|kind| of.iter().map(|sample| sample[kind]).min().unwrap_or(0))
}

/// Sends every row at its time; what came of each, and the memory as each was sent.
async fn send(rows: Vec<TraceRow>, url: String) -> Result<(Vec<Call>, Vec<Memory>), Failure> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let http: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let keys = keys();
    let begun = Instant::now();
    let (mut calls, mut memory) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    let mut tasks = tokio::task::JoinSet::new();
    for (nth, row) in rows.into_iter().enumerate() {
        let planned = begun + row.at.div_f64(SPEED);
        tokio::time::sleep_until(planned.into()).await;
        memory.push([heap::live(), process::own_memory()]);
        // A task that has ended takes its place until it is asked what became of it.
        while let Some(call) = tasks.try_join_next() {
            calls.push(call??);
        }
        let (http, url, key) = (http.clone(), url.clone(), keys[nth % keys.len()].clone());
        tasks.spawn(async move {
            let mut call = tokio::time::timeout(PATIENCE, ask(&http, url, &key, row, nth % 2 == 1))
                .await
                .map_err(|_| "no answer in time")??;
            call.took = planned.elapsed();
            Ok::<_, Failure>(call)
        });
    }
    while let Some(call) = tasks.join_next().await {
        calls.push(call??);
    }
    Ok((calls, memory))
}

async fn ask(
    http: &Client<HttpConnector, Full<Bytes>>,
    url: String,
    key: &str,
    row: TraceRow,
    stream: bool,
) -> Result<Call, Failure> {
    let mut body = json!({
        "model": talk::MODEL,
        "messages": [{"role": "user", "content": filler(row.prompt_tokens)}],
        "max_tokens": row.completion_tokens.max(1),
        "metadata": {"simulate_completion_tokens": row.completion_tokens.to_string()},
    });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({"include_usage": true});
    }
    let request = Request::builder()
        .method(Method::POST)
        .uri(url)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body.to_string())))?;
    let response = http.request(request).await?;
    let name = response.headers().get("x-grid-request-id").ok_or("an answer without a handle")?.to_str()?;
    let name = name.strip_prefix("req_").ok_or("a handle of another form")?;
    let mut call = Call {
        status: response.status().as_u16(),
        request: u128::from_str_radix(name, 16)?,
        ..Call::default()
    };
    let body = response.into_body().collect().await?.to_bytes();
    let mut text = String::new();
    if call.status == 200 && stream {
        for line in std::str::from_utf8(&body)?.lines().filter_map(|line| line.strip_prefix("data: ")) {
            if line == "[DONE]" {
                call.whole = true;
            } else {
                call.hear(&serde_json::from_str(line)?, "delta", &mut text);
            }
        }
    } else if call.status == 200 {
        call.hear(&serde_json::from_slice(&body)?, "message", &mut text);
        call.whole = true;
    }
    call.words = text.split_ascii_whitespace().count() as u64;
    if !call.whole {
        call.own = tiktoken_rs::o200k_base_singleton().count_ordinary(&text) as u64;
    }
    Ok(call)
}

impl Call {
    fn hear(&mut self, chunk: &Value, part: &str, text: &mut String) {
        text.push_str(chunk["choices"][0][part]["content"].as_str().unwrap_or_default());
        let usage = &chunk["usage"];
        let counts = usage["prompt_tokens"].as_u64().zip(usage["completion_tokens"].as_u64());
        self.usage = counts.or(self.usage);
    }
}

/// Calls by how they ended.
#[derive(Default)]
struct Told {
    whole: u64,
    partial: u64,
    refused: u64,
}

fn check(calls: &[Call], bills: &[UsageRecord]) -> Result<Told, Failure> {
    let mut by_request: HashMap<u128, &UsageRecord> = HashMap::new();
    for bill in bills {
        if by_request.insert(bill.request, bill).is_some() || bill.unbilled.0 != 0 {
            return Err(format!("billed twice, or beyond what was set aside: {bill:?}").into());
        }
    }
    let mut told = Told::default();
    for call in calls {
        let bill = by_request.remove(&call.request);
        let right = match bill {
            None => call.status != 200 || (!call.whole && call.words == 0),
            Some(bill) => is_right(call, bill),
        };
        if !right {
            return Err(format!("{call:?} was billed as {bill:?}").into());
        }
        *(match (bill.is_some(), call.whole) {
            (false, _) => &mut told.refused,
            (true, true) => &mut told.whole,
            (true, false) => &mut told.partial,
        }) += 1;
    }
    if by_request.is_empty() {
        Ok(told)
    } else {
        Err(format!("billed and never asked: {by_request:?}").into())
    }
}

fn is_right(call: &Call, bill: &UsageRecord) -> bool {
    let (prompt, completion) = (bill.usage.prompt_tokens.0, bill.usage.completion_tokens.0);
    let sums = bill.billed.0 == prompt + completion && call.status == 200;
    if call.whole {
        sums && call.usage == Some((prompt, completion)) && completion == call.words && !bill.usage.partial
    } else {
        sums && bill.usage.partial && completion.abs_diff(call.own) <= call.own / CLOSE + 2
    }
}
