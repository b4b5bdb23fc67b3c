//! Two hops tell of one request: the load balancer says that it is lost, the server that it answered.

use serde_json::Value;

use super::{causes, explain};

fn google(id: &str, second: u32, status: u16, details: &str) -> String {
    format!(
        "{{\"httpRequest\":{{\"latency\":\"0.020s\",\"requestMethod\":\"POST\",\"requestUrl\":\"https://tasks.example.com/api/claim\",\
         \"serverIp\":\"10.8.1.7\",\"status\":{status}}},\"jsonPayload\":{{\"statusDetails\":\"{details}\"}},\
         \"resource\":{{\"type\":\"http_load_balancer\"}},\"timestamp\":\"2026-11-20T10:00:{second:02}.500Z\",\
         \"trace\":\"projects/tasks/traces/{id}\"}}\n"
    )
}

fn own(id: &str, second: u32) -> String {
    format!(
        "{{\"start_time\":\"2026-11-20T10:00:{second:02}.505Z\",\"method\":\"POST\",\"path\":\"/api/claim\",\"response_code\":200,\
         \"response_flags\":\"-\",\"duration\":12,\"request_id\":\"{id}\",\"upstream_host\":\"127.0.0.1:8080\"}}\n"
    )
}

const CLOSED: &str = "backend_connection_closed_before_data_sent_to_client";
const SENT: &str = "response_sent_by_backend";

#[test]
fn the_server_says_success_and_the_client_saw_502() {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = ["lb.jsonl", "web.jsonl"].map(|name| folder.path().join(name));
    let balancer = [
        google("aa", 10, 502, CLOSED),
        // Lost before the server had it: nobody else tells of it.
        google("bb", 20, 502, CLOSED),
        // Lost, and sent again with its id: what the server tells of is the second one.
        google("cc", 30, 502, CLOSED),
        google("cc", 31, 200, SENT),
        google("dd", 40, 200, SENT),
    ];
    std::fs::write(&paths[0], balancer.concat()).expect("a file");
    std::fs::write(&paths[1], [own("aa", 10), own("cc", 31), own("dd", 40)].concat()).expect("a file");
    let e = explain(&[], &[&paths[0], &paths[1]]);
    let found = causes(&e);
    let of = |cause: &str| found.iter().find(|(id, _)| id == cause).map_or(0, |(_, n)| *n);
    assert_eq!((e["lost"].as_u64(), of("cut-mid-response")), (Some(3), 1), "{found:?}");
    let cut = e["causes"].as_array().into_iter().flatten().find(|row| row["cause"] == "cut-mid-response");
    let cites = cut.map_or(Value::Null, |row| row["examples"][0]["cites"].clone()).to_string();
    assert!(cites.contains("lb.jsonl:1") && cites.contains("web.jsonl:1"), "{cites}");
}
