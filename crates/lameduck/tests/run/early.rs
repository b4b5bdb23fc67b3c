//! SIGTERM in the first instants: what other inits lose.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{LAMEDUCK, clean, root};

const ROUNDS: u32 = 500;

/// Starts `words`, sends TERM `delay` later, and tells whether it ended by it.
fn dies_of_term(words: &[&str], delay: Duration) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    clean(&mut command);
    let mut child = command.spawn().unwrap();
    std::thread::sleep(delay);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let until = Instant::now() + Duration::from_millis(600);
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

fn lost(words: &[&str]) -> u32 {
    (0..ROUNDS)
        .filter(|n| !dies_of_term(words, Duration::from_micros(u64::from(*n) * 4000 / u64::from(ROUNDS))))
        .count() as u32
}

/// Done-criterion: 0 lost where lameduck is not PID 1, whichever way it is called.
#[test]
fn none_is_lost_when_not_pid_1() {
    assert_eq!(lost(&[LAMEDUCK, "run", "--", "sleep", "20"]), 0);
    let dir = tempfile::tempdir().unwrap();
    for name in ["tini", "dumb-init"] {
        let path = dir.path().join(name);
        std::os::unix::fs::symlink(LAMEDUCK, &path).unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(lost(&[path, "sleep", "20"]), 0, "{name}");
        if name == "tini" {
            assert_eq!(lost(&[path, "-g", "--", "sleep", "20"]), 0, "tini -g");
        }
    }
}

/// As PID 1 the kernel drops what comes before the first instruction. Only that may be lost, so never more than the peers
/// lose, whose own start-up adds to it. It takes the static build, whose path `cargo xtask test` gives: a dynamic one begins
/// in the loader. (`cargo xtask bench early-term` has the figures over 10,000.)
#[test]
fn as_pid_1_no_more_is_lost_than_by_others() {
    let test = "as_pid_1_no_more_is_lost_than_by_others";
    if !root(test) {
        return;
    }
    let peer = ["/usr/bin/tini", "/usr/bin/catatonit"].into_iter().find(|path| Path::new(path).exists());
    let (Some(peer), Some(slim)) = (peer, std::env::var_os("LAMEDUCK_SLIM")) else {
        eprintln!("SKIPPED {test}: needs tini or catatonit, and LAMEDUCK_SLIM");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let ours = dir.path().join("tini");
    std::os::unix::fs::symlink(slim, &ours).unwrap();
    let lost = |path: &str| {
        let delay = |n: u32| Duration::from_micros(u64::from(n) * 4000 / u64::from(ROUNDS));
        (0..ROUNDS).filter(|n| !pid_1_takes_term(&[path, "--", "sleep", "20"], delay(*n))).count()
    };
    let (ours, theirs) = (lost(ours.to_str().unwrap()), lost(peer));
    eprintln!("TERM lost as PID 1, of {ROUNDS}: lameduck {ours}, {peer} {theirs}");
    assert!(ours <= theirs, "lameduck lost {ours} of {ROUNDS}, {peer} {theirs}");
}

/// The same in a new pid namespace. The thread that starts it has unshared its children's namespace, so the child's pid is
/// known at once and nothing stands between it and its exec.
fn pid_1_takes_term(words: &[&str], delay: Duration) -> bool {
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    std::thread::spawn(move || {
        unshare_pids();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        dies_of_term(&words, delay)
    })
    .join()
    .unwrap()
}

/// unshare(2) with `CLONE_NEWPID`: of the calling thread's children only.
#[expect(unsafe_code, reason = "rustix marks unshare unsafe because of CLONE_FILES, which is not used")]
fn unshare_pids() {
    // SAFETY: CLONE_NEWPID changes nothing in this process but where its next children are born.
    unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWPID) }.unwrap();
}
