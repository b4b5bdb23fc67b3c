//! What the kernel knows of the replicas' processes and listeners, from /proc.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::{fs, str};

use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpSocket;

/// The variable that marks every process of a drill, so that one that left its parent and its group is still found.
pub(crate) const MARKER: &str = "LAMEDUCK_DRILL_REPLICA";

/// Sends a signal; a process that is already gone is no error here, its exit is seen elsewhere.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
}

/// All living processes of one replica but `pid` itself: its descendants, and whatever carries its mark.
pub(crate) fn others(pid: i32, mark: &str) -> Vec<i32> {
    let processes: Vec<(i32, i32)> = living().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![pid];
    let mut at = 0;
    while at < family.len() {
        let of = family[at];
        family.extend(processes.iter().filter(|(_, parent)| *parent == of).map(|(child, _)| *child));
        at += 1;
    }
    let wanted = format!("{MARKER}={mark}");
    for (candidate, _) in processes {
        if !family.contains(&candidate) && marked(candidate, wanted.as_bytes()) {
            family.push(candidate);
        }
    }
    family.retain(|member| *member != pid);
    family
}

fn living() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The parent of a process that lives; a zombie has ended and only waits to be collected.
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may itself hold blanks and parentheses: fields are counted from the last one.
    let after_name = &stat[stat.iter().rposition(|byte| *byte == b')')? + 1..];
    let mut fields = str::from_utf8(after_name).ok()?.split_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(parent)
}

fn marked(pid: i32, wanted: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
}

/// Whether the listener on this address is certainly gone, at the cost of two system calls.
///
/// A socket that is bound but never listens is refused while another one listens there, and takes no connection. It is also
/// refused where a listener without `SO_REUSEADDR` has left connections behind, so `false` decides nothing.
pub(crate) fn listener_is_gone(address: SocketAddr) -> bool {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    socket.is_ok_and(|socket| socket.set_reuseaddr(true).is_ok() && socket.bind(address).is_ok())
}

/// Whether some socket listens on this TCP port. `None` where /proc cannot tell. The kernel walks its whole table of
/// connections for the answer, which can take 10 ms: ask once, not in a loop.
pub(crate) fn listens(port: u16) -> Option<bool> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
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

/// Replaces `{port}` in an argument or value.
pub(crate) fn with_port(text: &OsStr, port: u16) -> std::ffi::OsString {
    let (bytes, pattern) = (text.as_bytes(), b"{port}");
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(pattern) {
            out.extend_from_slice(port.to_string().as_bytes());
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
            assert_eq!((listens(port), listener_is_gone(address)), (Some(true), false), "{bound_to}");
            drop(listener);
            // With a connection still open, as while draining.
            assert_eq!((listens(port), listener_is_gone(address)), (Some(false), true), "{bound_to}");
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
        assert_eq!(others(pid, &mark), [orphan]);
        assert!(signal(orphan, Signal::KILL));
        for _ in 0..200 {
            if others(pid, &mark).is_empty() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("still there: {:?}", others(pid, &mark));
    }

    #[test]
    fn the_port_is_put_in_its_place() {
        assert_eq!(with_port(OsStr::new("--bind=0.0.0.0:{port}/{port}{por"), 80), "--bind=0.0.0.0:80/80{por");
    }
}
