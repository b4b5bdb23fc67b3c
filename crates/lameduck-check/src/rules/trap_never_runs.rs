use lameduck_core::Cause;

use super::{Check, Subject, tree};
use crate::edit::Edit;
use crate::finding::Finding;
use crate::shell::exec::How;
use crate::span::Span;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (shell, _) in tree::launches(subject.workload).flat_map(tree::shells) {
        let Some(trap) = &shell.program.trap else { continue };
        let waiting = matches!(shell.program.how, How::Child(_) | How::Background { waits: 0, busy: true });
        if !waiting || trap.ignores {
            continue;
        }
        let at = shell.trap_at.unwrap_or(shell.at);
        let message = "a shell runs a trap only when the command in the foreground has ended: this one runs after the app, not at TERM";
        // In the background, with a wait that the trap interrupts and one that then waits for the end.
        let edits = if matches!(shell.program.how, How::Child(_)) && trap.kills && shell.at.span.end > 0 {
            let end = shell.at.span.end;
            let text = " &\nwait $!\nwait $!".to_owned();
            vec![Edit { file: shell.at.file, span: Span { start: end, end }, text }]
        } else {
            Vec::new()
        };
        found.push(
            Finding::new(Cause::SignalNotDelivered, tree::severity(subject), at, message)
                .help("start the app with &, then `wait $!` twice: the trap interrupts the first; or exec the app")
                .fix(false, "the trap runs when TERM is sent", edits),
        );
    }
    found
}
