//! The static build for images.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

/// What the budget of an image allows, in bytes.
pub const MOST_BYTES: u64 = 2 * 1024 * 1024;

/// Builds it; returns its path.
pub fn slim() -> anyhow::Result<PathBuf> {
    let target = host()?;
    // Linked at a fixed address: a program that the loader does not have to relocate reaches its first instruction sooner,
    // and PID 1 loses what comes before that.
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", "slim", "--package", "lameduck", "--no-default-features"])
        .args(["--features", "run", "--target", &target])
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .status()
        .context("cargo build")?;
    ensure!(status.success(), "the static build failed: {status}");
    let root = crate::test::root();
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let path = folder.join(target).join("slim/lameduck");
    let bytes = path.metadata().with_context(|| path.display().to_string())?.len();
    eprintln!("static build: {bytes} bytes");
    ensure!(bytes <= MOST_BYTES, "the static build has {bytes} bytes; at most {MOST_BYTES} are allowed");
    Ok(path)
}

fn host() -> anyhow::Result<String> {
    let out = Command::new("rustc").arg("-vV").output().context("rustc -vV")?;
    let text = String::from_utf8(out.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}
