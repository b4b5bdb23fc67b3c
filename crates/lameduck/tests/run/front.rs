//! The front as PID 1 sees it: started with its descriptors, kept alive, told, and over before the app is told.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lameduck_core::report::{EndedBy, FrontReport, Origin, Phase, TrafficSource};
use lameduck_core::timeline::Moment;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::{Duck, LAMEDUCK, PATIENCE, SERVER, clean, descendants, free_port, get, listening, run, until};

const OK: &str = "HTTP/1.1 200 OK";
const QUICK: [&str; 4] = ["--min", "500ms", "--quiet", "300ms"];

/// The server under `lameduck run --listen`, at the port that it is handed; it answers.
fn fronted(args: &[&str]) -> (Duck, u16) {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let script = "exec python3 -c \"$0\" \"$PORT\"";
    let command = run(&[&["--listen", &listen], &QUICK[..], args, &["--", "sh", "-c", script, SERVER]].concat());
    let mut duck = Duck::start(command);
    duck.hear("front: ");
    // Held until the app listens.
    assert_eq!(get(port, "/").unwrap(), OK);
    (duck, port)
}

fn is_front(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("serve-front"))
}

fn front_of(duck: &Duck) -> Pid {
    let own = duck.child.id() as i32;
    let mut found = None;
    until("the front runs", || {
        found = descendants(own).into_iter().find(|pid| is_front(*pid));
        found.is_some()
    });
    Pid::from_raw(found.unwrap()).unwrap()
}

fn status(duck: &Duck) -> Value {
    let mut command = Command::new(LAMEDUCK);
    command.args(["ready", "--pid", &duck.child.id().to_string()]);
    clean(&mut command);
    serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
}

/// A request that takes 3 s, once it is in flight.
fn slow(duck: &Duck, port: u16) -> JoinHandle<std::io::Result<String>> {
    let before = status(duck)["front"]["in_flight"].as_u64().unwrap();
    let request = thread::spawn(move || get(port, "/slow"));
    until("it is in flight", || status(duck)["front"]["in_flight"].as_u64() > Some(before));
    // Also at the app.
    thread::sleep(Duration::from_millis(100));
    request
}

fn front(duck: &mut Duck) -> FrontReport {
    duck.report().front.expect("there is a front")
}

#[test]
fn the_app_is_handed_a_port_unless_it_has_one() {
    let printed = |args: &[&str], inherited: Option<&str>| {
        let mut command = run(&[args, &["--", "sh", "-c", "echo \"port ${PORT-none}\""]].concat());
        command.envs(inherited.map(|port| ("PORT", port)));
        Duck::start(command).line()
    };
    // One each: who is killed may not have let go yet.
    let listen = || format!("127.0.0.1:{}", free_port());
    assert_eq!(printed(&[], Some("8080")), "port 8080");
    let handed = printed(&["--listen", &listen()], Some("8080"));
    let port: u16 = handed.strip_prefix("port ").unwrap().parse().unwrap();
    assert!(port != 8080, "where the front may be told to listen");
    assert_eq!(printed(&["--listen", &listen(), "--upstream", ":3000"], None), "port none");
    assert_eq!(printed(&["--listen", &listen(), "--upstream", ":3000"], Some("8080")), "port 8080");
}

#[test]
fn every_address_of_both_families() {
    let (port, other) = (free_port(), free_port());
    let (all, one) = (format!(":{port}"), format!("127.0.0.1:{other}"));
    let script = "exec python3 -c \"$0\" \"$PORT\"";
    let duck = Duck::start(run(&["--listen", &all, "--listen", &one, "--", "sh", "-c", script, SERVER]));
    listening(port);
    assert_eq!(get(port, "/").unwrap(), OK);
    assert_eq!(get(other, "/").unwrap(), OK);
    if std::net::TcpListener::bind("[::1]:0").is_ok() {
        assert!(TcpStream::connect(("::1", port)).is_ok());
    }
    drop(duck);
}

/// The front listens from the start; ready is who listens behind it.
#[test]
fn ready_is_the_app_behind_the_front() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let script = "read line < \"$1\"; exec python3 -c \"$0\" \"$PORT\"";
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("gate");
    assert!(Command::new("mkfifo").arg(&gate).status().unwrap().success());
    let gate = gate.to_str().unwrap();
    let duck = Duck::start(run(&["--listen", &listen, "--", "sh", "-c", script, SERVER, gate]));
    listening(port);
    let told = status(&duck);
    assert_eq!((&told["ready"], &told["listeners"]), (&false.into(), &0.into()));
    std::fs::write(gate, "go\n").unwrap();
    until("ready", || status(&duck)["ready"] == true);
}

#[test]
fn an_address_that_is_taken_is_said() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut duck = Duck::start(run(&["--listen", &address, "--", "true"]));
    assert_eq!(duck.code(), 125);
    duck.hear(&format!("--listen {address}: Address already in use"));
}

/// The listener is PID 1's too, so whoever connects meanwhile waits a moment, and is refused by nobody.
#[test]
fn a_front_that_is_killed_is_replaced_and_no_connect_is_refused() {
    let (mut duck, port) = fronted(&[]);
    let lost = slow(&duck, port);
    let killed = front_of(&duck);
    let over = Arc::new(AtomicBool::new(false));
    let connects = Arc::new(AtomicU32::new(0));
    let connecting = {
        let (over, connects) = (over.clone(), connects.clone());
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) || connects.load(Ordering::Relaxed) < 200 {
                TcpStream::connect(("127.0.0.1", port)).expect("the listener is open");
                connects.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        })
    };
    until("some connects", || connects.load(Ordering::Relaxed) > 20);
    kill_process(killed, Signal::KILL).unwrap();
    duck.hear("the front was ended by SIGKILL with 1 requests in flight; starting it again at once");
    assert!(lost.join().unwrap().map_or(true, |line| line.is_empty()), "it died with the front");
    assert_eq!(get(port, "/").unwrap(), OK);
    over.store(true, Ordering::Relaxed);
    connecting.join().unwrap();
    assert!(front_of(&duck) != killed);
    duck.signal(Signal::TERM);
    duck.code();
    let report = front(&mut duck);
    assert_eq!((report.figures.restarts, report.figures.lost_with_front), (1, 1));
}

#[test]
fn a_front_that_dies_again_and_again_is_started_less_often() {
    let (mut duck, port) = fronted(&[]);
    for pause in ["at once", "in 100ms", "in 200ms"] {
        kill_process(front_of(&duck), Signal::KILL).unwrap();
        duck.hear(&format!("starting it again {pause}"));
    }
    assert_eq!(get(port, "/").unwrap(), OK);
    assert_eq!(status(&duck)["front"]["restarts"], 3);
}

#[test]
fn at_term_the_front_serves_then_closes_then_the_app_is_told() {
    let (mut duck, port) = fronted(&["--min", "1s"]);
    let slow = slow(&duck, port);
    duck.signal(Signal::TERM);
    duck.hear("TERM received");
    until("told", || status(&duck)["front"]["phase"] == "lame-duck");
    for _ in 0..10 {
        assert_eq!(get(port, "/").unwrap(), OK, "everything is still served");
    }
    assert_eq!(slow.join().unwrap().unwrap(), OK);
    assert_eq!(duck.code(), 143);
    let report = duck.report();
    let phases: Vec<(Phase, EndedBy)> = report.phases.iter().map(|phase| (phase.phase, phase.ended_by)).collect();
    assert_eq!(
        phases,
        [
            (Phase::LameDuck, EndedBy::Quiet),
            (Phase::Draining, EndedBy::NothingInFlight),
            (Phase::Stopping, EndedBy::AllExited)
        ]
    );
    let at = |moment| report.timeline.at(moment).unwrap_or_else(|| panic!("no {moment:?}: {:?}", report.timeline));
    assert!(at(Moment::Quiet) <= at(Moment::DrainingBegan));
    assert!(at(Moment::DrainingBegan) <= at(Moment::StoppedAccepting));
    assert!(at(Moment::StoppedAccepting) <= at(Moment::AppSignalled), "refused, not left waiting");
    assert_eq!(report.traffic.source, TrafficSource::Front);
    assert_eq!(report.traffic.ports, [port]);
    assert_eq!((report.traffic.arrivals, report.traffic.forced_closes), (Some(10), Some(0)));
    let front = report.front.unwrap();
    assert!(front.figures.held_total <= 1, "the first one");
    assert_eq!(front.would_have_been_502, front.figures.held_total + 11, "one in flight, ten later");
    assert_eq!((front.figures.requests_serving, front.figures.requests_lame_duck), (2, 10));
    assert_eq!(front.figures.answered, 12);
    assert_eq!(front.by_source[0].address, std::net::Ipv4Addr::LOCALHOST);
    duck.hear(&format!("{} requests that would have been 502s", front.would_have_been_502));
}

/// More time than the lame duck has: the app is not told before its last answer is out.
#[test]
fn a_request_in_flight_is_waited_for_while_closing() {
    let (mut duck, port) = fronted(&["--max", "1s"]);
    let slow = slow(&duck, port);
    duck.signal(Signal::TERM);
    duck.hear("its share of the grace period is spent");
    assert_eq!(slow.join().unwrap().unwrap(), OK);
    assert_eq!(duck.code(), 143);
    let report = duck.report();
    assert_eq!(report.phases[1].ended_by, EndedBy::NothingInFlight);
    assert_eq!(report.front.unwrap().figures.forced, 0);
}

/// The kernel does not hand the shutdown of a container out by process group, but shells and supervisors do.
#[test]
fn only_pid_1_ends_the_front() {
    let (mut duck, port) = fronted(&[]);
    let front = front_of(&duck);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT, Signal::USR1, Signal::PIPE] {
        kill_process(front, signal).unwrap();
    }
    assert_eq!(get(port, "/").unwrap(), OK);
    assert_eq!(front_of(&duck), front);
    // It goes with PID 1, whatever happens to that. (The app outlives a lameduck that is not PID 1.)
    let all = descendants(duck.child.id() as i32);
    duck.signal(Signal::KILL);
    duck.wait();
    until("gone", || !is_front(front.as_raw_nonzero().get()));
    for pid in all.into_iter().filter(|pid| *pid != front.as_raw_nonzero().get()) {
        let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
    }
}

#[test]
fn a_front_killed_in_the_drain_is_told_again() {
    let (mut duck, port) = fronted(&["--min", "1500ms"]);
    duck.signal(Signal::TERM);
    until("told", || status(&duck)["front"]["phase"] == "lame-duck");
    kill_process(front_of(&duck), Signal::KILL).unwrap();
    duck.hear("starting it again");
    assert_eq!(get(port, "/").unwrap(), OK);
    assert_eq!(status(&duck)["front"]["phase"], "lame-duck");
    assert_eq!(duck.code(), 143);
    let report = duck.report();
    assert_eq!(report.phases[1].ended_by, EndedBy::NothingInFlight);
    assert_eq!(report.front.unwrap().figures.requests_lame_duck, 1);
}

#[test]
fn drained_on_request_the_front_serves_on_until_term() {
    let (mut duck, port) = fronted(&[]);
    let mut command = Command::new(LAMEDUCK);
    command.args(["drain", "--wait", "--pid", &duck.child.id().to_string()]);
    clean(&mut command);
    let reply: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
    assert_eq!((&reply["state"], &reply["drain"]["quiet"]), (&"lame-duck".into(), &true.into()));
    assert_eq!(reply["front"]["phase"], "lame-duck");
    assert_eq!(get(port, "/").unwrap(), OK);
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
    let report = duck.report();
    assert_eq!(report.origin, Origin::Request);
    let front = report.front.unwrap();
    assert_eq!(front.would_have_been_502, front.figures.held_total + 1);
}

#[test]
fn an_app_that_exits_by_itself_takes_the_front_along() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut duck = Duck::start(run(&["--listen", &listen, "--", "sh", "-c", "read line; exit 7"]));
    // Its standard input is empty.
    let began = Instant::now();
    assert_eq!(duck.code(), 7);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    let report = duck.report();
    assert_eq!((report.origin, report.exit.status), (Origin::AppExit, 7));
    assert_eq!(report.front.unwrap().would_have_been_502, 0);
}

/// Whoever is held for an app that will not come is told so before lameduck is gone.
#[test]
fn who_waits_for_an_app_that_exits_is_answered() {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut duck = Duck::start(run(&["--listen", &listen, "--", "sh", "-c", "sleep 1; exit 7"]));
    listening(port);
    let answer = get(port, "/").unwrap();
    assert!(answer.starts_with("HTTP/1.1 50"), "{answer:?}");
    assert_eq!(duck.code(), 7);
}

#[test]
fn observe_proxies_and_passes_signals_on_at_once() {
    let (mut duck, port) = fronted(&["--mode", "observe"]);
    assert_eq!(get(port, "/").unwrap(), OK);
    let began = Instant::now();
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
    assert!(began.elapsed() < Duration::from_millis(450), "{:?}: nothing is waited for", began.elapsed());
    assert_eq!(front(&mut duck).figures.answered, 2);
}

#[test]
fn off_is_the_command_alone_at_the_fronts_port() {
    let port = free_port();
    let listen = format!(":{port}");
    let mut duck =
        Duck::start(run(&["--mode", "off", "--listen", &listen, "--", "sh", "-c", "echo $PORT $$; exec sleep 60"]));
    assert_eq!(duck.line(), format!("{port} {}", duck.child.id()));
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err(), "lameduck leaves no trace");
}

fn sidecar(args: &[&str]) -> (Duck, u16) {
    let port = free_port();
    let mut command = Command::new(LAMEDUCK);
    command.args(["front", "--listen", &format!("127.0.0.1:{port}")]).args(QUICK).args(args);
    clean(&mut command);
    (Duck::start(command), port)
}

#[test]
fn the_front_alone() {
    let upstream = free_port();
    let (mut duck, port) = sidecar(&["--upstream", &format!("127.0.0.1:{upstream}"), "--readiness", "keep"]);
    listening(port);
    // A request waits until the app is there.
    let held = thread::spawn(move || get(port, "/"));
    thread::sleep(Duration::from_millis(200));
    let mut app = Command::new("python3").args(["-c", SERVER, &upstream.to_string()]).spawn().unwrap();
    assert_eq!(held.join().unwrap().unwrap(), OK);
    assert_eq!(status(&duck)["ready"], true);
    duck.signal(Signal::TERM);
    assert_eq!(get(port, "/").unwrap(), OK);
    assert_eq!(duck.code(), 0);
    assert!(front(&mut duck).would_have_been_502 >= 1);
    app.kill().unwrap();
    app.wait().unwrap();
}

#[test]
fn the_front_alone_drains_at_ctrl_c() {
    let (mut duck, port) = sidecar(&["--upstream", "127.0.0.1:9"]);
    listening(port);
    // A terminal tells its foreground group, which is that of the one who holds the place.
    let place = |pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains("hold-place"))
    };
    let mut found = None;
    until("it holds the place", || {
        found = descendants(duck.child.id() as i32).into_iter().find(place);
        found.is_some()
    });
    // Not before it has its signals.
    until("it waits", || {
        std::fs::read_to_string(format!("/proc/{}/syscall", found.unwrap())).is_ok_and(|call| call.starts_with("7 "))
            || std::fs::read_link(format!("/proc/{}/fd/3", found.unwrap())).is_ok()
    });
    kill_process(Pid::from_raw(found.unwrap()).unwrap(), Signal::INT).unwrap();
    duck.hear("INT received");
    assert_eq!(duck.code(), 0);
}

/// What is in the backlog when the front dies is served by the next one.
#[test]
fn the_backlog_outlives_the_front() {
    let (duck, port) = fronted(&[]);
    let front = front_of(&duck);
    kill_process(front, Signal::STOP).unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    kill_process(front, Signal::KILL).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with(OK), "{answer:?}");
}

/// While it serves PID 1 does not look at the front, nor at anything else.
#[test]
fn pid_1_sleeps_while_the_front_serves() {
    // The lameducks of other tests, in this network too, would ask where it stands.
    let (duck, port) = fronted(&["--order", "off"]);
    let switches = || crate::support::status_field(duck.child.id() as i32, "voluntary_ctxt_switches").unwrap();
    thread::sleep(Duration::from_millis(200));
    let before = switches();
    for _ in 0..20 {
        assert_eq!(get(port, "/").unwrap(), OK);
    }
    thread::sleep(Duration::from_millis(500));
    assert_eq!(switches(), before);
}
