//! `cargo run --release -p grid-benches -- SCENARIO [COMMANDS]`

use std::process::ExitCode;

use grid_benches::engine_mix;

/// Commands measured where none are named.
const COMMANDS: u64 = 1_000_000;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (scenario, commands) = match words[..] {
        [scenario] => (scenario, Some(COMMANDS)),
        [scenario, commands] => (scenario, commands.parse().ok()),
        _ => ("", None),
    };
    match (scenario, commands) {
        ("place_cancel_match", Some(commands)) => {
            if cfg!(debug_assertions) {
                println!("note: a debug build; its times say nothing");
            }
            print!("{}", engine_mix::place_cancel_match(commands));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("usage: grid-benches place_cancel_match [COMMANDS]");
            ExitCode::from(2)
        }
    }
}
