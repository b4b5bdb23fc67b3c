//! For programs: JSON, SARIF 2.1.0, GitHub's workflow commands, `JUnit`.

use std::collections::HashSet;
use std::fmt::Write;
use std::io;

use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use serde_json::json;

use crate::Outcome;
use crate::report::{FindingShown, IgnoredShown, UnparsedShown};

/// The whole answer, as it is written: the workloads pass by one at a time.
#[derive(Serialize)]
struct Whole<'o> {
    schema: &'static str,
    findings: &'o [FindingShown],
    workloads: Workloads<'o>,
    unparsed: &'o [UnparsedShown],
    ignored: &'o [IgnoredShown],
    files: usize,
}

struct Workloads<'o>(&'o Outcome);

impl Serialize for Workloads<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_seq(Some(self.0.count))?;
        let mut done = Ok(());
        self.0.each_workload(|workload| {
            if done.is_ok() {
                done = all.serialize_element(workload);
            }
        });
        done?;
        all.end()
    }
}

/// The document itself.
///
/// # Errors
///
/// What `out` says.
pub fn json(outcome: &Outcome, mut out: impl io::Write) -> io::Result<()> {
    let document = &outcome.document;
    let whole = Whole {
        schema: document.schema,
        findings: &document.findings,
        workloads: Workloads(outcome),
        unparsed: &document.unparsed,
        ignored: &document.ignored,
        files: document.files,
    };
    serde_json::to_writer_pretty(&mut out, &whole)?;
    out.write_all(b"\n")
}

/// SARIF 2.1.0: <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.
pub fn sarif(outcome: &Outcome) -> String {
    let rules: Vec<_> = crate::rules()
        .map(|(name, summary)| {
            let page = crate::rule(name).unwrap_or_default();
            json!({
                "id": name,
                "shortDescription": { "text": summary },
                "help": { "text": page, "markdown": page },
            })
        })
        .collect();
    let index = |rule: &str| crate::rules().position(|(name, _)| name == rule);
    let results: Vec<_> =
        outcome.document.findings.iter().map(|finding| result(finding, index(finding.rule))).collect();
    let unparsed: Vec<_> = outcome
        .document
        .unparsed
        .iter()
        .map(|one| {
            json!({
                "level": "warning",
                "message": { "text": one.reason },
                "locations": [location(&one.file, one.line.max(1), 1)],
            })
        })
        .collect();
    let driver = json!({
        "name": "lameduck",
        "version": env!("CARGO_PKG_VERSION"),
        "informationUri": env!("CARGO_PKG_REPOSITORY"),
        "rules": rules,
    });
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": driver },
            "columnKind": "unicodeCodePoints",
            "results": results,
            "invocations": [{ "executionSuccessful": !outcome.unreadable, "toolExecutionNotifications": unparsed }],
        }],
    });
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

fn location(file: &str, line: u32, column: u32) -> serde_json::Value {
    json!({
        "physicalLocation": {
            "artifactLocation": { "uri": uri(file) },
            "region": { "startLine": line, "startColumn": column },
        }
    })
}

/// A relative reference: what RFC 3986 does not allow in a path is escaped.
fn uri(path: &str) -> String {
    let mut out = String::new();
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@+,=".contains(&byte) {
            out.push(byte as char);
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn result(finding: &FindingShown, index: Option<usize>) -> serde_json::Value {
    let help = if finding.help.is_empty() { String::new() } else { format!("\n{}", finding.help) };
    json!({
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": { "text": format!("{}{help}", finding.message) },
        "locations": [location(&finding.file, finding.line.max(1), finding.column.max(1))],
        "properties": { "cause": finding.cause, "confidence": finding.confidence },
    })
}

/// <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>
pub fn github(outcome: &Outcome) -> String {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    let mut out = String::new();
    for finding in &outcome.document.findings {
        let level = if finding.severity == "note" { "notice" } else { finding.severity };
        let _ = writeln!(
            out,
            "::{level} file={},line={},col={},title={}::{}",
            property(&finding.file),
            finding.line,
            finding.column,
            property(&format!("{} ({})", finding.rule, finding.cause)),
            data(&format!("{}\n{}", finding.message, finding.help)),
        );
    }
    for one in &outcome.document.unparsed {
        let _ = writeln!(
            out,
            "::notice file={},line={}::not understood: {}",
            property(&one.file),
            one.line.max(1),
            data(&one.reason)
        );
    }
    out
}

/// `JUnit`: a test case for every rule in every file that has findings, and one for every other file's silence.
pub fn junit(outcome: &Outcome) -> String {
    let escape = |text: &str| {
        let allowed = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect::<String>();
        allowed.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
    };
    let document = &outcome.document;
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let bad: HashSet<&str> = document.findings.iter().map(|finding| finding.workload.as_str()).collect();
    let mut clean = 0;
    let mut silent = String::new();
    outcome.each_workload(|workload| {
        if !bad.contains(workload.name.as_str()) {
            clean += 1;
            let (class, name) = (escape(workload.kind), escape(&workload.name));
            let _ = writeln!(silent, "<testcase classname=\"{class}\" name=\"{name}\"/>");
        }
    });
    let _ = writeln!(
        out,
        "<testsuites>\n<testsuite name=\"lameduck check\" tests=\"{}\" failures=\"{}\">",
        document.findings.len() + clean,
        document.findings.len()
    );
    for finding in &document.findings {
        let name = format!("{}:{}:{} {}", finding.file, finding.line, finding.column, finding.rule);
        let _ = writeln!(
            out,
            "<testcase classname=\"{}\" name=\"{}\"><failure type=\"{}\" message=\"{}\">{}</failure></testcase>",
            escape(finding.rule),
            escape(&name),
            finding.cause,
            escape(&finding.message),
            escape(&finding.help),
        );
    }
    out.push_str(&silent);
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}
