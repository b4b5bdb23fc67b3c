//! The command's processes, by `/proc`: who listens, who handles TERM, who is left over.

use std::fs;

/// One process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its group.
    pub group: i32,
    /// Its state letter.
    pub state: char,
    /// What it calls itself.
    pub name: String,
}

/// All of one group, and their descendants.
pub fn family(group: i32) -> Vec<Process> {
    let all: Vec<Process> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(read)
        .collect();
    let mut own: Vec<Process> = all.iter().filter(|process| process.group == group).cloned().collect();
    let mut place = 0;
    while place < own.len() {
        let parent = own[place].pid;
        for process in all.iter().filter(|process| process.parent == parent) {
            if own.iter().all(|known| known.pid != process.pid) {
                own.push(process.clone());
            }
        }
        place += 1;
    }
    own
}

fn read(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything: it ends at the last bracket.
    let (head, tail) = text.rsplit_once(") ")?;
    let name = head.split_once('(')?.1.to_owned();
    let mut fields = tail.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, group, state, name })
}

/// Whether it has a handler for TERM; none where that cannot be read.
pub fn handles_term(pid: i32) -> Option<bool> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let caught = text.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
    // Signal n is bit n - 1; TERM is 15.
    Some(caught >> 14 & 1 == 1)
}

/// Which of these processes hold the listener of a port.
pub fn listeners(port: u16, of: &[Process]) -> Vec<Process> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let at = fields.get(1).and_then(|address| address.rsplit_once(':'));
            let own = at.is_some_and(|(_, hex)| u16::from_str_radix(hex, 16) == Ok(port));
            if own && fields.get(3) == Some(&"0A") {
                inodes.extend(fields.get(9).map(|inode| format!("socket:[{inode}]")));
            }
        }
    }
    let holds = |process: &&Process| {
        let links = fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
        links
            .filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|link| inodes.iter().any(|inode| link.as_os_str() == inode.as_str()))
    };
    of.iter().filter(holds).cloned().collect()
}
