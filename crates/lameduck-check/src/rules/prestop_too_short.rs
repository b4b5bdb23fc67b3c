use lameduck_core::{Cause, Severity};

use super::{Check, Subject, budget};
use crate::finding::Finding;
use crate::edit::Edit;
use crate::model::Hook;
use crate::predict::{End, end, is_routed};

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let workload = subject.workload;
    let (Some(container), Some(lag)) = (subject.main(), subject.prediction.lag) else { return Vec::new() };
    let Some(hook) = container.pre_stop.as_ref().filter(|_| is_routed(subject.world, workload)) else { return Vec::new() };
    let (Some((_, most)), Some(needs)) = (hook.lasts, lag.1) else { return Vec::new() };
    let ends = matches!(end(container), End::Drains | End::Dies | End::Unknown);
    if !ends || most >= needs || most >= workload.grace_s() {
        return Vec::new();
    }
    let message = format!("preStop ends after {most} s, and routing may send new connections for {needs} s: up to {:.1} s are refused", needs - most);
    let edits = match hook.hook {
        Hook::Sleep(_) => vec![Edit { file: hook.at.file, span: hook.at.span, text: (needs.ceil() + 2.0).to_string() }],
        Hook::Exec(_) | Hook::Http(_) => Vec::new(),
    };
    let longer = needs.ceil() + 2.0;
    let all = longer + budget::own_stop(container).unwrap_or(5.0) + budget::MARGIN;
    let mut edits: Vec<Edit> = edits;
    if !edits.is_empty() && all > workload.grace_s() {
        edits.extend(budget::raise_grace(workload, all));
    }
    vec![
        Finding::new(Cause::RefusedWhileRouted, Severity::Warning, hook.at, message)
            .help(format!("sleep at least {longer} s"))
            .fix(true, format!("TERM comes after {longer} s instead of {most} s"), edits),
    ]
}
