//! Real servers, measured. What is measured is what is known of them.

use serde_json::Value;

use super::lameduck;

fn probe(args: &[&str]) -> Value {
    let output = lameduck("probe")
        .args(["--json", "--quiet", "--max-idle", "9s", "--max-requests", "150", "--grace", "5s"])
        .args(args)
        .output()
        .expect("the program");
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{args:?}: {error}"))
}

/// Node closes 5 s after an answer, newer ones 6 s, and never before the first request within the time waited here.
#[test]
fn nodes_two_timeouts() {
    let script = "require('http').createServer((q,r)=>r.end('ok')).listen(process.env.PORT,'127.0.0.1')";
    let report = probe(&["--behind", "glb", "--", "node", "-e", script]);
    let after = report["idle_after_response_s"].as_f64().expect("it closes");
    assert!((4.7..5.3).contains(&after) || (5.7..6.3).contains(&after), "{report}");
    assert_eq!(report["idle_before_first_request_s"], Value::Null, "{report}");
    assert_eq!(
        (&report["idle_times_differ"], &report["behind"][0]["race"]),
        (&Value::Bool(true), &Value::Bool(true)),
        "{report}"
    );
    // Node's own handler for TERM only puts the terminal back and lets the signal end it.
    assert_eq!(report["term"]["exit_code"], 143, "{report}");
}

#[test]
fn a_shell_that_does_not_pass_term_on() {
    let script = "trap '' TERM; python3 -m http.server --protocol HTTP/1.1 --bind 127.0.0.1 $PORT; exit 0";
    let report = probe(&["--grace", "2s", "--", "sh", "-c", script]);
    let term = &report["term"];
    assert_eq!(
        (&term["main_is_listener"], &term["killed"], &term["reaches_app"]),
        (&Value::Bool(false), &Value::Bool(true), &Value::Bool(false)),
        "{report}"
    );
}
