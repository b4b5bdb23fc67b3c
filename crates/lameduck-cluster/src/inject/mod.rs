//! Puts lameduck into a pod. Pure and total: a pod in, a patch and warnings out, whatever the pod looks like.
//!
//! An init container copies the program into a volume; each chosen container's `command` is run by it from there. `args` stay
//! as they are, since Kubernetes appends them to `command`.

mod container;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::annotation::{self, Asked, INJECTED, PREFIX, Said};
use crate::image::Config;
use crate::patch::{Draft, Misshapen, Operation};

/// Where the volume is mounted.
pub const FOLDER: &str = "/.lameduck";
/// The program in it. Called `lameduck`, so that `lameduck check` knows what it is.
pub const PROGRAM: &str = "/.lameduck/lameduck";
/// The volume.
pub const VOLUME: &str = "lameduck";
/// The init container.
pub const COPIER: &str = "lameduck-copy";

/// Volumes that an eviction may empty (cluster-autoscaler, FAQ, "What types of pods can prevent CA from removing a node?").
const SAFE_TO_EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes";

/// Containers that other webhooks put into pods, which drain by rules of their own: only touched if they are named.
const FOREIGN: [&str; 2] = ["istio-proxy", "linkerd-proxy"];

/// What the webhook was told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The image that has the program.
    pub image: String,
    /// Options of `lameduck run` for every pod, by name.
    pub defaults: BTreeMap<String, String>,
    /// The names of all options of `lameduck run`.
    pub options: Vec<&'static str>,
    /// Whether `lameduck run` would start with these variables. If it would not, neither would the container.
    pub accept: fn(&BTreeMap<String, String>) -> Result<(), String>,
}

/// What is known of an image: its configuration, or why not.
pub type Images = BTreeMap<String, Result<Config, String>>;

/// What became of a pod.
#[derive(Debug)]
pub struct Injection {
    /// The pod as it will be.
    pub pod: Value,
    /// How it becomes so; empty: nothing changes.
    pub patch: Vec<Operation>,
    /// What whoever made the pod should know.
    pub warnings: Vec<String>,
}

/// The images whose configuration [`inject`] asks for.
pub fn images(pod: &Value, namespace: &Said) -> Vec<String> {
    let said = Said::of(pod.get("metadata"));
    if annotation::asked(&said, namespace).0 == Asked::No {
        return Vec::new();
    }
    let mut images: Vec<String> = chosen(pod, &said, namespace, &mut Vec::new())
        .iter()
        .filter_map(|pointer| pod.pointer(pointer))
        .filter(|container| !container::runs_lameduck(container))
        .filter_map(|container| container.get("image")?.as_str().map(str::to_owned))
        .collect();
    images.sort();
    images.dedup();
    images
}

/// Puts lameduck into a pod that asks for it. Where something is not as it should be the pod, or the container concerned, is
/// left as it is, and a warning says why.
pub fn inject(pod: &Value, namespace: &Said, images: &Images, settings: &Settings) -> Injection {
    let mut warnings = Vec::new();
    let injected = attempt(pod, namespace, images, settings, &mut warnings);
    let (injected, patch) = match injected {
        Ok(Some(draft)) => draft.done(),
        Ok(None) => (pod.clone(), Vec::new()),
        Err(misshapen) => {
            warnings.push(format!("the pod is left alone: {misshapen}"));
            (pod.clone(), Vec::new())
        }
    };
    warnings.dedup();
    Injection { pod: injected, patch, warnings }
}

fn attempt(
    pod: &Value,
    namespace: &Said,
    images: &Images,
    settings: &Settings,
    warnings: &mut Vec<String>,
) -> Result<Option<Draft>, Misshapen> {
    let said = Said::of(pod.get("metadata"));
    let (asked, complaint) = annotation::asked(&said, namespace);
    warnings.extend(complaint);
    if asked == Asked::No {
        return Ok(None);
    }
    match fits(pod, asked) {
        Fits::Yes => {}
        Fits::NotMeant => return Ok(None),
        Fits::No(reason) => {
            warnings.push(format!("the pod is left alone: {reason}"));
            return Ok(None);
        }
    }
    warnings.extend(unknown_options(&said, settings));
    let mut draft = Draft::new(pod.clone());
    let mut injected = Vec::new();
    for pointer in chosen(pod, &said, namespace, warnings) {
        let Some(container) = pod.pointer(&pointer) else { continue };
        let name = container.get("name").and_then(Value::as_str).unwrap_or_default();
        if container::is_ours(container) {
            injected.push(name.to_owned());
            continue;
        }
        if container::runs_lameduck(container) {
            continue;
        }
        let about = container::About { pod, name, container, said: &said, namespace, settings };
        let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
        match container::change(&about, images.get(image), warnings) {
            Ok(change) => {
                change.apply(&mut draft, &pointer)?;
                injected.push(name.to_owned());
            }
            Err(reason) => warnings.push(format!("container {name:?} is left alone: {reason}")),
        }
    }
    if injected.is_empty() {
        return Ok(None);
    }
    surroundings(&mut draft, settings)?;
    draft.set("/metadata/annotations", &format!("{PREFIX}{INJECTED}"), injected.join(",").into())?;
    Ok(Some(draft))
}

/// Whether a pod can have it.
enum Fits {
    Yes,
    /// Nobody who asked can have meant this one.
    NotMeant,
    /// Why not.
    No(String),
}

fn fits(pod: &Value, asked: Asked) -> Fits {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let text = |path: &str| spec.pointer(path).and_then(Value::as_str);
    if pod.pointer("/metadata/annotations/kubernetes.io~1config.mirror").is_some() {
        // The image of a pod that a kubelet read from a file; changing it changes nothing.
        return Fits::NotMeant;
    }
    // What ends by itself is seldom routed to. A pod that asks for itself knows what it is.
    if asked == Asked::ByNamespace && matches!(text("/restartPolicy"), Some("Never" | "OnFailure")) {
        return Fits::NotMeant;
    }
    if text("/os/name") == Some("windows") || text("/nodeSelector/kubernetes.io~1os") == Some("windows") {
        return Fits::No("lameduck runs on Linux, and the pod on Windows".to_owned());
    }
    let named = |list: &str, name: &str| {
        let list = spec.get(list).and_then(Value::as_array);
        list.into_iter().flatten().find(|one| one.get("name").and_then(Value::as_str) == Some(name))
    };
    if named("volumes", VOLUME).is_some_and(|volume| volume.get("emptyDir").is_none()) {
        return Fits::No(format!("it has a volume {VOLUME:?} that is no emptyDir: give that another name"));
    }
    if named("initContainers", COPIER).is_some_and(|copier| !container::mounts_ours(copier))
        || named("containers", COPIER).is_some()
    {
        return Fits::No(format!("it has a container {COPIER:?} of its own: give that another name"));
    }
    Fits::Yes
}

/// Annotations that look like options and are none. Only the pod's: a namespace's may be for a newer version.
fn unknown_options(said: &Said, settings: &Settings) -> Vec<String> {
    let known = |name: &str| {
        let option = name.split_once('.').map_or(name, |(option, _)| option);
        annotation::OWN.iter().any(|(own, _)| *own == name) || settings.options.contains(&option)
    };
    let complaint = |name: &str| format!("{PREFIX}{name}: there is no such option of lameduck run, so it does nothing");
    said.iter().filter(|(name, _)| !known(name)).map(|(name, _)| complaint(name)).collect()
}

/// Pointers to the containers concerned.
fn chosen(pod: &Value, said: &Said, namespace: &Said, warnings: &mut Vec<String>) -> Vec<String> {
    let names = said.get(annotation::CONTAINERS).or_else(|| namespace.get(annotation::CONTAINERS));
    let names: Option<Vec<&str>> =
        names.map(|names| names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect());
    let mut found: Vec<(String, &str)> = Vec::new();
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer(&format!("/spec/{list}")).and_then(Value::as_array);
        for (n, container) in containers.into_iter().flatten().enumerate() {
            let Some(name) = container.get("name").and_then(Value::as_str) else { continue };
            let pointer = format!("/spec/{list}/{n}");
            // A native sidecar is stopped by the kubelet once all others have ended.
            let sidecar = container.get("restartPolicy").and_then(Value::as_str) == Some("Always");
            let wanted = match &names {
                Some(names) => names.contains(&name) && (list == "containers" || sidecar),
                None => list == "containers" && !FOREIGN.contains(&name),
            };
            if wanted {
                found.push((pointer, name));
            }
        }
    }
    if said.get(annotation::CONTAINERS).is_some() {
        for name in names.into_iter().flatten().filter(|name| !found.iter().any(|(_, known)| known == name)) {
            let name: String = name.chars().take(63).collect();
            warnings.push(format!(
                "{PREFIX}{}: {name:?} is neither a container nor a native sidecar of this pod",
                annotation::CONTAINERS
            ));
        }
    }
    found.into_iter().map(|(pointer, _)| pointer).collect()
}

/// The volume, and who fills it. Last, since the init container is put before all others, which pointers count.
fn surroundings(draft: &mut Draft, settings: &Settings) -> Result<(), Misshapen> {
    let has = |draft: &Draft, list: &str, name: &str| {
        let list = draft.object().pointer(list).and_then(Value::as_array);
        list.into_iter().flatten().any(|one| one.get("name").and_then(Value::as_str) == Some(name))
    };
    if !has(draft, "/spec/volumes", VOLUME) {
        draft.put("/spec", "volumes", json!({"name": VOLUME, "emptyDir": {"sizeLimit": "32Mi"}}), false)?;
        safe_to_evict(draft)?;
    }
    if !has(draft, "/spec/initContainers", COPIER) {
        let copier = copier(draft.object(), settings);
        draft.put("/spec", "initContainers", copier, true)?;
    }
    Ok(())
}

/// The cluster autoscaler leaves a node alone that has a pod with local storage, unless the pod says that nothing in it is missed. In
/// this volume is a copy of the program.
fn safe_to_evict(draft: &mut Draft) -> Result<(), Misshapen> {
    let said = draft.object().pointer("/metadata/annotations").and_then(|all| all.get(SAFE_TO_EVICT));
    let names = match said.and_then(Value::as_str) {
        Some(names) if names.split(',').any(|name| name == VOLUME) => return Ok(()),
        Some(names) if !names.is_empty() => format!("{names},{VOLUME}"),
        Some(_) | None => VOLUME.to_owned(),
    };
    draft.set("/metadata/annotations", SAFE_TO_EVICT, names.into())
}

/// The init container: what the restricted Pod Security Standard asks of it, and nothing that raises what the pod needs.
fn copier(pod: &Value, settings: &Settings) -> Value {
    let mut security = json!({
        "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": true,
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    });
    // The image names a user. A pod that says "root" for all of its containers would contradict `runAsNonRoot`.
    if pod.pointer("/spec/securityContext/runAsUser").and_then(Value::as_i64) == Some(0) {
        security["runAsUser"] = json!(65_532);
    }
    let mut copier = json!({
        "name": COPIER,
        "image": settings.image,
        "command": ["/lameduck", "copy-to", FOLDER],
        "securityContext": security,
        "volumeMounts": [{"name": VOLUME, "mountPath": FOLDER}],
    });
    // Requests that equal limits leave a Guaranteed pod what it is; none leave a BestEffort one.
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    let limited = |container: &Value| {
        let of = |kind: &str| container.pointer(&format!("/resources/{kind}")).and_then(Value::as_object);
        ["requests", "limits"].iter().any(|kind| of(kind).is_some_and(|resources| !resources.is_empty()))
    };
    if containers.into_iter().flatten().any(limited) {
        let needs = json!({"cpu": "50m", "memory": "32Mi"});
        copier["resources"] = json!({"requests": needs, "limits": needs});
    }
    copier
}
