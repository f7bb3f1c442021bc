//! The replayers on the command line. Prints one JSON object; exits 1 where anything was not as it should be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use clap::{Args, Parser, Subcommand};
use grid_client::{Client, Config};
use grid_replay::door::Door;
use grid_replay::flow::{self, OrderFlow};
use grid_replay::trace::{Streaming, TraceConfig, read_trace, replay_trace};
use grid_replay::{BOOK_FILE, MESSAGE_FILE, TRACE_FILE, data_dir};

/// Replays real traffic against a venue.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where the recordings are; the default is `GRID_DATA` or `../shared/data` beside the repository.
    #[arg(long, global = true)]
    data: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// A production LLM service's requests, through the OpenAI API.
    Llm(LlmOptions),
    /// Real exchange order flow, through the binary door; every level compared after every message.
    Orders(OrdersOptions),
}

#[derive(Args)]
struct LlmOptions {
    /// Base of the OpenAI API, ending in /v1.
    #[arg(long)]
    base_url: String,
    /// The bearer key.
    #[arg(long)]
    key: String,
    /// The instrument.
    #[arg(long)]
    model: String,
    /// First request of the slice, counted from 0.
    #[arg(long, default_value_t = 0)]
    from: usize,
    /// Requests of the slice; all by default.
    #[arg(long, default_value_t = usize::MAX)]
    count: usize,
    /// Recorded time is divided by this.
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Which answers are streamed.
    #[arg(long, value_enum, default_value_t = Streaming::Mixed)]
    streaming: Streaming,
    /// Requests under way at once, at most.
    #[arg(long, default_value_t = 512)]
    in_flight_max: usize,
    /// Tries again after 402, 429 and 503, so often at most.
    #[arg(long, default_value_t = 0)]
    retries: u32,
}

#[derive(Args)]
struct OrdersOptions {
    /// The order gateway.
    #[arg(long)]
    addr: SocketAddr,
    /// Base64 seed of the key of the account that rests.
    #[arg(long)]
    maker_key: String,
    /// Base64 seed of the key of the account that takes.
    #[arg(long)]
    taker_key: String,
    /// The instrument's number; its book must be empty.
    #[arg(long)]
    instrument: u16,
    /// A recorded price (USD x 10000) divided by this is a price in ticks.
    #[arg(long, default_value_t = 100)]
    price_divisor: u64,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = Options::parse();
    let Some(data) = options.data.or_else(data_dir) else {
        eprintln!("the recordings are not there; say where with --data");
        return ExitCode::from(2);
    };
    let done = match options.what {
        What::Llm(llm) => llm_main(&data, llm),
        What::Orders(orders) => orders_main(&data, &orders),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn llm_main(data: &std::path::Path, options: LlmOptions) -> Result<bool, Failure> {
    let rows = read_trace(&data.join(TRACE_FILE), options.from, options.count)?;
    let config = TraceConfig {
        base_url: options.base_url,
        key: options.key,
        model: options.model,
        speed: options.speed,
        streaming: options.streaming,
        in_flight_max: options.in_flight_max,
        retries: options.retries,
        ..TraceConfig::default()
    };
    let summary = tokio::runtime::Runtime::new()?.block_on(replay_trace(&rows, &config));
    println!("{}", serde_json::to_string_pretty(&summary)?);
    let exact = summary.prompt_tokens == summary.prompt_tokens_sent
        && summary.completion_tokens == summary.completion_tokens_wanted;
    Ok(exact && summary.completed == summary.requests)
}

fn orders_main(data: &std::path::Path, options: &OrdersOptions) -> Result<bool, Failure> {
    let recorded = OrderFlow::read(&data.join(MESSAGE_FILE), &data.join(BOOK_FILE))?;
    let connect = |key: &str| -> Result<Client, Failure> {
        let seed = BASE64_STANDARD.decode(key)?;
        let seed: [u8; 32] = seed.try_into().map_err(|_| "a key's seed is 32 bytes")?;
        Ok(Client::connect(Config::new(vec![options.addr], seed))?)
    };
    let (maker, taker) = (connect(&options.maker_key)?, connect(&options.taker_key)?);
    let mut door = Door::open(maker, taker, options.instrument, options.price_divisor)?;
    let summary = flow::replay(&recorded, &mut door)?;
    println!("{}", serde_json::to_string_pretty(&summary)?);
    Ok(summary.mismatch_count == 0)
}
