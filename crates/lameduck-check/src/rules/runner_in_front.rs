use lameduck_core::{Cause, Severity};

use super::{Check, Subject, tree};
use crate::edit::Edit;
use crate::finding::{Confidence, Finding};
use crate::launch::{Node, Outcome, Runner};
use crate::shell::exec::How;
use crate::span::Span;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for launch in tree::launches(subject.workload) {
        let Some((runner, name, at, child)) = tree::runner(&launch.node) else { continue };
        let (cause, what) = match (runner, launch.outcome) {
            (_, Outcome::Graceful) | (Runner::Unsure | Runner::Uv, _) => continue,
            (Runner::Npm, Outcome::KilledNow) => (Cause::CutMidResponse, "passes TERM to a shell that dies of it; the app is killed untold"),
            (Runner::NpmDeaf, _) => (Cause::SignalNotDelivered, "does not pass TERM on in this version"),
            (Runner::Yarn1, _) => (Cause::CutMidResponse, "passes TERM on and exits at once; the app is killed with it"),
            (Runner::Su, _) => (Cause::CutMidResponse, "tells the command nothing and kills it 2 s after TERM"),
            (Runner::Npm, _) => (Cause::SignalNotDelivered, "stands between TERM and the app"),
        };
        // The script can exec; then npm's own forwarding is enough.
        let edits = match (runner, child) {
            (Runner::Npm, Some(Node::Shell(shell))) if matches!(shell.program.how, How::Child(_)) => {
                let start = shell.at.span.start;
                vec![Edit { file: shell.at.file, span: Span { start, end: start }, text: "exec ".to_owned() }]
            }
            _ => Vec::new(),
        };
        found.push(
            Finding::new(cause, Severity::Error, at, format!("`{name}` {what}"))
                .confidence(Confidence::Medium)
                .help("start the program itself: [\"node\", \"server.js\"]; for su: gosu, su-exec, or USER in the Dockerfile")
                .fix(true, "TERM reaches the app when it is sent", edits),
        );
    }
    found
}
