//! `cargo xtask probe`: the idle times of real servers as `lameduck probe` measures them, beside what the catalogue says of them.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail};
use lameduck_core::catalog::SERVERS as CATALOGUE;
use serde_json::{Value, json};

use crate::{built, packages};

/// How far a measured time may be from the catalogue's, seconds.
const NEAR: f64 = 0.3;

/// A server with its own defaults.
struct Server {
    /// Its id in the catalogue.
    id: &'static str,
    /// What it is.
    title: &'static str,
    /// Prints its version.
    version: &'static str,
    /// Starts it on `$PORT`, with its files in `$DIR`, in a shell.
    start: &'static str,
    /// How far from the catalogue its own clock may put it: it looks after its connections this often.
    tick_s: f64,
    /// Whether it is measured only where asked for, since it takes minutes.
    long: bool,
}

const PLAIN: Server = Server { id: "", title: "", version: "", start: "", tick_s: 0.0, long: false };

/// Python's, from its registry.
const PIP: [&str; 9] =
    ["gunicorn", "uvicorn", "hypercorn", "granian", "daphne", "waitress", "aiohttp", "cheroot", "tornado"];
/// Node's.
const NPM: [&str; 3] = ["node@24", "fastify", "bun"];

const NODE: &str =
    "-e 'require(\"http\").createServer((q, r) => r.end(\"ok\")).listen(process.env.PORT, \"127.0.0.1\")'";

const fn python(id: &'static str, title: &'static str, version: &'static str, start: &'static str) -> Server {
    Server { id, title, version, start, ..PLAIN }
}

/// Every server, the one most in use first.
static SERVERS: &[Server] = &[
    Server { id: "node", title: "Node", version: "/usr/bin/env node --version", start: "exec node @NODE@", ..PLAIN },
    Server {
        id: "node",
        title: "Node, the registry's",
        version: "\"$DIR/npm/node_modules/.bin/node\" --version",
        start: "exec \"$DIR/npm/node_modules/.bin/node\" @NODE@",
        ..PLAIN
    },
    Server {
        id: "fastify",
        title: "Fastify",
        version: "cd \"$DIR/npm\" && node -p 'require(\"fastify/package.json\").version'",
        start: "cd \"$DIR/npm\" && exec node -e 'const f = require(\"fastify\")(); f.get(\"/\", async () => \"ok\"); \
                f.listen({ port: +process.env.PORT, host: \"127.0.0.1\" })'",
        ..PLAIN
    },
    Server {
        id: "bun",
        title: "Bun",
        version: "\"$DIR/npm/node_modules/.bin/bun\" --version",
        start: "exec \"$DIR/npm/node_modules/.bin/bun\" -e 'Bun.serve({ port: process.env.PORT, hostname: \"127.0.0.1\", \
                fetch: () => new Response(\"ok\") })'",
        // Its timers count in ticks of four seconds.
        tick_s: 4.0,
        ..PLAIN
    },
    Server {
        id: "gunicorn",
        title: "gunicorn gthread",
        version: "gunicorn --version",
        start: "exec gunicorn --threads 8 --bind 127.0.0.1:$PORT --chdir \"$DIR\" app:app",
        // Its threads look after their connections once a second.
        tick_s: 1.0,
        ..PLAIN
    },
    python(
        "gunicorn-sync",
        "gunicorn sync",
        "gunicorn --version",
        "exec gunicorn --bind 127.0.0.1:$PORT --chdir \"$DIR\" app:app",
    ),
    python(
        "uvicorn",
        "uvicorn",
        "uvicorn --version",
        "exec uvicorn --app-dir \"$DIR\" --port $PORT --log-level warning app:asgi",
    ),
    python(
        "hypercorn",
        "hypercorn",
        "pip list --format freeze | grep -i ^hypercorn=",
        "cd \"$DIR\" && exec hypercorn --bind 127.0.0.1:$PORT app:asgi",
    ),
    python(
        "granian",
        "granian",
        "granian --version",
        "cd \"$DIR\" && exec granian --interface asgi --host 127.0.0.1 --port $PORT app:asgi",
    ),
    python(
        "daphne",
        "Daphne",
        "pip list --format freeze | grep -i ^daphne=",
        "cd \"$DIR\" && exec daphne -b 127.0.0.1 -p $PORT app:asgi",
    ),
    python(
        "waitress",
        "waitress",
        "pip list --format freeze | grep -i ^waitress=",
        "cd \"$DIR\" && exec waitress-serve --listen=127.0.0.1:$PORT app:app",
    ),
    python(
        "aiohttp",
        "aiohttp, run_app",
        "pip list --format freeze | grep -i ^aiohttp=",
        "exec python -c 'import os\nfrom aiohttp import web\nasync def ok(request): return web.Response(text=\"ok\")\n\
         app = web.Application()\napp.router.add_get(\"/\", ok)\nweb.run_app(app, host=\"127.0.0.1\", port=int(os.environ[\"PORT\"]))'",
    ),
    python(
        "cheroot",
        "Cheroot",
        "pip list --format freeze | grep -i ^cheroot=",
        "cd \"$DIR\" && PYTHONPATH=. exec cheroot app:app --bind 127.0.0.1:$PORT",
    ),
    Server {
        id: "puma",
        title: "Puma",
        version: "puma --version",
        start: "exec puma --quiet --bind tcp://127.0.0.1:$PORT --threads 16:16 \"$DIR/config.ru\"",
        ..PLAIN
    },
    Server {
        id: "unicorn",
        title: "unicorn",
        version: "unicorn --version",
        start: "cd \"$DIR\" && exec unicorn --listen 127.0.0.1:$PORT config.ru",
        ..PLAIN
    },
    Server {
        id: "webrick",
        title: "WEBrick",
        version: "ruby -rwebrick -e 'puts WEBrick::VERSION'",
        start: "exec ruby -rwebrick -e 's = WEBrick::HTTPServer.new(Port: ENV[\"PORT\"], BindAddress: \"127.0.0.1\", AccessLog: []); \
                s.mount_proc(\"/\") { |q, r| r.body = \"ok\" }; trap(\"TERM\") { s.shutdown }; s.start'",
        // It counts its time in half seconds.
        tick_s: 0.5,
        ..PLAIN
    },
    Server {
        id: "go",
        title: "Go net/http",
        version: "go version",
        start: "go build -o \"$DIR/service\" \"$DIR/main.go\" && exec \"$DIR/service\"",
        ..PLAIN
    },
    Server {
        id: "apache",
        title: "Apache httpd",
        version: "apache2 -v",
        start: "exec apache2 -f \"$DIR/apache.conf\" -DFOREGROUND",
        ..PLAIN
    },
    Server {
        id: "nginx",
        title: "nginx",
        version: "nginx -v",
        start: "sed \"s#@DIR@#$DIR#; s#@PORT@#$PORT#\" \"$DIR/nginx.conf.in\" > \"$DIR/nginx.conf\"; exec nginx -c \"$DIR/nginx.conf\"",
        ..PLAIN
    },
    Server {
        id: "lighttpd",
        title: "lighttpd",
        version: "lighttpd -v",
        start: "printf 'server.document-root = \"%s/www\"\\nserver.bind = \"127.0.0.1\"\\nserver.port = %s\\nindex-file.names = (\"index.html\")\\n' \
                \"$DIR\" $PORT > \"$DIR/lighttpd.conf\"; exec lighttpd -D -f \"$DIR/lighttpd.conf\"",
        // It looks after its connections once a second.
        tick_s: 1.0,
        ..PLAIN
    },
    Server {
        id: "tomcat",
        title: "Tomcat, stock server.xml",
        version: "sh /usr/share/tomcat10/bin/version.sh | grep number",
        start: "mkdir -p \"$DIR/tomcat/conf\" \"$DIR/tomcat/logs\" \"$DIR/tomcat/temp\" \"$DIR/tomcat/webapps/ROOT\" && \
                cp -rL /etc/tomcat10/. \"$DIR/tomcat/conf\" && echo ok > \"$DIR/tomcat/webapps/ROOT/index.html\" && \
                sed -i \"s/port=\\\"8080\\\"/port=\\\"$PORT\\\"/\" \"$DIR/tomcat/conf/server.xml\" && \
                CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=\"$DIR/tomcat\" CATALINA_TMPDIR=\"$DIR/tomcat/temp\" \
                exec sh /usr/share/tomcat10/bin/catalina.sh run",
        // It looks after them once a second.
        tick_s: 1.0,
        ..PLAIN
    },
    Server {
        id: "jetty",
        title: "Jetty",
        version: "dpkg-query -W -f '${Version}' jetty9",
        start: "mkdir -p \"$DIR/jetty/webapps/root\" && echo ok > \"$DIR/jetty/webapps/root/index.html\" && cd \"$DIR/jetty\" && \
                exec java -jar /usr/share/jetty9/start.jar jetty.home=/usr/share/jetty9 jetty.base=\"$DIR/jetty\" --module=http --module=deploy \
                jetty.http.host=127.0.0.1 jetty.http.port=$PORT",
        ..PLAIN
    },
    Server {
        id: "caddy",
        title: "Caddy",
        version: "caddy version",
        // `caddy file-server` has timeouts of its own.
        start: "printf '{\\n admin off\\n}\\nhttp://127.0.0.1:%s {\\n root * %s/www\\n file_server\\n}\\n' $PORT \"$DIR\" > \"$DIR/Caddyfile\"; \
                XDG_DATA_HOME=\"$DIR\" XDG_CONFIG_HOME=\"$DIR\" exec caddy run --config \"$DIR/Caddyfile\"",
        long: true,
        ..PLAIN
    },
];

/// Runs the task.
pub fn probe(args: &[String]) -> anyhow::Result<ExitCode> {
    let (mut only, mut file, mut most, mut long) = (Vec::new(), None, 100, false);
    let mut parser = lexopt::Parser::from_args(args);
    while let Some(arg) = parser.next()? {
        match arg {
            lexopt::Arg::Long("servers") => {
                only = parser.value()?.to_string_lossy().split(',').map(str::to_owned).collect();
            }
            lexopt::Arg::Long("json") => file = Some(parser.value()?),
            lexopt::Arg::Long("max-idle") => most = parser.value()?.to_string_lossy().parse()?,
            lexopt::Arg::Long("long") => long = true,
            other => return Err(other.unexpected().into()),
        }
    }
    packages::provide();
    let program = built::release(&["--package", "lameduck"], "lameduck")?;
    let folder = built::target().join("probe");
    provide(&folder)?;
    let chosen =
        |server: &Server| if only.is_empty() { !server.long || long } else { only.iter().any(|id| id == server.id) };
    let servers: Vec<&Server> = SERVERS.iter().filter(|server| chosen(server)).collect();
    if servers.is_empty() {
        bail!("no server is called {}", only.join(", "));
    }
    // All at once: they do little but wait.
    let rows: Vec<Value> = std::thread::scope(|scope| {
        let measured: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(n, server)| {
                let (program, folder) = (&program, folder.join(n.to_string()));
                scope.spawn(move || measure(program, &folder, server, most))
            })
            .collect();
        measured.into_iter().filter_map(|row| row.join().ok()).collect::<anyhow::Result<_>>()
    })?;
    show(&rows);
    if let Some(file) = file {
        fs::write(&file, format!("{:#}\n", json!({ "schema": "lameduck.probes/1", "servers": rows })))?;
    }
    Ok(if rows.iter().any(|row| row["agrees"] == false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is in no Debian package: a virtual environment, and a folder of Node's.
fn provide(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("npm"))?;
    let run = |command: &mut Command| {
        let done = command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success());
        if !done {
            eprintln!("xtask: {command:?} failed; what needs it is left out");
        }
    };
    if !folder.join("venv/bin/gunicorn").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(folder.join("venv")));
        run(Command::new(folder.join("venv/bin/pip")).args(["install", "--quiet"]).args(PIP));
    }
    if !folder.join("npm/node_modules").exists() && packages::find("npm").is_some() {
        let install = ["install", "--silent", "--no-audit", "--no-fund", "--prefix"];
        run(Command::new("npm").args(install).arg(folder.join("npm")).args(NPM));
    }
    Ok(())
}

/// The files of one server, in a folder of its own.
fn write(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder.join("www"))?;
    let files = [
        ("app.py", include_str!("probe/app.py")),
        ("apache.conf", include_str!("probe/apache.conf")),
        ("nginx.conf.in", include_str!("probe/nginx.conf.in")),
        ("main.go", include_str!("probe/main.go")),
        ("config.ru", "run ->(e) { [200, { 'content-length' => '2' }, ['ok']] }\n"),
        ("www/index.html", "ok\n"),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    let npm = folder.join("npm");
    if !npm.exists() {
        std::os::unix::fs::symlink("../npm", npm)?;
    }
    Ok(())
}

fn measure(program: &Path, folder: &Path, server: &Server, most: u32) -> anyhow::Result<Value> {
    write(folder)?;
    let own = folder.parent().unwrap_or(folder).join("venv/bin");
    let path = format!("{}:{}:/usr/sbin", own.display(), std::env::var("PATH").unwrap_or_default());
    let shell = |text: &str, command: &mut Command| {
        command.args(["sh", "-c", text.replace("@NODE@", NODE).as_str()]).env("PATH", &path).env("DIR", folder);
        command.stdin(Stdio::null());
    };
    let mut version = Command::new("env");
    shell(server.version, &mut version);
    let version = version.output()?;
    let text = [version.stdout, version.stderr].concat();
    let version = number(&String::from_utf8_lossy(&text));
    let mut probe = Command::new(program);
    let idle = format!("--max-idle={most}s");
    probe.args(["probe", "--json", "--quiet", &idle, "--ready-timeout=90s", "--"]);
    shell(server.start, &mut probe);
    let output = probe.output().context("lameduck probe")?;
    let Ok(report) = serde_json::from_slice::<Value>(&output.stdout) else {
        let said = String::from_utf8_lossy(&output.stderr);
        return Ok(json!({ "id": server.id, "title": server.title, "failed": said.lines().last() }));
    };
    let after = report["idle_after_response_s"].as_f64();
    let (expected, agrees) = compare(server, after, f64::from(most));
    Ok(json!({
        "id": server.id, "title": server.title, "version": version, "most_s": most, "catalogue_s": expected,
        "known": expected.is_some() || CATALOGUE.iter().any(|known| known.id == server.id), "agrees": agrees, "report": report,
    }))
}

/// The first word that begins as a version does.
fn number(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || matches!(c, '/' | '=' | '(' | ')' | ','));
    let version = |word: &&str| {
        let rest = word.trim_start_matches(['v', 'g', 'o']);
        rest.starts_with(|c: char| c.is_ascii_digit()) && rest.contains('.')
    };
    words.into_iter().find(version).unwrap_or_default().trim_start_matches(['v', 'g', 'o']).to_owned()
}

/// The catalogue's nearest row of the server, and whether it is near; none where the catalogue has none.
fn compare(server: &Server, after: Option<f64>, most: f64) -> (Option<f64>, Option<bool>) {
    let rows = CATALOGUE.iter().filter(|known| known.id == server.id);
    let from = |idle: f64| (after.unwrap_or(most) - idle).abs();
    let Some(row) = rows.min_by(|a, b| from(a.idle_s.unwrap_or(most)).total_cmp(&from(b.idle_s.unwrap_or(most))))
    else {
        return (None, None);
    };
    let agrees = match (row.idle_s, after) {
        (Some(known), Some(after)) => after > known - NEAR && after < known + NEAR + server.tick_s,
        (Some(known), None) => known > most,
        (None, after) => after.is_none(),
    };
    (row.idle_s, Some(agrees))
}

/// The table of `docs/probe.md`.
fn show(rows: &[Value]) {
    println!(
        "| server | before the first request | after an answer | catalogue | requests on one connection | last one announced | exit after TERM |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let title = row["title"].as_str().unwrap_or("");
        if let Some(why) = row.get("failed") {
            println!("| {title} | not measured: {} | | | | | |", why.as_str().unwrap_or(""));
            continue;
        }
        let report = &row["report"];
        let most = row["most_s"].as_f64().unwrap_or(0.0);
        let idle = |value: &Value| value.as_f64().map_or(format!("not within {most:.0} s"), |n| format!("{n:.2} s"));
        let catalogue = match (row["catalogue_s"].as_f64(), &row["known"]) {
            (Some(n), _) => format!("{n:.0} s"),
            (None, Value::Bool(true)) => "never".to_owned(),
            (None, _) => "not in it".to_owned(),
        };
        let wrong = if row["agrees"] == false { " **differs**" } else { "" };
        let requests =
            report["requests_per_connection"].as_u64().map_or("no limit found".to_owned(), |n| n.to_string());
        let announced = report["limit_announced"].as_bool().map_or("", |said| if said { "yes" } else { "no" });
        let term = &report["term"];
        let exit = if term["killed"] == true {
            "killed".to_owned()
        } else {
            format!("{:.1} s, {}", term["exit_s"].as_f64().unwrap_or(0.0), term["exit_code"])
        };
        println!(
            "| {title} {} | {} | {} | {catalogue}{wrong} | {requests} | {announced} | {exit} |",
            row["version"].as_str().unwrap_or(""),
            idle(&report["idle_before_first_request_s"]),
            idle(&report["idle_after_response_s"]),
        );
    }
}
