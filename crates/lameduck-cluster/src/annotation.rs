//! What pods and namespaces say to lameduck: `lameduck.dev/...`.

use std::collections::BTreeMap;

use serde_json::Value;

/// What all of them begin with.
pub const PREFIX: &str = "lameduck.dev/";

/// Whether to inject: `true` or `false`. As an annotation or a label; the pod's word counts before the namespace's.
pub const INJECT: &str = "inject";
/// The containers concerned, by name, separated by commas.
pub const CONTAINERS: &str = "containers";
/// From which severity on an object is refused: `note`, `warning`, `error` or `off`.
pub const ENFORCE: &str = "enforce";
/// Findings that do not matter: `lameduck check` reads it.
pub const IGNORE: &str = "ignore";
/// Written by the webhook: the containers that run below lameduck.
pub const INJECTED: &str = "injected";

/// Those that are no option of `lameduck run`, and what they mean.
pub const OWN: [(&str, &str); 5] = [
    (INJECT, "`true`: lameduck is put into the pod. `false`: it is not, whatever the namespace says"),
    (CONTAINERS, "the containers to put it into, separated by commas; native sidecars only if named here"),
    (ENFORCE, "`note`, `warning`, `error`: findings this severe refuse the object. `off`: none does"),
    (IGNORE, "`RULE: REASON`: a finding of `lameduck check` that does not matter here"),
    (INJECTED, "written by the webhook: the containers that lameduck was put into"),
];

/// What one object says, without the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said(BTreeMap<String, String>);

impl Said {
    /// Reads an object's metadata. An annotation counts before a label of the same name.
    pub fn of(metadata: Option<&Value>) -> Said {
        let mut said = BTreeMap::new();
        for kind in ["labels", "annotations"] {
            let pairs = metadata.and_then(|metadata| metadata.get(kind)).and_then(Value::as_object);
            for (key, value) in pairs.into_iter().flatten() {
                if let (Some(name), Some(value)) = (key.strip_prefix(PREFIX), value.as_str()) {
                    said.insert(name.to_owned(), value.to_owned());
                }
            }
        }
        Said(said)
    }

    /// What it says by a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// All that it says.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// Whether lameduck is asked for, and by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Nobody asks, or somebody asks for the opposite.
    No,
    /// The namespace, and the pod does not object.
    ByNamespace,
    /// The pod.
    ByPod,
}

/// Who asks. A value that is neither `true` nor `false` asks for nothing, and is complained about.
pub fn asked(pod: &Said, namespace: &Said) -> (Asked, Option<String>) {
    for (said, whose, by) in [(pod, "the pod", Asked::ByPod), (namespace, "the namespace", Asked::ByNamespace)] {
        match said.get(INJECT) {
            Some("true") => return (by, None),
            Some("false") => return (Asked::No, None),
            Some(other) => {
                let other: String = other.chars().take(40).collect();
                let complaint = format!("{PREFIX}{INJECT} of {whose}: read {other:?}, expected \"true\" or \"false\"");
                return (Asked::No, Some(complaint));
            }
            None => {}
        }
    }
    (Asked::No, None)
}
