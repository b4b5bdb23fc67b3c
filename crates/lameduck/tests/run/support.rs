//! Starting lameduck and hearing of it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lameduck_core::report::DrainReport;
use rustix::process::{Pid, Signal, kill_process};

/// The program under test.
pub const LAMEDUCK: &str = env!("CARGO_BIN_EXE_lameduck");

/// How long anything may take before the test gives up.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running lameduck. It is killed with the test.
pub struct Duck {
    pub child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
    pub stdout: Option<BufReader<std::process::ChildStdout>>,
}

/// `lameduck run ARGS`, with a clean environment but for `PATH`.
pub fn run(args: &[&str]) -> Command {
    let mut command = Command::new(LAMEDUCK);
    command.arg("run").args(args);
    clean(&mut command);
    command
}

/// A clean environment.
pub fn clean(command: &mut Command) {
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
}

impl Duck {
    /// Starts a command and listens to what it says.
    pub fn start(mut command: Command) -> Duck {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let stdout = child.stdout.take().map(BufReader::new);
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Duck { child, lines, heard: Vec::new(), stdout }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends a signal to lameduck.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// The next line of the app's standard output.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.as_mut().unwrap().read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Waits for a line on standard error that holds `text`.
    pub fn hear(&mut self, text: &str) -> String {
        if let Some(line) = self.heard.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.heard.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("{text:?} was never said; this was: {:#?}", self.heard);
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end; it said: {:#?}", self.rest());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The exit code at the end.
    pub fn code(&mut self) -> i32 {
        self.wait().code().expect("it exits, it is not killed")
    }

    /// Everything said on standard error, once it has ended.
    pub fn rest(&mut self) -> Vec<String> {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(300)) {
            self.heard.push(line);
        }
        self.heard.clone()
    }

    /// The drain report, once it has ended.
    pub fn report(&mut self) -> DrainReport {
        let line = self.hear("report {");
        serde_json::from_str(line.split_once("report ").unwrap().1).unwrap()
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        // What it started is killed with it: its descendants first, while they can still be found.
        for pid in descendants(self.child.id() as i32) {
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The pids of all descendants.
pub fn descendants(root: i32) -> Vec<i32> {
    lameduck_run::processes::descendants(root, &[])
        .unwrap()
        .into_iter()
        .filter(lameduck_run::processes::Process::alive)
        .map(|process| process.pid)
        .collect()
}

/// A field of `/proc/PID/status`.
pub fn status_field(pid: i32, field: &str) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A keep-alive HTTP server in Python, with no handler for TERM. `/slow` takes 3 s.
pub const SERVER: &str = "
import http.server, os, sys, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        if self.path == '/slow': time.sleep(3)
        self.send_response(200); self.send_header('Content-Length', '3'); self.end_headers(); self.wfile.write(b'ok\\n')
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()
";

/// Waits until a port accepts.
pub fn listening(port: u16) {
    until("it listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// One request on a connection of its own; the status line.
pub fn get(port: u16, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

/// Whether the tests run as root; what needs it is skipped, and says so, where they do not.
pub fn root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED {test}: needs root");
    }
    root
}

/// A copy of the program under another name.
pub fn named(name: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    std::os::unix::fs::symlink(LAMEDUCK, &path).unwrap();
    (dir, path)
}
