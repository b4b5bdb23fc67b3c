//! Children that other inits lose, hang on, or leave behind.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Duck, LAMEDUCK, clean, descendants, root, run, status_field, until};

#[test]
fn exit_statuses_are_the_commands_own() {
    let check = |args: &[&str], expect: i32| {
        let mut duck = Duck::start(run(args));
        assert_eq!(duck.code(), expect, "{args:?}: {:?}", duck.rest());
    };
    check(&["--", "true"], 0);
    check(&["true"], 0);
    check(&["--", "sh", "-c", "exit 7"], 7);
    check(&["--", "sh", "-c", "kill -TERM $$"], 143);
    check(&["--", "sh", "-c", "kill -KILL $$"], 137);
    check(&["--map-exit", "143=0", "--", "sh", "-c", "kill -TERM $$"], 0);
    check(&["--", "/does/not/exist"], 127);
    check(&["--", "does-not-exist-either"], 127);
    check(&["--", "/etc"], 126);
    check(&["--mode", "off", "--", "sh", "-c", "exit 9"], 9);
    check(&["--mode", "off", "--", "/does/not/exist"], 127);
    check(&["--mode", "off", "--", "/etc"], 126);
    check(&["--nonsense", "--", "true"], 125);
    check(&[], 125);
    check(&["--grace", "5", "--min", "10", "--", "true"], 125);
}

#[test]
fn mode_off_leaves_no_trace() {
    let mut command = run(&["--mode", "off", "--", "sh", "-c", "echo $$; exec sleep 30"]);
    command.env("LAMEDUCK_GRACE", "10");
    let mut duck = Duck::start(command);
    assert_eq!(duck.line(), duck.child.id().to_string(), "the command has lameduck's pid");
    until("exec", || status_field(duck.child.id() as i32, "Name").as_deref() == Some("sleep"));
    duck.signal(Signal::TERM);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&duck.wait()), Some(15));
    assert!(duck.rest().is_empty());
}

/// Signals and their masks as a child sees them, with and without lameduck in front.
#[test]
fn inherited_masks_and_ignored_signals_reach_the_child_unchanged() {
    let wrapper = "
import os, signal, sys
for s in (signal.SIGHUP, signal.SIGPIPE, signal.SIGCHLD, signal.SIGTTOU): signal.signal(s, signal.SIG_IGN)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN])
os.execvp(sys.argv[1], sys.argv[1:])
";
    let show = ["cat", "/proc/self/status"];
    let of = |words: &[&str]| {
        let mut command = Command::new("python3");
        command.args(["-c", wrapper]).args(words);
        clean(&mut command);
        let out = command.output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success(), "{words:?}");
        ["SigBlk", "SigIgn", "SigCgt"].map(|field| {
            text.lines().find(|line| line.starts_with(field)).unwrap_or_else(|| panic!("{words:?}: {text}")).to_owned()
        })
    };
    let plain = of(&show);
    assert_eq!(plain, of(&[&[LAMEDUCK, "run", "--"], &show[..]].concat()));
    assert_eq!(plain, of(&[&[LAMEDUCK, "run", "--mode", "off", "--"], &show[..]].concat()));
    assert_eq!(plain, of(&[&[LAMEDUCK, "run", "--mode", "observe", "--"], &show[..]].concat()));
}

/// tini and catatonit hang: the kernel reaps for whoever ignores SIGCHLD.
#[test]
fn sigchld_ignored_on_entry_is_no_hang() {
    let mut command = Command::new("python3");
    command.args([
        "-c",
        "import os,signal,sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execvp(sys.argv[1], sys.argv[1:])",
    ]);
    command.args([LAMEDUCK, "run", "--", "sh", "-c", "exit 5"]);
    clean(&mut command);
    assert_eq!(Duck::start(command).code(), 5);
}

/// A stopped child does not see TERM before CONT.
#[test]
fn a_stopped_child_is_woken() {
    let mut duck = Duck::start(run(&["--", "sh", "-c", "echo $$; exec sleep 60"]));
    let pid: i32 = duck.line().parse().unwrap();
    until("sleep", || status_field(pid, "Name").as_deref() == Some("sleep"));
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::STOP).unwrap();
    until("stopped", || status_field(pid, "State").is_some_and(|state| state.starts_with('T')));
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
}

/// tini and dumb-init leave, and the container's end kills the rest untold.
#[test]
fn the_main_process_exits_first_and_the_others_finish() {
    // The worker lets the main process go once it is up: an exit any sooner would meet a worker without its trap.
    let script = "trap 'exit 3' USR1; \
        (trap 'sleep 0.5; echo worker done; exit 0' TERM; echo up; kill -USR1 $$; while :; do sleep 0.05; done) & \
        while :; do sleep 0.05; done";
    let mut duck = Duck::start(run(&["--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    assert_eq!(duck.line(), "worker done");
    assert_eq!(duck.code(), 3);
    assert_eq!(duck.report().processes.killed, 0);
}

#[test]
fn a_descendant_in_its_own_session_is_told_and_waited_for() {
    let script =
        "setsid bash -c 'trap \"sleep 0.3; echo told; exit 0\" TERM; echo up; while :; do sleep 0.05; done' & wait";
    let mut duck = Duck::start(run(&["--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    assert_eq!(duck.line(), "told");
    assert_eq!(duck.code(), 143);
}

/// The shell waits for its child before it runs the trap: who waits for the shell alone waits for ever.
#[test]
fn a_shell_that_cannot_run_its_trap_is_cured_halfway() {
    let script = "trap 'echo trapped; exit 0' TERM; echo up; sleep 60";
    let mut duck = Duck::start(run(&["--grace", "4s", "--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    let began = Instant::now();
    duck.signal(Signal::TERM);
    assert_eq!(duck.line(), "trapped");
    assert_eq!(duck.code(), 0);
    assert!(began.elapsed() < Duration::from_millis(3500), "{:?}", began.elapsed());
    assert_eq!(duck.report().processes.killed, 0);
}

#[test]
fn what_ignores_term_is_killed_before_the_platform_does_and_the_status_survives() {
    let script = "trap '' TERM; echo up; while :; do sleep 0.05; done";
    let mut duck = Duck::start(run(&["--grace", "2s", "--margin", "500ms", "--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    let began = Instant::now();
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 137);
    let took = began.elapsed();
    assert!((Duration::from_millis(1450)..Duration::from_secs(2)).contains(&took), "{took:?}");
    assert!(duck.report().processes.killed >= 1);
}

#[test]
fn orphans_that_end_together_are_all_reaped() {
    let script = "for i in $(seq 150); do (sleep 0.3 &) ; done; sleep 1.2";
    let mut duck = Duck::start(run(&["--", "bash", "-c", script]));
    assert_eq!(duck.code(), 0);
    // 150 sleeps were orphaned at once, plus the main process.
    assert!(duck.report().processes.reaped >= 151, "{:?}", duck.report().processes);
}

#[test]
fn neither_the_working_directory_nor_inherited_descriptors_are_pinned() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut command = Command::new("bash");
    let inner = format!(
        "cd {path}; exec 7<{path}; exec {LAMEDUCK} run -- sh -c 'pwd; readlink /proc/self/fd/7; exec sleep 30'"
    );
    command.args(["-c", &inner]);
    clean(&mut command);
    let mut duck = Duck::start(command);
    assert_eq!(duck.line(), path, "the child starts where lameduck was started");
    assert_eq!(duck.line(), path, "the child keeps what was handed to it");
    let pid = duck.child.id();
    until("cwd is /", || fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == std::path::Path::new("/")));
    let held = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|link| link.starts_with(path))
        .count();
    assert_eq!(held, 0, "lameduck itself holds nothing of it");
}

/// tini exits while the child lives; the container goes down with requests in flight.
#[test]
fn a_child_that_may_not_be_signalled_is_not_abandoned() {
    if !root("a_child_that_may_not_be_signalled_is_not_abandoned") {
        return;
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-kill", "--inh-caps=-all", "--", LAMEDUCK, "run", "--grace", "20s", "--"]);
    command.args(["setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo up; sleep 1.5; exit 6"]);
    clean(&mut command);
    let mut duck = Duck::start(command);
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    duck.hear("could not be sent");
    assert_eq!(duck.code(), 6, "the child's own end, in its own time");
}

#[test]
fn group_and_single_child() {
    // Where both signals wait for the worker's shell, which runs traps between commands, it runs that of USR1 first: its
    // number is lower. Without a trap of its own TERM would end it before.
    let script = "trap 'echo main; exit 0' USR1; (trap 'echo worker; exit 0' USR1; trap 'exit 0' TERM; echo up; while :; do sleep 0.02; done) & while :; do sleep 0.02; done";
    let heard = |scope: &[&str]| {
        let mut duck = Duck::start(run(&[scope, &["--grace", "3s", "--", "bash", "-c", script]].concat()));
        assert_eq!(duck.line(), "up");
        duck.signal(Signal::USR1);
        let mut lines = vec![duck.line(), duck.line()];
        duck.wait();
        lines.sort();
        lines
    };
    assert_eq!(heard(&["--group"]), ["main", "worker"]);
    assert_eq!(heard(&[]), ["", "main"], "other signals go to the main process; the worker then gets TERM");
    assert_eq!(heard(&["--single-child"]), ["", "main"]);
}

#[test]
fn rewrites_by_name_and_number() {
    let script = "trap 'echo usr1; exit 0' USR1; echo up; while :; do sleep 0.02; done";
    for rewrite in ["15:10", "TERM:USR1", "SIGTERM:SIGUSR1"] {
        let mut duck = Duck::start(run(&["--rewrite", rewrite, "--", "bash", "-c", script]));
        assert_eq!(duck.line(), "up");
        duck.signal(Signal::TERM);
        assert_eq!(duck.line(), "usr1", "{rewrite}");
        assert_eq!(duck.code(), 0);
    }
    let mut swallowed =
        Duck::start(run(&["--rewrite", "HUP:0", "--", "bash", "-c", "trap 'exit 9' HUP; echo up; sleep 0.5; exit 0"]));
    assert_eq!(swallowed.line(), "up");
    swallowed.signal(Signal::HUP);
    assert_eq!(swallowed.code(), 0);
}

#[test]
fn nothing_is_left_behind() {
    let script = "sleep 61 & setsid sleep 62 & (sleep 63 &) ; wait";
    let mut duck = Duck::start(run(&["--", "bash", "-c", script]));
    let root = duck.child.id() as i32;
    until("four processes", || descendants(root).len() == 4);
    let pids = descendants(root);
    duck.signal(Signal::TERM);
    duck.wait();
    for pid in pids {
        assert!(!fs::exists(format!("/proc/{pid}")).unwrap(), "{pid} is left");
    }
}

#[test]
fn idle_means_no_wake_ups() {
    let mut duck = Duck::start(run(&["--", "sleep", "30"]));
    let pid = duck.child.id() as i32;
    until("it serves", || descendants(pid).len() == 1);
    let switches = || -> u64 {
        ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"]
            .map(|field| status_field(pid, field).unwrap().parse::<u64>().unwrap())
            .iter()
            .sum()
    };
    // Not the first three: a start takes as long as the machine makes it.
    until("three seconds without a wake-up", || {
        let before = switches();
        std::thread::sleep(Duration::from_secs(3));
        switches() == before
    });
    assert_eq!(status_field(pid, "Threads").unwrap(), "1");
    duck.signal(Signal::TERM);
    duck.wait();
}

/// A descriptor of ours must not get the number of a closed standard one, where the next step would overwrite it.
#[test]
fn closed_standard_descriptors_do_not_make_pid_1_deaf() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("exec {LAMEDUCK} run -- sleep 30 {closed}");
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        clean(&mut command);
        let mut duck = Duck::start(command);
        let pid = duck.child.id() as i32;
        until("it runs", || descendants(pid).len() == 1);
        std::thread::sleep(Duration::from_millis(100));
        duck.signal(Signal::TERM);
        assert_eq!(duck.code(), 143, "{closed}");
    }
}

#[test]
fn waiting_for_what_is_left_takes_no_cpu() {
    let mut duck =
        Duck::start(run(&["--grace", "4s", "--", "bash", "-c", "(trap '' TERM; sleep 60) & sleep 0.2; exit 3"]));
    duck.hear("the app exited with 3");
    let pid = duck.child.id();
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<u64> =
            stat.rsplit(')').next().unwrap().split_whitespace().filter_map(|field| field.parse().ok()).collect();
        // utime and stime, fields 14 and 15; the state, field 3, is no number and comes first.
        fields[10] + fields[11]
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before <= 3, "{} ticks in a second", ticks() - before);
    assert_eq!(duck.code(), 3);
}

/// TERM to the group and then to each of its members would be a second TERM, which many take for "now".
#[test]
fn a_group_is_told_once() {
    let script = "n=0; trap 'n=$((n+1)); echo told $n' TERM; (trap 'echo gone; exit 0' TERM; echo up; while :; do sleep 0.02; done) & \
                  while [ $n -lt 2 ]; do sleep 0.02; done; exit 9";
    let mut duck = Duck::start(run(&["--group", "--grace", "3s", "--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    let mut lines = [duck.line(), duck.line()];
    lines.sort();
    assert_eq!(lines, ["gone", "told 1"]);
    assert_eq!(duck.code(), 137, "it waits for a second one that never comes");
}

#[test]
fn a_group_whose_main_process_ended_by_itself_is_told_too() {
    let script = "(trap 'echo told; exit 0' TERM; echo up; while :; do sleep 0.02; done) & sleep 0.3; exit 9";
    let mut duck = Duck::start(run(&["--group", "--grace", "5s", "--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    assert_eq!(duck.line(), "told");
    assert_eq!(duck.code(), 9);
    assert_eq!(duck.report().processes.killed, 0);
}

#[test]
fn the_static_build_runs_in_an_empty_root() {
    let test = "the_static_build_runs_in_an_empty_root";
    let slim = std::env::var_os("LAMEDUCK_SLIM");
    let Some(slim) = slim.filter(|_| root(test)) else {
        eprintln!("SKIPPED {test}: needs LAMEDUCK_SLIM and root");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    fs::copy(&slim, dir.path().join("lameduck")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--root"]).arg(dir.path());
    command.args(["/lameduck", "run", "--grace", "5s", "--", "/lameduck", "run", "--", "/lameduck", "version"]);
    clean(&mut command);
    let mut duck = Duck::start(command);
    assert!(duck.line().starts_with("lameduck "));
    assert_eq!(duck.code(), 0, "{:?}", duck.rest());
}
