//! What ends pods of a Deployment, as people and platforms do it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Deployment, NotDrilled};
use crate::clock;
use crate::plugin::kube::{Ask, Kube};
use crate::plugin::resource::{DEPLOYMENTS, NODES, PODS};

/// How long a budget may refuse an eviction.
const REFUSED_FOR: Duration = Duration::from_mins(2);

/// An event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `kubectl rollout restart`.
    Roll,
    /// `kubectl scale`, to so many; afterwards as it was.
    ScaleDown(u64),
    /// `kubectl delete pod`, of one.
    Delete,
    /// The eviction of one, as a drain asks for it.
    Evict,
    /// `kubectl drain` of the node with most of the pods, of these pods only; afterwards the node takes pods again.
    DrainNode,
}

impl Event {
    /// Reads one: `roll`, `scale-down=1`.
    pub fn from_id(text: &str) -> Option<Event> {
        match text.split_once('=') {
            None => Some(match text {
                "roll" => Event::Roll,
                "scale-down" => Event::ScaleDown(1),
                "delete" => Event::Delete,
                "evict" => Event::Evict,
                "drain-node" => Event::DrainNode,
                _ => return None,
            }),
            Some(("scale-down", to)) => to.parse().ok().map(Event::ScaleDown),
            Some(_) => None,
        }
    }

    /// Its name.
    pub const fn id(self) -> &'static str {
        match self {
            Event::Roll => "roll",
            Event::ScaleDown(_) => "scale-down",
            Event::Delete => "delete",
            Event::Evict => "evict",
            Event::DrainNode => "drain-node",
        }
    }
}

/// What was done, and is undone at the end.
#[derive(Debug, Default)]
pub struct Done {
    /// How many pods end by it.
    pub ends: usize,
    node: Option<String>,
    replicas: Option<u64>,
}

type Result<T> = std::result::Result<T, NotDrilled>;

/// Does it.
pub async fn carry_out(kube: &Kube, deployment: &Deployment, event: Event, pods: &[Value]) -> Result<Done> {
    let name = |pod: &Value| pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let first = || pods.first().map(name).ok_or(NotDrilled::NoPods);
    let done = |ends| Done { ends, ..Done::default() };
    match event {
        Event::Roll => {
            let now = clock::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let annotations = json!({"lameduck.dev/drilled-at": now.as_secs().to_string()});
            let change = json!({"spec": {"template": {"metadata": {"annotations": annotations}}}});
            patch(kube, deployment, "", &change).await?;
            Ok(done(pods.len()))
        }
        Event::ScaleDown(to) => {
            if to >= deployment.replicas {
                return Err(NotDrilled::NothingEnds { replicas: deployment.replicas, to });
            }
            scale(kube, deployment, to).await?;
            let ends = (deployment.replicas - to) as usize;
            Ok(Done { ends, replicas: Some(deployment.replicas), node: None })
        }
        Event::Delete => {
            let pod = first()?;
            let ask = Ask {
                verb: "delete",
                resource: &PODS,
                sub: "",
                namespace: Some(&deployment.namespace),
                name: Some(&pod),
            };
            kube.json(&ask, "", None).await?;
            Ok(done(1))
        }
        Event::Evict => {
            evict(kube, deployment, &first()?).await?;
            Ok(done(1))
        }
        Event::DrainNode => {
            let mut by_node: BTreeMap<&str, Vec<String>> = BTreeMap::new();
            for pod in pods {
                by_node.entry(pod["spec"]["nodeName"].as_str().unwrap_or_default()).or_default().push(name(pod));
            }
            let (node, own) = by_node.into_iter().max_by_key(|(_, own)| own.len()).ok_or(NotDrilled::NoPods)?;
            schedulable(kube, node, false).await?;
            let mut evicted = Ok(());
            for pod in &own {
                evicted = evict(kube, deployment, pod).await;
                if evicted.is_err() {
                    break;
                }
            }
            if let Err(error) = evicted {
                schedulable(kube, node, true).await?;
                return Err(error);
            }
            Ok(Done { ends: own.len(), node: Some(node.to_owned()), replicas: None })
        }
    }
}

/// Puts back what was changed for the event.
pub async fn undo(kube: &Kube, deployment: &Deployment, done: &Done) -> Result<()> {
    if let Some(node) = &done.node {
        schedulable(kube, node, true).await?;
    }
    if let Some(replicas) = done.replicas {
        scale(kube, deployment, replicas).await?;
    }
    Ok(())
}

async fn patch(kube: &Kube, deployment: &Deployment, sub: &'static str, change: &Value) -> Result<()> {
    let Deployment { namespace, name, .. } = deployment;
    let ask = Ask { verb: "patch", resource: &DEPLOYMENTS, sub, namespace: Some(namespace), name: Some(name) };
    kube.json(&ask, "", Some(("application/merge-patch+json", change))).await?;
    Ok(())
}

async fn scale(kube: &Kube, deployment: &Deployment, to: u64) -> Result<()> {
    patch(kube, deployment, "scale", &json!({"spec": {"replicas": to}})).await
}

async fn schedulable(kube: &Kube, node: &str, takes_pods: bool) -> Result<()> {
    let ask = Ask { verb: "patch", resource: &NODES, sub: "", namespace: None, name: Some(node) };
    let change = json!({"spec": {"unschedulable": !takes_pods}});
    kube.json(&ask, "", Some(("application/merge-patch+json", &change))).await?;
    Ok(())
}

/// Asks until the budget lets it, as `kubectl drain` does.
async fn evict(kube: &Kube, deployment: &Deployment, pod: &str) -> Result<()> {
    let namespace = Some(deployment.namespace.as_str());
    let ask = Ask { verb: "create", resource: &PODS, sub: "eviction", namespace, name: Some(pod) };
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}});
    let asking = async {
        loop {
            match kube.json(&ask, "", Some(("application/json", &eviction))).await {
                Err(error) if error.status() == Some(429) => tokio::time::sleep(Duration::from_secs(1)).await,
                other => return other,
            }
        }
    };
    let asked = tokio::time::timeout(REFUSED_FOR, asking).await;
    asked.map_err(|_| NotDrilled::BudgetRefuses { pod: pod.to_owned(), seconds: REFUSED_FOR.as_secs() })??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_by_their_names() {
        for (text, expect) in [
            ("roll", Some(Event::Roll)),
            ("scale-down", Some(Event::ScaleDown(1))),
            ("scale-down=2", Some(Event::ScaleDown(2))),
            ("drain-node", Some(Event::DrainNode)),
            ("scale-down=x", None),
            ("roll=1", None),
            ("stop", None),
        ] {
            assert_eq!(Event::from_id(text), expect, "{text}");
        }
    }
}
