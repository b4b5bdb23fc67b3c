//! Walks over process trees that several rules share.

use crate::edit::Edit;
use crate::launch::{Init, Launch, Node, Place, Runner, ShellNode};
use crate::model::Workload;
use crate::span::Span;

/// The shells of a launch that stay parents, with the init above each.
pub fn shells(launch: &Launch) -> Vec<(&ShellNode, Option<&Init>)> {
    let mut out = Vec::new();
    walk(&launch.node, None, &mut out);
    out
}

fn walk<'l>(node: &'l Node, init: Option<&'l Init>, out: &mut Vec<(&'l ShellNode, Option<&'l Init>)>) {
    match node {
        Node::Shell(shell) => {
            if shell.program.how != crate::shell::exec::How::Exec {
                out.push((shell, init));
            }
            walk(&shell.child, init, out);
        }
        Node::Init(init, child) => walk(child, Some(init), out),
        // What a runner starts is the runner's matter.
        Node::Runner { .. } | Node::App { .. } | Node::Unknown { .. } => {}
    }
}

/// The runners of a launch.
pub fn runner(node: &Node) -> Option<(&Runner, &str, crate::span::At, Option<&Node>)> {
    match node {
        Node::Runner { runner, name, at, child } => Some((runner, name, *at, child.as_deref())),
        Node::Shell(shell) => runner(&shell.child),
        Node::Init(_, child) => runner(child),
        Node::App { .. } | Node::Unknown { .. } => None,
    }
}

/// Every launch of a workload.
pub fn launches(workload: &Workload) -> impl Iterator<Item = &Launch> {
    workload.containers.iter().filter_map(|container| container.launch.as_ref())
}

/// `exec ` in front of a command. Inside JSON and YAML texts too: the word needs no quoting.
pub fn put_exec(shell: &ShellNode) -> Vec<Edit> {
    let start = shell.at.span.start;
    vec![Edit { file: shell.at.file, span: Span { start, end: start }, text: "exec ".to_owned() }]
}

/// Where the text stands, in words.
pub fn place(place: Place) -> &'static str {
    match place {
        Place::ShellForm => "the shell form",
        Place::Inline => "sh -c",
        Place::Script => "the script",
        Place::PackageJson => "the script of package.json",
    }
}

/// How much it matters that an app is not told: nothing is lost where nothing is sent.
pub fn severity(subject: &super::Subject<'_>) -> lameduck_core::Severity {
    let workload = subject.workload;
    let ports = workload.containers.iter().any(|container| !container.ports.is_empty());
    let idle = workload.kind.in_cluster() && !ports && !crate::predict::is_routed(subject.world, workload);
    if idle { lameduck_core::Severity::Note } else { lameduck_core::Severity::Error }
}
