//! Has the Python checker judge a run, and shows that it can fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::Cluster;

fn script(name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/checker").join(name);
    let mut command = Command::new("python3");
    // No compiled files beside the sources.
    command.arg("-B").arg(path);
    command
}

fn about(command: &mut Command, cluster: &Cluster, clients: &[PathBuf]) {
    for (node, data) in cluster.journals() {
        command.arg("--node").arg(format!("{node}={}", data.display()));
    }
    command.args(clients);
}

/// Stops the cluster and judges what it and its clients say happened.
pub(crate) fn judge(cluster: &mut Cluster, clients: &[PathBuf]) -> Value {
    cluster.stop();
    let mut command = script("checker.py");
    about(&mut command, cluster, clients);
    let output = command.output().expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let summary = said.lines().last().unwrap_or_default();
    println!("checker: {summary}");
    assert!(
        output.status.success(),
        "the checker found:\n{said}{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        cluster.all_printed()
    );
    serde_json::from_str(summary).expect("the checker ends with JSON")
}

/// Tells lies about a run that was judged well, each of which must be noticed.
pub(crate) fn doubt(cluster: &Cluster, clients: &[PathBuf]) {
    let mut command = script("doctor.py");
    about(&mut command, cluster, clients);
    run(&mut command);
}

fn run(command: &mut Command) {
    let output = command.output().expect("python3 starts");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{}", said.trim_end());
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
}

/// A run made up by hand passes; each lie about it is noticed by the check that it is for.
#[test]
fn every_check_can_fail() {
    run(&mut script("doctor.py"));
}
