//! How this binary was made: only the compiler's caller knows, and a figure without it cannot be compared.

use std::process::Command;

fn main() {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let version = Command::new(rustc).arg("--version").output().ok();
    let version = version.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    println!("cargo::rustc-env=GRID_RUSTC={}", version.trim());
    for (name, of) in
        [("GRID_TARGET", "TARGET"), ("GRID_PROFILE", "PROFILE"), ("GRID_OPT_LEVEL", "OPT_LEVEL")]
    {
        println!("cargo::rustc-env={name}={}", std::env::var(of).unwrap_or_default());
    }
    let flags = std::env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default().replace('\u{1f}', " ");
    println!("cargo::rustc-env=GRID_RUSTFLAGS={flags}");
    println!("cargo::rerun-if-changed=build.rs");
}
