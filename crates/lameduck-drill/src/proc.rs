//! What the kernel knows of the replicas' processes and listeners, from /proc.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;
use std::{fs, str};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

/// The variable that marks every process of a drill, so that one that left its parent and its group is still found.
pub(crate) const MARKER: &str = "LAMEDUCK_DRILL_REPLICA";

/// Sends a signal; a process that is already gone is no error here, its exit is seen elsewhere.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// A process as the kernel shows it.
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
    /// In clock ticks after boot: with the pid, it names one process for good.
    started: u64,
}

/// The processes of one replica, as far as they have been seen.
///
/// No single sign finds them all: a descendant can lose its parent, leave the group and the session, and overwrite its
/// environment (nginx's workers do the last). So each look remembers whom it found.
#[derive(Debug)]
pub(crate) struct Family {
    /// The direct child: the container's PID 1.
    root: i32,
    mark: String,
    known: BTreeMap<i32, u64>,
}

impl Family {
    pub(crate) fn new(root: i32, mark: String) -> Family {
        Family { root, mark, known: BTreeMap::new() }
    }

    /// All living processes of the replica but the root.
    pub(crate) fn look(&mut self) -> Vec<i32> {
        let wanted = format!("{MARKER}={}", self.mark);
        let processes: Vec<Process> = living().filter_map(process).filter(|process| process.pid != self.root).collect();
        let is_member = |process: &&Process| {
            self.known.get(&process.pid) == Some(&process.started)
                || [process.parent, process.group, process.session].contains(&self.root)
                || marked(process.pid, wanted.as_bytes())
        };
        let mut members: BTreeMap<i32, u64> =
            processes.iter().filter(is_member).map(|process| (process.pid, process.started)).collect();
        loop {
            let is_child =
                |process: &&Process| members.contains_key(&process.parent) && !members.contains_key(&process.pid);
            let children: Vec<_> = processes.iter().filter(is_child).map(|child| (child.pid, child.started)).collect();
            if children.is_empty() {
                break;
            }
            members.extend(children);
        }
        self.known = members;
        self.known.keys().copied().collect()
    }
}

fn living() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// A process that lives; a zombie has ended and only waits to be collected. Fields as in proc(5), `/proc/pid/stat`.
fn process(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold blanks and parentheses: fields are counted from the last one.
    let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    let mut fields = str::from_utf8(after_name).ok()?.split_whitespace();
    let state = fields.next()?;
    let mut number = || fields.next()?.parse::<i64>().ok();
    let (parent, group, session) = (number()? as i32, number()? as i32, number()? as i32);
    // From the session, the 6th field, to the start time, the 22nd.
    let started = fields.nth(15)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(Process { pid, parent, group, session, started })
}

fn marked(pid: i32, wanted: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
}

/// CPU time of this thread, which is all of a drill. In `/proc/thread-self/schedstat` the first number is nanoseconds.
pub(crate) fn own_cpu() -> Option<Duration> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split_ascii_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Whether the first argument of a process, the word after its name, is exactly this.
pub(crate) fn first_argument_is(pid: i32, word: &str) -> bool {
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    command.split(|byte| *byte == 0).nth(1) == Some(word.as_bytes())
}

/// Whether the listener on this address is certainly gone, at the cost of two system calls.
///
/// A socket that is bound but never listens is refused while another one listens there, and takes no connection. It is also
/// refused where a listener without `SO_REUSEADDR` has left connections behind, so `false` decides nothing.
pub(crate) fn listener_is_gone(address: SocketAddr) -> bool {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    socket.is_ok_and(|socket| socket.set_reuseaddr(true).is_ok() && socket.bind(address).is_ok())
}

/// Whether some socket listens on this TCP port, in the network of this process. `None` where /proc cannot tell. The kernel walks its whole table of
/// connections for the answer, which can take 10 ms: ask once, not in a loop.
pub(crate) fn listens(pid: i32, port: u16) -> Option<bool> {
    let tables = ["tcp", "tcp6"].map(|table| fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    if tables.iter().all(Result::is_err) {
        return None;
    }
    Some(tables.iter().flatten().any(|table| table_listens(table, port)))
}

/// In the kernel's table a line is `sl local_address rem_address st ...`; state 0A is LISTEN.
fn table_listens(table: &str, port: u16) -> bool {
    let suffix = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&suffix)) && fields.nth(1) == Some("0A")
    })
}

/// Replaces `{port}` and `{host}` in an argument or value.
pub(crate) fn with_address(text: &OsStr, address: SocketAddr) -> OsString {
    let text = replaced(text, b"{port}", &address.port().to_string());
    replaced(&text, b"{host}", &address.ip().to_string())
}

fn replaced(text: &OsStr, pattern: &[u8], by: &str) -> OsString {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(pattern) {
            out.extend_from_slice(by.as_bytes());
            at += pattern.len();
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    OsStr::from_bytes(&out).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n\
            1: 0100007F:1F91 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0\n";
        assert!(table_listens(table, 8080));
        assert!(!table_listens(table, 8081), "established, not listening");
        assert!(!table_listens(table, 80));
    }

    #[test]
    fn sees_a_listener_open_and_close() {
        for bound_to in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
            let listener = std::net::TcpListener::bind(bound_to).unwrap();
            let port = listener.local_addr().unwrap().port();
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let client = std::net::TcpStream::connect(address).unwrap();
            let (accepted, _) = listener.accept().unwrap();
            let own = std::process::id() as i32;
            assert_eq!((listens(own, port), listener_is_gone(address)), (Some(true), false), "{bound_to}");
            drop(listener);
            // With a connection still open, as while draining.
            assert_eq!((listens(own, port), listener_is_gone(address)), (Some(false), true), "{bound_to}");
            drop((client, accepted));
        }
    }

    #[test]
    fn finds_a_descendant_that_left_its_parent() {
        // `sh` exits at once; its child is reparented and keeps only the mark.
        let mark = format!("test-{}", std::process::id());
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 20 >/dev/null & echo $!"])
            .env(MARKER, &mark)
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = shell.id() as i32;
        let mut line = String::new();
        std::io::Read::read_to_string(&mut shell.stdout.take().unwrap(), &mut line).unwrap();
        shell.wait().unwrap();
        let orphan: i32 = line.trim().parse().unwrap();
        let mut family = Family::new(pid, mark);
        assert_eq!(family.look(), [orphan]);
        assert!(signal(orphan, Signal::KILL));
        for _ in 0..200 {
            if family.look().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("still there: {:?}", family.look());
    }

    #[test]
    fn remembers_a_descendant_that_shows_no_sign_any_more() {
        // A child in its own session without the mark; once `sh` is gone, nothing ties it to anybody.
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "env -i setsid sleep 20 & wait"])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut family = Family::new(shell.id() as i32, "no mark".into());
        let of_sleep = |pid: &i32| fs::read(format!("/proc/{pid}/comm")).is_ok_and(|name| name == b"sleep\n");
        while !family.look().iter().any(of_sleep) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = family.look();
        shell.kill().unwrap();
        shell.wait().unwrap();
        assert_eq!(family.look(), seen);
        let mut stranger = Family::new(shell.id() as i32, "no mark".into());
        assert!(stranger.look().is_empty(), "found only because it was seen before");
        for pid in seen {
            signal(pid, Signal::KILL);
        }
    }

    #[test]
    fn the_first_argument_is_the_whole_word() {
        let mut child = std::process::Command::new("sleep").args(["20", "1"]).spawn().unwrap();
        let pid = child.id() as i32;
        // Until execve is over the child still shows our own words.
        let until = std::iter::repeat_with(|| std::thread::sleep(Duration::from_millis(2))).take(1000);
        assert!(until.into_iter().any(|()| first_argument_is(pid, "20")));
        for other in ["2", "1", "sleep", ""] {
            assert!(!first_argument_is(pid, other), "{other:?}");
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn the_address_is_put_in_its_place() {
        let address = SocketAddr::from(([10, 0, 0, 7], 80));
        assert_eq!(with_address(OsStr::new("--bind={host}:{port}/{port}{por"), address), "--bind=10.0.0.7:80/80{por");
    }
}
