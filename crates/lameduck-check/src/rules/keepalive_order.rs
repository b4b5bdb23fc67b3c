use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::edit::Edit;
use crate::server::Server;
use crate::span::Span;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let Some(container) = subject.main() else { return Vec::new() };
    let Some(server) = &container.server else { return Vec::new() };
    // Never: it does not close. Zero: it closes with every response, which is in order too.
    let Some((least, most)) = server.idle.filter(|(_, most)| *most > 0.0) else { return Vec::new() };
    let mut found = Vec::new();
    for hop in subject.world.hops(workload) {
        let Some((_, keeps)) = hop.idle.filter(|(_, keeps)| *keeps > 0.0 && least <= *keeps) else { continue };
        let sure = if most > keeps { Confidence::Low } else { Confidence::High };
        let at = server.idle_at.or_else(|| server.node.as_ref()?.server.as_ref().map(|(at, _)| *at)).unwrap_or(server.at);
        let message = format!(
            "{} closes idle connections after {}, {} keeps them for {keeps} s: a request that meets the close is lost",
            server.name,
            if (most - least).abs() < 1e-9 { format!("{least} s") } else { format!("{least} to {most} s, by version,") },
            hop.balancer.name,
        );
        let needs = (keeps + 20.0).ceil();
        let finding = Finding::new(Cause::IdleCloseRace, Severity::Error, at, message)
            .confidence(sure)
            .help(format!("keep idle connections for {needs} s at the server{}", setting(server)));
        let (edits, what) = (edits(server, needs, workload.grace_s()), format!("the server closes after {needs} s, when {} no longer has the connection", hop.balancer.name));
        found.push(finding.fix(true, what, edits));
        break;
    }
    found
}

fn setting(server: &Server) -> String {
    match server.id {
        "node-http" | "express" | "fastify" => ": server.keepAliveTimeout, in milliseconds".to_owned(),
        "puma" => ": persistent_timeout".to_owned(),
        "uvicorn" => ": --timeout-keep-alive".to_owned(),
        "nginx" => ": keepalive_timeout".to_owned(),
        id if id.starts_with("gunicorn") => ": --keep-alive".to_owned(),
        _ => String::new(),
    }
}

/// Only Node's own setting is edited: its place is certain.
fn edits(server: &Server, seconds: f64, grace: f64) -> Vec<Edit> {
    let Some(node) = &server.node else { return Vec::new() };
    let mut out = Vec::new();
    let ms = format!("{}_000", seconds as u64);
    if let Some(stated) = &node.keep_alive {
        let span = stated.at.span;
        // `name = value` or `name: value`: the name is kept.
        out.push(Edit { file: stated.at.file, span, text: format!("server.keepAliveTimeout = {ms}") });
        if let Some((_, name)) = &node.server {
            out[0].text = format!("{name}.keepAliveTimeout = {ms}");
        }
    } else if let (Some((after, indent)), Some((_, name))) = (&node.after_server, &node.server) {
        let indent = " ".repeat(*indent as usize);
        out.push(Edit { file: after.file, span: after.span, text: format!("\n{indent}{name}.keepAliveTimeout = {ms};") });
    }
    // A long timeout keeps server.close() waiting: shed idle connections while stopping.
    if let (Some(close), false, true) = (node.close_at, node.sheds, seconds + 1.0 > grace) {
        let name = node.server.as_ref().map_or("server", |(_, name)| name.as_str());
        let start = close.span.start;
        let text = format!("setInterval(() => {name}.closeIdleConnections(), 1000).unref(); ");
        out.push(Edit { file: close.file, span: Span { start, end: start }, text });
    }
    out
}
