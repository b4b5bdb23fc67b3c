use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::edit::Edit;
use crate::predict::pre_stop;
use crate::span::Span;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let grace = workload.grace_s();
    let Some(container) = subject.main() else { return Vec::new() };
    let left = grace - pre_stop(container, grace).0;
    let Some((server, node)) = container.server.as_ref().and_then(|server| Some((server, server.node.as_ref()?))) else {
        return Vec::new();
    };
    let Some((idle, _)) = server.idle.filter(|(idle, _)| node.closes && !node.sheds && *idle + 1.0 > left) else {
        return Vec::new();
    };
    let message = format!(
        "server.close() waits for the connection of the last response for keepAliveTimeout + 1 s = {} s, and SIGKILL comes after {left} s",
        idle + 1.0
    );
    let at = server.idle_at.or(node.close_at).unwrap_or(server.at);
    let edits = node.close_at.map(|close| {
        let name = node.server.as_ref().map_or("server", |(_, name)| name.as_str());
        let text = format!("setInterval(() => {name}.closeIdleConnections(), 1000).unref(); ");
        Edit { file: close.file, span: Span { start: close.span.start, end: close.span.start }, text }
    });
    vec![
        Finding::new(Cause::KilledAtDeadline, Severity::Warning, at, message)
            .help("close idle connections on a timer while stopping, or answer with Connection: close")
            .fix(true, "idle connections end within a second of their last response, not after keepAliveTimeout", edits.into_iter().collect()),
    ]
}
