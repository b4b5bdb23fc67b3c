//! Whether routing still sends to this pod, as its namespace's `EndpointSlices` say: pure.
//!
//! What routing acts on (KEP-1669; "Traffic to terminating endpoints" in the documentation of virtual IPs): the endpoints of a
//! service that are `ready`. A pod that terminates is never `ready`, and stays in its slices, `terminating`, until it is gone
//! (KEP-1672), so to be out of routing is not to be absent. Where a service has no ready endpoint at all, those that terminate and
//! still are `serving` are sent to, as a last resort. Conditions that are left out mean ready, as ready, and not terminating
//! (`staging/src/k8s.io/api/discovery/v1/types.go`).

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

/// The label with the name of the service that a slice is of.
pub const SERVICE: &str = "kubernetes.io/service-name";

/// Who this pod is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Who {
    /// Its name, where it was told: then nothing else counts.
    pub name: Option<String>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// Whether routing sends to this pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Routed {
    /// By no slice.
    Out,
    /// By none, but for a service that has nobody else.
    LastResort,
    /// It does.
    In,
}

impl Routed {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Routed::Out => "out",
            Routed::LastResort => "last-resort",
            Routed::In => "in",
        }
    }
}

/// The part of a slice that matters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Slice {
    /// The service and the kind of addresses: routing of each is one's own.
    group: (String, String),
    /// The service's name, where it is one's.
    service: Option<String>,
    own: Option<Own>,
    others_ready: bool,
}

/// This pod in a slice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own {
    ready: bool,
    serving: bool,
    terminating: bool,
}

/// The slices of a namespace.
#[derive(Debug, Clone, Default)]
pub struct Slices {
    who: Who,
    slices: BTreeMap<String, Slice>,
}

/// A slice that can not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unreadable(String);

impl Slices {
    /// None yet.
    pub fn new(who: Who) -> Slices {
        Slices { who, slices: BTreeMap::new() }
    }

    /// A slice is there, or has changed.
    pub fn put(&mut self, object: &Value) -> Result<(), Unreadable> {
        let name = name_of(object)?;
        let service = object["metadata"]["labels"][SERVICE].as_str().map(str::to_owned);
        let kind = object["addressType"].as_str().unwrap_or_default().to_owned();
        let mut slice = Slice {
            group: (service.clone().unwrap_or_else(|| format!("/{name}")), kind),
            service,
            own: None,
            others_ready: false,
        };
        let none = Vec::new();
        let endpoints = match &object["endpoints"] {
            Value::Array(endpoints) => endpoints,
            // A service without pods.
            Value::Null => &none,
            _ => return Err(Unreadable(format!("EndpointSlice {name}: its endpoints are no list"))),
        };
        for endpoint in endpoints {
            let condition = |name: &str| endpoint["conditions"][name].as_bool();
            let ready = condition("ready").unwrap_or(true);
            if self.is_own(endpoint) {
                let (serving, terminating) = (condition("serving").unwrap_or(ready), condition("terminating"));
                slice.own = Some(Own { ready, serving, terminating: terminating.unwrap_or(false) });
            } else {
                slice.others_ready |= ready;
            }
        }
        self.slices.insert(name, slice);
        Ok(())
    }

    /// A slice is gone.
    pub fn remove(&mut self, object: &Value) -> Result<(), Unreadable> {
        self.slices.remove(&name_of(object)?);
        Ok(())
    }

    fn is_own(&self, endpoint: &Value) -> bool {
        let target = &endpoint["targetRef"];
        match (&self.who.name, target["name"].as_str().filter(|_| target["kind"] == "Pod")) {
            (Some(own), Some(name)) => own == name,
            (Some(_) | None, _) => endpoint["addresses"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|address| address.as_str()?.parse::<IpAddr>().ok())
                .any(|address| self.who.addresses.contains(&address)),
        }
    }

    /// Whether this pod is in any.
    pub fn has_own(&self) -> bool {
        self.slices.values().any(|slice| slice.own.is_some())
    }

    /// The services that this pod is in; `None` where a slice of it names none.
    pub fn services(&self) -> Option<Vec<&str>> {
        let own = self.slices.values().filter(|slice| slice.own.is_some());
        let mut names: Vec<&str> = own.map(|slice| slice.service.as_deref()).collect::<Option<_>>()?;
        names.sort_unstable();
        names.dedup();
        Some(names)
    }

    /// Whether routing sends to it.
    pub fn routed(&self) -> Routed {
        let in_slice = |slice: &Slice| {
            let Some(own) = slice.own else { return Routed::Out };
            let somebody = self.slices.values().any(|other| other.group == slice.group && other.others_ready);
            match own {
                Own { ready: true, .. } => Routed::In,
                Own { serving: true, terminating: true, .. } if !somebody => Routed::LastResort,
                Own { .. } => Routed::Out,
            }
        };
        self.slices.values().map(in_slice).max().unwrap_or(Routed::Out)
    }
}

fn name_of(object: &Value) -> Result<String, Unreadable> {
    let name = object["metadata"]["name"].as_str().filter(|name| !name.is_empty());
    name.map(str::to_owned).ok_or_else(|| Unreadable("an EndpointSlice without metadata.name".to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "conditions are written where they are used")]
    fn endpoint(pod: &str, address: &str, conditions: Value) -> Value {
        json!({"addresses": [address], "conditions": conditions, "targetRef": {"kind": "Pod", "name": pod}})
    }

    fn slice(name: &str, service: &str, endpoints: &[Value]) -> Value {
        json!({
            "metadata": {"name": name, "labels": {SERVICE: service}}, "addressType": "IPv4", "endpoints": endpoints,
        })
    }

    fn web() -> Slices {
        Slices::new(Who { name: None, addresses: vec!["10.0.0.1".parse().unwrap()] })
    }

    fn ready() -> Value {
        json!({"ready": true, "serving": true, "terminating": false})
    }

    fn terminating() -> Value {
        json!({"ready": false, "serving": true, "terminating": true})
    }

    #[test]
    fn ready_is_in_terminating_is_out_and_nobody_else_is_the_last_resort() {
        let check = |own: Value, others: &[Value], expect: Routed| {
            let mut slices = web();
            slices.put(&slice("web-1", "web", &[endpoint("a", "10.0.0.1", own.clone())])).unwrap();
            slices.put(&slice("web-2", "web", others)).unwrap();
            assert_eq!(slices.routed(), expect, "{own} beside {others:?}");
        };
        let other = [endpoint("b", "10.0.0.2", ready())];
        let leaving = [endpoint("b", "10.0.0.2", terminating())];
        check(ready(), &other, Routed::In);
        check(json!({}), &other, Routed::In);
        check(Value::Null, &[], Routed::In);
        check(terminating(), &other, Routed::Out);
        check(terminating(), &[], Routed::LastResort);
        check(terminating(), &leaving, Routed::LastResort);
        check(json!({"ready": false, "serving": false, "terminating": true}), &[], Routed::Out);
        check(json!({"ready": false}), &[], Routed::Out);
        // publishNotReadyAddresses.
        check(json!({"ready": true, "serving": false, "terminating": true}), &other, Routed::In);
    }

    #[test]
    fn out_is_out_of_every_service() {
        let mut slices = web();
        let other = endpoint("b", "10.0.0.2", ready());
        slices.put(&slice("web", "web", &[endpoint("a", "10.0.0.1", terminating()), other.clone()])).unwrap();
        slices.put(&slice("admin", "admin", &[endpoint("a", "10.0.0.1", ready()), other.clone()])).unwrap();
        assert_eq!((slices.routed(), slices.services()), (Routed::In, Some(vec!["admin", "web"])));
        slices.put(&slice("admin", "admin", &[endpoint("a", "10.0.0.1", terminating())])).unwrap();
        assert_eq!(slices.routed(), Routed::LastResort, "the ready one of another service is none of this one's");
        slices.remove(&slice("admin", "admin", &[])).unwrap();
        assert_eq!(slices.routed(), Routed::Out);
        slices.put(&slice("web", "web", &[other])).unwrap();
        assert!(!slices.has_own() && slices.routed() == Routed::Out);
    }

    #[test]
    fn a_name_that_was_told_counts_more_than_an_address() {
        // On a host's network several pods have one address.
        let addresses = vec!["10.0.0.1".parse().unwrap()];
        let mut slices = Slices::new(Who { name: Some("a".into()), addresses });
        let both = [endpoint("a", "10.0.0.1", terminating()), endpoint("b", "10.0.0.1", ready())];
        slices.put(&slice("web", "web", &both)).unwrap();
        assert_eq!(slices.routed(), Routed::Out);
    }

    #[test]
    fn what_is_no_slice_is_said() {
        for bad in [
            json!(null),
            json!({}),
            json!({"metadata": {"name": ""}}),
            json!({"metadata": {"name": "x"}, "endpoints": 7}),
        ] {
            assert!(web().put(&bad).is_err(), "{bad}");
        }
        assert!(web().put(&json!({"metadata": {"name": "x"}, "endpoints": [7, null, {"addresses": "x"}]})).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_objects_never_panic(text in r#"\{("(metadata|name|endpoints|conditions|ready)":(\{\}|\[\]|1|null|"x"),?){0,6}\}"#) {
            if let Ok(object) = serde_json::from_str::<Value>(&text) {
                let mut slices = web();
                let _ = slices.put(&object);
                let _ = slices.routed();
            }
        }
    }
}
