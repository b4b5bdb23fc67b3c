//! The Taskcluster day: 24 hours of Google's log with the story's proportions, and the cluster's own events and pods.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{causes, explain, lameduck};

const ERRORS: usize = 45_000;
const REQUESTS: usize = 150_000;
/// 2026-11-20T00:00:00Z.
const DAY: i64 = 1_795_132_800;
/// Hours of the scale-downs.
const SCALE_DOWNS: [i64; 6] = [2, 7, 11, 15, 19, 22];
const PODS: usize = 12;

/// A generator of which the next number follows from the last (Knuth's MMIX).
struct Draw(u64);

impl Draw {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

fn stamp(second: i64, millis: u64) -> String {
    let of_day = second - DAY;
    format!("2026-11-20T{:02}:{:02}:{:02}.{millis:03}Z", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

fn line(second: i64, millis: u64, status: u16, details: &str, ip: &str, latency: &str) -> String {
    format!(
        "{{\"httpRequest\":{{\"latency\":\"{latency}s\",\"remoteIp\":\"192.0.2.7\",\"requestMethod\":\"POST\",\
         \"requestUrl\":\"https://tasks.example.com/api/queue/v1/task/{second}/status\",\"serverIp\":\"{ip}\",\"status\":{status}}},\
         \"jsonPayload\":{{\"statusDetails\":\"{details}\"}},\"resource\":{{\"type\":\"http_load_balancer\"}},\"timestamp\":\"{}\"}}\n",
        stamp(second, millis)
    )
}

const CLOSED: &str = "backend_connection_closed_before_data_sent_to_client";

/// The pods that go at a scale-down, and when.
fn leaving(place: usize) -> (String, String, i64) {
    (format!("queue-web-6d5f7c9b8-gone{place}"), format!("10.8.9.{}", place + 1), DAY + SCALE_DOWNS[place] * 3600 + 600)
}

fn write_day(folder: &Path) -> [PathBuf; 3] {
    let mut draw = Draw(7);
    let mut log: Vec<(i64, String)> = Vec::new();
    let living = |n: u64| format!("10.8.1.{}", n + 1);
    for _ in 0..REQUESTS - ERRORS {
        let (second, ip) = (DAY + draw.below(86_400) as i64, living(draw.below(PODS as u64)));
        log.push((second, line(second, draw.below(1000), 200, "response_sent_by_backend", &ip, "0.041")));
    }
    for n in 0..ERRORS {
        let place = draw.below(SCALE_DOWNS.len() as u64) as usize;
        let (_, gone, stop) = leaving(place);
        // 87 of 100 closed before data, 9 failed to connect, 4 of the app's own.
        let (second, text) = match n % 100 {
            0..40 => {
                let (second, ip) = (DAY + draw.below(86_400) as i64, living(draw.below(PODS as u64)));
                (second, line(second, draw.below(1000), 502, CLOSED, &ip, "0.003"))
            }
            40..87 => {
                let second = stop + 1 + draw.below(55) as i64;
                (second, line(second, draw.below(1000), 502, CLOSED, &gone, "0.004"))
            }
            87..96 => {
                let second = stop + 30 + draw.below(60) as i64;
                (second, line(second, draw.below(1000), 502, "failed_to_connect_to_backend", &gone, "0.010"))
            }
            _ => {
                let (second, ip) = (DAY + draw.below(86_400) as i64, living(draw.below(PODS as u64)));
                (second, line(second, draw.below(1000), 500, "response_sent_by_backend", &ip, "0.120"))
            }
        };
        log.push((second, text));
    }
    log.sort();
    let paths = ["lb.jsonl", "events.json", "pods.json"].map(|name| folder.join(name));
    let mut text = String::new();
    for (_, line) in &log {
        let _ = write!(text, "{line}");
    }
    std::fs::write(&paths[0], text).expect("a file");
    std::fs::write(&paths[1], events().to_string()).expect("a file");
    std::fs::write(&paths[2], pods().to_string()).expect("a file");
    paths
}

fn events() -> Value {
    let mut items = Vec::new();
    for place in 0..SCALE_DOWNS.len() {
        let (pod, _, stop) = leaving(place);
        let about = |kind: &str, name: &str| json!({ "kind": kind, "name": name });
        let event = |about: Value, reason: &str, message: &str, at: i64| json!({ "kind": "Event", "involvedObject": about, "reason": reason, "message": message, "lastTimestamp": stamp(at, 0) });
        items.push(event(
            about("Deployment", "queue-web"),
            "ScalingReplicaSet",
            "Scaled down replica set queue-web-6d5f7c9b8 to 12 from 13",
            stop - 1,
        ));
        items.push(event(about("Pod", &pod), "Killing", "Stopping container web", stop));
    }
    json!({ "kind": "List", "apiVersion": "v1", "items": items })
}

fn pods() -> Value {
    let pod = |name: &str, ip: &str| {
        json!({ "kind": "Pod", "metadata": { "name": name }, "status": { "podIP": ip, "startTime": "2026-11-19T00:00:00Z",
            "conditions": [{ "type": "Ready", "status": "True", "lastTransitionTime": "2026-11-19T00:00:20Z" }] } })
    };
    let mut items: Vec<Value> =
        (0..PODS).map(|n| pod(&format!("queue-web-6d5f7c9b8-pod{n}"), &format!("10.8.1.{}", n + 1))).collect();
    for place in 0..SCALE_DOWNS.len() {
        let (name, ip, _) = leaving(place);
        items.push(pod(&name, &ip));
    }
    json!({ "kind": "List", "apiVersion": "v1", "items": items })
}

#[test]
fn the_taskcluster_day() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = write_day(folder.path());
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let e = explain(&["--client-wait", "75s", "--slo", "99.9"], &paths);
    assert_eq!((e["lost"].as_u64(), e["requests"].as_u64()), (Some(ERRORS as u64), Some(REQUESTS as u64)));
    let share = |n: &Value| n.as_u64().unwrap_or(0) as f64 / ERRORS as f64;
    assert!(share(&e["statuses"]["502"]) > 0.95, "{}", e["statuses"]);
    assert_eq!(e["said"][0]["name"], CLOSED);
    assert!(share(&e["said"][0]["lost"]) > 0.85, "{}", e["said"][0]);
    let hours = e["cost"]["hours"].as_f64().unwrap_or(0.0);
    assert!((930.0..945.0).contains(&hours), "{hours} h");
    let found = causes(&e);
    let of = |cause: &str| found.iter().find(|(id, _)| id == cause).map_or(0, |(_, n)| *n);
    // What was made is what is found: 87 of 100 races, 9 refused while routed, 4 the app's.
    let expect = ERRORS as u64 / 100;
    assert_eq!(
        (of("idle-close-race"), of("refused-while-routed"), of("app-error")),
        (87 * expect, 9 * expect, 4 * expect),
        "{found:?}"
    );
    let spikes = e["spikes"].as_array().expect("spikes");
    assert_eq!(spikes.len(), SCALE_DOWNS.len(), "{spikes:?}");
    for spike in spikes {
        let events = spike["events"].as_array().expect("events");
        assert!(events.iter().any(|event| event["kind"] == "scaled-down" && event["same_pod"] == false), "{spike}");
        assert!(events.iter().any(|event| event["kind"] == "stopping" && event["same_pod"] == true), "{spike}");
    }
    // Left behind, to be looked at.
    let page = Path::new(env!("CARGO_TARGET_TMPDIR")).join("taskcluster-day.html");
    let status = lameduck("explain")
        .args(["--format", "html", "--client-wait", "75s", "--output"])
        .arg(&page)
        .args(&paths)
        .status();
    assert!(status.expect("the program").success());
    let html = std::fs::read_to_string(&page).expect("a page");
    for part in ["<svg", "idle-close-race", CLOSED, "938 h", "prefers-color-scheme:dark"] {
        assert!(html.contains(part), "the page lacks {part}");
    }
    // A slash right behind an unquoted value is part of the value, and leaves the element open.
    assert!(html.match_indices("/>").all(|(at, _)| html[..at].ends_with([' ', '"'])), "an element that is not closed");
    assert!(!html.contains("<script") && !html.contains("http://"), "one file, no script");
}
