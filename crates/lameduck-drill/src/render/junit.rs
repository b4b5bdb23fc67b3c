//! A `JUnit` report: one test case for each replica that was ended, and one for the whole.

use std::fmt::Write as _;

use lameduck_core::timeline::Moment;
use lameduck_core::words::Escaped;

use crate::result::{CompareResult, DrillResult, DrillVerdict, ReplicaReport, by_count};

/// A drill as a `JUnit` test suite.
pub fn junit(result: &DrillResult) -> String {
    document(&[suite("lameduck drill", result)])
}

/// A comparison: the cured variant decides. What the plain one loses is why it was run, and fails nothing.
pub fn compare_junit(result: &CompareResult) -> String {
    document(&[suite("lameduck drill, cured", &result.cured)])
}

struct Suite {
    text: String,
    tests: usize,
    failures: usize,
    errors: usize,
}

fn document(suites: &[Suite]) -> String {
    let sum = |of: fn(&Suite) -> usize| suites.iter().map(of).sum::<usize>();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites tests=\"{}\" failures=\"{}\" errors=\"{}\">",
        sum(|s| s.tests),
        sum(|s| s.failures),
        sum(|s| s.errors)
    );
    for suite in suites {
        out.push_str(&suite.text);
    }
    out.push_str("</testsuites>\n");
    out
}

fn suite(name: &str, result: &DrillResult) -> Suite {
    let ended = |replica: &&ReplicaReport| {
        let at = |moment| replica.timeline.at(moment).is_some();
        at(Moment::TermReceived) || at(Moment::Exited)
    };
    let mut body = String::new();
    let (mut tests, mut failures, mut errors) = (1, 0, 0);
    for replica in result.replicas.iter().filter(ended) {
        tests += 1;
        let at = |moment| replica.timeline.at(moment);
        let took = at(Moment::Exited)
            .zip(at(Moment::TermReceived))
            .map_or(0.0, |(exit, term)| exit.saturating_sub(term).as_secs_f64());
        let message = (replica.tally.lost > 0).then(|| {
            failures += 1;
            let causes = by_count(&replica.tally.causes);
            let causes = causes.iter().map(|(cause, n)| format!("{n} {cause}")).collect::<Vec<_>>().join(", ");
            format!("{} of {} requests lost: {causes}", replica.tally.lost, replica.tally.sent)
        });
        case(&mut body, &format!("the end of {} in round {}", replica.name, replica.round), took, "failure", message);
    }
    let length = result.rounds.iter().map(|round| round.ended_s).sum();
    let (kind, message) = match result.verdict {
        DrillVerdict::Clean => ("failure", None),
        DrillVerdict::Lost => {
            failures += 1;
            ("failure", Some(result.because.clone()))
        }
        DrillVerdict::Inconclusive => {
            errors += 1;
            ("error", Some(format!("inconclusive: {}", result.because)))
        }
    };
    case(&mut body, "nothing was lost", length, kind, message);
    let text = format!(
        "  <testsuite name=\"{}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\" time=\"{length:.3}\">\n{body}  </testsuite>\n",
        Escaped(name)
    );
    Suite { text, tests, failures, errors }
}

fn case(out: &mut String, name: &str, seconds: f64, kind: &str, message: Option<String>) {
    let _ = write!(out, "    <testcase classname=\"lameduck.drill\" name=\"{}\" time=\"{seconds:.3}\"", Escaped(name));
    match message {
        None => out.push_str("/>\n"),
        Some(message) => {
            let _ = writeln!(out, "><{kind} message=\"{}\"/></testcase>", Escaped(&message));
        }
    }
}
