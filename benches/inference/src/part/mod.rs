//! What runs as a process of its own. A part says where it listens in the first line of its output and ends when its
//! input does, so that none outlives the bench; the venue then says what it has settled.

mod proxy;
mod supplier;
mod venue;

use std::io::{Read, Write};
use std::net::SocketAddr;

use crate::Failure;

pub(crate) use venue::Ended;

/// The first word of such a process' arguments.
pub const AS_PART: &str = "as-inference-part";

/// Runs the part that the words name until its input ends.
///
/// # Errors
/// Words that name no part, or whatever kept the part from working.
pub fn run_as_part(words: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ran = match words[..] {
        ["supplier"] => supplier::run(),
        ["proxy", supplier] => proxy::run(supplier.parse()?),
        ["venue", dir, supplier] => venue::run(dir.as_ref(), supplier),
        _ => Err(format!("{AS_PART} supplier | proxy SUPPLIER | venue DIR SUPPLIER").into()),
    };
    ran.map_err(|error| error as Box<dyn std::error::Error>)
}

/// Says where the part listens.
fn ready(address: SocketAddr) -> Result<(), Failure> {
    println!("{address}");
    Ok(std::io::stdout().flush()?)
}

/// Returns when the bench wants the part to end.
fn until_the_end() {
    let _ = std::io::stdin().read(&mut [0]);
}
