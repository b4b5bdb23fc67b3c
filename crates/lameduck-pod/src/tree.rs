//! The processes of a container, as they see themselves.

use std::fmt::Write;
use std::fs;

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number in its own pid namespace.
    pub pid: i32,
    /// Below how many others it stands.
    pub depth: usize,
    /// The kernel's letter: S, R, Z for a zombie.
    pub state: char,
    /// Its command line.
    pub command: String,
}

/// The processes from this one (by its number here) down, parents first.
pub fn below(pid: i32) -> Vec<Process> {
    let mut found = Vec::new();
    let mut left = vec![(pid, 0)];
    while let Some((pid, depth)) = left.pop() {
        let Some(process) = process(pid, depth) else { continue };
        found.push(process);
        let mut children = children(pid);
        children.reverse();
        left.extend(children.into_iter().map(|child| (child, depth + 1)));
    }
    found
}

/// The numbers of a process's children, oldest first.
pub fn children(pid: i32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|child| child.parse().ok()).collect::<Vec<_>>()).collect()
}

fn process(pid: i32, depth: usize) -> Option<Process> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let own = field("NSpid:")?.split_whitespace().next_back()?.parse().ok()?;
    let state = field("State:")?.chars().next()?;
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<_> =
        words.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    let command = if words.is_empty() { format!("[{}]", field("Name:")?) } else { words.join(" ") };
    Some(Process { pid: own, depth, state, command })
}

/// As `ps faux` draws it, without the columns that change from run to run.
pub fn show(processes: &[Process]) -> String {
    let mut out = String::from("  PID STAT COMMAND\n");
    for process in processes {
        let indent = match process.depth {
            0 => String::new(),
            depth => format!("{}\\_ ", " ".repeat(4 * (depth - 1) + 1)),
        };
        let _ = writeln!(out, "{:>5} {:<4} {indent}{}", process.pid, process.state, process.command);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_and_its_child() {
        let mut shell = std::process::Command::new("sh").args(["-c", "sleep 20 & wait"]).spawn().unwrap();
        let pid = shell.id() as i32;
        let found = (0..400).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            Some(below(pid)).filter(|found| found.iter().any(|process| process.command == "sleep 20"))
        });
        let child = children(pid);
        shell.kill().unwrap();
        shell.wait().unwrap();
        for pid in child {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        }
        let found = found.unwrap();
        assert_eq!(found.iter().map(|process| process.depth).collect::<Vec<_>>(), [0, 1]);
        let drawn = show(&found);
        assert!(drawn.contains(" \\_ sleep 20\n"), "{drawn}");
    }
}
