//! `lameduck drain`, `lameduck ready` and the admin endpoints.

use std::io::{Read, Write};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Duck, LAMEDUCK, SERVER, clean, free_port, get, listening, root, run, until};

fn verb(verb: &str, duck: &Duck, more: &[&str]) -> Output {
    let pid = duck.child.id().to_string();
    let mut command = Command::new(LAMEDUCK);
    command.args([verb, "--pid", &pid]).args(more);
    clean(&mut command);
    command.output().unwrap()
}

fn server(args: &[&str]) -> (Duck, u16) {
    let port = free_port();
    let text = port.to_string();
    (Duck::start(run(&[args, &["--", "python3", "-c", SERVER, &text]].concat())), port)
}

#[test]
fn ready_follows_the_listener_and_the_drain() {
    let (mut duck, port) = server(&["--min", "1s", "--quiet", "200ms"]);
    listening(port);
    until("ready", || verb("ready", &duck, &[]).status.code() == Some(0));
    duck.signal(Signal::TERM);
    duck.hear("TERM received");
    assert_eq!(verb("ready", &duck, &[]).status.code(), Some(1), "outside Kubernetes readiness is the only signal");
    duck.code();
    let gone = verb("ready", &duck, &[]);
    assert_eq!(gone.status.code(), Some(1));
    assert!(String::from_utf8(gone.stderr).unwrap().contains("no lameduck runs here"));
}

#[test]
fn readiness_policies() {
    let ready_while = |args: &[&str], kubernetes: bool, by_request: bool| {
        let port = free_port();
        let text = port.to_string();
        let mut command =
            run(&[&["--min", "2s", "--quiet", "200ms"], args, &["--", "python3", "-c", SERVER, &text]].concat());
        if kubernetes {
            command.env("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        }
        let mut duck = Duck::start(command);
        listening(port);
        if by_request {
            assert_eq!(verb("drain", &duck, &[]).status.code(), Some(0));
            duck.hear("drain requested");
        } else {
            duck.signal(Signal::TERM);
            duck.hear("TERM received");
        }
        verb("ready", &duck, &[]).status.code() == Some(0)
    };
    assert!(ready_while(&["--readiness", "keep"], false, false));
    assert!(!ready_while(&["--readiness", "fail"], true, false));
    assert!(ready_while(&[], true, false), "auto, in a pod, after TERM: kube-proxy may need it");
    assert!(!ready_while(&[], true, true), "auto, in a pod, by request: nobody else knows");
    assert!(!ready_while(&[], false, false), "auto, elsewhere");
}

/// As a preStop hook: the hook returns at quiet, the app still serves, and TERM then finds the waiting done.
#[test]
fn drain_and_wait_then_term() {
    let (mut duck, port) = server(&["--min", "1s", "--quiet", "300ms"]);
    listening(port);
    let began = Instant::now();
    let out = verb("drain", &duck, &["--wait"]);
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    assert!(began.elapsed() >= Duration::from_millis(990), "{:?}", began.elapsed());
    assert!(String::from_utf8(out.stdout).unwrap().contains("\"quiet\":true"));
    assert!(get(port, "/").unwrap().ends_with("200 OK"), "nothing was stopped");
    std::thread::sleep(Duration::from_millis(400));
    let term = Instant::now();
    duck.signal(Signal::TERM);
    duck.code();
    assert!(term.elapsed() < Duration::from_millis(600), "{:?}", term.elapsed());
    assert_eq!(serde_json::to_value(duck.report().origin).unwrap(), "request");
}

#[test]
fn admin_endpoints_are_served_by_a_child_that_is_started_again() {
    let admin = free_port();
    let address = format!("127.0.0.1:{admin}");
    let (mut duck, port) = server(&["--admin", &address, "--min", "300ms", "--quiet", "200ms"]);
    listening(port);
    listening(admin);
    until("ready", || get(admin, "/readyz").is_ok_and(|line| line == "HTTP/1.1 200 OK"));
    assert_eq!(get(admin, "/livez").unwrap(), "HTTP/1.1 200 OK");
    assert_eq!(get(admin, "/nowhere").unwrap(), "HTTP/1.1 404 Not Found");
    let app_and_admin = crate::support::descendants(duck.child.id() as i32);
    assert_eq!(app_and_admin.len(), 2);
    let is_admin = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("serve-admin"))
    };
    let helper = *app_and_admin.iter().find(|pid| is_admin(pid)).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(helper).unwrap(), Signal::KILL).unwrap();
    until("it is back", || get(admin, "/livez").is_ok_and(|line| line == "HTTP/1.1 200 OK"));
    duck.signal(Signal::TERM);
    duck.hear("watching the traffic");
    duck.code();
    assert_eq!(duck.report().traffic.ports, [port], "the admin port is not the app's");
    assert!(get(admin, "/livez").is_err(), "it ends with lameduck");
}

#[test]
fn post_drain() {
    let admin = free_port();
    let (mut duck, port) = server(&["--admin", &format!("127.0.0.1:{admin}")]);
    listening(port);
    listening(admin);
    let mut stream = std::net::TcpStream::connect(("127.0.0.1", admin)).unwrap();
    stream.write_all(b"POST /drain HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 202 Accepted\r\n"), "{answer}");
    assert!(answer.contains("\"state\":\"lame-duck\""), "{answer}");
    duck.hear("drain requested");
}

#[test]
fn an_address_in_use_is_refused_at_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut duck = Duck::start(run(&["--admin", &address, "--", "true"]));
    assert_eq!(duck.code(), 125);
    duck.hear("expected an address of this host with a free port");
}

#[test]
fn another_user_is_not_answered() {
    if !root("another_user_is_not_answered") {
        return;
    }
    let (duck, port) = server(&[]);
    listening(port);
    let dir = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let copy = dir.path().join("lameduck");
    std::fs::copy(LAMEDUCK, &copy).unwrap();
    let pid = duck.child.id().to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--clear-groups", "--"]).arg(copy).args(["drain", "--pid", &pid]);
    clean(&mut command);
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{out:?}");
    assert!(String::from_utf8(out.stderr).unwrap().contains("belongs to another user"));
    assert_eq!(verb("ready", &duck, &[]).status.code(), Some(0));
}

/// Non-root, a read-only root file system with nothing in it but lameduck, as PID 1: `drain` and `ready` still reach it.
#[test]
fn in_an_empty_read_only_root_as_pid_1_and_non_root() {
    let test = "in_an_empty_read_only_root_as_pid_1_and_non_root";
    let (true, Some(slim)) = (root(test), std::env::var("LAMEDUCK_SLIM").ok()) else {
        eprintln!("SKIPPED {test}: needs root and LAMEDUCK_SLIM");
        return;
    };
    let in_the_image = |command: &str| {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().display();
        let script = format!(
            "mount -t tmpfs none {dir} && cp {slim} {dir}/lameduck && mkdir {dir}/proc && mount -t proc proc {dir}/proc && \
             mount -o remount,ro {dir} && exec chroot --userspec=65534:65534 {dir} /lameduck run --grace 10s -- {command}"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount", "--kill-child", "sh", "-c", &script]);
        clean(&mut unshare);
        let mut duck = Duck::start(unshare);
        let line = duck.line();
        (duck.code(), line)
    };
    let (code, status) = in_the_image("/lameduck ready");
    assert_eq!(code, 1, "nothing listens: {status}");
    assert!(status.contains("\"state\":\"serving\""), "{status}");
    let (code, status) = in_the_image("/lameduck drain --wait");
    assert_eq!(code, 0, "{status}");
    assert!(status.contains("\"quiet\":true"), "{status}");
}
