//! What drain reports say together, for a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use lameduck_core::duration::show;
use lameduck_core::words::count;

use super::estate::{Estate, Lost, Workload};

fn plural(n: usize, what: &str) -> String {
    format!("{} {what}{}", count(n as u64), if n == 1 { "" } else { "s" })
}

/// For a terminal.
pub fn text(estate: &Estate) -> String {
    let mut out = String::new();
    let place = match (&estate.server, &estate.namespace) {
        (Some(server), Some(namespace)) => format!(" ({server}, namespace {namespace})"),
        (Some(server), None) => format!(" ({server}, all namespaces)"),
        (None, _) => String::new(),
    };
    let (drains, workloads) = (plural(estate.drains, "drain"), plural(estate.workloads.len(), "workload"));
    let _ = writeln!(out, "{drains} of {workloads}{place}");
    if estate.reports == 0 {
        let _ = writeln!(
            out,
            "no report was found in {}: a pod's log goes with the pod. Gather while pods end (--for 10m, and roll out), or read what \
             a log store kept (reports FILE)",
            plural(estate.searched, "place")
        );
    } else {
        let _ = writeln!(out, "requests that would have been 502s: {}, at least", count(estate.would_have_been_502));
        let Lost { requests, forced_closes, killed } = estate.lost;
        let _ = writeln!(
            out,
            "lost all the same: {requests} requests by fronts; {forced_closes} connections closed by force; {killed} processes killed"
        );
    }
    if let Some(spread) = estate.drain_s {
        let _ = writeln!(
            out,
            "a drain takes: p50 {:.1} s, p99 {:.1} s, at most {:.1} s",
            spread.p50, spread.p99, spread.max
        );
    }
    for one in &estate.workloads {
        out += &workload(one);
    }
    if estate.cut > 0 {
        let _ = writeln!(
            out,
            "\n{} cut: a termination message holds 4096 bytes, and 2048 of a log's end",
            plural(estate.cut, "report")
        );
    }
    for why in &estate.not_read {
        let _ = writeln!(out, "not read: {why}");
    }
    out
}

fn workload(one: &Workload) -> String {
    let mut out =
        format!("\n{}/{}, container {}: {}", one.namespace, one.workload, one.container, plural(one.drains, "drain"));
    if one.crashes > 0 {
        let _ = write!(out, ", {} by itself", plural(one.crashes, "failed end"));
    }
    let _ = writeln!(out, ", {} requests saved", count(one.would_have_been_502));
    if let (Some(drain), Some(unused)) = (one.drain_s, one.unused_grace_s) {
        let last = one.last_arrival_s.map(|last| format!("; last arrival {:.1} s after TERM at the latest", last.max));
        let last = last.unwrap_or_else(|| "; nothing arrived after TERM".to_owned());
        let _ = writeln!(
            out,
            "  p50 {:.1} s, p99 {:.1} s; at least {unused:.1} s of the grace left{last}",
            drain.p50, drain.p99
        );
    }
    let told = |seconds: f64| show(Duration::from_secs_f64(seconds));
    if let (Some(min), Some(quiet)) = (one.min_s.1, one.quiet_s.1) {
        let now = (told(one.min_s.0), told(one.quiet_s.0));
        let _ = writeln!(out, "  --min {} --quiet {} (now {} and {})", told(min), told(quiet), now.0, now.1);
    }
    if one.needs_front.is_empty() {
        let _ = writeln!(out, "  {}", if one.front { "has the front" } else { "nothing in it asks for the front" });
    }
    for reason in &one.needs_front {
        let _ = writeln!(out, "  needs the front: {reason}");
    }
    for note in &one.notes {
        let _ = writeln!(out, "  {note}");
    }
    out
}
