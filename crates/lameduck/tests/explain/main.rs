//! `lameduck explain` and `lameduck probe`, as programs.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "tests are at the edge: they read the environment, and say what they leave out"
)]

mod capture;
mod day;
mod hops;
mod hostile;
mod probe;
mod truth;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// Where the recorded inputs are.
fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explain/data").join(name)
}

/// The program, with a verb.
fn lameduck(verb: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lameduck"));
    command.arg(verb);
    command
}

/// What explain says of these inputs, as JSON.
fn explain(args: &[&str], paths: &[&Path]) -> Value {
    let output = lameduck("explain").args(["--format", "json"]).args(args).args(paths).output().expect("the program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The same of standard input.
fn explain_stdin(input: &[u8]) -> (Value, i32) {
    let mut child = lameduck("explain")
        .args(["--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output().expect("its end");
        (serde_json::from_slice(&output.stdout).unwrap_or(Value::Null), output.status.code().unwrap_or(-1))
    })
}

/// Requests by cause.
fn causes(explanation: &Value) -> Vec<(String, u64)> {
    let rows = explanation["causes"].as_array().into_iter().flatten();
    rows.map(|row| (row["cause"].as_str().unwrap_or("").to_owned(), row["requests"].as_u64().unwrap_or(0))).collect()
}
