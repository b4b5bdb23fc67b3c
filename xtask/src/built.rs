//! What cargo has built, by name.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::test::root;

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Builds lameduck as it is developed, and returns where it is.
pub fn debug() -> anyhow::Result<PathBuf> {
    let status = Command::new(env!("CARGO")).args(["build", "--quiet", "--package", "lameduck"]).status();
    ensure!(status.context("cargo build")?.success(), "lameduck could not be built");
    Ok(target().join("debug/lameduck"))
}

/// Builds for release what `selection` names, and returns where the program `name` of it is. Programs are used as they are
/// shipped: a client that is not optimised would take the CPU that others need.
pub fn release(selection: &[&str], name: &str) -> anyhow::Result<PathBuf> {
    let build = ["build", "--release", "--quiet", "--message-format=json-render-diagnostics"];
    let output = Command::new(env!("CARGO"))
        .args(build)
        .args(selection)
        .env_remove("RUSTFLAGS")
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build")?;
    ensure!(output.status.success(), "cargo {} {}: {}", build.join(" "), selection.join(" "), output.status);
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let program = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find_map(|message| {
        let own = message["target"]["name"] == name;
        message["executable"].as_str().filter(|_| own).map(PathBuf::from)
    });
    program.context("cargo build said of no program")
}
