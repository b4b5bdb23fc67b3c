//! The rights in deploy/: each is used, none is missing, and there are no others.

use std::collections::BTreeSet;

use serde_json::Value;

use super::real::{ACCOUNT, Cluster};

/// A verb on a resource of a group; with a name, on that one object; with a namespace, there.
type Right = (String, String, String, Option<String>, Option<String>);

/// Once the webhook has done all that it does.
pub fn rights(cluster: &Cluster) {
    let used = used(cluster);
    let granted = granted(cluster);
    let covers = |right: &Right, used: &Right| {
        let same = |of: &Right| (of.0.clone(), of.1.clone(), of.2.clone());
        same(right) == same(used)
            && right.3.as_ref().is_none_or(|name| used.3.as_ref() == Some(name))
            && right.4.as_ref().is_none_or(|namespace| used.4.as_ref() == Some(namespace))
    };
    for right in &granted {
        assert!(used.iter().any(|used| covers(right, used)), "{right:?} is granted and never used: {used:#?}");
    }
    println!("{} rights, all of them used", granted.len());
    others(cluster);
}

/// What the API server wrote down of the account. That none is missing: nothing was refused for want of a right.
fn used(cluster: &Cluster) -> BTreeSet<Right> {
    let log = std::fs::read_to_string(cluster.path("audit.log")).unwrap();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let events = events.filter(|event| event["user"]["username"] == ACCOUNT);
    let used = events.map(|event| {
        let status = event["responseStatus"]["code"].as_u64().unwrap_or_default();
        assert!(status != 401 && status != 403, "refused: {event}");
        let of = |name: &str| event["objectRef"][name].as_str().map(str::to_owned);
        let verb = event["verb"].as_str().unwrap_or_default().to_owned();
        (verb, of("apiGroup").unwrap_or_default(), of("resource").unwrap_or_default(), of("name"), of("namespace"))
    });
    used.collect()
}

/// What the Role and the `ClusterRole` say, one verb on one resource at a time.
fn granted(cluster: &Cluster) -> BTreeSet<Right> {
    let mut granted = BTreeSet::new();
    for args in [["role", "lameduck-webhook", "-n", "lameduck"].as_slice(), &["clusterrole", "lameduck-webhook"]] {
        let role = cluster.get(args);
        let namespace = role["metadata"]["namespace"].as_str().map(str::to_owned);
        for rule in role["rules"].as_array().unwrap() {
            let words = |name: &str| {
                let words = rule[name].as_array().into_iter().flatten().filter_map(Value::as_str);
                words.map(str::to_owned).collect::<Vec<_>>()
            };
            let names: Vec<Option<String>> = words("resourceNames").into_iter().map(Some).collect();
            let names = if names.is_empty() { vec![None] } else { names };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    for verb in words("verbs") {
                        for name in &names {
                            let place = namespace.clone();
                            granted.insert((verb.clone(), group.clone(), resource.clone(), name.clone(), place));
                        }
                    }
                }
            }
        }
    }
    assert!(granted.iter().all(|(verb, group, resource, ..)| ![verb, group, resource].iter().any(|word| *word == "*")));
    granted
}

/// What the roles do not say is refused, be it by a role that everybody has.
fn others(cluster: &Cluster) {
    let may = |words: &[&str]| {
        let account = format!("--as={ACCOUNT}");
        cluster.kubectl(&[["auth", "can-i", &account].as_slice(), words].concat(), None).status.success()
    };
    assert!(may(&["get", "secrets/lameduck-webhook", "-n", "lameduck"]));
    assert!(may(&["get", "namespaces"]));
    for words in [
        ["get", "secrets/other", "-n", "lameduck"].as_slice(),
        &["list", "secrets", "-n", "lameduck"],
        &["get", "secrets/lameduck-webhook", "-n", "shop"],
        &["create", "secrets", "-n", "lameduck"],
        &["list", "namespaces"],
        &["get", "pods", "-n", "shop"],
        &["patch", "mutatingwebhookconfigurations/other"],
        &["update", "mutatingwebhookconfigurations/lameduck-webhook"],
    ] {
        assert!(!may(words), "{words:?}");
    }
}
