//! From a command line to the server it starts, with what its options and settings files say.

use super::{NewConnections, OnSignal, Range, Server, from_catalogue};
use crate::launch::Opened;
use crate::model::node;
use crate::model::proxy;
use crate::span::{At, Lines, Mapped, Sp, Span};

/// The names of programs that are servers, or that start one.
const SERVERS: &[&str] = &[
    "apache2",
    "apache2-foreground",
    "apachectl",
    "bun",
    "bundle",
    "caddy",
    "catalina.sh",
    "catatonit",
    "celery",
    "chpst",
    "daphne",
    "deno",
    "docker-init",
    "dotnet",
    "dumb-init",
    "envoy",
    "fastify",
    "flask",
    "gosu",
    "granian",
    "gunicorn",
    "haproxy",
    "httpd",
    "httpd-foreground",
    "hypercorn",
    "java",
    "lameduck",
    "mysqld",
    "next",
    "nginx",
    "nginx-debug",
    "node",
    "nodejs",
    "npm",
    "npx",
    "passenger",
    "php",
    "php-fpm",
    "pm2-runtime",
    "pnpm",
    "poetry",
    "postgres",
    "pipenv",
    "puma",
    "rackup",
    "rails",
    "redis-server",
    "s6-svscan",
    "setpriv",
    "sidekiq",
    "su",
    "su-exec",
    "sudo",
    "supervisord",
    "tini",
    "traefik",
    "tsx",
    "unicorn",
    "uv",
    "uvicorn",
    "uwsgi",
    "yarn",
];

/// Whether a command is likely what a script is there for.
pub fn is_server(words: &[&str]) -> bool {
    let name = base(words.first().copied().unwrap_or_default());
    if name.starts_with("python") {
        let once = ["migrate", "collectstatic", "-c", "createsuperuser", "compilemessages"];
        return !words.iter().any(|word| once.contains(word));
    }
    if name == "bundle" || name == "rails" {
        return !words.iter().any(|word| word.starts_with("db:") || matches!(*word, "install" | "check" | "rake"));
    }
    if matches!(name, "npm" | "yarn" | "pnpm") {
        return !words
            .iter()
            .any(|word| matches!(*word, "install" | "ci" | "build" | "rebuild") || word.contains("migrat"));
    }
    SERVERS.contains(&name) || name.starts_with("php-fpm")
}

fn base(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// The value of an option: `--name value`, `--name=value`, `-n value`.
struct Options<'a> {
    argv: &'a [String],
    at: At,
}

impl Options<'_> {
    fn value(&self, names: &[&str]) -> Option<&str> {
        self.argv.iter().enumerate().find_map(|(n, word)| {
            names.iter().find_map(|name| {
                if word == name {
                    return self.argv.get(n + 1).map(String::as_str);
                }
                word.strip_prefix(name)?.strip_prefix('=')
            })
        })
    }

    fn number(&self, names: &[&str]) -> Option<Sp<f64>> {
        Some(Sp { value: self.value(names)?.parse().ok()?, at: self.at })
    }

    fn has(&self, word: &str) -> bool {
        self.argv.iter().any(|known| known == word)
    }
}

fn exactly(value: f64) -> Range {
    (value, value)
}

/// The server that a command line starts. `open` reads files of the image, `env` is what is known of its environment.
pub fn recognise(argv: &[String], at: At, open: &dyn Fn(&str) -> Opened, env: &[(String, String)]) -> Option<Server> {
    let mut words: Vec<&str> = argv.iter().map(String::as_str).collect();
    let mut name = base(words.first()?);
    // `python -m gunicorn`, `python3 /usr/bin/gunicorn`, `ruby /usr/bin/puma`.
    if name.starts_with("python") || name == "ruby" {
        let module = if words.get(1) == Some(&"-m") { 2 } else { 1 };
        if let Some(inner) = words.get(module).map(|word| base(word)).filter(|inner| from_program(inner).is_some()) {
            name = inner;
            words.drain(..module);
        } else {
            return None;
        }
    }
    if name == "rails" {
        return if matches!(words.get(1), Some(&("server" | "s"))) { puma(argv, at, open, env) } else { None };
    }
    let options = Options { argv, at };
    let mut server = match name {
        "node" | "nodejs" => return node_server(&words, at, open),
        "gunicorn" => gunicorn(&options, open, env)?,
        "puma" => return puma(argv, at, open, env),
        "java" => super::spring::read(open)?,
        _ => from_catalogue(from_program(name)?)?,
    };
    server.argv = argv.to_vec();
    server.at = at;
    match name {
        "uvicorn" => {
            set_idle(&mut server, options.number(&["--timeout-keep-alive"]));
            set_shutdown(&mut server, options.number(&["--timeout-graceful-shutdown"]));
            if options.number(&["--workers"]).is_some_and(|workers| workers.value > 1.0) {
                server.new_connections = NewConnections::HangThenReset;
            }
        }
        "hypercorn" => {
            set_idle(&mut server, options.number(&["--keep-alive"]));
            set_shutdown(&mut server, options.number(&["--graceful-timeout"]));
        }
        "passenger" => passenger(&mut server, &options),
        "nginx" | "nginx-debug" => proxy::nginx_of_image(&mut server, options.value(&["-c"]), open),
        "uwsgi" if options.has("--die-on-term") => server.on_stop = OnSignal::Immediate,
        "next" => set_idle_ms(&mut server, options.number(&["--keepAliveTimeout"])),
        _ => {}
    }
    Some(server)
}

/// The catalogue's id for a program.
fn from_program(name: &str) -> Option<&'static str> {
    Some(match name {
        "nginx" | "nginx-debug" => "nginx",
        "httpd" | "httpd-foreground" | "apache2" | "apache2-foreground" | "apachectl" => "apache-httpd",
        "haproxy" => "haproxy",
        "envoy" => "envoy",
        "traefik" => "traefik",
        "caddy" => "caddy",
        "uvicorn" => "uvicorn",
        "hypercorn" => "hypercorn",
        "daphne" => "daphne",
        "granian" => "granian",
        "uwsgi" => "uwsgi",
        "unicorn" | "unicorn_rails" => "unicorn",
        "passenger" => "passenger-standalone",
        "falcon" => "falcon",
        "flask" => "werkzeug",
        "gunicorn" => "gunicorn-sync",
        "puma" => "puma",
        "next" => "nextjs",
        "catalina.sh" => "tomcat",
        name if name.starts_with("php-fpm") => "php-fpm",
        _ => return None,
    })
}

fn set_idle(server: &mut Server, value: Option<Sp<f64>>) {
    if let Some(value) = value {
        server.idle = Some(exactly(value.value));
        server.idle_at = Some(value.at);
    }
}

fn set_idle_ms(server: &mut Server, value: Option<Sp<f64>>) {
    set_idle(server, value.map(|ms| Sp { value: ms.value / 1000.0, ..ms }));
}

fn set_shutdown(server: &mut Server, value: Option<Sp<f64>>) {
    if let Some(value) = value {
        server.shutdown = Some(exactly(value.value));
        server.shutdown_at = Some(value.at);
    }
}

/// The engines differ: the catalogue has TERM as immediate for `builtin`, graceful for `nginx`.
fn passenger(server: &mut Server, options: &Options<'_>) {
    match options.value(&["--engine"]) {
        Some("builtin") => {
            server.on_stop = OnSignal::Immediate;
            server.idle = Some(exactly(f64::INFINITY));
            server.sure = true;
        }
        Some(_) => server.on_stop = OnSignal::Graceful,
        None => {}
    }
}

fn gunicorn(options: &Options<'_>, open: &dyn Fn(&str) -> Opened, env: &[(String, String)]) -> Option<Server> {
    let extra: Vec<String> = env
        .iter()
        .filter(|(name, _)| name == "GUNICORN_CMD_ARGS")
        .flat_map(|(_, value)| value.split_whitespace().map(str::to_owned))
        .collect();
    let from_env = Options { argv: &extra, at: options.at };
    let path = options.value(&["-c", "--config"]).unwrap_or("gunicorn.conf.py");
    let settings = Settings::open(path.trim_start_matches("file:"), open);
    let setting = |name: &str, flags: &[&str]| {
        options.number(flags).or_else(|| from_env.number(flags)).or_else(|| settings.as_ref()?.python(name)?.number())
    };
    let class = options.value(&["-k", "--worker-class"]).map(str::to_owned);
    let class = class.or_else(|| settings.as_ref()?.python("worker_class").map(|word| word.text)).unwrap_or_default();
    let threads = setting("threads", &["--threads"]).map_or(1.0, |threads| threads.value);
    let id = match class.as_str() {
        "gthread" => "gunicorn-gthread",
        "" | "sync" if threads > 1.0 => "gunicorn-gthread",
        "" | "sync" => "gunicorn-sync",
        "gevent" | "eventlet" => "gunicorn-gevent",
        class if class.contains("uvicorn") => "uvicorn",
        _ => "gunicorn-sync",
    };
    let mut server = from_catalogue(id)?;
    if id == "gunicorn-gevent" {
        server.on_stop = OnSignal::Graceful;
        server.shutdown = Some(exactly(30.0));
    }
    if id != "gunicorn-sync" {
        set_idle(&mut server, setting("keepalive", &["--keep-alive"]));
    }
    server.shutdown = Some(exactly(30.0));
    set_shutdown(&mut server, setting("graceful_timeout", &["--graceful-timeout"]));
    server.request =
        setting("timeout", &["-t", "--timeout"]).filter(|_| id == "gunicorn-sync" || id == "gunicorn-gthread");
    server.max_requests = setting("max_requests", &["--max-requests"]).filter(|limit| limit.value > 0.0);
    server.jitter = setting("max_requests_jitter", &["--max-requests-jitter"]).is_some_and(|jitter| jitter.value > 0.0);
    Some(server)
}

fn puma(argv: &[String], at: At, open: &dyn Fn(&str) -> Opened, env: &[(String, String)]) -> Option<Server> {
    let mut server = from_catalogue("puma")?;
    let options = Options { argv, at };
    server.argv = argv.to_vec();
    server.at = at;
    if let Some((_, value)) = env.iter().find(|(name, _)| name == "PUMA_PERSISTENT_TIMEOUT") {
        set_idle(&mut server, value.parse().ok().map(|value| Sp { value, at }));
    }
    let path = options.value(&["-C", "--config"]).unwrap_or("config/puma.rb");
    let settings = Settings::open(path, open);
    let setting = |name: &str| settings.as_ref()?.ruby(name)?.number();
    set_idle(&mut server, setting("persistent_timeout"));
    let workers = options.number(&["-w", "--workers"]).or_else(|| setting("workers"));
    if workers.is_some_and(|workers| workers.value > 0.0) {
        server.shutdown = Some(exactly(30.0));
        set_shutdown(&mut server, setting("worker_shutdown_timeout"));
    } else {
        set_shutdown(&mut server, setting("force_shutdown_after").filter(|limit| limit.value >= 0.0));
    }
    Some(server)
}

fn node_server(words: &[&str], at: At, open: &dyn Fn(&str) -> Opened) -> Option<Server> {
    let with_value = ["-r", "--require", "--import", "--loader", "--experimental-loader", "-e", "--eval", "-p"];
    let mut n = 1;
    while let Some(word) = words.get(n).filter(|word| word.starts_with('-')) {
        n += if with_value.contains(word) { 2 } else { 1 };
    }
    let entry = words.get(n)?;
    let facts = node::read(entry, open)?;
    let id = if facts.fastify { "fastify" } else { "node-http" };
    let mut server = from_catalogue(id)?;
    server.argv = words.iter().map(|word| (*word).to_owned()).collect();
    server.at = at;
    server.idle = facts.keep_alive.as_ref().map(|value| exactly(value.value)).or(server.idle);
    server.idle_at = facts.keep_alive.as_ref().map(|value| value.at);
    if facts.handles_term {
        server.on_stop = match (facts.closes, facts.exits_at) {
            (true, _) => OnSignal::Graceful,
            (false, Some(_)) => OnSignal::Immediate,
            (false, None) => OnSignal::Unknown,
        };
        server.new_connections = NewConnections::Refused;
    }
    server.node = Some(facts);
    Some(server)
}

/// A settings file, as far as single statements go.
struct Settings {
    text: Mapped,
}

struct Setting {
    text: String,
    at: At,
}

impl Setting {
    fn number(self) -> Option<Sp<f64>> {
        Some(Sp { value: node::product(&self.text)?, at: self.at })
    }
}

impl Settings {
    fn open(path: &str, open: &dyn Fn(&str) -> Opened) -> Option<Settings> {
        match open(path) {
            Opened::Text { text, .. } => Some(Settings { text }),
            Opened::Missing => None,
        }
    }

    /// `name = value` at the start of a line.
    fn python(&self, name: &str) -> Option<Setting> {
        self.statement(name, |rest| rest.trim_start().strip_prefix('='))
    }

    /// `name value` or `name(value)`.
    fn ruby(&self, name: &str) -> Option<Setting> {
        self.statement(name, |rest| rest.strip_prefix([' ', '(']))
    }

    fn statement(&self, name: &str, value: impl Fn(&str) -> Option<&str>) -> Option<Setting> {
        let text = &self.text.text;
        let lines = Lines::new(self.text.file, text);
        let mut offset = 0;
        let mut found = None;
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim_start();
            if let Some(value) = trimmed.strip_prefix(name).and_then(&value) {
                let bare = value.split('#').next().unwrap_or_default().trim().trim_end_matches(')');
                let bare = bare.trim_matches(['"', '\'']);
                let start = offset + line.len() - trimmed.len();
                let end = offset + line.trim_end().len();
                found = Some(Setting { text: bare.to_owned(), at: lines.at(Span::new(start, end)) });
            }
            offset += line.len();
        }
        found
    }
}
