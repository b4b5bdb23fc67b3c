//! 100,000 signals and child exits: every status is accounted for.

use std::process::Command;

use rustix::process::{Signal, kill_process};

use crate::support::{Duck, clean, run};

/// Each orphan is lameduck's to reap, and the report counts what was reaped.
const ORPHANS: u32 = 4_000;
const SIGNALS: u32 = 96_000;

#[test]
fn pid_1_survives_a_storm_with_every_status_accounted_for() {
    // The child ignores what is sent, makes orphans in bulk, and says how many.
    let script = format!(
        "
import os, signal, sys
for n in list(range(1, 32)) + list(range(34, 65)):
    if n not in (signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD): signal.signal(n, lambda *a: None)
print('up', flush=True)
made = 0
for _ in range({ORPHANS} // 50):
    pid = os.fork()
    if pid == 0:
        for _ in range(50):
            if os.fork() == 0: os._exit(0)
        os._exit(0)
    while True:
        try: os.waitpid(pid, 0); break
        except InterruptedError: pass
    made += 50
print('made', made, flush=True)
sys.stdin.read()
while True:
    if os.path.exists(sys.argv[1]): os._exit(42)
    signal.sigtimedwait([], 0.01)
"
    );
    let dir = tempfile::tempdir().unwrap();
    let over = dir.path().join("over");
    let mut duck = Duck::start(run(&["--drain-on", "URG", "--", "python3", "-c", &script, over.to_str().unwrap()]));
    assert_eq!(duck.line(), "up");
    let pid = duck.pid();
    // Any signal but those that stop a process or end the drain; a small generator, the same every run.
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for n in 0..SIGNALS {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let number = match (seed % 62) as i32 + 1 {
            9 | 19 | 20 | 21 | 22 | 23 => 10,
            32 | 33 => 34,
            number => number,
        };
        let signal = Signal::from_named_raw(number).unwrap_or(Signal::CHILD);
        kill_process(pid, signal).unwrap_or_else(|error| panic!("gone after {n} signals: {error}"));
    }
    assert_eq!(duck.line(), format!("made {ORPHANS}"));
    std::fs::write(&over, "").unwrap();
    assert_eq!(duck.code(), 42);
    assert_eq!(duck.report().processes.reaped, u64::from(ORPHANS) + 1);
}

/// The same number of statuses, as PID 1 of a namespace, with nobody else to reap.
#[test]
fn as_pid_1_no_zombie_is_left() {
    if !crate::support::root("as_pid_1_no_zombie_is_left") {
        return;
    }
    let script = "for i in $(seq 300); do (sleep 0.3 &) ; done; sleep 1; \
                  grep -l 'State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l";
    let mut command = Command::new("unshare");
    command.args([
        "--pid",
        "--fork",
        "--mount-proc",
        "--kill-child",
        crate::support::LAMEDUCK,
        "run",
        "--",
        "bash",
        "-c",
        script,
    ]);
    clean(&mut command);
    let mut duck = Duck::start(command);
    assert_eq!(duck.line(), "0");
    assert_eq!(duck.code(), 0);
    assert!(duck.report().processes.reaped >= 301);
}
