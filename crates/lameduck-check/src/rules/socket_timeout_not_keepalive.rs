use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::Finding;
use crate::edit::Edit;
use crate::span::Span;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let Some((server, node)) = container.server.as_ref().and_then(|server| Some((server, server.node.as_ref()?))) else { continue };
        let Some(set) = node.socket_timeout.as_ref().filter(|_| node.keep_alive.is_none()) else { continue };
        let message = format!(
            "this holds until the first response: then server.keepAliveTimeout replaces it, {} s by default, not {} s",
            server.idle.map_or(5.0, |(least, _)| least),
            set.value
        );
        let mut edits = Vec::new();
        if let (Some((after, indent)), Some((_, name))) = (&node.after_server, &node.server) {
            let indent = " ".repeat(*indent as usize);
            let text = format!("\n{indent}{name}.keepAliveTimeout = {}_000;", set.value as u64);
            edits.push(Edit { file: after.file, span: after.span, text });
            if let (Some(close), false, true) = (node.close_at, node.sheds, set.value + 1.0 > subject.workload.grace_s()) {
                let start = close.span.start;
                let text = format!("setInterval(() => {name}.closeIdleConnections(), 1000).unref(); ");
                edits.push(Edit { file: close.file, span: Span { start, end: start }, text });
            }
        }
        found.push(
            Finding::new(Cause::IdleCloseRace, Severity::Error, set.at, message)
                .help(format!("server.keepAliveTimeout = {}_000", set.value as u64))
                .fix(true, format!("idle connections are kept for {} s, after a response too", set.value), edits),
        );
    }
    found
}
