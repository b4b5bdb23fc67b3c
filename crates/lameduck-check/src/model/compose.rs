//! Compose files: <https://github.com/compose-spec/compose-spec>.

use super::{Container, Kind, Workload};
use crate::launch::Command;
use crate::span::{Mapped, Sp};
use crate::yaml::Node;

/// What a Compose service builds, by path.
#[derive(Debug, Clone, Default)]
pub struct Build {
    pub context: String,
    pub dockerfile: String,
}

/// Reads the services of a Compose file; with each, what it builds. Says whether it is one.
pub fn read(root: Node<'_>, into: &mut Vec<(Workload, Option<Build>)>) -> bool {
    let Some(services) = root.get("services").filter(|services| services.is_map()) else { return false };
    if root.get("kind").is_some() || !services.pairs().iter().all(|(_, service)| service.is_map() || service.is_null())
    {
        return false;
    }
    for (key, service) in services.pairs() {
        let name = key.text().unwrap_or_default();
        let mut workload = Workload::new(Kind::Compose, key.at(), name);
        workload.labels = vec![("compose.service".to_owned(), name.to_owned())];
        let grace = service.get("stop_grace_period");
        workload.grace = grace.and_then(|grace| {
            let value = super::proxy::time(grace.text()?)?;
            Some(Sp { value, at: grace.at() })
        });
        let mut env = Vec::new();
        if let Some(environment) = service.get("environment") {
            for (name, value) in environment.pairs() {
                env.push((name.text().unwrap_or_default().to_owned(), value.text().unwrap_or_default().to_owned()));
            }
            for item in environment.items() {
                env.extend(
                    item.text().and_then(|text| text.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())),
                );
            }
        }
        let text = |key: &str| {
            let node = service.get(key)?;
            Some(Sp { value: node.text()?.to_owned(), at: node.at() })
        };
        let container = Container {
            name: name.to_owned(),
            at: key.at(),
            image: text("image"),
            command: argv(service.get("entrypoint")),
            args: argv(service.get("command")),
            env,
            ports: if service.get("ports").is_some() || service.get("expose").is_some() { vec![0] } else { Vec::new() },
            insert: super::kubernetes::insert(service, &["image", "command"]),
            stop_signal: text("stop_signal"),
            ..Container::default()
        };
        workload.containers.push(container);
        workload.insert = super::kubernetes::insert(service, &["image", "command"]);
        // `init: true` puts docker-init in front.
        if service.get("init").and_then(Node::bool) == Some(true) {
            workload.annotations.push(("compose.init".to_owned(), Sp { value: "true".to_owned(), at: key.at() }));
        }
        let build = service.get("build").map(|build| Build {
            context: build.text().or_else(|| build.str("context")).unwrap_or(".").to_owned(),
            dockerfile: build.str("dockerfile").unwrap_or("Dockerfile").to_owned(),
        });
        into.push((workload, build));
    }
    true
}

/// A list, or a text that is split into words as a shell would; it is not run by one.
fn argv(node: Option<Node<'_>>) -> Option<Command> {
    let node = node?;
    let words: Vec<Mapped> = if node.is_seq() {
        node.items().into_iter().map(Node::mapped).collect()
    } else {
        let whole = node.mapped();
        let text = whole.text.clone();
        let mut at = 0;
        crate::docker::parse::words(&text)
            .into_iter()
            .map(|word| {
                let start = text[at..].find(word.as_str()).map_or(at, |found| at + found);
                at = (start + word.len()).min(text.len());
                let mut mapped = Mapped::of(whole.file);
                mapped.push(&word, whole.offset(start as u32) as usize);
                mapped
            })
            .collect()
    };
    (!words.is_empty()).then(|| Command { words, at: node.at(), shell_form: false })
}
