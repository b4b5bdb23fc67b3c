use lameduck_core::{Cause, Severity};

use super::{Check, Subject};
use crate::finding::{Confidence, Finding};
use crate::launch::app;

pub const CHECK: Check = Check::Workload(check);

fn check(subject: &Subject<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for container in &subject.workload.containers {
        let Some(limit) = &container.memory_limit else { continue };
        let argv = container.server.as_ref().map(|server| server.argv.join(" ")).unwrap_or_default();
        let app = container.launch.as_ref().and_then(|launch| app(&launch.node)).map(|(argv, _)| argv.join(" "));
        let env: Vec<&str> = container.env.iter().map(|(_, value)| value.as_str()).collect();
        let all = format!("{argv} {} {}", app.unwrap_or_default(), env.join(" "));
        let heap = value(&all, "--max-old-space-size=").map(|mib| mib * 1_048_576.0).or_else(|| {
            let text = all.split_whitespace().find_map(|word| word.strip_prefix("-Xmx"))?;
            let number: f64 = text.trim_end_matches(|c: char| c.is_alphabetic()).parse().ok()?;
            Some(number * match text.chars().last() {
                Some('g' | 'G') => 1_073_741_824.0,
                Some('m' | 'M') => 1_048_576.0,
                Some('k' | 'K') => 1024.0,
                _ => 1.0,
            })
        });
        let Some(heap) = heap.filter(|heap| *heap > limit.value * 0.85) else { continue };
        let mib = |bytes: f64| (bytes / 1_048_576.0).round();
        let message = format!(
            "the heap may grow to {} MiB of a limit of {} MiB: what the runtime needs besides ends in an OOM kill, most likely while draining",
            mib(heap), mib(limit.value)
        );
        found.push(
            Finding::new(Cause::CrashRestart, Severity::Warning, limit.at, message)
                .confidence(Confidence::Medium)
                .help("leave a quarter of the limit outside of the heap"),
        );
    }
    found
}

fn value(text: &str, option: &str) -> Option<f64> {
    let rest = &text[text.find(option)? + option.len()..];
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}
