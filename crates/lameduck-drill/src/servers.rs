//! Real servers to drill, each with its own manners at its end: for the project's tests and its matrix.
//!
//! Each listens on `127.0.0.1:$PORT`, whoever sets that: the drill itself, or a front that hands the service a port of its
//! own. No command has `{port}` in it, which would be the front's. Each answers `GET /` at once, [`SLOW`] after some time,
//! [`STREAM`] over about a second, reads uploads, and, where its entry says so, echoes WebSocket messages at [`CHAT`].

use std::ffi::OsString;
use std::path::Path;

/// Answered after 200 ms.
pub const SLOW: &str = "/slow";
/// Answered in pieces over a second.
pub const STREAM: &str = "/stream";
/// Where a WebSocket session is granted.
pub const CHAT: &str = "/chat";

/// A server, its files, and the command that starts a replica of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Its id, as in `--servers`.
    pub id: &'static str,
    /// What it is, in words.
    pub title: &'static str,
    /// The programs that must be installed.
    pub needs: &'static [&'static str],
    /// Its files: name and content.
    pub files: &'static [(&'static str, &'static str)],
    /// The command that builds it, if it is built. `{dir}` is the folder of its files.
    build: &'static [&'static str],
    /// The command that starts a replica, the same way. `$PORT` stands for the port in a shell's words.
    start: &'static [&'static str],
    /// How an upload is asked for: method and path.
    pub upload: &'static str,
    /// Whether it can be sent `Expect: 100-continue`.
    pub expects: bool,
    /// Whether it speaks WebSocket.
    pub speaks_websocket: bool,
    /// Whether it speaks HTTP/2 without TLS itself.
    pub speaks_h2: bool,
    /// What its own stop takes at most when nothing is in flight, in milliseconds.
    pub own_stop_ms: u64,
}

const NODE: (&str, &str) = ("app.js", include_str!("servers/app.js"));

/// What most of them have in common.
const PLAIN: Server = Server {
    id: "",
    title: "",
    needs: &[],
    files: &[],
    build: &[],
    start: &[],
    upload: "POST /",
    expects: true,
    speaks_websocket: true,
    speaks_h2: false,
    own_stop_ms: 0,
};

/// Every server.
pub const ALL: [Server; 9] = [
    Server {
        id: "node",
        title: "Node, no handler",
        needs: &["node"],
        files: &[NODE],
        start: &["node", "{dir}/app.js"],
        ..PLAIN
    },
    Server {
        id: "node-close",
        title: "Node, server.close()",
        needs: &["node"],
        files: &[NODE, ("close.js", include_str!("servers/close.js"))],
        start: &["node", "--require", "{dir}/close.js", "{dir}/app.js"],
        ..PLAIN
    },
    Server {
        id: "puma",
        title: "Puma",
        needs: &["puma"],
        files: &[("config.ru", include_str!("servers/config.ru"))],
        start: &[
            "sh",
            "-c",
            "exec puma --quiet --bind tcp://127.0.0.1:$PORT --threads 16:16 \"$0\"",
            "{dir}/config.ru",
        ],
        ..PLAIN
    },
    Server {
        id: "gunicorn",
        title: "gunicorn gthread",
        needs: &["gunicorn"],
        files: &[("app.py", include_str!("servers/app.py"))],
        start: &[
            "sh",
            "-c",
            "exec gunicorn --workers=2 --threads=16 --bind=127.0.0.1:$PORT --chdir=\"$0\" app:app",
            "{dir}",
        ],
        // Its threads look for what is left on their kept-alive connections once a second.
        own_stop_ms: 2000,
        ..PLAIN
    },
    Server {
        // One request a worker: what is slow elsewhere is answered at once here.
        id: "gunicorn-sync",
        title: "gunicorn sync",
        needs: &["gunicorn"],
        files: &[("sync.py", include_str!("servers/sync.py"))],
        start: &["sh", "-c", "exec gunicorn --workers=3 --bind=127.0.0.1:$PORT --chdir=\"$0\" sync:app", "{dir}"],
        speaks_websocket: false,
        ..PLAIN
    },
    Server {
        id: "uvicorn",
        title: "uvicorn",
        needs: &["uvicorn"],
        files: &[("asgi.py", include_str!("servers/asgi.py"))],
        start: &["sh", "-c", "exec uvicorn --app-dir \"$0\" --port $PORT --log-level warning asgi:app", "{dir}"],
        // Its WebSocket needs a package of its own.
        speaks_websocket: false,
        ..PLAIN
    },
    Server {
        id: "passenger",
        title: "Passenger standalone, builtin engine, Node app",
        needs: &["passenger", "node"],
        files: &[NODE],
        start: &[
            "sh",
            "-c",
            "cd \"$0\" && exec passenger start . --engine builtin --address 127.0.0.1 --port $PORT --environment production \
             --app-type node --startup-file app.js --pid-file \"$0/$PORT.pid\" --log-file /dev/stdout \
             --disable-security-update-check --disable-anonymous-telemetry",
            "{dir}",
        ],
        // Passenger 6.0.17's builtin engine answers it with half a head: `HTTP/1.1 100 Continue` and no empty line.
        expects: false,
        ..PLAIN
    },
    Server {
        id: "go",
        title: "Go net/http",
        needs: &["go"],
        files: &[("main.go", include_str!("servers/main.go"))],
        build: &["go", "build", "-o", "{dir}/service", "{dir}/main.go"],
        start: &["{dir}/service"],
        speaks_h2: true,
        ..PLAIN
    },
    Server {
        id: "nginx",
        title: "nginx",
        needs: &["nginx"],
        files: &[
            ("nginx.conf.in", include_str!("servers/nginx.conf.in")),
            ("nginx.sh", include_str!("servers/nginx.sh")),
        ],
        start: &["sh", "{dir}/nginx.sh"],
        upload: "PUT /upload",
        speaks_websocket: false,
        ..PLAIN
    },
];

impl Server {
    /// The work of a whole drill, a request file's lines: small answers, slow ones, streams, uploads, WebSockets of so many
    /// seconds, and HTTP/2 where somebody speaks it: the server, or the front before it.
    pub fn mix(&self, front: bool, websocket_s: f64) -> Vec<String> {
        let upload = self.upload;
        let mut mix = vec![
            "GET / 600".to_owned(),
            format!("GET {SLOW} 80"),
            format!("GET {STREAM} 15"),
            format!("{upload} 120 4096"),
        ];
        if self.expects {
            mix.push(format!("{upload} 20 2048 expect"));
        }
        if self.speaks_websocket {
            mix.push(format!("GET {CHAT} 8 websocket={websocket_s}s/200ms"));
        }
        if front || self.speaks_h2 {
            mix.extend(["GET / 80 h2".to_owned(), format!("GET {SLOW} 10 h2"), format!("{upload} 20 4096 h2")]);
        }
        mix
    }

    /// The server with this id.
    pub fn from_id(id: &str) -> Option<Server> {
        ALL.into_iter().find(|server| server.id == id)
    }

    /// The command that builds it in `folder`, where its files have been written; `None` where there is nothing to build.
    pub fn build_command(&self, folder: &Path) -> Option<Vec<OsString>> {
        (!self.build.is_empty()).then(|| fill(self.build, folder))
    }

    /// The command that starts a replica.
    pub fn command(&self, folder: &Path) -> Vec<OsString> {
        fill(self.start, folder)
    }
}

fn fill(words: &[&str], folder: &Path) -> Vec<OsString> {
    let dir = folder.to_string_lossy();
    words.iter().map(|word| OsString::from(word.replace("{dir}", &dir))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_starts_on_the_port_of_its_environment() {
        for server in ALL {
            assert_eq!(Server::from_id(server.id), Some(server));
            let command = server.command(Path::new("/srv/x"));
            let words = command.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
            assert!(words.contains("$PORT") || server.files.iter().any(|(_, text)| text.contains("PORT")), "{words}");
            assert!(!words.contains("{port}") && !words.contains("{dir}") && words.contains("/srv/x"), "{words}");
            assert!(!server.needs.is_empty() && server.upload.contains(" /"));
        }
    }
}
