//! A terminal in front: job control, ^Z, hang-up.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{LAMEDUCK, named};

/// A command on a terminal of its own, as the leader of its session (setsid -c makes the terminal controlling).
struct Terminal {
    master: File,
    child: std::process::Child,
    seen: String,
}

impl Terminal {
    fn start(words: &[&str]) -> Terminal {
        let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let name = rustix::pty::ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || Stdio::from(OwnedFd::from(File::options().read(true).write(true).open(&name).unwrap()));
        let mut command = Command::new("setsid");
        command.arg("-c").args(words).stdin(open()).stdout(open()).stderr(open()).env("PS1", "").env("TERM", "dumb");
        let child = command.spawn().unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        Terminal { master: File::from(master), child, seen: String::new() }
    }

    fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).unwrap();
    }

    fn until(&mut self, text: &str) {
        let end = Instant::now() + Duration::from_secs(15);
        while !self.seen.contains(text) {
            assert!(
                Instant::now() < end,
                "{text:?} never appeared in {:?} (fd {})",
                self.seen,
                self.master.as_raw_fd()
            );
            let mut buffer = [0; 1024];
            match self.master.read(&mut buffer) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    fn code(&mut self) -> Option<i32> {
        let end = Instant::now() + Duration::from_secs(15);
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_interactive_shell_has_job_control() {
    let (_dir, dumb_init) = named("dumb-init");
    let (_dir, tini) = named("tini");
    let shells: [&[&str]; 3] = [
        &[LAMEDUCK, "run", "--", "bash", "--norc", "-i"],
        &[tini.to_str().unwrap(), "--", "bash", "--norc", "-i"],
        &[dumb_init.to_str().unwrap(), "--", "bash", "--norc", "-i"],
    ];
    for words in shells {
        let mut terminal = Terminal::start(words);
        // The quotes keep the echo of what is typed apart from what is said.
        terminal.type_in("echo fl''ags=[$-]\n");
        terminal.until("flags=[");
        terminal.until("]\r\n");
        let flags = terminal.seen.rsplit("flags=[").next().unwrap().split(']').next().unwrap().to_owned();
        assert!(flags.contains('m'), "{words:?}: {:?}", terminal.seen);
        assert!(!terminal.seen.contains("no job control"), "{words:?}: {:?}", terminal.seen);
        // ^Z stops the job, not the shell; ^C interrupts it.
        terminal.type_in("sleep 100\n");
        std::thread::sleep(Duration::from_millis(300));
        terminal.type_in("\x1a");
        terminal.until("Stopped");
        terminal.type_in("kill %1; exit 7\n");
        terminal.type_in("exit 7\n");
        assert_eq!(terminal.code(), Some(7), "{words:?}: {:?}", terminal.seen);
    }
}

#[test]
fn control_c_reaches_the_app() {
    let mut terminal = Terminal::start(&[
        LAMEDUCK,
        "run",
        "--",
        "bash",
        "-c",
        "trap 'echo interrupted; exit 5' INT; echo up; while :; do sleep 0.05; done",
    ]);
    terminal.until("up");
    terminal.type_in("\x03");
    terminal.until("interrupted");
    assert_eq!(terminal.code(), Some(5));
}

/// Giving up the terminal makes the kernel send HUP and CONT; a child that met them would die at once.
#[test]
fn the_stray_hang_up_of_the_hand_off_does_not_reach_the_child() {
    let (_dir, path) = named("dumb-init");
    for _ in 0..20 {
        let mut terminal = Terminal::start(&[path.to_str().unwrap(), "--", "sh", "-c", "sleep 0.05; exit 6"]);
        assert_eq!(terminal.code(), Some(6), "{:?}", terminal.seen);
    }
}

#[test]
fn a_hang_up_that_is_meant_reaches_the_child() {
    let (_dir, path) = named("dumb-init");
    let mut terminal = Terminal::start(&[
        path.to_str().unwrap(),
        "--",
        "bash",
        "-c",
        "trap 'exit 8' HUP; echo up; while :; do sleep 0.05; done",
    ]);
    terminal.until("up");
    let pid = rustix::process::Pid::from_child(&terminal.child);
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    assert_eq!(terminal.code(), Some(8));
}
