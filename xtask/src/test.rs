//! `cargo xtask test`: everything, in one command.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::Context;

use crate::{cluster, packages, slim, soak};

/// The project's root.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// What the test binaries printed of their results.
#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs all tests; what each says is passed through, and the sum comes last.
pub fn test() -> anyhow::Result<ExitCode> {
    packages::provide();
    let slim = slim::slim()?;
    // Before the tests, not beside them: they measure times.
    let programs = cluster::programs::for_tests();
    // Behind the machine's own: tests of what calls `helm` by its name find it too.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::env::split_paths(&path).chain(programs.iter().map(|(_, folder)| folder.clone())))?;
    let mut counts = Counts::default();
    // Two tests at a time: they measure times, and machines with two cores are common.
    let mut command = Command::new(env!("CARGO"));
    command.args(["test", "--workspace", "--no-fail-fast", "--", "--test-threads", "2", "--show-output"]);
    command.env("LAMEDUCK_SLIM", &slim).envs(programs).env("PATH", path).env_remove("RUSTFLAGS").current_dir(root());
    command.stdout(Stdio::piped());
    let mut child = command.spawn().context("cargo test")?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).lines() {
            let line = line?;
            counts.read(&line);
            if worth_showing(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait()?;
    counts.check_fuzz_targets();
    counts.check_soak(&slim);
    println!();
    let passed = counts.passed.saturating_sub(counts.skipped);
    println!("{passed} passed, {} failed, {} skipped", counts.failed, counts.skipped);
    Ok(if status.success() && counts.failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The lists of what passed, which follow the results, are left out.
fn worth_showing(line: &str) -> bool {
    let in_a_list = line.starts_with("    ") && !line.trim().contains(' ') && line.contains("::");
    !(line.is_empty()
        || in_a_list
        || line == "successes:"
        || line.starts_with("---- ") && line.ends_with(" stdout ----"))
}

impl Counts {
    /// The fuzz targets are a workspace of their own: an interface that moved on is noticed here. What they are linked to is
    /// C++.
    fn check_fuzz_targets(&mut self) {
        if packages::find("c++").is_none() {
            println!("SKIPPED fuzz_targets: needs a C++ compiler; Debian has it in g++");
            self.skipped += 1;
            self.passed += 1;
            return;
        }
        let fuzz = root().join("fuzz");
        let mut check = Command::new(env!("CARGO"));
        check.args(["check", "--quiet", "--locked", "--target-dir"]).arg(root().join("target/fuzz")).current_dir(fuzz);
        let passes = check.status().is_ok_and(|status| status.success());
        println!("test fuzz_targets_compile ... {}", if passes { "ok" } else { "FAILED" });
        *(if passes { &mut self.passed } else { &mut self.failed }) += 1;
    }

    /// The soak, for half a minute.
    fn check_soak(&mut self, slim: &Path) {
        let result = soak::short(slim);
        if let Err(left) = &result {
            println!("{left:#}");
        }
        println!("test nothing_is_left_of_a_short_soak ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        *(if result.is_ok() { &mut self.passed } else { &mut self.failed }) += 1;
    }

    /// `test result: ok. 18 passed; 0 failed; ...` of each binary, and a line `SKIPPED name: why` of each skipped test,
    /// which the binary counts among those that passed.
    fn read(&mut self, line: &str) {
        if line.contains("SKIPPED ") {
            self.skipped += 1;
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let count = |word: &str| {
            let at = result.split("; ").flat_map(|part| part.split(". ")).find_map(|part| part.strip_suffix(word));
            at.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
    }
}

#[cfg(test)]
mod tests {
    use super::Counts;

    #[test]
    fn counts() {
        let mut counts = Counts::default();
        counts.read(
            "test result: FAILED. 50 passed; 2 failed; 0 ignored; 0 measured; 2 filtered out; finished in 19.23s",
        );
        counts.read("SKIPPED a_test: needs root");
        counts.read("test children::x ... ok");
        assert_eq!((counts.passed, counts.failed, counts.skipped), (50, 2, 1));
    }
}
