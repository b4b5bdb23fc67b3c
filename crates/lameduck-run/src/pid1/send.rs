//! Signals from PID 1 to the app.

use crate::options::Scope;
use crate::processes::{self, Process};
use crate::signal::Signal;
use crate::sys;

use super::Init;

impl Init {
    pub(super) const fn in_group(&self) -> bool {
        matches!(self.options.scope, Scope::Group)
    }

    pub(super) fn target(&self) -> String {
        let pid = self.main.as_raw_nonzero();
        if self.in_group() { format!("process group {pid}") } else { format!("pid {pid}") }
    }

    pub(super) fn forward(&mut self, signal: Signal) {
        self.signal_main(signal, false);
        self.verbose(format_args!("Forwarded signal {} to children.", signal.number()));
    }

    /// Signals the main process or its group. `wake`: a stopped process would not see the signal before it goes on.
    pub(super) fn signal_main(&mut self, signal: Signal, wake: bool) {
        // Once it is reaped its number may be another's; its group lives as long as a member does.
        if self.machine.main().is_some() && !self.in_group() {
            return;
        }
        if let Err(error) = sys::kill(self.main, self.in_group(), signal) {
            if error.raw_os_error() != Some(libc::ESRCH) {
                let target = self.target();
                self.log.warn(format_args!("{signal} could not be sent to {target}: {error} (kill(2)); it goes on"));
            }
        } else if wake && signal != Signal::KILL {
            let _ = sys::kill(self.main, self.in_group(), Signal::CONT);
        }
    }

    pub(super) fn signal_others(&mut self, signal: Signal) {
        if self.childless {
            return;
        }
        let main_lives = self.machine.main().is_none();
        let main = self.main.as_raw_nonzero().get();
        let Some(app) = self.app() else {
            if self.own_pid == 1 {
                sys::kill_everyone(signal);
                sys::kill_everyone(Signal::CONT);
            }
            return;
        };
        let in_group = self.in_group() && self.group_told;
        let told = |process: &Process| (main_lives && process.pid == main) || (in_group && process.group == main);
        let others = app.into_iter().filter(|process| process.alive() && !told(process));
        let mut count = 0;
        for process in others {
            match processes::signal(&process, signal) {
                Ok(()) => {
                    count += 1;
                    let _ = processes::signal(&process, Signal::CONT);
                }
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    self.log.warn(format_args!("{signal} could not be sent to pid {}: {error}", process.pid));
                }
                Err(_) => {}
            }
        }
        if count > 0 {
            self.log.info(format_args!("{signal} to {count} other processes of the app"));
        }
    }

    pub(super) fn kill_all(&mut self) {
        let helpers = self.helpers();
        let left = processes::descendants(self.own_pid, &helpers).unwrap_or_default();
        let alive: Vec<_> = left.into_iter().filter(Process::alive).collect();
        if alive.is_empty() {
            // Nothing seen: /proc may be missing, so the main process is killed by number, which only we may reap.
            if self.own_pid == 1 {
                sys::kill_everyone(Signal::KILL);
            } else if self.machine.main().is_none() {
                let _ = sys::kill(self.main, false, Signal::KILL);
            }
            return;
        }
        let killed = alive.iter().filter(|process| processes::signal(process, Signal::KILL).is_ok()).count() as u32;
        if self.book.killed == 0 {
            self.log.warn(format_args!("the deadline is here: KILL to {killed} processes of the app"));
        }
        self.book.killed = self.book.killed.max(killed);
    }
}
