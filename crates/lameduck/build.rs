#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a build script reads its environment and prints")]
//! Makes the program begin at lameduck-run's own entry point, which blocks every signal before anything else runs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let entry = is("CARGO_CFG_TARGET_OS", "linux")
        && (is("CARGO_CFG_TARGET_ARCH", "x86_64") || is("CARGO_CFG_TARGET_ARCH", "aarch64"))
        && std::env::var("CARGO_FEATURE_RUN").is_ok();
    if entry {
        println!("cargo::rustc-link-arg-bins=-Wl,-e,lameduck_start");
    }
}
