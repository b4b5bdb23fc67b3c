//! The drain: quiet is measured, nothing more is waited for.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use lameduck_core::report::{EndedBy, Origin, Phase, TrafficSource};
use lameduck_core::timeline::Moment;
use rustix::process::Signal;

use crate::support::{Duck, SERVER, free_port, get, listening, run, until};

fn server(args: &[&str]) -> (Duck, u16) {
    let port = free_port();
    let text = port.to_string();
    let duck = Duck::start(run(&[args, &["--", "python3", "-c", SERVER, &text]].concat()));
    listening(port);
    (duck, port)
}

/// Sends requests, one connection each, until `stop`; every one must be answered.
fn traffic(port: u16, stop: Instant) -> u32 {
    let mut answered = 0;
    while Instant::now() < stop {
        assert!(get(port, "/").expect("served").ends_with("200 OK"));
        answered += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    answered
}

/// Done-criterion: from TERM to exit at most lag + quiet + 1 s.
#[test]
fn it_ends_one_quiet_after_the_traffic_does() {
    let (mut duck, port) = server(&[]);
    let told = Instant::now();
    duck.signal(Signal::TERM);
    duck.hear("watching the traffic on ports");
    let began = Instant::now();
    let answered = traffic(port, began + Duration::from_secs(3));
    assert_eq!(duck.code(), 143);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(6), "3 s of lag + 2 s of quiet + 1 s: {took:?}");
    assert!(told.elapsed() > Duration::from_millis(4900), "--min is 5 s: {:?}", told.elapsed());
    let report = duck.report();
    assert_eq!(report.origin, Origin::Signal);
    assert_eq!(report.traffic.source, TrafficSource::SockDiag);
    assert_eq!(report.traffic.ports, [port]);
    assert_eq!(report.phases[0].phase, Phase::LameDuck);
    assert_eq!(report.phases[0].ended_by, EndedBy::Quiet);
    // The first one may have been open at the first look, or gone before the ports were known.
    let seen = report.traffic.new_connections.unwrap() + report.traffic.connections_at_start.unwrap();
    assert!(
        (answered - 2..=answered + 1).contains(&seen),
        "every connection is seen, however short: {seen} of {answered}"
    );
    assert!(report.traffic.arrivals >= Some(answered - 3));
    let last = report.traffic.last_arrival.unwrap() - (began - told).as_secs_f64();
    assert!((2.5..3.3).contains(&last), "{last}");
    assert_eq!(report.traffic.forced_closes, Some(0));
    assert!(report.timeline.at(Moment::Quiet) < report.timeline.at(Moment::AppSignalled));
}

#[test]
fn a_request_in_flight_is_waited_for() {
    let (mut duck, port) = server(&["--min", "500ms", "--quiet", "300ms"]);
    let slow = std::thread::spawn(move || get(port, "/slow"));
    std::thread::sleep(Duration::from_millis(300));
    let began = Instant::now();
    duck.signal(Signal::TERM);
    duck.code();
    assert!(slow.join().unwrap().unwrap().ends_with("200 OK"));
    assert!(began.elapsed() < Duration::from_millis(4500), "{:?}", began.elapsed());
    assert_eq!(duck.report().traffic.in_flight_at_stop, Some(0));
}

#[test]
fn a_keep_alive_client_that_goes_on_holds_it_to_the_budget_and_no_longer() {
    let (mut duck, port) = server(&["--grace", "6s", "--min", "500ms", "--quiet", "1500ms", "--max", "2s"]);
    let (first, served) = std::sync::mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut answered = 0;
        let mut buffer = [0; 512];
        while stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").is_ok()
            && stream.read(&mut buffer).is_ok_and(|n| n > 0)
        {
            answered += 1;
            let _ = first.send(());
            std::thread::sleep(Duration::from_millis(100));
        }
        answered
    });
    served.recv().unwrap();
    let began = Instant::now();
    duck.signal(Signal::TERM);
    duck.code();
    let took = began.elapsed();
    // The lame duck's 2 s, and where the end of them met a request, the 2.3 s for what is in flight: 6 s less the margin of
    // 0.6 s and the 1.1 s of the app's own stop.
    assert!((Duration::from_millis(1990)..Duration::from_millis(4700)).contains(&took), "{took:?}");
    let report = duck.report();
    assert_eq!(report.phases[0].ended_by, EndedBy::BudgetSpent);
    assert_eq!(report.traffic.open_at_stop, Some(1), "what could not be prevented is reported");
    assert!(client.join().unwrap() >= 15);
}

#[test]
fn nothing_listens_nothing_is_waited_for() {
    let mut duck = Duck::start(run(&["--", "sh", "-c", "echo up; exec sleep 60"]));
    assert_eq!(duck.line(), "up");
    let began = Instant::now();
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(duck.report().phases[0].ended_by, EndedBy::NothingListens);
}

#[test]
fn listeners_of_forks_and_late_binds_are_found() {
    let port = free_port();
    let script = format!("(sleep 0.7; exec python3 -c '{SERVER}' {port}) & wait", SERVER = SERVER.replace('\'', "\""));
    let mut duck = Duck::start(run(&["--min", "300ms", "--quiet", "300ms", "--", "bash", "-c", &script]));
    listening(port);
    duck.signal(Signal::TERM);
    duck.code();
    assert_eq!(duck.report().traffic.ports, [port]);
}

#[test]
fn other_peoples_ports_are_not_the_apps() {
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let _client = TcpStream::connect(stranger.local_addr().unwrap()).unwrap();
    let (mut duck, port) = server(&["--min", "300ms", "--quiet", "300ms"]);
    duck.signal(Signal::TERM);
    duck.code();
    assert_eq!(duck.report().traffic.ports, [port]);
}

/// As a kubelet does: one connection a second, one request each, close.
#[test]
fn a_prober_is_no_traffic() {
    let (mut duck, port) = server(&["--min", "3s", "--quiet", "2s"]);
    let prober = std::thread::spawn(move || {
        while get(port, "/healthz").is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
    });
    // Three probes before the drain show the pace.
    std::thread::sleep(Duration::from_millis(3300));
    let began = Instant::now();
    duck.signal(Signal::TERM);
    duck.code();
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let report = duck.report();
    assert_eq!(report.phases[0].ended_by, EndedBy::Quiet);
    assert!(report.traffic.ignored >= Some(2), "{:?}", report.traffic);
    prober.join().unwrap();
}

#[test]
fn ignored_sources_are_no_traffic() {
    let (mut duck, port) = server(&["--min", "300ms", "--quiet", "1s", "--ignore-from", "127.0.0.0/8"]);
    let began = Instant::now();
    duck.signal(Signal::TERM);
    let client = std::thread::spawn(move || {
        while get(port, "/").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    duck.code();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(duck.report().traffic.arrivals, Some(0));
    client.join().unwrap();
}

#[test]
fn an_app_that_exits_by_itself_ends_any_wait_at_once() {
    let (mut duck, _port) = server(&["--min", "10s"]);
    duck.signal(Signal::TERM);
    duck.hear("TERM received");
    let app = crate::support::descendants(duck.child.id() as i32)[0];
    rustix::process::kill_process(rustix::process::Pid::from_raw(app).unwrap(), Signal::INT).unwrap();
    let began = Instant::now();
    duck.code();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    // Seen by its closed listener or by its end, whichever comes first.
    assert!([EndedBy::AppExited, EndedBy::NothingListens].contains(&duck.report().phases[0].ended_by));
}

#[test]
fn a_second_term_does_not_shorten_the_drain_unless_it_may() {
    let took = |args: &[&str]| {
        let (mut duck, _) = server(&[args, &["--min", "2s", "--quiet", "200ms"]].concat());
        let began = Instant::now();
        duck.signal(Signal::TERM);
        duck.hear("TERM received");
        duck.signal(Signal::TERM);
        duck.code();
        began.elapsed()
    };
    let patient = took(&[]);
    assert!(patient >= Duration::from_millis(1990), "{patient:?}");
    let forced = took(&["--force-on-repeat"]);
    assert!(forced < Duration::from_millis(1500), "{forced:?}");
}

#[test]
fn pre_stop_commands_run_first_and_their_output_is_logged() {
    let port = free_port().to_string();
    let mut duck = Duck::start(run(&[
        "--pre-stop",
        "echo deregistered from everywhere",
        "--pre-stop",
        "sleep 30",
        "--pre-stop",
        "does-not-exist",
        "--pre-stop-timeout",
        "700ms",
        "--min",
        "100ms",
        "--quiet",
        "100ms",
        "--",
        "python3",
        "-c",
        SERVER,
        &port,
    ]));
    listening(port.parse().unwrap());
    let began = Instant::now();
    duck.signal(Signal::TERM);
    duck.hear("pre-stop: deregistered from everywhere");
    duck.hear("took longer than 700ms: killed");
    duck.hear("\"does-not-exist\" could not be executed");
    duck.code();
    assert!(began.elapsed() >= Duration::from_millis(700) && began.elapsed() < Duration::from_secs(3));
    assert_eq!(duck.report().phases[0].ended_by, EndedBy::Quiet);
}

#[test]
fn a_stop_command_stops_instead_of_the_signal() {
    let dir = tempfile::tempdir().unwrap();
    let flag = dir.path().join("stop");
    let script = format!(
        "trap 'echo term' TERM; echo up; until [ -e {} ]; do sleep 0.02; done; echo stopped; exit 4",
        flag.display()
    );
    let mut duck =
        Duck::start(run(&["--stop-command", &format!("touch {}", flag.display()), "--", "bash", "-c", &script]));
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    assert_eq!(duck.line(), "stopped");
    assert_eq!(duck.code(), 4);
}

#[test]
fn a_stop_command_that_fails_is_followed_by_the_signal() {
    let mut duck = Duck::start(run(&["--stop-command", "false", "--", "sh", "-c", "echo up; exec sleep 60"]));
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
}

#[test]
fn stop_signal_and_drain_on() {
    let script = "trap 'echo quit; exit 0' QUIT; trap 'echo term; exit 1' TERM; echo up; while :; do sleep 0.02; done";
    let mut duck = Duck::start(run(&["--stop-signal", "QUIT", "--", "bash", "-c", script]));
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    assert_eq!(duck.line(), "quit");
    let mut image = Duck::start(run(&["--drain-on", "QUIT", "--", "bash", "-c", script]));
    assert_eq!(image.line(), "up");
    image.signal(Signal::QUIT);
    image.hear("QUIT received");
    assert_eq!(image.line(), "quit");
}

#[test]
fn observe_only_reports() {
    let (mut duck, port) = server(&["--mode", "observe"]);
    assert!(get(port, "/").is_ok());
    let began = Instant::now();
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 143);
    assert!(began.elapsed() < Duration::from_millis(500), "as without lameduck: {:?}", began.elapsed());
    let report = duck.report();
    assert_eq!((report.mode.as_str(), report.phases[0].ended_by), ("observe", EndedBy::NotActing));
}

#[test]
fn the_report_is_also_written_to_a_file_and_as_json_lines() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let mut duck =
        Duck::start(run(&["--log-format", "json", "--report", path.to_str().unwrap(), "--", "sh", "-c", "exit 3"]));
    assert_eq!(duck.code(), 3);
    let from_file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let lines: Vec<serde_json::Value> =
        duck.rest().iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines.last().unwrap()["report"], from_file);
    assert_eq!(from_file["schema"], "lameduck.drain/1");
    assert_eq!(from_file["exit"]["status"], 3);
    assert!(lines.iter().all(|line| line["ts"].is_string() && line["level"].is_string()));
}

#[test]
fn a_reader_that_stopped_reading_does_not_stop_pid_1() {
    // Standard error is a full pipe that nobody reads.
    let (reader, writer) = std::io::pipe().unwrap();
    rustix::pipe::fcntl_setpipe_size(&writer, 4096).unwrap();
    let mut command = run(&["--grace", "3s", "--", "sleep", "60"]);
    let full = vec![b'x'; 4096];
    (&writer).write_all(&full).unwrap();
    command.stderr(writer).stdin(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    let pid = rustix::process::Pid::from_child(&child);
    until("it runs", || crate::support::descendants(child.id() as i32).len() == 1);
    let began = Instant::now();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
    assert!(began.elapsed() < Duration::from_secs(3));
    drop(reader);
}

/// Ten chunks a second for five seconds: no request arrives meanwhile, and still it is not quiet.
#[test]
fn an_answer_that_streams_is_not_cut() {
    const STREAMER: &str = "
import http.server, sys, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        self.send_response(200); self.send_header('Transfer-Encoding', 'chunked'); self.end_headers()
        for _ in range(50): self.wfile.write(b'2\\r\\nx\\n\\r\\n'); self.wfile.flush(); time.sleep(0.1)
        self.wfile.write(b'0\\r\\n\\r\\n')
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
";
    let port = free_port();
    let text = port.to_string();
    let mut duck = Duck::start(run(&["--min", "500ms", "--quiet", "1500ms", "--", "python3", "-c", STREAMER, &text]));
    listening(port);
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    std::thread::sleep(Duration::from_millis(500));
    duck.signal(Signal::TERM);
    duck.code();
    let answer = client.join().unwrap().unwrap();
    assert!(answer.ends_with("0\r\n\r\n"), "{} bytes", answer.len());
    assert_eq!(duck.report().phases[0].ended_by, EndedBy::Quiet);
}

#[test]
fn a_least_time_that_was_asked_for_is_served_where_nothing_listens_on_tcp() {
    let mut duck = Duck::start(run(&["--min", "800ms", "--", "sh", "-c", "echo up; exec sleep 60"]));
    assert_eq!(duck.line(), "up");
    let began = Instant::now();
    duck.signal(Signal::TERM);
    duck.code();
    assert!(began.elapsed() >= Duration::from_millis(790), "{:?}", began.elapsed());
}

#[test]
fn an_app_that_is_gone_does_not_wait_for_its_pre_stop_commands() {
    let mut duck = Duck::start(run(&[
        "--pre-stop",
        "sleep 9",
        "--pre-stop",
        "sleep 9",
        "--pre-stop-timeout",
        "10s",
        "--",
        "sleep",
        "60",
    ]));
    duck.hear("on: pid");
    let began = Instant::now();
    duck.signal(Signal::TERM);
    duck.hear("pre-stop: running");
    let root = duck.child.id() as i32;
    let app = crate::support::descendants(root).into_iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == "sleep\u{0}60\u{0}")
    });
    rustix::process::kill_process(rustix::process::Pid::from_raw(app.unwrap()).unwrap(), Signal::KILL).unwrap();
    assert_eq!(duck.code(), 137);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
}

#[test]
fn a_stop_command_runs_where_the_app_does() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = run(&[
        "--stop-command",
        "touch stop-here",
        "--",
        "bash",
        "-c",
        "echo up; until [ -e stop-here ]; do sleep 0.02; done; exit 4",
    ]);
    command.current_dir(dir.path());
    let mut duck = Duck::start(command);
    assert_eq!(duck.line(), "up");
    duck.signal(Signal::TERM);
    assert_eq!(duck.code(), 4);
}
