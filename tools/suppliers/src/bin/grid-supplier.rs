//! One simulated supplier on the command line, for trying a gateway by hand.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Parser;
use grid_suppliers::{Supplier, SupplierConfig};

/// Serves a simulated OpenAI-compatible supplier until it is stopped.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Its name, part of every answer's text.
    #[arg(long, default_value = "simulated")]
    name: String,
    /// Where the API listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    addr: SocketAddr,
    /// Where the control endpoint listens.
    #[arg(long, default_value = "127.0.0.1:0")]
    control_addr: SocketAddr,
    /// A model it serves; may be repeated.
    #[arg(long = "model", default_value = "simulated-model")]
    models: Vec<String>,
    /// Milliseconds to the first token.
    #[arg(long, default_value_t = 50)]
    ttft_ms: u64,
    /// Tokens per second after it; 0 means unlimited.
    #[arg(long, default_value_t = 200)]
    tokens_per_second: u32,
    /// The bearer key that it demands.
    #[arg(long)]
    api_key: Option<String>,
    /// Everything that looks random follows from this.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    let supplier = Supplier::start(SupplierConfig {
        name: options.name,
        addr: options.addr,
        control_addr: options.control_addr,
        models: options.models,
        ttft: Duration::from_millis(options.ttft_ms),
        tokens_per_second: options.tokens_per_second,
        api_key: options.api_key,
        seed: options.seed,
        ..SupplierConfig::default()
    })?;
    println!("simulated supplier {} at {} (control: {})", supplier.name, supplier.url, supplier.control_url);
    loop {
        std::thread::park();
    }
}
