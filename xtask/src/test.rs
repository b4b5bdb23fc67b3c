//! `cargo xtask test`: everything, in one command.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus, Stdio};

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
    /// Programs of tests that ended without a result.
    crashed: u64,
    /// Of the program that runs.
    failing: Vec<String>,
}

/// A test that failed: what `cargo test` is told to run its program, and its name.
#[derive(Debug, PartialEq)]
struct Failed {
    target: String,
    name: String,
}

/// As many are run again by themselves; where more fail it is not chance.
const RUN_AGAIN: usize = 5;

/// Runs all tests; what each says is passed through, and the sum comes last.
///
/// Tests here play with real processes against the clock, several at a time, on machines with other work. One that fails is
/// run once more, alone, when all others are done; the end says so by name, whichever way it goes.
pub fn test() -> anyhow::Result<ExitCode> {
    packages::provide();
    let slim = slim::slim()?;
    // Before the tests, not beside them: they measure times.
    let programs = cluster::programs::for_tests();
    // Behind the machine's own: tests of what calls `helm` by its name find it too.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::env::split_paths(&path).chain(programs.iter().map(|(_, folder)| folder.clone())))?;
    let cargo = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO"));
        command.arg("test").args(args).env("LAMEDUCK_SLIM", &slim).envs(programs.clone()).env("PATH", &path);
        command.env_remove("RUSTFLAGS").current_dir(root());
        command
    };
    // Two tests at a time: they measure times, and machines with two cores are common.
    let mut first = cargo(&["--workspace", "--no-fail-fast", "--", "--test-threads", "2", "--show-output"]);
    let mut counts = Counts::default();
    let (status, failed) = counts.run(&mut first)?;
    drop(first);
    let mut unsteady = Vec::new();
    if failed.len() <= RUN_AGAIN {
        for Failed { target, name } in &failed {
            println!("again, alone: {name}");
            let options: Vec<&str> = target.split(' ').collect();
            let only = ["--", "--exact", name, "--test-threads", "1", "--show-output"];
            let mut again = Counts::default();
            let (status, _) = again.run(&mut cargo(&[&options[..], &only].concat()))?;
            if status.success() && again.passed == 1 {
                unsteady.push(name.as_str());
            }
        }
    }
    let steady = status.success() || !failed.is_empty() && unsteady.len() == failed.len() && counts.crashed == 0;
    counts.failed = counts.failed.saturating_sub(unsteady.len() as u64);
    counts.passed += unsteady.len() as u64;
    counts.check_fuzz_targets();
    counts.check_soak(&slim);
    println!();
    let passed = counts.passed.saturating_sub(counts.skipped);
    for name in &unsteady {
        println!("UNSTEADY {name}: failed beside others, passed alone");
    }
    println!("{passed} passed, {} failed, {} skipped, {} unsteady", counts.failed, counts.skipped, unsteady.len());
    Ok(if steady && counts.failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
    /// Runs one `cargo test`, shows what it says, and reads it; returns what failed.
    fn run(&mut self, command: &mut Command) -> anyhow::Result<(ExitStatus, Vec<Failed>)> {
        // One pipe for both: what cargo says of a program has to come after what the program said.
        let (reader, writer) = std::io::pipe()?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let mut child = command.spawn().context("cargo test")?;
        // The command holds the other end.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let mut failed = Vec::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = line?;
            let line = String::from_utf8_lossy(&line);
            failed.extend(self.read(&line));
            if worth_showing(&line) {
                println!("{line}");
            }
        }
        Ok((child.wait()?, failed))
    }

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
    /// which the binary counts among those that passed. Returns what failed of a program once cargo has said how to run it.
    fn read(&mut self, line: &str) -> Vec<Failed> {
        if line.contains("SKIPPED ") {
            self.skipped += 1;
        }
        if let Some(name) = line.strip_prefix("test ").and_then(|rest| rest.strip_suffix(" ... FAILED")) {
            self.failing.push(name.to_owned());
        }
        if let Some((_, target)) = line.split_once("error: test failed, to rerun pass `") {
            let target = target.trim_end_matches('`');
            let names = std::mem::take(&mut self.failing);
            self.crashed += u64::from(names.is_empty());
            return names.into_iter().map(|name| Failed { target: target.to_owned(), name }).collect();
        }
        let Some(result) = line.strip_prefix("test result: ") else { return Vec::new() };
        let count = |word: &str| {
            let at = result.split("; ").flat_map(|part| part.split(". ")).find_map(|part| part.strip_suffix(word));
            at.and_then(|n| n.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += count(" passed");
        self.failed += count(" failed");
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Failed};

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

    #[test]
    fn what_failed_is_known_by_program_and_name() {
        let mut counts = Counts::default();
        assert_eq!(counts.read("test children::x ... FAILED"), []);
        let failed = counts.read("error: test failed, to rerun pass `-p lameduck --test run`");
        assert_eq!(failed, [Failed { target: "-p lameduck --test run".to_owned(), name: "children::x".to_owned() }]);
        assert_eq!(counts.crashed, 0);
        assert_eq!(counts.read("error: test failed, to rerun pass `-p lameduck --test cli`"), []);
        assert_eq!(counts.crashed, 1, "a program that ended without saying which test failed");
    }
}
