//! Kubernetes objects: events (both APIs, bare or wrapped by Cloud Logging), pods, endpoint slices, nodes.
//! Source: the API reference; kubelet's and the controllers' reasons.

use serde_json::Value;

use super::Context;
use crate::record::{Event, EventKind, Line, PodFacts};
use crate::time::{self, Micros, SECOND};

/// Reads one object. Lists are taken apart before.
pub fn read(line: &[u8], context: Context) -> Option<Line<'static>> {
    memchr::memmem::find(line, b"\"kind\"")?;
    let value: Value = serde_json::from_slice(line).ok()?;
    object(&value, context)
}

/// What an object says.
pub fn object(value: &Value, context: Context) -> Option<Line<'static>> {
    let inner = &value["jsonPayload"];
    if inner.is_object() {
        return object(inner, context);
    }
    match value["kind"].as_str()? {
        "Event" => event(value),
        "Pod" => pod(value),
        "EndpointSlice" => Some(slice(value)),
        "List" | "EventList" | "PodList" | "EndpointSliceList" => list(value, context),
        "Node" | "Deployment" | "ReplicaSet" | "Service" | "Namespace" | "NodeList" => Some(Line::Nothing),
        _ => None,
    }
}

fn list(value: &Value, context: Context) -> Option<Line<'static>> {
    // Lists are taken apart where they are read; one that comes here has nothing in it, or is inside another.
    let items = value["items"].as_array()?;
    let mut events = Vec::new();
    for item in items {
        if let Some(Line::Events(found)) = object(item, context) {
            events.extend(found);
        }
    }
    Some(if events.is_empty() { Line::Nothing } else { Line::Events(events) })
}

fn stamp(value: &Value) -> Option<Micros> {
    time::rfc3339(value.as_str()?.as_bytes(), 0)
}

fn text<'v>(value: &'v Value, names: &[&str]) -> &'v str {
    names.iter().find_map(|name| value[*name].as_str()).unwrap_or("")
}

fn event(value: &Value) -> Option<Line<'static>> {
    let at = stamp(&value["series"]["lastObservedTime"])
        .or_else(|| stamp(&value["lastTimestamp"]))
        .or_else(|| stamp(&value["deprecatedLastTimestamp"]))
        .or_else(|| stamp(&value["eventTime"]))
        .or_else(|| stamp(&value["firstTimestamp"]))
        .or_else(|| stamp(&value["metadata"]["creationTimestamp"]))?;
    let about = if value["involvedObject"].is_object() { &value["involvedObject"] } else { &value["regarding"] };
    let (kind, name) = (text(about, &["kind"]), text(about, &["name"]));
    let (reason, message) = (text(value, &["reason"]), text(value, &["message", "note"]));
    let Some((means, subject)) = meaning(reason, message, kind, name) else { return Some(Line::Nothing) };
    Some(Line::Events(vec![Event { at, kind: means, subject, words: format!("{reason}: {message}") }]))
}

/// What a reason and its message mean, and for whom.
fn meaning(reason: &str, message: &str, kind: &str, name: &str) -> Option<(EventKind, String)> {
    let whose = format!("{kind}/{name}");
    let of_pod = |rest: &str| format!("Pod/{}", rest.rsplit('/').next().unwrap_or(rest).trim());
    let means = match reason {
        "Killing" if message.contains("probe") => EventKind::ProbeRestart,
        "Killing" => EventKind::Stopping,
        "ExceededGracePeriod" => EventKind::GraceExceeded,
        "SuccessfulDelete" => {
            return Some((EventKind::Stopping, of_pod(message.strip_prefix("Deleted pod:").unwrap_or(message))));
        }
        "ScalingReplicaSet" if message.starts_with("Scaled down") => EventKind::ScaledDown,
        "SuccessfulRescale" if message.contains("below target") => EventKind::ScaledDown,
        "ScalingReplicaSet" | "SuccessfulRescale" => EventKind::ScaledUp,
        "ScaleDown" if kind == "Pod" => EventKind::Stopping,
        "TaintManagerEviction" if message.starts_with("Cancelling") => return None,
        "TaintManagerEviction" | "Evicted" | "Preempted" => EventKind::Evicted,
        "NodeNotReady" if kind == "Node" => EventKind::NodeGone,
        "ScaleDown" | "NodeNotSchedulable" | "Rebooted" => EventKind::NodeGone,
        "BackOff" if message.contains("restarting failed") => EventKind::Crashed,
        "OOMKilling" | "SystemOOM" => EventKind::Crashed,
        "Unhealthy" if message.starts_with("Readiness") => EventKind::NotReady,
        "Started" => EventKind::Started,
        _ => return None,
    };
    Some((means, whose))
}

fn pod(value: &Value) -> Option<Line<'static>> {
    let (meta, status) = (&value["metadata"], &value["status"]);
    let name = meta["name"].as_str()?.to_owned();
    let grace = meta["deletionGracePeriodSeconds"].as_i64().filter(|n| (0..31_536_000).contains(n)).map(|n| n * SECOND);
    // deletionTimestamp is the deadline, not when the deletion was asked for.
    let deleted = stamp(&meta["deletionTimestamp"]).map(|deadline| deadline - grace.unwrap_or(30 * SECOND));
    let ready = status["conditions"].as_array().into_iter().flatten().find(|condition| condition["type"] == "Ready");
    let ready = ready.filter(|ready| ready["status"] == "True").and_then(|ready| stamp(&ready["lastTransitionTime"]));
    let mut facts = PodFacts {
        name,
        ip: status["podIP"].as_str().map(str::to_owned),
        ports: ports(&value["spec"]),
        containers: containers(&value["spec"]),
        node: value["spec"]["nodeName"].as_str().map(str::to_owned),
        started: stamp(&status["startTime"]),
        ready,
        deleted,
        grace: grace.or_else(|| {
            let spec = value["spec"]["terminationGracePeriodSeconds"].as_i64();
            spec.filter(|n| (0..31_536_000).contains(n)).map(|n| n * SECOND)
        }),
        ..PodFacts::default()
    };
    for container in status["containerStatuses"].as_array().into_iter().flatten() {
        for (state, again) in [("state", false), ("lastState", true)] {
            let ended = &container[state]["terminated"];
            if let Some(at) = stamp(&ended["finishedAt"])
                && facts.ended.is_none_or(|known| known < at)
            {
                facts.ended = Some(at);
                facts.exit_code = ended["exitCode"].as_i64();
                facts.reason = ended["reason"].as_str().map(str::to_owned);
                facts.restarted = again;
            }
        }
    }
    Some(Line::Pod(Box::new(facts)))
}

fn containers(spec: &Value) -> Vec<(String, Vec<u16>)> {
    let containers = spec["containers"].as_array().into_iter().flatten().take(64);
    let ports = |container: &Value| {
        let ports = container["ports"].as_array().into_iter().flatten().take(64);
        ports.filter_map(|port| port["containerPort"].as_u64()?.try_into().ok()).collect()
    };
    containers.filter_map(|container| Some((container["name"].as_str()?.to_owned(), ports(container)))).collect()
}

fn ports(spec: &Value) -> Vec<u16> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    let ports = containers.flat_map(|container| container["ports"].as_array().into_iter().flatten());
    ports.filter_map(|port| port["containerPort"].as_u64()?.try_into().ok()).take(64).collect()
}

/// A slice says which address is whose; what its conditions say holds for the moment it was read, which it does not tell.
fn slice(value: &Value) -> Line<'static> {
    let endpoint = value["endpoints"].as_array().into_iter().flatten().find_map(|endpoint| {
        let name = endpoint["targetRef"]["name"].as_str()?;
        let ip = endpoint["addresses"][0].as_str()?;
        Some(PodFacts { name: name.to_owned(), ip: Some(ip.to_owned()), ..PodFacts::default() })
    });
    endpoint.map_or(Line::Nothing, |facts| Line::Pod(Box::new(facts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, kind: EventKind, subject: &str, at: &str) {
        match read(json.as_bytes(), Context::default()) {
            Some(Line::Events(events)) => {
                let event = &events[0];
                assert_eq!(
                    (event.kind, event.subject.as_str(), time::show(event.at).as_str()),
                    (kind, subject, at),
                    "{json}"
                );
            }
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn events_of_both_apis_and_wrapped() {
        check(
            r#"{"kind":"Event","involvedObject":{"kind":"Pod","name":"web-1"},"reason":"Killing","message":"Stopping container app","lastTimestamp":"2026-11-21T10:00:01Z","eventTime":null}"#,
            EventKind::Stopping,
            "Pod/web-1",
            "2026-11-21T10:00:01.000Z",
        );
        check(
            r#"{"kind":"Event","regarding":{"kind":"Pod","name":"web-1"},"reason":"Killing","note":"Container app failed liveness probe, will be restarted","eventTime":"2026-11-21T10:00:01.5Z","deprecatedLastTimestamp":null}"#,
            EventKind::ProbeRestart,
            "Pod/web-1",
            "2026-11-21T10:00:01.500Z",
        );
        check(
            r#"{"logName":"x","jsonPayload":{"kind":"Event","involvedObject":{"kind":"ReplicaSet","name":"web"},"reason":"SuccessfulDelete","message":"Deleted pod: web-9","lastTimestamp":"2026-11-21T10:00:01Z"}}"#,
            EventKind::Stopping,
            "Pod/web-9",
            "2026-11-21T10:00:01.000Z",
        );
    }

    #[test]
    fn a_pods_deletion_began_its_grace_before_the_deadline() {
        let json = r#"{"kind":"Pod","metadata":{"name":"p","deletionTimestamp":"2026-11-21T10:01:00Z","deletionGracePeriodSeconds":45},
            "status":{"podIP":"10.0.0.4","containerStatuses":[{"lastState":{"terminated":{"exitCode":137,"reason":"OOMKilled","finishedAt":"2026-11-21T10:00:30Z"}}}]}}"#;
        let Some(Line::Pod(pod)) = read(json.as_bytes(), Context::default()) else { panic!("a pod") };
        assert_eq!(pod.deleted.map(time::show).as_deref(), Some("2026-11-21T10:00:15.000Z"));
        assert_eq!((pod.exit_code, pod.reason.as_deref(), pod.restarted), (Some(137), Some("OOMKilled"), true));
    }
}
