//! Drain reports in texts: container logs, termination messages, and what log stores make of them.

use lameduck_core::report::{DrainReport, SCHEMA};
use serde_json::Value;

/// What a text holds.
#[derive(Debug, Default)]
pub struct Scanned {
    /// The reports.
    pub reports: Vec<DrainReport>,
    /// Reports of which a part is missing: a termination message has 4096 bytes at the most, and 2048 where it is the end of a
    /// log (Kubernetes documentation, "Customizing the termination message").
    pub cut: usize,
}

/// What stands near the end of every report.
const TAIL: &str = "\"unused_grace_s\":";

/// A report has about ten, and one for each moment, phase and source: up to a hundred.
const BRACKETS: usize = 200;

impl Scanned {
    /// Reads a text.
    pub fn of(text: &str) -> Scanned {
        let mut all = Scanned::default();
        text.lines().for_each(|line| all.line(line));
        all
    }

    /// Reads a line.
    pub fn line(&mut self, line: &str) {
        let Some(at) = line.find(SCHEMA) else {
            self.cut += usize::from(line.contains(TAIL));
            return;
        };
        // The fields of an object may have been put in another order: which bracket is the report's first, reading tells.
        let read = |text: &str, at: usize| {
            text[..at].rmatch_indices('{').take(BRACKETS).find_map(|(open, _)| {
                let mut values = serde_json::Deserializer::from_str(&text[open..]).into_iter::<DrainReport>();
                values.next()?.ok()
            })
        };
        // A log store keeps a line as a text in an object of its own: then the quotes in it are escaped.
        let inner = || {
            let object: Value = serde_json::from_str(line.trim()).ok()?;
            let text = object.as_object()?.values().filter_map(Value::as_str).find(|text| text.contains(SCHEMA))?;
            read(text, text.find(SCHEMA)?)
        };
        match read(line, at).or_else(inner) {
            Some(report) => self.reports.push(report),
            None => self.cut += 1,
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As `lameduck run` writes it.
    pub const REPORT: &str = r#"{"schema":"lameduck.drain/1","version":"0.1.0","mode":"on","command":["python3","app.py"],"origin":"signal","budget":{"grace_s":30.0,"margin_s":1.0,"min_s":5.0,"quiet_s":2.0,"lame_duck_s":17.4,"draining_s":5.8,"stopping_s":5.8},"phases":[{"phase":"lame-duck","budget_s":17.4,"used_s":5.493162,"ended_by":"quiet"},{"phase":"stopping","budget_s":5.8,"used_s":0.00697,"ended_by":"all-exited"}],"timeline":[{"at_s":6e-06,"moment":"term-received","provenance":"observed"}],"traffic":{"source":"sock-diag","ports":[8080],"connections_at_start":1,"new_connections":35,"arrivals":36,"ignored":0,"last_arrival_s":3.489,"open_at_stop":0,"in_flight_at_stop":0,"forced_closes":0,"by_source":[{"address":"127.0.0.1","arrivals":36}]},"front":null,"exit":{"status":143,"app_code":null,"app_signal":15},"processes":{"reaped":1,"killed":0},"took_s":5.500256,"unused_grace_s":24.499744}"#;

    #[test]
    fn reports_are_found_in_what_logs_are_kept_as() {
        let check = |text: &str, reports: usize, cut: usize| {
            let scanned = Scanned::of(text);
            assert_eq!((scanned.reports.len(), scanned.cut), (reports, cut), "{text:.80}");
        };
        check(&format!("a line\nlameduck: report {REPORT}\nlast words\n"), 1, 0);
        check(&format!("{{\"ts\":\"x\",\"msg\":\"report\",\"report\":{REPORT}}}"), 1, 0);
        check(&format!("2026-11-22T00:00:00Z lameduck: report {REPORT}\nlameduck: report {REPORT}"), 2, 0);
        let wrapped = serde_json::json!({"textPayload": format!("lameduck: report {REPORT}"), "severity": "ERROR"});
        check(&wrapped.to_string(), 1, 0);
        let reordered: Value = serde_json::from_str(REPORT).unwrap();
        check(&serde_json::json!({"jsonPayload": {"report": reordered}, "logName": "x"}).to_string(), 1, 0);
        check(&format!("lameduck: report {}", &REPORT[..400]), 0, 1);
        check(&REPORT[REPORT.len() - 300..], 0, 1);
        check("nothing\n", 0, 0);
    }
}
