//! Starting webhooks, and what they say of themselves.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use lameduck_cluster::cert::Pair;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::client::Client;

pub const LAMEDUCK: &str = env!("CARGO_BIN_EXE_lameduck");
/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_mins(1);

pub fn names() -> Vec<String> {
    vec!["127.0.0.1".to_owned()]
}

/// A certificate in a folder, as a volume of a Secret has it. Gives whom to trust.
pub fn keep_certificate(folder: &Path, before: Option<&Pair>) -> Pair {
    let now = std::time::SystemTime::now();
    let pair = Pair::make(&names(), now, Duration::from_hours(24), before).unwrap();
    // Whoever reads between the two finds a key that is not the certificate's, and looks again.
    std::fs::write(folder.join("tls.crt"), &pair.certificate).unwrap();
    std::fs::write(folder.join("tls.key"), &pair.key).unwrap();
    pair
}

/// A port that is free now. Nobody is given it again soon: the kernel hands them out in a round.
pub fn free() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A program that is killed with the test.
pub struct Running {
    pub child: Child,
    lines: Receiver<String>,
    heard: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                // What nobody waits for is still read: a full pipe would stop the program.
                let _ = sender.send(line);
            }
        });
        Running { child, lines, heard: Vec::new() }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a line that holds `text`.
    pub fn hear(&mut self, text: &str) -> String {
        let until = Instant::now() + PATIENCE;
        while let Ok(line) = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.heard.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
        panic!("{text:?} was not said; this was: {:#?}", self.heard);
    }

    pub fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if Instant::now() > until {
                self.heard.extend(self.lines.try_iter());
                panic!("it does not end; it said: {:#?}", self.heard);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    /// Asked first, three times: `lameduck run --force-on-repeat` so ends its command too, which a KILL would leave behind.
    fn drop(&mut self) {
        for _ in 0..3 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            std::thread::sleep(Duration::from_millis(200));
        }
        let until = Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `lameduck webhook`, with the words before it and more behind.
pub fn webhook(before: &[&str], listen: SocketAddr, more: &[&str]) -> Running {
    let mut command = Command::new(LAMEDUCK);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).args(before);
    command.args(["webhook", "--image", "example/lameduck:1", "--no-registry", "--health", &free().to_string()]);
    command.args(["--listen", &listen.to_string()]).args(more);
    Running::start(command)
}

pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn review(uid: usize) -> Value {
    let pod = json!({
        "metadata": {"name": "web", "annotations": {"lameduck.dev/inject": "true"}},
        "spec": {"containers": [{"name": "web", "image": "acme/web", "command": ["node", "server.js"]}]},
    });
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": uid.to_string(), "kind": {"group": "", "version": "v1", "kind": "Pod"}, "namespace": "shop",
            "operation": "CREATE", "object": pod, "dryRun": false,
        },
    })
}

#[test]
fn a_certificate_that_somebody_else_keeps_is_taken_as_it_changes() {
    let folder = tempfile::tempdir().unwrap();
    let listen = free();
    let first = keep_certificate(folder.path(), None);
    let mut webhook = webhook(&[], listen, &["--tls-dir", folder.path().to_str().unwrap()]);
    webhook.hear("the certificate is served");
    let asked = |pair: &Pair| Client::new(&pair.authorities).once(listen, "/mutate", &review(1).to_string());
    assert_eq!(asked(&first).unwrap().status, 200);
    let second = keep_certificate(folder.path(), None);
    webhook.hear("another certificate is served");
    assert_eq!(asked(&second).unwrap().status, 200);
    assert!(asked(&first).is_err(), "it is another one");
    webhook.signal(Signal::TERM);
    assert_eq!(webhook.wait().code(), Some(0));
}

#[test]
fn what_is_malformed_is_refused_and_the_next_one_served() {
    let folder = tempfile::tempdir().unwrap();
    let listen = free();
    let pair = keep_certificate(folder.path(), None);
    let mut webhook = webhook(&[], listen, &["--tls-dir", folder.path().to_str().unwrap()]);
    webhook.hear("the certificate is served");
    let client = Client::new(&pair.authorities);
    let check = |body: &str, expect: u16| {
        let answer = client.once(listen, "/mutate", body).unwrap();
        assert_eq!(answer.status, expect, "{}", &body[..body.len().min(100)]);
        assert_eq!(client.once(listen, "/mutate", &review(1).to_string()).unwrap().status, 200);
    };
    check("", 400);
    check("{}", 400);
    check("null", 400);
    check(&"[".repeat(1 << 20), 400);
    // It is told before it has sent all, or finds that nobody listens any more.
    let huge = client.once(listen, "/mutate", &format!("\"{}\"", "x".repeat(9 << 20)));
    assert!(huge.as_ref().map_or(true, |answer| answer.status == 413), "{huge:?}");
    // Without TLS, and half of it.
    for bytes in ["GET / HTTP/1.1\r\n\r\n".as_bytes(), &[0x16, 3, 1, 2, 0, 1], &[]] {
        use std::io::Write;
        TcpStream::connect(listen).unwrap().write_all(bytes).unwrap();
    }
    check("{}", 400);
}

#[test]
fn a_wrong_command_line_is_refused() {
    let check = |args: &[&str], expect: &str| {
        let out = Command::new(LAMEDUCK).arg("webhook").args(args).env_clear().output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(expect), "{args:?}: {said}");
    };
    check(&[], "no --image was given");
    check(&["--image", "x", "serve"], "one word too many");
    check(&["--image", "x", "--tls-dir", "/", "--default", "qiet=1s"], "an option of lameduck run");
    check(&["--image", "x", "--tls-dir", "/", "--default", "quiet=soon"], "--default: LAMEDUCK_QUIET: read \"soon\"");
    check(&["--image", "x", "--tls-dir", "/", "--enforce", "all"], "note, warning, error or off");
    check(&["--image", "x"], "no --namespace was given");
    let out = Command::new(LAMEDUCK).args(["webhook", "--image=x", "--namespace=x"]).env_clear().output().unwrap();
    assert_eq!(out.status.code(), Some(4), "no API server");
}

#[test]
fn the_program_copies_itself_to_where_everybody_may_execute_it() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let copy = |to: &Path| Command::new(LAMEDUCK).arg("copy-to").arg(to).status().unwrap().code();
    // Twice: an init container may be restarted.
    for _ in 0..2 {
        assert_eq!(copy(folder.path()), Some(0));
    }
    let copied = folder.path().join("lameduck");
    assert_eq!(copied.metadata().unwrap().permissions().mode() & 0o777, 0o555);
    let names: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["lameduck"], "nothing else is left");
    let status = Command::new(&copied).args(["run", "--", "true"]).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(copy(Path::new("/nowhere")), Some(4));
}
