//! One of the processes of these benches, for their tests: the command line of `grid-benches` has the same built in.

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(2).collect();
    match grid_inference_benches::run_as_part(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
