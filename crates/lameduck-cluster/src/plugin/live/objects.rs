//! The objects of a namespace, or of all, without those that others own: who makes a pod is told, not each of its pods.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::plugin::kube::{Ask, Kube, Refused};
use crate::plugin::resource::{CHECKED, CONFIG_MAPS, GROUPS, PERHAPS, Resource};

/// What was read.
#[derive(Debug, Default)]
pub struct Objects {
    /// Those to be checked, by namespace, kind and name.
    pub kept: Vec<Value>,
    /// The pods, all of them.
    pub pods: Vec<Value>,
    /// How many have an owner that speaks for them.
    pub owned: usize,
    /// What could not be read, and why.
    pub missing: Vec<String>,
}

/// Reads them.
///
/// # Errors
///
/// Where nothing can be read at all: the first refusal.
pub async fn read(kube: &Arc<Kube>, namespace: Option<&str>) -> Result<Objects, Refused> {
    let served = served(kube).await?;
    let offered = |resource: &&Resource| resource.group.is_empty() || served.contains(&resource.api_version());
    let mut work = JoinSet::new();
    for (n, resource) in CHECKED.iter().chain(PERHAPS.iter().filter(offered)).enumerate() {
        let (kube, namespace) = (Arc::clone(kube), namespace.map(str::to_owned));
        let resource = *resource;
        work.spawn(async move { (n, resource, kube.list(&resource, namespace.as_deref(), "").await) });
    }
    let mut answers = Vec::new();
    while let Some(done) = work.join_next().await {
        answers.extend(done.ok());
    }
    answers.sort_by_key(|(n, ..)| *n);
    let mut objects = Objects::default();
    let mut all = Vec::new();
    let mut first = None;
    let mut read = 0;
    for (_, resource, answer) in answers {
        match answer {
            Ok(list) => {
                read += 1;
                if resource == crate::plugin::resource::PODS {
                    objects.pods.clone_from(&list);
                }
                all.extend(list.into_iter().filter(|one| resource != CONFIG_MAPS || is_controllers(one)));
            }
            // The group is served, and not with this kind.
            Err(error) if error.status() == Some(404) => {}
            Err(error) => {
                objects.missing.push(error.to_string());
                first.get_or_insert(error);
            }
        }
    }
    if let Some(error) = first.filter(|_| read == 0) {
        return Err(error);
    }
    let before = all.len();
    objects.kept = without_owned(all);
    objects.owned = before - objects.kept.len();
    objects.kept.sort_by_cached_key(place);
    objects.kept.iter_mut().for_each(bare);
    Ok(objects)
}

/// Which versions of groups the server has: one that it has not is forbidden to most, and not missing.
async fn served(kube: &Kube) -> Result<HashSet<String>, Refused> {
    let ask = Ask { verb: "get", resource: &GROUPS, sub: "", namespace: None, name: None };
    let groups = kube.json(&ask, "", None).await?;
    let groups = groups["groups"].as_array().into_iter().flatten();
    let versions = groups.flat_map(|group| group["versions"].as_array().into_iter().flatten());
    Ok(versions.filter_map(|version| version["groupVersion"].as_str().map(str::to_owned)).collect())
}

/// The settings of ingress-nginx, as `lameduck check` knows them.
fn is_controllers(map: &Value) -> bool {
    map["data"]["upstream-keepalive-timeout"].is_string()
}

fn text<'v>(object: &'v Value, path: &str) -> &'v str {
    object.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// `NAMESPACE/KIND/NAME`.
pub fn place(object: &Value) -> String {
    let namespace = text(object, "/metadata/namespace");
    let name = format!("{}/{}", text(object, "/kind"), text(object, "/metadata/name"));
    if namespace.is_empty() { name } else { format!("{namespace}/{name}") }
}

/// The owner that controls it.
pub fn controller(object: &Value) -> Option<&Value> {
    let owners = object.pointer("/metadata/ownerReferences")?.as_array()?;
    owners.iter().find(|owner| owner["controller"] == true)
}

/// Without those for whom an owner speaks. An owner of a kind that is not read has one of its objects speak for it.
fn without_owned(all: Vec<Value>) -> Vec<Value> {
    let known: HashSet<String> = all.iter().map(|one| text(one, "/metadata/uid").to_owned()).collect();
    let mut spoken_for = BTreeSet::new();
    let speaks = |object: &Value| {
        let Some(owner) = controller(object) else { return true };
        let (version, kind) = (text(owner, "/apiVersion"), text(owner, "/kind"));
        // A Job's pods end when their work does, and nothing is routed to them; Knative's revisions are its services'.
        if kind == "Job" || version.starts_with("serving.knative.dev/") || known.contains(text(owner, "/uid")) {
            return false;
        }
        // The kubelet's own pods: all of them are a node's, and each is another.
        kind == "Node" || spoken_for.insert((text(owner, "/uid").to_owned(), text(object, "/kind").to_owned()))
    };
    let mut speaks = speaks;
    all.into_iter().filter(|object| speaks(object)).collect()
}

/// Takes out what says nothing of an end, and much of it.
fn bare(object: &mut Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove("status");
    }
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(kind: &str, name: &str, owner: Option<(&str, &str, &str)>) -> Value {
        let owners = owner.map(|(version, kind, name)| {
            json!([{"apiVersion": version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true}])
        });
        json!({"kind": kind, "metadata": {"name": name, "uid": format!("uid-{name}"), "ownerReferences": owners}})
    }

    #[test]
    fn who_is_owned_is_told_once() {
        let kept = |objects: &[Value]| {
            let kept = without_owned(objects.to_vec());
            kept.iter().map(|one| text(one, "/metadata/name").to_owned()).collect::<Vec<_>>()
        };
        let apps = |kind, name| Some(("apps/v1", kind, name));
        let web = object("Deployment", "web", None);
        let set = object("ReplicaSet", "web-1", apps("Deployment", "web"));
        let pod = object("Pod", "web-1-a", apps("ReplicaSet", "web-1"));
        assert_eq!(kept(&[web.clone(), set.clone(), pod.clone()]), ["web"]);
        // Whoever may not read Deployments is still told of what they made.
        assert_eq!(kept(&[set.clone(), pod.clone()]), ["web-1"]);
        let own = Some(("acme.dev/v1", "Shop", "shop"));
        assert_eq!(kept(&[object("Pod", "a", own), object("Pod", "b", own)]), ["a"]);
        let node = Some(("v1", "Node", "n1"));
        assert_eq!(kept(&[object("Pod", "dns", node), object("Pod", "proxy", node)]), ["dns", "proxy"]);
        assert_eq!(kept(&[object("Pod", "job-1", Some(("batch/v1", "Job", "job")))]), [""; 0]);
    }
}
