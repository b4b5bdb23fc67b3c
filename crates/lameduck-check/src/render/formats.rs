//! For programs: JSON, SARIF 2.1.0, GitHub's workflow commands, `JUnit`.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use lameduck_core::words::Escaped;
use serde::Serialize;
use serde::ser::{SerializeSeq, Serializer};
use serde_json::json;

use crate::Outcome;
use crate::report::{FindingShown, IgnoredShown, UnparsedShown};

/// The whole answer, as it is written: findings and workloads pass by one at a time.
#[derive(Serialize)]
struct Whole<'o> {
    schema: &'static str,
    findings: Findings<'o, FindingShown>,
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

/// Findings, and what is written of each.
struct Findings<'o, T>(&'o Outcome, fn(FindingShown) -> T);

impl<T: Serialize> Serialize for Findings<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_seq(Some(self.0.findings.slots.len()))?;
        let mut done = Ok(());
        let read = self.0.each_finding(|finding| {
            done = all.serialize_element(&(self.1)(finding));
            if done.is_ok() { Ok(()) } else { Err(io::ErrorKind::Other.into()) }
        });
        done?;
        read.map_err(serde::ser::Error::custom)?;
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
        findings: Findings(outcome, |finding| finding),
        workloads: Workloads(outcome),
        unparsed: &document.unparsed,
        ignored: &document.ignored,
        files: document.files,
    };
    serde_json::to_writer_pretty(&mut out, &whole)?;
    out.write_all(b"\n")
}

#[derive(Serialize)]
struct Sarif<'o> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run<'o>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'o> {
    tool: serde_json::Value,
    column_kind: &'static str,
    invocations: serde_json::Value,
    results: Findings<'o, serde_json::Value>,
}

/// SARIF 2.1.0: <https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html>.
///
/// # Errors
///
/// What `out` says.
pub fn sarif(outcome: &Outcome, mut out: impl io::Write) -> io::Result<()> {
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
    let document = Sarif {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run {
            tool: json!({ "driver": driver }),
            column_kind: "unicodeCodePoints",
            invocations: json!([{ "executionSuccessful": !outcome.unreadable, "toolExecutionNotifications": unparsed }]),
            results: Findings(outcome, result),
        }],
    };
    serde_json::to_writer_pretty(&mut out, &document)?;
    out.write_all(b"\n")
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

fn result(finding: FindingShown) -> serde_json::Value {
    let index = crate::rules().position(|(name, _)| name == finding.rule);
    let mut text = finding.message;
    if !finding.help.is_empty() {
        text.push('\n');
        text.push_str(&finding.help);
    }
    json!({
        "ruleId": finding.rule,
        "ruleIndex": index,
        "level": finding.severity,
        "message": { "text": text },
        "locations": [location(&finding.file, finding.line.max(1), finding.column.max(1))],
        "properties": { "cause": finding.cause, "confidence": finding.confidence },
    })
}

/// <https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands>
///
/// # Errors
///
/// What `out` says.
pub fn github(outcome: &Outcome, mut out: impl io::Write) -> io::Result<()> {
    let data = |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    let property = |text: &str| data(text).replace(':', "%3A").replace(',', "%2C");
    outcome.each_finding(|finding| {
        let level = if finding.severity == "note" { "notice" } else { finding.severity };
        writeln!(
            out,
            "::{level} file={},line={},col={},title={}::{}",
            property(&finding.file),
            finding.line,
            finding.column,
            property(&format!("{} ({})", finding.rule, finding.cause)),
            data(&format!("{}\n{}", finding.message, finding.help)),
        )
    })?;
    for one in &outcome.document.unparsed {
        let (file, line) = (property(&one.file), one.line.max(1));
        writeln!(out, "::notice file={file},line={line}::not understood: {}", data(&one.reason))?;
    }
    Ok(())
}

/// `JUnit`: a failed test case for every finding, and one that passed for every workload without.
///
/// # Errors
///
/// What `out` says.
pub fn junit(outcome: &Outcome, mut out: impl io::Write) -> io::Result<()> {
    let escape = |text: &str| {
        let allowed = text.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect::<String>();
        Escaped(&allowed).to_string()
    };
    let mut bad: HashSet<u64> = HashSet::new();
    let key = |name: &str| {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        hasher.finish()
    };
    outcome.each_finding(|finding| {
        bad.insert(key(&finding.workload));
        Ok(())
    })?;
    let mut clean = 0;
    outcome.each_workload(|workload| clean += usize::from(!bad.contains(&key(&workload.name))));
    let failures = outcome.findings.slots.len();
    let tests = failures + clean;
    writeln!(out, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>")?;
    writeln!(out, "<testsuite name=\"lameduck check\" tests=\"{tests}\" failures=\"{failures}\">")?;
    outcome.each_finding(|finding| {
        let name = format!("{}:{}:{} {}", finding.file, finding.line, finding.column, finding.rule);
        writeln!(
            out,
            "<testcase classname=\"{}\" name=\"{}\"><failure type=\"{}\" message=\"{}\">{}</failure></testcase>",
            escape(finding.rule),
            escape(&name),
            finding.cause,
            escape(&finding.message),
            escape(&finding.help),
        )
    })?;
    let mut done = Ok(());
    outcome.each_workload(|workload| {
        if done.is_ok() && !bad.contains(&key(&workload.name)) {
            let (class, name) = (escape(workload.kind), escape(&workload.name));
            done = writeln!(out, "<testcase classname=\"{class}\" name=\"{name}\"/>");
        }
    });
    done?;
    out.write_all(b"</testsuite>\n</testsuites>\n")
}
