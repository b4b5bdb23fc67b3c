//! How the other verbs reach PID 1: a socket that needs no file system, no root and no other program.
//!
//! Its name is in the abstract namespace (unix(7)), which belongs to the network namespace and so is shared by the
//! containers of a pod. The mount namespace, which is not, is part of the name, and so is the pid. An abstract socket has
//! no file permissions, so the peer's user decides who may speak: lameduck's own or root.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::time::Duration;

use crate::machine::Time;
use crate::sys;

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Where things stand.
    Status,
    /// To begin the lame-duck phase.
    Drain,
    /// The same, and to be told when traffic is quiet.
    DrainAndWait,
}

impl Request {
    const ALL: [Request; 3] = [Request::Status, Request::Drain, Request::DrainAndWait];

    const fn word(self) -> &'static str {
        match self {
            Request::Status => "status\n",
            Request::Drain => "drain\n",
            Request::DrainAndWait => "drain wait\n",
        }
    }
}

/// Clients at the same time; a further one is turned away.
const MOST_CLIENTS: usize = 16;
/// Clients that wait for quiet, so that there is always room for a question.
const MOST_WAITING: usize = MOST_CLIENTS / 2;
/// A client says what it wants within this.
const PATIENCE: Duration = Duration::from_secs(1);

/// The part of the name that all lameducks of this container share.
fn prefix() -> io::Result<String> {
    let link = fs::read_link("/proc/self/ns/mnt")?;
    let inode: String = link.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
    Ok(format!("lameduck/{inode}/"))
}

/// PID 1's end.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    own_user: u32,
    clients: Vec<Client>,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// Until when it may still say what it wants; `None`: it has, and waits for quiet.
    until: Option<Time>,
}

impl Server {
    /// Listens under this process's name.
    pub fn bind(pid: i32) -> io::Result<Server> {
        let address = SocketAddr::from_abstract_name(format!("{}{pid}", prefix()?))?;
        let listener = UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Server {
            listener,
            own_user: rustix::process::geteuid().as_raw(),
            clients: Vec::with_capacity(MOST_CLIENTS),
        })
    }

    /// The descriptors to poll for input.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let clients = self.clients.iter().map(|client| client.stream.as_fd());
        std::iter::once(self.listener.as_fd()).chain(clients)
    }

    /// When a client's patience ends.
    pub fn deadline(&self) -> Option<Time> {
        self.clients.iter().filter_map(|client| client.until).min()
    }

    /// Takes new clients and reads what they want. `answer` gives a request its reply, or `None`: the client waits.
    pub fn serve(&mut self, now: Time, mut answer: impl FnMut(Request) -> Option<String>) {
        for _ in 0..MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else { break };
            let allowed = sys::peer(stream.as_fd()).is_ok_and(|(user, _)| user == self.own_user || user == 0);
            if allowed && self.clients.len() < MOST_CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, until: Some(now + PATIENCE) });
            }
        }
        let mut waiting = self.clients.iter().filter(|client| client.until.is_none()).count();
        self.clients.retain_mut(|client| {
            let mut line = [0; 64];
            match client.stream.read(&mut line) {
                Ok(0) => false,
                Ok(n) if client.until.is_some() => {
                    let Some(request) =
                        Request::ALL.into_iter().find(|request| request.word().as_bytes() == &line[..n])
                    else {
                        return false;
                    };
                    client.until = None;
                    if let Some(reply) = answer(request) {
                        reply_to(client, &reply);
                        return false;
                    }
                    waiting += 1;
                    waiting <= MOST_WAITING
                }
                Ok(_) => true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => client.until.is_none_or(|until| now < until),
                Err(_) => false,
            }
        });
    }

    /// Tells those who wait.
    pub fn tell_waiters(&mut self, reply: &str) {
        self.clients.retain_mut(|client| {
            if client.until.is_none() {
                reply_to(client, reply);
            }
            client.until.is_some()
        });
    }
}

/// A reply fits the socket's buffer, so it never blocks; a client that is gone has no need of it.
fn reply_to(client: &mut Client, reply: &str) {
    let _ = client.stream.write_all(reply.as_bytes());
}

/// Why PID 1 could not be asked.
#[derive(Debug)]
pub enum AskError {
    /// Nothing of that name listens.
    NotFound {
        /// The pid asked for.
        pid: Option<i32>,
    },
    /// Several do, and none is PID 1.
    Several {
        /// Their pids.
        pids: Vec<i32>,
    },
    /// The conversation failed.
    Io(io::Error),
    /// It closed without an answer: another user's, or it is over.
    NoAnswer,
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::NotFound { pid: Some(pid) } => {
                write!(f, "no lameduck runs here as pid {pid}: look for it with `lameduck ready`, or leave --pid out")
            }
            AskError::NotFound { pid: None } => {
                write!(f, "no lameduck runs in this container: expected `lameduck run -- COMMAND` as its PID 1")
            }
            AskError::Several { pids } => write!(f, "several lameducks run here (pids {pids:?}): say which with --pid"),
            AskError::Io(error) => write!(f, "lameduck could not be asked over its socket: {error}"),
            AskError::NoAnswer => {
                write!(f, "lameduck gave no answer: it belongs to another user, is busy with others, or has just ended")
            }
        }
    }
}

impl std::error::Error for AskError {}

impl From<io::Error> for AskError {
    fn from(error: io::Error) -> Self {
        AskError::Io(error)
    }
}

/// Asks the lameduck of this container (or the one with this pid) and returns its reply, a line of JSON.
pub fn ask(pid: Option<i32>, request: Request, patience: Option<Duration>) -> Result<String, AskError> {
    let prefix = prefix()?;
    let pid = match pid {
        Some(pid) => pid,
        None => find(&prefix)?,
    };
    let address = SocketAddr::from_abstract_name(format!("{prefix}{pid}"))?;
    let mut stream = UnixStream::connect_addr(&address).map_err(|error| match error.kind() {
        io::ErrorKind::ConnectionRefused => AskError::NotFound { pid: Some(pid) },
        _ => AskError::Io(error),
    })?;
    stream.set_read_timeout(patience)?;
    let mut reply = String::new();
    let talk = stream.write_all(request.word().as_bytes()).and_then(|()| stream.read_to_string(&mut reply));
    match talk.map_err(|error| (error.kind(), error)) {
        // Turned away, it closes without having read.
        Ok(_) | Err((io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe, _)) => {}
        Err((_, error)) => return Err(error.into()),
    }
    if reply.is_empty() { Err(AskError::NoAnswer) } else { Ok(reply) }
}

/// The lameduck of this container: PID 1, or the only one there is.
fn find(prefix: &str) -> Result<i32, AskError> {
    let table = fs::read_to_string("/proc/net/unix")?;
    let mut pids = listed(&table, prefix);
    pids.sort_unstable();
    pids.dedup();
    match pids[..] {
        [] => Err(AskError::NotFound { pid: None }),
        [pid] => Ok(pid),
        [1, ..] => Ok(1),
        _ => Err(AskError::Several { pids }),
    }
}

/// The pids in `/proc/net/unix`, where abstract names begin with `@` (proc(5)).
fn listed(table: &str, prefix: &str) -> Vec<i32> {
    table
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7)?.strip_prefix('@')?.strip_prefix(prefix)?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_lameducks_of_this_container_only() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 1 @lameduck/42/1\n\
            0000000000000000: 00000003 00000000 00000000 0001 03 2 @lameduck/42/1\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 3 @lameduck/43/7\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 4 /run/lameduck/42/9\n\
            0000000000000000: 00000002 00000000 00010000 0001 01 5\n";
        assert_eq!(listed(table, "lameduck/42/"), [1, 1]);
        assert_eq!(listed(table, "lameduck/44/"), [0i32; 0]);
    }

    #[test]
    fn a_conversation() {
        // Test processes share a container; a pid that is none of a process keeps them apart.
        let pid = 1_000_000_000 + std::process::id() as i32;
        let mut server = Server::bind(pid).unwrap();
        let asker = std::thread::spawn(move || ask(Some(pid), Request::Drain, Some(Duration::from_secs(5))));
        let waiter = std::thread::spawn(move || ask(Some(pid), Request::DrainAndWait, Some(Duration::from_secs(5))));
        let mut requests = Vec::new();
        let mut now = Duration::ZERO;
        while requests.len() < 2 && now < Duration::from_secs(5) {
            server.serve(now, |request| {
                requests.push(request);
                (request == Request::Drain).then(|| "{}\n".to_owned())
            });
            std::thread::sleep(Duration::from_millis(5));
            now += Duration::from_millis(5);
        }
        assert_eq!(asker.join().unwrap().unwrap(), "{}\n");
        server.tell_waiters("{\"state\":\"quiet\"}\n");
        assert_eq!(waiter.join().unwrap().unwrap(), "{\"state\":\"quiet\"}\n");
        assert!(server.clients.is_empty());
    }

    #[test]
    fn nobody_there_is_said() {
        let error = ask(Some(999_999_999), Request::Status, None).unwrap_err();
        assert!(matches!(error, AskError::NotFound { pid: Some(999_999_999) }), "{error}");
    }
}
