//! The admin endpoints, `--admin ADDR`: `/livez`, `/readyz`, `/metrics` and `POST /drain`.
//!
//! They run in a child process, never in PID 1, which they ask over its [`control`](crate::control) socket: whatever is sent
//! to them, PID 1 does not see a byte of it.

use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::control::{self, Request};

/// Connections at the same time; a further one waits in the backlog.
const MOST_CONNECTIONS: usize = 32;
/// The longest request head.
const HEAD: usize = 8 * 1024;
/// A client sends its request within this.
const PATIENCE: Duration = Duration::from_secs(5);
/// What it sends after our answer is read for this long.
const LINGER: Duration = Duration::from_secs(1);
/// PID 1 answers within this.
const ANSWER: Duration = Duration::from_secs(2);

static OPEN: AtomicUsize = AtomicUsize::new(0);

/// Serves until the process is ended. `pid` is the lameduck to ask.
pub fn serve(listener: &TcpListener, pid: i32) -> io::Error {
    loop {
        if OPEN.load(Ordering::Relaxed) >= MOST_CONNECTIONS {
            thread::sleep(Duration::from_millis(10));
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                OPEN.fetch_add(1, Ordering::Relaxed);
                let spawned = thread::Builder::new().stack_size(64 * 1024).spawn(move || {
                    // A client that hangs up or sends nonsense is its own problem.
                    let _ = converse(stream, |request| ask(pid, request));
                    OPEN.fetch_sub(1, Ordering::Relaxed);
                });
                if spawned.is_err() {
                    OPEN.fetch_sub(1, Ordering::Relaxed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => match error.raw_os_error() {
                // accept(2): the client's fault, or a passing shortage.
                Some(libc::ECONNABORTED | libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    thread::sleep(Duration::from_millis(50));
                }
                _ => return error,
            },
        }
    }
}

fn ask(pid: i32, request: Request) -> Result<Value, String> {
    let patience = if request == Request::DrainAndWait { None } else { Some(ANSWER) };
    let reply = control::ask(Some(pid), request, patience).map_err(|error| error.to_string())?;
    serde_json::from_str(&reply).map_err(|error| format!("lameduck's answer is not JSON: {error}"))
}

/// One request, one answer, `Connection: close`.
fn converse(mut stream: TcpStream, ask: impl Fn(Request) -> Result<Value, String>) -> io::Result<()> {
    let until = now() + PATIENCE;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut head = Vec::with_capacity(512);
    let reply = loop {
        let mut chunk = [0; 1024];
        let n = read_until(&mut stream, &mut chunk, until)?;
        if n == 0 {
            return Ok(());
        }
        head.extend_from_slice(&chunk[..n]);
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(&head) {
            Ok(httparse::Status::Complete(_)) => {
                break route(request.method.unwrap_or_default(), request.path.unwrap_or_default(), &ask);
            }
            Ok(httparse::Status::Partial) if head.len() < HEAD => {}
            Ok(httparse::Status::Partial) => break Reply::text(431, format!("request head over {HEAD} bytes\n")),
            Err(error) => break Reply::text(400, format!("not an HTTP request: {error}\n")),
        }
    };
    stream.write_all(reply.bytes().as_bytes())?;
    stream.shutdown(std::net::Shutdown::Write)?;
    // Linger, so that what the client still sends does not turn our answer into a reset (RFC 9112 section 9.6).
    let mut rest = [0; 1024];
    let until = now() + LINGER;
    while matches!(read_until(&mut stream, &mut rest, until), Ok(1..)) {}
    Ok(())
}

/// Reads once, waiting until a point in time and no longer: a client that dribbles is not a client for ever.
fn read_until(stream: &mut TcpStream, buffer: &mut [u8], until: Duration) -> io::Result<usize> {
    let left = until.checked_sub(now()).filter(|left| !left.is_zero()).ok_or(io::ErrorKind::TimedOut)?;
    stream.set_read_timeout(Some(left))?;
    stream.read(buffer)
}

fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

#[derive(Debug)]
struct Reply {
    status: u16,
    content_type: &'static str,
    allow: Option<&'static str>,
    body: String,
}

impl Reply {
    fn text(status: u16, body: String) -> Reply {
        Reply { status, content_type: "text/plain; charset=utf-8", allow: None, body }
    }

    fn json(status: u16, value: &Value) -> Reply {
        Reply { status, content_type: "application/json", allow: None, body: format!("{value}\n") }
    }

    fn bytes(&self) -> String {
        let reason = match self.status {
            200 => "OK",
            202 => "Accepted",
            400 => "Bad Request",
            404 => "Not Found",
            405 => "Method Not Allowed",
            431 => "Request Header Fields Too Large",
            _ => "Service Unavailable",
        };
        let mut out = format!(
            "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        if let Some(allow) = self.allow {
            let _ = write!(out, "Allow: {allow}\r\n");
        }
        out + "\r\n" + &self.body
    }
}

fn route(method: &str, target: &str, ask: &impl Fn(Request) -> Result<Value, String>) -> Reply {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let allow = if path == "/drain" { "POST" } else { "GET" };
    match path {
        "/livez" | "/readyz" | "/metrics" | "/drain" if method != allow => {
            Reply { allow: Some(allow), ..Reply::text(405, format!("{path} takes {allow}, not {method}\n")) }
        }
        "/livez" => answer(ask(Request::Status), |status| Reply::json(200, status)),
        "/readyz" => answer(ask(Request::Status), |status| {
            Reply::json(if status["ready"] == Value::Bool(true) { 200 } else { 503 }, status)
        }),
        "/metrics" => answer(ask(Request::Status), |status| Reply {
            content_type: "text/plain; version=0.0.4; charset=utf-8",
            ..Reply::text(200, metrics(status))
        }),
        "/drain" if query == "wait" => answer(ask(Request::DrainAndWait), |status| Reply::json(200, status)),
        "/drain" => answer(ask(Request::Drain), |status| Reply::json(202, status)),
        _ => Reply::text(404, "expected /livez, /readyz, /metrics, or POST /drain or /drain?wait\n".into()),
    }
}

fn answer(asked: Result<Value, String>, reply: impl Fn(&Value) -> Reply) -> Reply {
    match asked {
        Ok(status) => reply(&status),
        Err(error) => Reply::text(503, format!("{error}\n")),
    }
}

/// Prometheus text exposition format 0.0.4.
fn metrics(status: &Value) -> String {
    const STATES: [&str; 6] = ["starting", "serving", "lame-duck", "draining", "stopping", "killing"];
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: &Value| {
        let value = match value {
            Value::Bool(value) => f64::from(u8::from(*value)),
            Value::Number(value) => value.as_f64().unwrap_or_default(),
            _ => return,
        };
        let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    };
    metric("lameduck_ready", "gauge", "Whether /readyz answers 200.", &status["ready"]);
    metric("lameduck_listeners", "gauge", "Listening sockets of the app.", &status["listeners"]);
    metric("lameduck_reaped_total", "counter", "Processes reaped.", &status["reaped"]);
    let drain = &status["drain"];
    metric("lameduck_drain_seconds", "gauge", "Time since the drain began.", &drain["elapsed_s"]);
    metric("lameduck_drain_connections", "gauge", "Connections open while draining.", &drain["open"]);
    metric("lameduck_drain_in_flight", "gauge", "Requests in flight while draining.", &drain["in_flight"]);
    metric(
        "lameduck_drain_new_connections_total",
        "counter",
        "Connections opened after the drain began.",
        &drain["new"],
    );
    metric("lameduck_drain_arrivals_total", "counter", "Arrivals of data after the drain began.", &drain["arrivals"]);
    front_metrics(&status["front"], &mut out);
    out.push_str("# HELP lameduck_state The state, 1 for the one that holds.\n# TYPE lameduck_state gauge\n");
    for state in STATES {
        let _ = writeln!(out, "lameduck_state{{state=\"{state}\"}} {}", u8::from(status["state"] == state));
    }
    out
}

/// A metric of the front: its name, kind and help, the name of its label, and the label's values by field of the status.
struct FrontMetric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    label: &'static str,
    fields: &'static [(&'static str, &'static str)],
}

const fn plain(
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    field: &'static [(&'static str, &'static str)],
) -> FrontMetric {
    FrontMetric { name, kind, help, label: "", fields: field }
}

const FRONT_METRICS: &[FrontMetric] = &[
    plain("connections", "gauge", "Client connections open.", &[("", "connections")]),
    plain("in_flight", "gauge", "Requests in flight, tunnels included.", &[("", "in_flight")]),
    plain("held", "gauge", "Requests held while the app does not listen.", &[("", "held")]),
    FrontMetric {
        name: "accepted_total",
        kind: "counter",
        help: "Client connections accepted; late: of those, after the lame duck began.",
        label: "when",
        fields: &[("ever", "accepted"), ("late", "accepted_late")],
    },
    FrontMetric {
        name: "requests_total",
        kind: "counter",
        help: "Requests received, by the phase of the front; probes are none of them.",
        label: "phase",
        fields: &[
            ("serving", "requests_serving"),
            ("lame-duck", "requests_lame_duck"),
            ("closing", "requests_closing"),
        ],
    },
    plain("probes_total", "counter", "Requests by probes.", &[("", "probes")]),
    FrontMetric {
        name: "outcomes_total",
        kind: "counter",
        help: "How requests ended.",
        label: "outcome",
        fields: &[
            ("answered", "answered"),
            ("refused", "refused"),
            ("shed", "shed"),
            ("bad-gateway", "bad_gateway"),
            ("gateway-timeout", "gateway_timeout"),
            ("cut-by-app", "cut_by_app"),
            ("client-gone", "client_gone"),
            ("cut-at-deadline", "cut_at_deadline"),
            ("lost-with-front", "lost_with_front"),
        ],
    },
    plain("app_errors_total", "counter", "Answers of the app with a status of 500 or more.", &[("", "app_errors")]),
    plain("held_total", "counter", "Requests that were held.", &[("", "held_total")]),
    plain("held_expired_total", "counter", "Of those, given up with 503.", &[("", "held_expired")]),
    FrontMetric {
        name: "retried_total",
        kind: "counter",
        help: "What was tried again: connects to the app, requests on a reused connection that had died.",
        label: "what",
        fields: &[("connect", "retried_connect"), ("reused", "retried_reused")],
    },
    FrontMetric {
        name: "shed_connections_total",
        kind: "counter",
        help: "Connections that were asked to leave or ended, by method.",
        label: "method",
        fields: &[
            ("header", "shed_by_header"),
            ("goaway", "shed_by_goaway"),
            ("idle", "shed_idle"),
            ("websocket", "shed_websocket"),
            ("stream", "shed_stream"),
            ("long-poll", "shed_long_poll"),
            ("forced", "forced"),
        ],
    },
    plain("resets_total", "counter", "Connections reset by the front.", &[("", "resets_sent")]),
    plain("crossed_close_total", "counter", "Requests that met a close, not executed.", &[("", "crossed_close")]),
    plain("upstream_connects_total", "counter", "Connections to the app.", &[("", "upstream_connects")]),
    plain(
        "upstream_closed_idle_total",
        "counter",
        "Idle connections that the app closed first.",
        &[("", "upstream_closed_idle")],
    ),
    plain(
        "upstream_idle_milliseconds",
        "gauge",
        "The app's idle timeout as learned; 0: not known.",
        &[("", "upstream_idle_ms")],
    ),
    plain("accept_paused_total", "counter", "Times that no descriptor was left.", &[("", "accept_paused")]),
    plain("restarts_total", "counter", "Fronts that died and were started again.", &[("", "restarts")]),
    plain("log_lost_total", "counter", "Lines of the access log that could not be written.", &[("", "log_lost")]),
];

fn front_metrics(front: &Value, out: &mut String) {
    if !front.is_object() {
        return;
    }
    for FrontMetric { name, kind, help, label, fields } in FRONT_METRICS {
        let _ = write!(out, "# HELP lameduck_front_{name} {help}\n# TYPE lameduck_front_{name} {kind}\n");
        for (value, field) in *fields {
            let count = front[field].as_u64().unwrap_or_default();
            let _ = match *label {
                "" => writeln!(out, "lameduck_front_{name} {count}"),
                label => writeln!(out, "lameduck_front_{name}{{{label}=\"{value}\"}} {count}"),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serving(ready: bool) -> impl Fn(Request) -> Result<Value, String> {
        move |_| Ok(serde_json::json!({"state": "serving", "ready": ready, "reaped": 3, "drain": null}))
    }

    #[test]
    fn routes() {
        let check = |method: &str, target: &str, ready: bool, status: u16| {
            assert_eq!(route(method, target, &serving(ready)).status, status, "{method} {target}");
        };
        check("GET", "/livez", false, 200);
        check("GET", "/readyz", true, 200);
        check("GET", "/readyz?verbose", false, 503);
        check("GET", "/metrics", true, 200);
        check("POST", "/drain", true, 202);
        check("GET", "/drain", true, 405);
        check("POST", "/readyz", true, 405);
        check("GET", "/", true, 404);
        assert_eq!(route("GET", "/livez", &|_| Err("gone".into())).status, 503);
    }

    #[test]
    fn metrics_are_prometheus_text() {
        let text = metrics(&serving(true)(Request::Status).unwrap());
        assert!(text.contains("\nlameduck_ready 1\n"), "{text}");
        assert!(text.contains("\nlameduck_reaped_total 3\n"), "{text}");
        assert!(text.contains("\nlameduck_state{state=\"serving\"} 1\n"), "{text}");
        assert!(!text.contains("lameduck_drain_seconds"), "nothing is made up: {text}");
        assert!(text.lines().all(|line| line.starts_with("# ") || line.split(' ').count() == 2), "{text}");
    }

    #[test]
    fn every_figure_of_the_front_is_a_metric() {
        use lameduck_core::front::{Figures, Slot};
        let status = serde_json::json!({"state": "serving", "front": Figures { restarts: 2, ..Figures::default() }});
        let text = metrics(&status);
        assert!(text.contains("\nlameduck_front_requests_total{phase=\"lame-duck\"} 0\n"), "{text}");
        assert!(text.contains("\nlameduck_front_restarts_total 2\n"), "{text}");
        let shown: Vec<&str> = FRONT_METRICS.iter().flat_map(|metric| metric.fields).map(|(_, field)| *field).collect();
        // Not of use to a scraper: the state is a metric of its own, the times are of another clock.
        let left_out = ["phase", "last_arrival_ms", "last_sent_ms"];
        for (_, name, _) in Slot::ALL {
            assert!(shown.contains(name) || left_out.contains(name), "{name}");
        }
        assert!(!metrics(&serde_json::json!({"state": "serving", "front": null})).contains("front"));
    }

    #[test]
    fn a_conversation() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let check = |sent: &[u8], expect: &str| {
            let mut client = TcpStream::connect(address).unwrap();
            let (stream, _) = listener.accept().unwrap();
            client.write_all(sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
            converse(stream, serving(true)).unwrap();
            let mut reply = String::new();
            client.read_to_string(&mut reply).unwrap();
            assert!(reply.starts_with(expect), "{reply}");
        };
        check(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK\r\n");
        check(b"nonsense\r\n\r\n", "HTTP/1.1 400 ");
        check(&[b'G'; HEAD + 10], "HTTP/1.1 431 ");
    }
}
