//! Real servers behind the front. nginx and `HAProxy` are proxies here too, before an app that says what it has read: so it
//! shows where they take a message to end.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::app::Seen;
use super::strict::Request;

/// A server that ends with the test.
pub struct Server {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // So that workers end too.
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin")])
        .map(|dir| dir.join(program))
        .find(|it| it.is_file())
}

/// Where nobody listens.
pub fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

pub fn listening(address: SocketAddr) {
    let end = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < end, "nobody listens at {address}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn start(program: &str, configure: impl FnOnce(&Path, &mut Command), at: SocketAddr, out: Stdio) -> Option<Server> {
    let Some(path) = find(program) else {
        eprintln!("SKIPPED {program}: it is not installed");
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(path);
    configure(folder.path(), &mut command);
    let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { child, _folder: folder };
    listening(at);
    Some(server)
}

/// nginx at `at`, before `app`.
pub fn nginx(at: SocketAddr, app: SocketAddr) -> Option<Server> {
    let configure = |folder: &Path, command: &mut Command| {
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {}/{what};\n", folder.display()))
            .concat();
        let text = format!(
            "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error;
            events {{ worker_connections 512; }}
            http {{
                access_log off; keepalive_timeout 300s; underscores_in_headers on; ignore_invalid_headers off;
                {temporary}
                upstream app {{ server {app}; keepalive 8; }}
                server {{
                    listen {at}; merge_slashes off;
                    location / {{
                        proxy_pass http://app; proxy_http_version 1.1; proxy_next_upstream off; proxy_read_timeout 5s;
                        proxy_set_header Connection \"\"; proxy_set_header X-Way nginx;
                    }}
                }}
            }}",
            folder = folder.display()
        );
        fs::write(folder.join("nginx.conf"), text).unwrap();
        command.arg("-p").arg(folder).arg("-e").arg(folder.join("error")).arg("-c").arg(folder.join("nginx.conf"));
    };
    start("nginx", configure, at, Stdio::null())
}

/// `HAProxy` at `at`, before `app`.
pub fn haproxy(at: SocketAddr, app: SocketAddr) -> Option<Server> {
    let configure = |folder: &Path, command: &mut Command| {
        let text = format!(
            "global\n maxconn 200\n\
            defaults\n mode http\n retries 0\n timeout client 300s\n timeout server 5s\n timeout connect 2s\n \
            timeout http-keep-alive 300s\n\
            frontend front\n bind {at}\n default_backend app\n\
            backend app\n http-reuse always\n http-request set-header X-Way haproxy\n server app {app}\n"
        );
        fs::write(folder.join("haproxy.cfg"), text).unwrap();
        command.arg("-db").arg("-f").arg(folder.join("haproxy.cfg"));
    };
    start("haproxy", configure, at, Stdio::null())
}

/// A WSGI app that says what it was handed, as [`super::app::echo_of`] does. A body that broke off is none.
const WSGI: &str = "
import os
def app(environ, start):
    method, target = environ['REQUEST_METHOD'], environ['RAW_URI'].encode('latin1').hex()
    body = environ['wsgi.input'].read()
    if len(body) < int(environ.get('CONTENT_LENGTH') or 0):
        raise ValueError('the body broke off')
    total = 0xcbf29ce484222325
    for byte in body: total = (total ^ byte) * 0x100000001b3 & 0xffffffffffffffff
    os.write(1, f'{method} {target} .{body.hex()}\\n'.encode())
    answer = b'' if method == 'HEAD' else bytes.fromhex(target)
    start('200 OK', [('X-Echo', f'{method} {target} {len(body)} {total:016x}'), ('Content-Length', str(len(answer)))])
    return [answer]
";

/// gunicorn at `at`; it is the app itself, and prints what it sees.
pub fn gunicorn(at: SocketAddr, seen: &Seen) -> Option<Server> {
    let configure = |folder: &Path, command: &mut Command| {
        fs::write(folder.join("echo.py"), WSGI).unwrap();
        command.current_dir(folder).args(["-b", &at.to_string(), "-k", "gthread", "--threads", "8", "-w", "1"]);
        command.args(["--keep-alive", "300", "--limit-request-field_size", "65000", "echo:app"]);
    };
    let mut server = start("gunicorn", configure, at, Stdio::piped())?;
    let (lines, seen) = (BufReader::new(server.child.stdout.take().unwrap()).lines(), Arc::clone(seen));
    thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let [method, target, body] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let target = String::from_utf8_lossy(&bytes(target)).into_owned();
            let request = Request { method: method.to_owned(), target, body: bytes(&body[1..]) };
            seen.lock().unwrap().push((String::new(), request));
        }
    });
    Some(server)
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}
