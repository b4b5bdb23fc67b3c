use lameduck_core::{Cause, Severity};

use super::{Check, Subject, budget};
use crate::edit::Edit;
use crate::finding::{Confidence, Finding};
use crate::launch::{self, Outcome};
use crate::model::{Container, Hook};
use crate::server::{OnSignal, Server};
use crate::span::Span;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let (Some(launch), Some(server)) = (&container.launch, &container.server) else { continue };
        let reached = matches!(launch.outcome, Outcome::Graceful) && !launch::told(&launch.node).by_command;
        if !reached || server.on_stop != OnSignal::Immediate || told_otherwise(container) {
            continue;
        }
        let signal = container.stop_signal.as_ref().map_or("SIGTERM", |signal| signal.value.as_str());
        let exits = server.node.as_ref().and_then(|node| node.exits_at);
        let at = exits.or_else(|| container.stop_signal.as_ref().map(|signal| signal.at)).unwrap_or(server.at);
        let message = format!("{} takes {signal} as exit now: requests in flight are cut", server.name);
        let finding = Finding::new(Cause::CutMidResponse, Severity::Error, at, message)
            .confidence(if server.sure { Confidence::High } else { Confidence::Medium });
        found.push(cure(finding, container, server));
    }
    found
}

/// A preStop hook that stops the server by another way than a signal.
fn told_otherwise(container: &Container) -> bool {
    container.pre_stop.as_ref().is_some_and(|hook| match &hook.hook {
        Hook::Exec(argv) => {
            let text = argv.join(" ");
            ["quit", "stop", "QUIT", "WINCH", "USR1", "graceful"].iter().any(|word| text.contains(word))
        }
        Hook::Sleep(_) | Hook::Http(_) => false,
    })
}

fn cure(finding: Finding, container: &Container, server: &Server) -> Finding {
    if let Some(graceful) = server.graceful_signal {
        let finding = finding.help(format!("STOPSIGNAL SIG{graceful} in the Dockerfile: it finishes what is in flight"));
        let what = format!("the stop signal is SIG{graceful}: requests in flight are finished");
        if let Some(signal) = container.stop_signal.as_ref() {
            let edit = stopsignal(signal.at, graceful).filter(|edit| Some(edit.file) == container.dockerfile);
            return finding.fix(true, what, edit.into_iter().collect());
        }
        if let (Some(end), Some(file)) = (container.image_end, container.dockerfile) {
            let at = end.span.end;
            let text = format!("\nSTOPSIGNAL SIG{graceful}");
            return finding.fix(true, what, vec![Edit { file, span: Span { start: at, end: at }, text }]);
        }
        return finding;
    }
    if let Some((exit, (made, name))) = server.node.as_ref().and_then(|node| node.exits_at.zip(node.server.clone())) {
        let finding = finding.help("close the server, and exit when it has closed: server.close(() => process.exit(0))");
        let close = format!("setInterval(() => {name}.closeIdleConnections(), 1000).unref(); {name}.close(() => process.exit(0))");
        let edit = Edit { file: exit.file, span: exit.span, text: format!("{{ {close}; }}") };
        let edits = if exit.file == made.file && server.node.as_ref().is_some_and(|node| node.exits_as_arrow) {
            vec![edit]
        } else {
            Vec::new()
        };
        return finding.fix(true, "requests in flight are finished before the exit", edits);
    }
    if server.id == "passenger-standalone" {
        let port = server.argv.iter().enumerate().find_map(|(n, word)| match word.as_str() {
            "--port" | "-p" => server.argv.get(n + 1).cloned(),
            word => word.strip_prefix("--port=").map(str::to_owned),
        });
        let stop = format!("passenger stop{}", port.map(|port| format!(" --port {port}")).unwrap_or_default());
        let hook = ["exec:".to_owned(), format!("  command: [\"sh\", \"-c\", \"sleep {}; {stop}\"]", budget::SLEEP)];
        return finding
            .help(format!("stop it before TERM: a preStop hook `{stop}`, or lameduck run --stop-command '{stop}'"))
            .fix(true, "the server is asked to stop, and finishes, before TERM is sent", budget::add_pre_stop(container, &hook));
    }
    finding.help("put lameduck run in front: it waits until traffic is quiet before it signals")
}

/// The argument of a STOPSIGNAL instruction: the last word of it.
fn stopsignal(at: crate::span::At, graceful: &str) -> Option<Edit> {
    let whole = at.span;
    (whole.end > whole.start).then(|| Edit { file: at.file, span: whole, text: format!("STOPSIGNAL SIG{graceful}") })
}
