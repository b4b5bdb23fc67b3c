//! The processes of the app: everything that descends from lameduck, its own helpers apart.

use std::fs;
use std::io;
use std::path::Path;

use rustix::process::{Pid, PidfdFlags};

use crate::observe::procfs::{self, Stat};
use crate::signal::Signal;
use crate::sys;

/// A process, told apart from a later one of the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks since boot.
    pub started: u64,
    /// Its process group.
    pub group: i32,
    /// Whether it has ended and waits to be reaped.
    pub zombie: bool,
}

impl Process {
    /// Whether it still runs.
    pub const fn alive(&self) -> bool {
        !self.zombie
    }
}

/// All descendants of `root` but those in `except` (and what descends from them), parents before children.
///
/// Processes that were put into the container from outside (`kubectl exec`, an exec probe, a preStop hook) do not descend
/// from PID 1 and are left alone.
///
/// An error where `/proc` can not be read, or belongs to another pid namespace: its numbers are then other processes'.
pub fn descendants(root: i32, except: &[i32]) -> io::Result<Vec<Process>> {
    if fs::read_link("/proc/self")? != Path::new(&std::process::id().to_string()) {
        return Err(io::Error::other("it belongs to another pid namespace"));
    }
    let mut stats = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let name = entry.file_name();
        if !name.as_encoded_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        // Gone since it was listed: then it is no descendant any more.
        let Ok(text) = fs::read(entry.path().join("stat")) else { continue };
        stats.extend(procfs::stat(&text));
    }
    Ok(tree(&stats, root, except))
}

/// The part of a process table that descends from `root`.
fn tree(stats: &[Stat], root: i32, except: &[i32]) -> Vec<Process> {
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for stat in stats.iter().filter(|stat| stat.parent == parent && !except.contains(&stat.pid)) {
            // A table read while processes come and go may show a pid twice; once is enough.
            if stat.pid != root && !found.iter().any(|known| known.pid == stat.pid) {
                found.push(Process {
                    pid: stat.pid,
                    started: stat.started,
                    group: stat.group,
                    zombie: stat.state == b'Z',
                });
                parents.push(stat.pid);
            }
        }
    }
    found
}

/// Signals exactly this process: a later one with its number is never hit.
pub fn signal(process: &Process, signal: Signal) -> io::Result<()> {
    let pid = Pid::from_raw(process.pid).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => pidfd,
        // Before Linux 5.3, or forbidden: the number has to do.
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => return sys::kill(pid, false, signal),
        Err(error) => return Err(error.into()),
    };
    // The pidfd holds whoever has the number now; that it is the process meant is checked before it is used.
    let text = fs::read(format!("/proc/{}/stat", process.pid))?;
    match procfs::stat(&text) {
        Some(stat) if stat.started == process.started => {
            use std::os::fd::AsFd;
            sys::pidfd_kill(pidfd.as_fd(), signal)
        }
        Some(_) | None => Err(io::ErrorKind::NotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_without_the_helpers() {
        let stat = |pid, parent| Stat { pid, parent, group: 1, state: b'S', started: 1 };
        let table = [stat(1, 0), stat(5, 1), stat(6, 5), stat(7, 6), stat(8, 1), stat(9, 8), stat(20, 0), stat(21, 20)];
        let pids = |root, except: &[i32]| {
            let mut pids: Vec<_> = tree(&table, root, except).iter().map(|process| process.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(1, &[]), [5, 6, 7, 8, 9]);
        assert_eq!(pids(1, &[8]), [5, 6, 7], "a helper and what it started");
        assert_eq!(pids(5, &[]), [6, 7]);
        assert_eq!(pids(99, &[]), [0i32; 0]);
    }

    #[test]
    fn a_table_that_shows_a_loop_ends() {
        let table = [
            Stat { pid: 5, parent: 6, group: 1, state: b'S', started: 1 },
            Stat { pid: 6, parent: 5, group: 1, state: b'S', started: 1 },
        ];
        assert_eq!(tree(&table, 5, &[]).len(), 1);
    }

    #[test]
    fn a_recycled_number_is_not_signalled() {
        let mut child = std::process::Command::new("sleep").arg("30").spawn().unwrap();
        let own = std::process::id() as i32;
        let found = descendants(own, &[]).unwrap();
        let process = *found.iter().find(|process| process.pid == child.id() as i32).unwrap();
        let later = Process { started: process.started + 1, ..process };
        assert_eq!(signal(&later, Signal::KILL).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(child.try_wait().unwrap().is_none(), "still alive");
        signal(&process, Signal::KILL).unwrap();
        assert!(!child.wait().unwrap().success());
    }
}
