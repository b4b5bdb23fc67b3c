//! What a run would have left behind elsewhere: the log of the load balancer that the drill stands for, and what a cluster records of the
//! pods' lives. Both are for `lameduck explain`, and both say less than the drill knows: that is what they are for.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use lameduck_core::judge::{Connection, Ending};
use lameduck_core::timeline::Moment;
use serde_json::{Value, json};

use crate::SetupError;
use crate::evidence::Log;
use crate::mix::Kind;
use crate::plan::Plan;
use crate::record::{Nowhere, Record};
use crate::run::{Observation, Observed};

/// The project that the log's entries are of.
const PROJECT: &str = "lameduck-drill";

/// Makes the files, so that one that can not be written is known before the run.
pub(crate) fn prepare(plan: &Plan) -> Result<(), SetupError> {
    for path in [&plan.lb_log, &plan.cluster_log].into_iter().flatten() {
        write(path, "")?;
    }
    Ok(())
}

/// Writes what the plan asks for.
pub(crate) fn leave(plan: &Plan, seen: &Observation) -> Result<(), SetupError> {
    if let Some(path) = &plan.lb_log {
        write(path, &balancer_log(plan, seen))?;
    }
    if let Some(path) = &plan.cluster_log {
        write(path, &format!("{:#}\n", cluster_log(plan, seen)))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), SetupError> {
    std::fs::write(path, text).map_err(|source| SetupError::Logs { path: path.to_owned(), source })
}

/// A request as the balancer saw it: all its attempts.
struct Seen<'r> {
    first: &'r Record,
    last: &'r Record,
}

/// The log, a line for each request, in the order in which they ended.
fn balancer_log(plan: &Plan, seen: &Observation) -> String {
    let mut requests: HashMap<u64, Seen<'_>> = HashMap::new();
    for record in &seen.records {
        let request = requests.entry(record.id.0).or_insert(Seen { first: record, last: record });
        if record.id.1 >= request.last.id.1 {
            request.last = record;
        }
    }
    let ended = |request: &&Seen<'_>| request.last.attempt.ending != Ending::Pending;
    let mut lines: Vec<(Duration, Value)> = requests
        .values()
        .filter(ended)
        .map(|request| (request.last.attempt.ended, answered_or_not(plan, seen, request)))
        .chain(seen.book.nowhere.iter().map(|request| (request.at, unpicked(plan, seen, *request))))
        .collect();
    lines.sort_by(|(a, left), (b, right)| a.cmp(b).then_with(|| left["trace"].as_str().cmp(&right["trace"].as_str())));
    lines.into_iter().fold(String::new(), |all, (_, line)| all + &line.to_string() + "\n")
}

fn answered_or_not(plan: &Plan, seen: &Observation, request: &Seen<'_>) -> Value {
    let (attempt, template) = (&request.last.attempt, &plan.mix[request.last.template]);
    let (details, status) = status_details(request.last, template.kind);
    let replica = &seen.lives[request.last.replica];
    let began = request.first.attempt.began;
    let took = attempt.ended.saturating_sub(began);
    let mut line = entry(plan, &seen.log, (request.first.id.0, request.first.template), seen.origin + began);
    line["jsonPayload"]["statusDetails"] = details.into();
    line["severity"] = if status < 400 { "INFO" } else { "WARNING" }.into();
    line["receiveTimestamp"] = stamp(seen.origin + attempt.ended, 6).into();
    let http = &mut line["httpRequest"];
    http["status"] = status.into();
    http["serverIp"] = replica.address.to_string().into();
    http["latency"] = format!("{:.6}s", took.as_secs_f64()).into();
    http["responseSize"] = attempt.bytes_in.to_string().into();
    line
}

/// A request for which no replica was left.
fn unpicked(plan: &Plan, seen: &Observation, request: Nowhere) -> Value {
    let mut line = entry(plan, &seen.log, (request.number, request.template), seen.origin + request.at);
    line["jsonPayload"]["statusDetails"] = "failed_to_pick_backend".into();
    line["severity"] = "WARNING".into();
    line["receiveTimestamp"] = stamp(seen.origin + request.at, 6).into();
    line["httpRequest"]["status"] = 502.into();
    line["httpRequest"]["latency"] = "0.000000s".into();
    line["httpRequest"]["responseSize"] = "0".into();
    line
}

/// What all entries have. Google's trace is 32 digits; ours is the request's id, so that logs, captures and the server's own log can
/// be put side by side.
fn entry(plan: &Plan, log: &Log, (number, template): (u64, usize), began: Duration) -> Value {
    let template = &plan.mix[template];
    let id = log.id((number, 0));
    json!({
        "insertId": id,
        "logName": format!("projects/{PROJECT}/logs/requests"),
        "timestamp": stamp(began, 6),
        "trace": format!("projects/{PROJECT}/traces/{id}"),
        "resource": {"type": "http_load_balancer", "labels": {
            "backend_service_name": "drill", "forwarding_rule_name": "drill", "project_id": PROJECT,
            "target_proxy_name": "drill", "url_map_name": "drill", "zone": "global",
        }},
        "httpRequest": {
            "requestMethod": template.method,
            "requestUrl": format!("http://drill.test{}", crate::load::target(template, &id, plan.id_in_query)),
            "requestSize": template.body_bytes.to_string(),
            "userAgent": "lameduck-drill",
            "remoteIp": plan.host.to_string(),
        },
        "jsonPayload": {"@type": "type.googleapis.com/google.cloud.loadbalancing.type.LoadBalancerLogEntry"},
    })
}

/// Google's words for an end, and the status sent to the client. Source: "Global external Application Load Balancer logging",
/// `statusDetails` HTTP failure messages.
fn status_details(record: &Record, kind: Kind) -> (&'static str, u16) {
    const BAD_GATEWAY: u16 = 502;
    let attempt = &record.attempt;
    match (attempt.ending, attempt.connection) {
        (Ending::Complete { status }, _) if matches!(kind, Kind::WebSocket { .. }) && status < 400 => {
            ("websocket_closed", status)
        }
        (Ending::Complete { status }, _) => ("response_sent_by_backend", status),
        (_, Connection::Refused | Connection::TimedOut) => ("failed_to_connect_to_backend", BAD_GATEWAY),
        (Ending::TimedOut, _) => ("backend_timeout", record.status.unwrap_or(BAD_GATEWAY)),
        (Ending::Malformed, _) => ("backend_response_corrupted", BAD_GATEWAY),
        (Ending::Aborted, _) if matches!(kind, Kind::WebSocket { .. }) => match record.status {
            // To the balancer a close code is payload.
            Some(101) => ("websocket_closed", 101),
            status => ("websocket_handshake_failed", status.unwrap_or(BAD_GATEWAY)),
        },
        (Ending::Fin | Ending::Rst | Ending::Aborted | Ending::NotProcessed | Ending::Pending, _) => {
            match record.status {
                Some(status) => ("backend_connection_closed_after_partial_response_sent", status),
                None => ("backend_connection_closed_before_data_sent_to_client", BAD_GATEWAY),
            }
        }
    }
}

/// Events, pods and endpoint slices, each as it was last seen by who watched: `kubectl get ... --watch -o json`.
fn cluster_log(plan: &Plan, seen: &Observation) -> Value {
    let mut items = Vec::new();
    for replica in &seen.lives {
        items.extend(events(seen, replica));
    }
    items.extend(seen.lives.iter().map(|replica| pod(plan, seen, replica)));
    let routed = seen.lives.iter().filter(|replica| replica.life.at(Moment::EndpointRemoved).is_none());
    items.extend(routed.map(|replica| slice(plan, replica)));
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

fn pod_name(replica: &Observed) -> String {
    format!("drill-{}", replica.name)
}

/// The kubelet's. It has none for SIGKILL at the deadline, and none for the end of one process among several.
fn events(seen: &Observation, replica: &Observed) -> Vec<Value> {
    let name = pod_name(replica);
    let told = [
        (Moment::Started, "Started", "Started container app"),
        (Moment::TermReceived, "Killing", "Stopping container app"),
    ];
    let event = |(moment, reason, message): (Moment, &str, &str)| {
        let at = stamp(seen.origin + replica.life.at(moment)?, 0);
        Some(json!({
            "apiVersion": "v1", "kind": "Event", "type": "Normal", "reason": reason, "message": message, "count": 1,
            "metadata": {"name": format!("{name}.{}", reason.to_lowercase()), "namespace": "default"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": name, "fieldPath": "spec.containers{app}"},
            "firstTimestamp": at, "lastTimestamp": at, "source": {"component": "kubelet", "host": "node-1"},
        }))
    };
    told.into_iter().filter_map(event).collect()
}

fn pod(plan: &Plan, seen: &Observation, replica: &Observed) -> Value {
    let life = &replica.life;
    let at = |moment: Moment| life.at(moment).map(|at| seen.origin + at);
    let grace = plan.grace.as_secs() + u64::from(plan.grace.subsec_nanos() > 0);
    let started = at(Moment::Started).map(|at| stamp(at, 0));
    let ended = at(Moment::Exited);
    let ready = match (ended, at(Moment::Ready)) {
        (Some(ended), _) => json!({"type": "Ready", "status": "False", "lastTransitionTime": stamp(ended, 0)}),
        (None, Some(ready)) => json!({"type": "Ready", "status": "True", "lastTransitionTime": stamp(ready, 0)}),
        (None, None) => json!({"type": "Ready", "status": "False", "lastTransitionTime": started}),
    };
    let state = match (ended, life.status) {
        (Some(ended), Some(status)) => {
            use std::os::unix::process::ExitStatusExt as _;
            let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255);
            let reason = if code == 0 { "Completed" } else { "Error" };
            json!({"terminated": {"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": stamp(ended, 0)}})
        }
        _ => json!({"running": {"startedAt": started}}),
    };
    let mut metadata = json!({
        "name": pod_name(replica), "namespace": "default", "labels": {"app": "drill"}, "creationTimestamp": started,
    });
    if let Some(term) = at(Moment::TermReceived) {
        // The API's deletionTimestamp is the deadline.
        metadata["deletionTimestamp"] = stamp(Duration::from_secs(term.as_secs() + grace), 0).into();
        metadata["deletionGracePeriodSeconds"] = grace.into();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
        "spec": {
            "nodeName": "node-1", "restartPolicy": "Never", "terminationGracePeriodSeconds": grace,
            "containers": [{"name": "app", "ports": [{"containerPort": replica.port}]}],
        },
        "status": {
            "podIP": plan.host.to_string(), "startTime": started, "conditions": [ready],
            "containerStatuses": [{"name": "app", "restartCount": 0, "ready": ended.is_none(), "state": state}],
        },
    })
}

/// The replicas share an address, and a slice's ports are those of all its endpoints: one for each.
fn slice(plan: &Plan, replica: &Observed) -> Value {
    let name = pod_name(replica);
    let ready = replica.life.at(Moment::Ready).is_some() && replica.life.at(Moment::Exited).is_none();
    let stopping = replica.life.at(Moment::TermReceived).is_some();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": if plan.host.is_ipv4() { "IPv4" } else { "IPv6" },
        "metadata": {"name": format!("drill-{}", replica.name), "namespace": "default", "labels": {"kubernetes.io/service-name": "drill"}},
        "ports": [{"port": replica.port, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [plan.host.to_string()],
            "conditions": {"ready": ready && !stopping, "serving": ready, "terminating": stopping},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": name},
        }],
    })
}

/// A time since 1970 as RFC 3339 in UTC, with so many digits of a second. The calendar is counted in the 146,097 days after which it repeats.
fn stamp(at: Duration, digits: usize) -> String {
    let (mut year, mut day) = (1970, at.as_secs() / 86_400);
    year += 400 * (day / 146_097);
    day %= 146_097;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    while day >= lengths[month] {
        day -= lengths[month];
        month += 1;
    }
    let of_day = at.as_secs() % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    let fraction = format!("{:09}", at.subsec_nanos());
    let fraction = if digits == 0 { String::new() } else { format!(".{}", &fraction[..digits.min(9)]) };
    format!("{year:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z", month + 1, day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::begun;

    #[test]
    fn times_as_the_calendar_has_them() {
        let check = |secs: u64, expect: &str| assert_eq!(stamp(Duration::from_secs(secs), 0), expect);
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_795_284_000, "2026-11-21T18:00:00Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        assert_eq!(stamp(Duration::new(1_795_284_000, 12_345_678), 6), "2026-11-21T18:00:00.012345Z");
    }

    #[test]
    fn each_end_in_googles_words() {
        let check = |connection: Connection, ending: Ending, status: Option<u16>, expect: (&str, u16)| {
            let mut record = Record {
                id: (1, 0),
                template: 0,
                replica: 0,
                intended: Duration::ZERO,
                attempt: begun(Duration::ZERO, connection),
                connection: None,
                bytes_out: 0,
                closed_by: None,
                status,
                echoed: false,
            };
            record.attempt.ending = ending;
            assert_eq!(status_details(&record, Kind::Http1), expect, "{record:?}");
        };
        let fresh = Connection::Fresh;
        check(fresh, Ending::Complete { status: 500 }, Some(500), ("response_sent_by_backend", 500));
        check(Connection::Refused, Ending::Rst, None, ("failed_to_connect_to_backend", 502));
        check(Connection::TimedOut, Ending::TimedOut, None, ("failed_to_connect_to_backend", 502));
        check(fresh, Ending::Fin, None, ("backend_connection_closed_before_data_sent_to_client", 502));
        check(fresh, Ending::Rst, Some(200), ("backend_connection_closed_after_partial_response_sent", 200));
        check(fresh, Ending::TimedOut, None, ("backend_timeout", 502));
        check(fresh, Ending::Malformed, None, ("backend_response_corrupted", 502));
    }
}
