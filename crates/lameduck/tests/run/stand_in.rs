//! Called as tini or dumb-init.

use std::process::Command;

use rustix::process::Signal;

use crate::support::{Duck, clean, named, status_field, until};

fn start(name: &str, args: &[&str]) -> Duck {
    let (dir, path) = named(name);
    let mut command = Command::new(path);
    command.args(args);
    clean(&mut command);
    let duck = Duck::start(command);
    // The name must last until it was read.
    until("started", || duck.child.id() > 0);
    std::mem::forget(dir);
    duck
}

#[test]
fn tini_statuses_and_flags() {
    let check = |args: &[&str], expect: i32| assert_eq!(start("tini", args).code(), expect, "{args:?}");
    check(&["--", "sh", "-c", "exit 3"], 3);
    check(&["-e", "3", "--", "sh", "-c", "exit 3"], 0);
    check(&["--", "/does/not/exist"], 127);
    check(&["--", "/etc"], 126);
    check(&["-x"], 1);
    check(&["--version"], 0);
    check(&["-h"], 0);
}

#[test]
fn dumb_init_statuses_and_flags() {
    let check = |args: &[&str], expect: i32| assert_eq!(start("dumb-init", args).code(), expect, "{args:?}");
    check(&["sh", "-c", "exit 3"], 3);
    check(&["/does/not/exist"], 2);
    check(&["-r", "15:x", "true"], 1);
    check(&["--help"], 0);
    check(&[], 1);
}

/// They forward at once: no drain, no report.
#[test]
fn stand_ins_pass_signals_on_at_once() {
    for name in ["tini", "dumb-init"] {
        let mut duck =
            start(name, ["bash", "--", "-c"][..1].iter().copied().chain(["/dev/stdin"]).collect::<Vec<_>>().as_slice());
        // bash reads nothing from /dev/null and ends.
        assert_eq!(duck.code(), 0, "{name}");
        let mut duck = start(name, &["--", "sh", "-c", "echo up; exec sleep 60"]);
        assert_eq!(duck.line(), "up");
        duck.signal(Signal::TERM);
        assert_eq!(duck.code(), 143, "{name}");
        assert!(duck.rest().iter().all(|line| !line.contains("report")), "{name}");
    }
}

#[test]
fn dumb_init_makes_a_session_tini_a_group() {
    let check = |name: &str, args: &[&str], session: bool, group: bool| {
        let mut duck = start(name, &[args, &["sh", "-c", "echo $$; exec sleep 60"]].concat());
        let pid: i32 = duck.line().parse().unwrap();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        assert_eq!(fields[2] == pid.to_string(), group, "{name} {args:?}: process group");
        assert_eq!(fields[3] == pid.to_string(), session, "{name} {args:?}: session");
        duck.signal(Signal::TERM);
        duck.code();
    };
    check("dumb-init", &["--"], true, true);
    check("dumb-init", &["-c", "--"], false, false);
    check("tini", &["--"], false, true);
}

#[test]
fn tini_with_its_group() {
    let script = "trap '' USR1; sleep 60 & echo up; wait";
    let mut duck = start("tini", &["-g", "--", "bash", "-c", script]);
    assert_eq!(duck.line(), "up");
    let child = crate::support::descendants(duck.child.id() as i32);
    until("both", || child.len() == 2);
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
    for pid in child {
        until("all gone", || status_field(pid, "State").is_none_or(|state| state.starts_with('Z')));
    }
}
