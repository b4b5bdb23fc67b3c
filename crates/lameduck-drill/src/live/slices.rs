//! Whom routing sends to, as a Service's `EndpointSlice`s say it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde_json::Value;

use super::News;

/// The endpoints of a Service's slices, and which of them are routed to.
#[derive(Debug, Default)]
pub struct Slices {
    /// The name or number of the port that is meant; none: the first.
    port: Option<String>,
    by_name: BTreeMap<String, BTreeSet<(String, SocketAddr)>>,
    routed: BTreeSet<(String, SocketAddr)>,
}

impl Slices {
    /// Nothing is heard yet.
    pub fn of(port: Option<String>) -> Slices {
        Slices { port, ..Slices::default() }
    }

    /// Takes a watch event; what changed by it.
    pub fn hear(&mut self, event: &Value) -> Vec<News> {
        let object = &event["object"];
        let Some(name) = object["metadata"]["name"].as_str() else { return Vec::new() };
        if event["type"] == "DELETED" {
            self.by_name.remove(name);
        } else {
            self.by_name.insert(name.to_owned(), ready(object, self.port.as_deref()));
        }
        let now: BTreeSet<_> = self.by_name.values().flatten().cloned().collect();
        let left = self.routed.difference(&now).map(|(name, _)| News::Unrouted { name: name.clone() });
        let joined = now.difference(&self.routed).cloned().map(|(name, address)| News::Routed { name, address });
        let news = left.chain(joined).collect();
        self.routed = now;
        news
    }
}

/// The endpoints of a slice that a proxy would send to.
pub fn ready(slice: &Value, wanted: Option<&str>) -> BTreeSet<(String, SocketAddr)> {
    let ports = slice["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_it = |port: &&Value| {
        wanted.is_none_or(|wanted| port["name"] == wanted || wanted.parse::<u64>().is_ok_and(|n| port["port"] == n))
    };
    let port = ports.iter().find(is_it).and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
    let Some(port) = port else { return BTreeSet::new() };
    let endpoints = slice["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |endpoint: &Value| {
        // Absent means ready, says the API.
        let ready = endpoint["conditions"]["ready"].as_bool().unwrap_or(true);
        let address = endpoint["addresses"][0].as_str()?.parse().ok()?;
        ready.then(|| Some((endpoint["targetRef"]["name"].as_str()?.to_owned(), SocketAddr::new(address, port))))?
    };
    endpoints.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(kind: &str, name: &str, endpoints: &[(&str, &str, Option<bool>)]) -> Value {
        let endpoints = endpoints.iter().map(|(pod, address, ready)| {
            json!({"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"name": pod}})
        });
        let endpoints: Vec<Value> = endpoints.collect();
        let ports = json!([{"name": "metrics", "port": 9090}, {"name": "http", "port": 8080}]);
        json!({"type": kind, "object": {"metadata": {"name": name}, "ports": ports, "endpoints": endpoints}})
    }

    #[test]
    fn routing_is_what_all_slices_say_together() {
        let routed = |name: &str, address: &str| News::Routed {
            name: name.into(),
            address: format!("{address}:8080").parse().unwrap(),
        };
        let unrouted = |name: &str| News::Unrouted { name: name.into() };
        let mut slices = Slices::of(Some("http".to_owned()));
        let mut check = |event: Value, expect: &[News]| assert_eq!(slices.hear(&event), expect, "{event}");
        check(
            slice("ADDED", "a", &[("x", "10.0.0.1", Some(true)), ("y", "10.0.0.2", None)]),
            &[routed("x", "10.0.0.1"), routed("y", "10.0.0.2")],
        );
        check(slice("ADDED", "b", &[("y", "10.0.0.2", None), ("z", "10.0.0.3", Some(false))]), &[]);
        // Terminating is not ready; what another slice still has is routed to.
        check(slice("MODIFIED", "a", &[("x", "10.0.0.1", Some(false))]), &[unrouted("x")]);
        check(
            slice("MODIFIED", "b", &[("z", "10.0.0.3", Some(true)), ("y", "10.0.0.2", None)]),
            &[routed("z", "10.0.0.3")],
        );
        check(slice("DELETED", "b", &[]), &[unrouted("y"), unrouted("z")]);
        check(json!({"type": "BOOKMARK", "object": {}}), &[]);
        check(slice("ADDED", "c", &[("w", "no address", None)]), &[]);
    }
}
