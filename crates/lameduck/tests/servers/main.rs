//! Real servers, each with its own manners at TERM, rolled under load: plain they lose requests, under `lameduck run` in its
//! default, observing mode none is refused and none is cut, and behind its front nothing at all is lost.
//!
//! Three replicas, 200 requests a second, endpoints that are removed 5 s after TERM.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests are at the edge: they read environments, and fail by panic"
)]

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_drill::servers::{ALL, Server};
use lameduck_drill::{DrillResult, Plan, parse_request_file, profile, render};

fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(program).is_file())
}

fn plan(server: &Server, command: Vec<OsString>, lag: u64) -> Plan {
    let demo = lameduck_drill::demo::plan(command, Vec::new());
    let upload = server.upload;
    Plan {
        replicas: 3,
        rate: 200.0,
        lag: Duration::from_secs(lag),
        grace: Duration::from_secs(30),
        duration: Duration::from_secs(3),
        ready_timeout: Duration::from_secs(30),
        mix: parse_request_file(&format!("GET / 9\nGET /slow 3\n{upload} 4 512\nHEAD /")).unwrap(),
        ..demo
    }
}

fn drill(server: &str, variant: &str, plan: &Plan) -> DrillResult {
    let result = lameduck_drill::run(plan, |_| {}).unwrap_or_else(|error| panic!("{server}, {variant}: {error}"));
    eprintln!("{server}, {variant}: {} of {} lost {:?}", result.tally.lost, result.tally.sent, result.tally.causes);
    result
}

fn try_out(id: &str) {
    let server = &Server::from_id(id).unwrap();
    let missing: Vec<&str> = server.needs.iter().filter(|program| !find(program)).copied().collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED {}: needs {}", server.title, missing.join(", "));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in server.files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    if let Some(build) = server.build_command(dir.path()) {
        let status = Command::new(&build[0]).args(&build[1..]).status().unwrap();
        assert!(status.success(), "{build:?}");
    }
    let command = server.command(dir.path());

    // A short lag is enough to see that the drill sees it.
    let plain = drill(server.title, "plain", &plan(server, command.clone(), 1));
    assert!(plain.tally.lost > 0, "{}: the drill has to see what it is to see the absence of", server.title);

    let under = |words: &[&str]| -> Vec<OsString> {
        let run = [&[env!("CARGO_BIN_EXE_lameduck"), "run"], words].concat();
        run.into_iter().map(OsString::from).chain(command.clone()).collect()
    };
    behind_the_front(server, under(&["--listen", "127.0.0.1:{port}", "--"]));
    let wrapped = under(&["--"]);
    let cured = drill(server.title, "under lameduck run", &plan(server, wrapped, 5));
    let lost = |cause: Cause| cured.tally.causes.get(&cause).copied().unwrap_or_default();
    assert_eq!(lost(Cause::RefusedWhileRouted), 0, "{}", render::text(&cured, false));
    assert_eq!(lost(Cause::CutMidResponse), 0, "{}", render::text(&cured, false));
    assert_eq!((cured.tally.lost, cured.tally.unknown, cured.dropped), (0, 0, 0), "{}", render::text(&cured, false));
    let max = cured.term_to_exit_s.max.unwrap();
    let bound = 5.0 + 2.0 + 1.0 + Duration::from_millis(server.own_stop_ms).as_secs_f64();
    assert!(max <= bound, "{}: TERM to exit {max} s; lag + quiet + 1 s and its own stop are {bound}", server.title);
}

/// With a front, nothing at all is lost: not the races of idle connections, not a session, not a stream of HTTP/2. Each
/// server is rolled behind one of the balancers; `cargo xtask matrix` does it behind all.
fn behind_the_front(server: &Server, command: Vec<OsString>) {
    const WEBSOCKET_S: f64 = 2.0;
    let at = ALL.iter().position(|one| one.id == server.id).unwrap();
    let mix = server.mix(true, WEBSOCKET_S).join("\n");
    let plan = Plan {
        profile: profile::ALL[at % profile::ALL.len()],
        mix: parse_request_file(&mix).unwrap(),
        ..plan(server, command, 5)
    };
    let cured = drill(server.title, "behind the front", &plan);
    assert_eq!((cured.tally.lost, cured.tally.unknown, cured.dropped), (0, 0, 0), "{}", render::text(&cured, false));
    let max = cured.term_to_exit_s.max.unwrap();
    let bound = 5.0 + 2.0 + WEBSOCKET_S + 2.0;
    assert!(max <= bound, "{}: TERM to exit {max} s; lag + quiet + longest request + 2 s are {bound}", server.title);
}

#[test]
fn node_without_a_handler() {
    try_out("node");
}

#[test]
fn node_with_server_close() {
    try_out("node-close");
}

#[test]
fn gunicorn_with_threads() {
    try_out("gunicorn");
}

#[test]
fn gunicorn_sync() {
    try_out("gunicorn-sync");
}

#[test]
fn uvicorn() {
    try_out("uvicorn");
}

#[test]
fn puma() {
    try_out("puma");
}

#[test]
fn passenger() {
    try_out("passenger");
}

#[test]
fn go_net_http() {
    try_out("go");
}

/// TERM is nginx's fast stop, which cuts what is in flight. After quiet there is nothing to cut.
#[test]
fn nginx() {
    try_out("nginx");
}
