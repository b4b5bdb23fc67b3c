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

/// Where a program is not installed its test says so, and does not claim to have passed anything.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if !found {
        eprintln!("SKIPPED {program}: it is not installed");
    }
    found
}

const APP: &str = r#"
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"#;

/// After how long the server closes an idle connection. A server never closes before its time; how long after it this is seen depends
/// on how busy the machine is, and there it may be late by a second.
fn closes_after(report: &Value, idle: f64, tick: f64) {
    let after = report["idle_after_response_s"].as_f64();
    assert!(after.is_some_and(|after| (idle - 0.3..idle + tick + 1.0).contains(&after)), "{idle} s: {report}");
}

fn python(server: &str, arguments: &str) -> Option<Value> {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("app.py"), APP).expect("a file");
    let script = format!("cd '{}' && exec {server} {arguments}", folder.path().display());
    installed(server).then(|| probe(&["--", "sh", "-c", &script]))
}

#[test]
fn gunicorns_threads_look_after_two_seconds_once_a_second() {
    let Some(report) = python("gunicorn", "--threads 4 --bind 127.0.0.1:$PORT app:app") else { return };
    closes_after(&report, 2.0, 1.0);
}

#[test]
fn gunicorns_plain_workers_close_after_each_answer() {
    let Some(report) = python("gunicorn", "--bind 127.0.0.1:$PORT app:app") else { return };
    assert_eq!(report["requests_per_connection"], 1, "{report}");
    assert_eq!(report["limit_announced"], true, "{report}");
}

#[test]
fn uvicorns_five_seconds() {
    let Some(report) = python("uvicorn", "--port $PORT --log-level warning app:asgi") else { return };
    closes_after(&report, 5.0, 0.0);
}

#[test]
fn pumas_twenty_seconds_or_sixty_five() {
    if !installed("puma") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config.ru");
    std::fs::write(&config, "run ->(e) { [200, { 'content-length' => '2' }, ['ok']] }\n").expect("a file");
    let script = format!("exec puma --quiet --bind tcp://127.0.0.1:$PORT '{}'", config.display());
    let report = probe(&["--max-idle", "23s", "--", "sh", "-c", &script]);
    if report["idle_after_response_s"].is_null() {
        // Puma 7 keeps 65 s, which is too long for a test: it has to have kept at least what was waited for.
        assert_eq!(report["most_idle_s"], 23.0, "{report}");
    } else {
        closes_after(&report, 20.0, 0.0);
    }
}

/// Node closes 5 s after an answer, newer ones 6 s, and never before the first request within the time waited here.
#[test]
fn nodes_two_timeouts() {
    let script = "require('http').createServer((q,r)=>r.end('ok')).listen(process.env.PORT,'127.0.0.1')";
    let report = probe(&["--behind", "glb", "--", "node", "-e", script]);
    let after = report["idle_after_response_s"].as_f64().expect("it closes");
    closes_after(&report, if after < 5.7 { 5.0 } else { 6.0 }, 0.0);
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
