//! Signals by name and number, and what becomes of them.

use std::fmt;

/// A Linux signal, 1 to 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Signal(u8);

/// The highest signal number on Linux (`SIGRTMAX`, signal(7)).
pub const HIGHEST: u8 = 64;

/// The first real-time signal a program may use: glibc keeps 32 and 33 for itself (signal(7)).
const RTMIN: u8 = 34;

/// Names of signals 1 to 31 (signal(7), x86 and ARM).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Other names in use for the same signals.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("POLL", 29), ("CLD", 17), ("UNUSED", 31)];

impl Signal {
    /// `SIGHUP`.
    pub const HUP: Signal = Signal(1);
    /// `SIGINT`.
    pub const INT: Signal = Signal(2);
    /// `SIGQUIT`.
    pub const QUIT: Signal = Signal(3);
    /// `SIGKILL`.
    pub const KILL: Signal = Signal(9);
    /// `SIGUSR1`.
    pub const USR1: Signal = Signal(10);
    /// `SIGPIPE`.
    pub const PIPE: Signal = Signal(13);
    /// `SIGTERM`.
    pub const TERM: Signal = Signal(15);
    /// `SIGCHLD`.
    pub const CHLD: Signal = Signal(17);
    /// `SIGCONT`.
    pub const CONT: Signal = Signal(18);
    /// `SIGSTOP`.
    pub const STOP: Signal = Signal(19);
    /// `SIGTSTP`.
    pub const TSTP: Signal = Signal(20);
    /// `SIGTTIN`.
    pub const TTIN: Signal = Signal(21);
    /// `SIGTTOU`.
    pub const TTOU: Signal = Signal(22);

    /// The signal with this number.
    pub const fn new(number: u8) -> Option<Signal> {
        if number >= 1 && number <= HIGHEST { Some(Signal(number)) } else { None }
    }

    /// Reads a name (`TERM`, `SIGTERM`, `RTMIN+3`, any case) or a number (`15`).
    pub fn parse(text: &str) -> Option<Signal> {
        if let Ok(number) = text.parse() {
            return Signal::new(number);
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(offset) = name.strip_prefix("RTMIN") {
            let offset: u8 = if offset.is_empty() { 0 } else { offset.strip_prefix('+')?.parse().ok()? };
            return Signal::new(RTMIN.checked_add(offset)?);
        }
        if let Some(offset) = name.strip_prefix("RTMAX") {
            let offset: u8 = if offset.is_empty() { 0 } else { offset.strip_prefix('-')?.parse().ok()? };
            return HIGHEST.checked_sub(offset).filter(|number| *number >= RTMIN).map(Signal);
        }
        let standard = NAMES.iter().position(|known| *known == name).map(|n| n as u8 + 1);
        standard.or_else(|| ALIASES.iter().find(|(alias, _)| *alias == name).map(|(_, n)| *n)).map(Signal)
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its bit in a kernel signal set.
    pub const fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => f.write_str(name),
            None if self.0 >= RTMIN => write!(f, "RTMIN+{}", self.0 - RTMIN),
            None => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SIG{self}")
    }
}

/// What each received signal becomes before it is passed on: itself, another, or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rewrites {
    /// By received number; 0 means "not passed on".
    to: [u8; HIGHEST as usize + 1],
}

impl Default for Rewrites {
    fn default() -> Self {
        Rewrites { to: std::array::from_fn(|n| n as u8) }
    }
}

impl Rewrites {
    /// Passes `from` on as `to`, or not at all.
    pub fn set(&mut self, from: Signal, to: Option<Signal>) {
        self.to[from.number() as usize] = to.map_or(0, Signal::number);
    }

    /// What `received` becomes.
    pub fn apply(&self, received: Signal) -> Option<Signal> {
        Signal::new(self.to[received.number() as usize])
    }

    /// Reads one rewrite: `15:10`, `TERM:QUIT`, `15:0` (do not pass on). The last `:` separates, so names never clash.
    pub fn parse_one(text: &str) -> Option<(Signal, Option<Signal>)> {
        let (from, to) = text.split_once(':')?;
        let to = if to == "0" { None } else { Some(Signal::parse(to)?) };
        Some((Signal::parse(from)?, to))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_and_numbers() {
        let check =
            |text: &str, number: Option<u8>| assert_eq!(Signal::parse(text).map(Signal::number), number, "{text}");
        check("TERM", Some(15));
        check("SIGTERM", Some(15));
        check("sigquit", Some(3));
        check("15", Some(15));
        check("RTMIN+3", Some(37));
        check("SIGRTMAX", Some(64));
        check("RTMAX-1", Some(63));
        check("IOT", Some(6));
        for bad in ["", "0", "65", "-1", "SIG", "TERMINATE", "RTMIN-1", "RTMAX-40", "RTMIN+255", "SIG15"] {
            check(bad, None);
        }
    }

    #[test]
    fn rewrites() {
        assert_eq!(Rewrites::parse_one("15:10"), Some((Signal::TERM, Some(Signal::USR1))));
        assert_eq!(Rewrites::parse_one("TERM:QUIT"), Some((Signal::TERM, Some(Signal::QUIT))));
        assert_eq!(Rewrites::parse_one("15:0"), Some((Signal::TERM, None)));
        for bad in ["", "15", "15:", ":15", "15::12", "15:derp", "herp:derp", "0:15", "1:65", "15:12:3"] {
            assert_eq!(Rewrites::parse_one(bad), None, "{bad}");
        }
        let mut rewrites = Rewrites::default();
        rewrites.set(Signal::TERM, None);
        rewrites.set(Signal::HUP, Some(Signal::USR1));
        assert_eq!(rewrites.apply(Signal::TERM), None);
        assert_eq!(rewrites.apply(Signal::HUP), Some(Signal::USR1));
        assert_eq!(rewrites.apply(Signal::INT), Some(Signal::INT));
    }

    proptest! {
        #[test]
        fn every_signal_reads_back(number in 1u8..=64) {
            let signal = Signal::new(number).unwrap();
            prop_assert_eq!(Signal::parse(&signal.to_string()), Some(signal));
            prop_assert_eq!(Signal::parse(&number.to_string()), Some(signal));
        }

        #[test]
        fn parsing_never_panics(text in ".{0,12}") {
            let _ = Signal::parse(&text);
            let _ = Rewrites::parse_one(&text);
        }
    }
}
