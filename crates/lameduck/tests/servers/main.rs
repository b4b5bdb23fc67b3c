//! Real servers, each with its own manners at TERM, rolled under load: plain they lose requests, under `lameduck run` in its
//! default, observing mode none is refused and none is cut.
//!
//! Three replicas, 200 requests a second, endpoints that are removed 5 s after TERM.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests are at the edge: they read environments, and fail by panic"
)]

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_drill::demo::App;
use lameduck_drill::{DrillResult, Plan, render};

/// A server to try: its files, and the command that starts a replica in their folder.
struct Server {
    name: &'static str,
    needs: &'static str,
    files: &'static [(&'static str, &'static str)],
    start: fn(&Path) -> Vec<OsString>,
    /// What its own stop takes when nothing is in flight, s.
    own_stop: f64,
}

fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
    words.map(OsString::from).to_vec()
}

fn find(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]).any(|dir| dir.join(program).is_file())
}

fn plan(command: Vec<OsString>, lag: u64) -> Plan {
    let demo = lameduck_drill::demo::plan(command, Vec::new());
    Plan {
        replicas: 3,
        rate: 200.0,
        lag: Duration::from_secs(lag),
        grace: Duration::from_secs(30),
        duration: Duration::from_secs(3),
        ready_timeout: Duration::from_secs(30),
        ..demo
    }
}

fn drill(server: &str, variant: &str, plan: &Plan) -> DrillResult {
    let result = lameduck_drill::run(plan, |_| {}).unwrap_or_else(|error| panic!("{server}, {variant}: {error}"));
    eprintln!("{server}, {variant}: {} of {} lost {:?}", result.tally.lost, result.tally.sent, result.tally.causes);
    result
}

fn try_out(server: &Server) {
    let missing: Vec<&str> = server.needs.split(' ').filter(|program| !find(program)).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED {}: needs {}", server.name, missing.join(", "));
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in server.files {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    let command = (server.start)(dir.path());

    // A short lag is enough to see that the drill sees it.
    let plain = drill(server.name, "plain", &plan(command.clone(), 1));
    assert!(plain.tally.lost > 0, "{}: the drill has to see what it is to see the absence of", server.name);

    let wrapped: Vec<OsString> =
        words([env!("CARGO_BIN_EXE_lameduck"), "run", "--"]).into_iter().chain(command).collect();
    let cured = drill(server.name, "under lameduck run", &plan(wrapped, 5));
    let lost = |cause: Cause| cured.tally.causes.get(&cause).copied().unwrap_or_default();
    assert_eq!(lost(Cause::RefusedWhileRouted), 0, "{}", render::text(&cured, false));
    assert_eq!(lost(Cause::CutMidResponse), 0, "{}", render::text(&cured, false));
    assert_eq!((cured.tally.lost, cured.tally.unknown, cured.dropped), (0, 0, 0), "{}", render::text(&cured, false));
    let max = cured.term_to_exit_s.max.unwrap();
    let bound = 5.0 + 2.0 + 1.0 + server.own_stop;
    assert!(max <= bound, "{}: TERM to exit {max} s; lag + quiet + 1 s and its own stop are {bound}", server.name);
}

fn demo_app(id: &str, dir: &Path) -> Vec<OsString> {
    let app = App::from_id(id).unwrap();
    std::fs::write(dir.join(app.file), app.source).unwrap();
    if let Some(build) = app.build_command(dir) {
        let status = Command::new(&build[0]).args(&build[1..]).status().unwrap();
        assert!(status.success(), "{build:?}");
    }
    app.command(dir)
}

#[test]
fn node_without_a_handler() {
    try_out(&Server {
        name: "Node, no handler",
        needs: "node",
        files: &[],
        start: |dir| demo_app("node", dir),
        own_stop: 0.0,
    });
}

#[test]
fn node_with_server_close() {
    const APP: &str = "
const server = require('http').createServer((req, res) => {
  req.resume();
  req.on('end', () => setTimeout(() => res.end('ok\\n'), req.url.startsWith('/slow') ? 200 : 0));
}).listen(process.env.PORT);
process.on('SIGTERM', () => server.close());
";
    try_out(&Server {
        name: "Node, server.close()",
        needs: "node",
        files: &[("close.js", APP)],
        start: |dir| vec!["node".into(), dir.join("close.js").into()],
        own_stop: 0.0,
    });
}

#[test]
fn gunicorn_with_threads() {
    try_out(&Server {
        name: "gunicorn gthread",
        needs: "gunicorn",
        files: &[],
        start: |dir| demo_app("gunicorn", dir),
        // Its threads look for what is left on their kept-alive connections once a second.
        own_stop: 2.0,
    });
}

#[test]
fn gunicorn_sync() {
    try_out(&Server {
        name: "gunicorn sync",
        needs: "gunicorn",
        files: &[(
            "app.py",
            "def app(environ, start):\n    environ['wsgi.input'].read()\n    start('200 OK', [('Content-Length', '3')])\n    return [b'ok\\n']\n",
        )],
        start: |dir| {
            let chdir = format!("--chdir={}", dir.display());
            words(["gunicorn", "--workers=3", "--bind=127.0.0.1:{port}", &chdir, "app:app"])
        },
        own_stop: 0.0,
    });
}

#[test]
fn uvicorn() {
    const APP: &str = "
import asyncio
async def app(scope, receive, send):
    if scope['type'] != 'http': return
    while (await receive()).get('more_body'): pass
    if scope['path'] == '/slow': await asyncio.sleep(0.2)
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'3')]})
    await send({'type': 'http.response.body', 'body': b'' if scope['method'] == 'HEAD' else b'ok\\n'})
";
    try_out(&Server {
        name: "uvicorn",
        needs: "uvicorn",
        files: &[("app.py", APP)],
        start: |dir| {
            let dir = dir.display().to_string();
            words(["uvicorn", "--app-dir", &dir, "--port", "{port}", "--log-level", "warning", "app:app"])
        },
        own_stop: 0.0,
    });
}

#[test]
fn puma() {
    try_out(&Server { name: "Puma", needs: "puma", files: &[], start: |dir| demo_app("puma", dir), own_stop: 0.0 });
}

#[test]
fn go_net_http() {
    try_out(&Server { name: "Go net/http", needs: "go", files: &[], start: |dir| demo_app("go", dir), own_stop: 0.0 });
}

/// TERM is nginx's fast stop, which cuts what is in flight. After quiet there is nothing to cut.
#[test]
fn nginx() {
    const CONF: &str = "
worker_processes 2; daemon off; pid DIR/PORT.pid; error_log stderr error;
events {}
http {
  access_log off; client_body_temp_path DIR/b.PORT; proxy_temp_path DIR/p.PORT; fastcgi_temp_path DIR/f.PORT;
  uwsgi_temp_path DIR/u.PORT; scgi_temp_path DIR/s.PORT;
  server { listen 127.0.0.1:PORT; location / { return 200 'ok\\n'; } }
}
";
    try_out(&Server {
        name: "nginx",
        needs: "nginx",
        files: &[("nginx.conf.in", CONF)],
        start: |dir| {
            let dir = dir.display();
            let script = format!(
                "sed \"s|PORT|$PORT|g; s|DIR|{dir}|g\" {dir}/nginx.conf.in > {dir}/$PORT.conf && \
                 PATH=$PATH:/usr/sbin exec nginx -c {dir}/$PORT.conf"
            );
            words(["sh", "-c", &script])
        },
        own_stop: 0.0,
    });
}
