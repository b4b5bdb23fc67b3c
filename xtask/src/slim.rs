//! The static build for images.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};

/// What the budget of an image allows, in bytes.
pub const MOST_BYTES: u64 = 4 * 1024 * 1024;

const FLAGS: [&str; 5] = [
    "-Ctarget-feature=+crt-static",
    "-Crelocation-model=static",
    "-Crelro-level=off",
    "-Clinker-features=-lld",
    "-Clink-arg=-Wl,-z,noseparate-code",
];

/// Builds it; returns its path.
pub fn slim() -> anyhow::Result<PathBuf> {
    let target = host()?;
    // PID 1 loses what comes before its first instruction, so the way there is kept short. A fixed address: nothing is
    // relocated. Two segments instead of four (no read-only one apart from the code, none for what is read-only after
    // relocation, of which a static program has next to nothing; rust-lld would make three): the kernel maps each of them
    // between the point of no return in execve and that instruction.
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", "slim", "--package", "lameduck", "--no-default-features"])
        .args(["--features", "front", "--target", &target])
        .env("RUSTFLAGS", FLAGS.join(" "))
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
