//! Called as `tini` or `dumb-init`, lameduck takes their options and environment variables and behaves as they do.
//!
//! The options are those of tini 0.19 and dumb-init 1.2.5 (their `--help`); the wording of messages is our own, except the
//! few fixed phrases that scripts and their own tests look for.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use lexopt::Arg;

use crate::options::{Options, Persona, Scope};
use crate::signal::{Rewrites, Signal};

/// The programs that lameduck stands in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StandIn {
    /// `tini`, also as `tini-static` and the like.
    Tini,
    /// `dumb-init`.
    DumbInit,
}

/// What to print and to exit with, instead of running anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The text, with its newline.
    pub text: String,
    /// Whether it goes to standard output instead of standard error.
    pub stdout: bool,
    /// The exit status.
    pub status: u8,
}

impl Stop {
    fn error(text: impl Into<String>) -> Stop {
        Stop { text: text.into(), stdout: false, status: 1 }
    }
}

/// Whom a program of this name stands in for.
pub fn stand_in(argv0: &OsStr) -> Option<StandIn> {
    match Path::new(argv0).file_name()?.to_str()? {
        "tini" | "tini-static" | "docker-init" => Some(StandIn::Tini),
        "dumb-init" => Some(StandIn::DumbInit),
        _ => None,
    }
}

/// Reads the command line and the environment as the program stood in for would. `args` lack the program's name.
pub fn options(who: StandIn, args: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> Result<Options, Stop> {
    match who {
        StandIn::Tini => tini(args, env),
        StandIn::DumbInit => dumb_init(args, env),
    }
}

const TINI_USAGE: &str = "\
Usage: tini [OPTIONS] [--] PROGRAM [ARGS]

lameduck as tini, under supervision of a valid init process.

  -h           This help.
  --version    The version.
  -s           Adopt orphans although not PID 1 (subreaper). Also TINI_SUBREAPER.
  -p SIGNAL    Get SIGNAL when the parent ends, as in -p SIGKILL.
  -v           Say more. Repeat for more verbose output. Also TINI_VERBOSITY.
  -w           Tell of each process reaped.
  -g           Signal the child's process group. Also TINI_KILL_PROCESS_GROUP.
  -e STATUS    Exit with 0 instead of STATUS (0 to 255). May be repeated.
  -l           The licence.
";

fn tini(args: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> Result<Options, Stop> {
    let version = concat!("tini version 0.19.0 (lameduck ", env!("CARGO_PKG_VERSION"), ")\n");
    if args.len() == 1 && args[0] == "--version" {
        return Err(Stop { text: version.into(), stdout: true, status: 0 });
    }
    let mut options = Options { scope: Scope::Single, ..Options::default() };
    let (mut subreaper, mut warn_on_reap, mut verbosity, mut parent_death) = (false, false, 1u32, None);
    // tini's getopt lets options follow the command unless POSIXLY_CORRECT is set or `--` came first (getopt(3)).
    let posix = env("POSIXLY_CORRECT").is_some();
    let mut parser = lexopt::Parser::from_args(args.iter().cloned());
    let wrong = |what: String| Stop::error(format!("tini: {what}\n{TINI_USAGE}"));
    while let Some(arg) = parser.next().map_err(|error| wrong(error.to_string()))? {
        match arg {
            Arg::Short('h') => return Err(Stop { text: TINI_USAGE.into(), stdout: true, status: 0 }),
            Arg::Short('l') => {
                let text = "lameduck is licensed under MIT OR Apache-2.0.\n".into();
                return Err(Stop { text, stdout: true, status: 0 });
            }
            Arg::Short('s') => subreaper = true,
            Arg::Short('w') => warn_on_reap = true,
            Arg::Short('g') => options.scope = Scope::Group,
            Arg::Short('v') => verbosity += 1,
            Arg::Short('p') => {
                let value = text_value(&mut parser).map_err(&wrong)?;
                let signal = value.strip_prefix("SIG").and_then(|_| Signal::parse(&value));
                parent_death =
                    Some(signal.ok_or_else(|| Stop::error(format!("tini: no signal is called {value:?}\n")))?);
            }
            Arg::Short('e') => {
                let value = text_value(&mut parser).map_err(&wrong)?;
                let status = value.parse::<u8>();
                let status =
                    status.map_err(|_| Stop::error(format!("tini: {value:?} is no exit status (0 to 255)\n")))?;
                options.map_exit.push((status, 0));
            }
            Arg::Value(word) if posix => {
                options.command.push(word);
                options.command.extend(parser.raw_args().map_err(|error| wrong(error.to_string()))?);
            }
            Arg::Value(word) => options.command.push(word),
            Arg::Short(_) | Arg::Long(_) => return Err(wrong(arg.unexpected().to_string())),
        }
    }
    if options.command.is_empty() {
        return Err(Stop::error(TINI_USAGE));
    }
    subreaper |= env("TINI_SUBREAPER").is_some();
    if env("TINI_KILL_PROCESS_GROUP").is_some() {
        options.scope = Scope::Group;
    }
    if let Some(level) = env("TINI_VERBOSITY") {
        verbosity = level.to_str().and_then(|level| level.parse().ok()).unwrap_or(0);
    }
    // tini ignores these itself, so that it can write to a terminal from the background.
    options.rewrites.set(Signal::TTIN, None);
    options.rewrites.set(Signal::TTOU, None);
    options.persona = Persona::Tini { subreaper, parent_death, verbosity, warn_on_reap };
    Ok(options)
}

fn text_value(parser: &mut lexopt::Parser) -> Result<String, String> {
    let value = parser.value().map_err(|error| error.to_string())?;
    value.into_string().map_err(|value| format!("{} is not UTF-8", value.display()))
}

const DUMB_INIT_USAGE: &str = "\
Usage: dumb-init [option] command [[arg] ...]

lameduck as dumb-init: PID 1 that passes signals on.

   -c, --single-child   Signal the child only, not its descendants. Also DUMB_INIT_SETSID=0.
   -r, --rewrite s:r    Pass signal s on as r; r is 0: do not pass it on. May be repeated.
   -v, --verbose        Tell what happens. Also DUMB_INIT_DEBUG=1.
   -h, --help           This help.
   -V, --version        The version.
";

const REWRITE_USAGE: &str = "\
Usage: -r takes <signum>:<signum>, each from 1 to 31, the second one also 0: do not pass it on. It may be repeated.
";

/// dumb-init's long options; `getopt_long(3)` takes any unambiguous beginning of one.
const DUMB_INIT_LONG: [(&str, char); 5] =
    [("help", 'h'), ("single-child", 'c'), ("rewrite", 'r'), ("verbose", 'v'), ("version", 'V')];

fn dumb_init(args: &[OsString], env: impl Fn(&str) -> Option<OsString>) -> Result<Options, Stop> {
    let mut options = Options::default();
    let (mut setsid, mut verbose) = (true, false);
    let mut rewritten = 0u64;
    let mut parser = lexopt::Parser::from_args(args.iter().cloned());
    while let Some(arg) = parser.next().map_err(|error| Stop::error(format!("dumb-init: {error}\n")))? {
        let flag = match &arg {
            Arg::Short(flag) => Some(*flag),
            Arg::Long(name) => unambiguous(name),
            Arg::Value(_) => None,
        };
        match (flag, arg) {
            (Some('h'), _) => return Err(Stop { text: DUMB_INIT_USAGE.into(), stdout: false, status: 0 }),
            (Some('V'), _) => {
                let text = concat!("dumb-init v1.2.5 (lameduck ", env!("CARGO_PKG_VERSION"), ")\n").into();
                return Err(Stop { text, stdout: false, status: 0 });
            }
            (Some('c'), _) => setsid = false,
            (Some('v'), _) => verbose = true,
            (Some('r'), _) => {
                let value = text_value(&mut parser).map_err(|_| Stop::error(REWRITE_USAGE))?;
                let small = |signal: Signal| signal.number() <= 31;
                let (from, to) = Rewrites::parse_one(&value)
                    .filter(|(from, to)| small(*from) && to.is_none_or(small))
                    .ok_or_else(|| Stop::error(REWRITE_USAGE))?;
                options.rewrites.set(from, to);
                rewritten |= from.bit();
            }
            (None, Arg::Value(word)) => {
                options.command.push(word);
                options.command.extend(parser.raw_args().into_iter().flatten());
            }
            (_, other) => return Err(Stop::error(format!("dumb-init: {}\n", other.unexpected()))),
        }
    }
    if options.command.is_empty() {
        return Err(Stop::error("Usage: dumb-init [option] program [args]\nSee dumb-init --help.\n"));
    }
    verbose |= env("DUMB_INIT_DEBUG").is_some_and(|value| value == "1");
    setsid &= env("DUMB_INIT_SETSID").is_none_or(|value| value != "0");
    if setsid {
        // A session of its own has no shell to stop it for the terminal; STOP always works.
        for signal in [Signal::TSTP, Signal::TTOU, Signal::TTIN] {
            if rewritten & signal.bit() == 0 {
                options.rewrites.set(signal, Some(Signal::STOP));
            }
        }
    }
    options.scope = if setsid { Scope::Group } else { Scope::Single };
    options.persona = Persona::DumbInit { setsid, verbose };
    Ok(options)
}

fn unambiguous(name: &str) -> Option<char> {
    let mut matches = DUMB_INIT_LONG.iter().filter(|(long, _)| long.starts_with(name));
    let exact = DUMB_INIT_LONG.iter().find(|(long, _)| *long == name);
    let only = matches.next().filter(|_| matches.next().is_none());
    exact.or(only).map(|(_, flag)| *flag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(who: StandIn, line: &str, env: &[(&str, &str)]) -> Result<Options, Stop> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        options(who, &args, |name| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).into()))
    }

    #[test]
    fn names() {
        let check = |name: &str, expect| assert_eq!(stand_in(OsStr::new(name)), expect, "{name}");
        check("/usr/bin/tini", Some(StandIn::Tini));
        check("tini-static", Some(StandIn::Tini));
        check("./dumb-init", Some(StandIn::DumbInit));
        check("lameduck", None);
        check("", None);
    }

    #[test]
    fn tini_takes_options_after_the_command_as_getopt_does() {
        let command = |line: &str, env: &[(&str, &str)]| parse(StandIn::Tini, line, env).unwrap().command;
        assert_eq!(command("-vvv -- sh -c x", &[]), ["sh", "-c", "x"]);
        assert_eq!(command("sh -c x", &[("POSIXLY_CORRECT", "1")]), ["sh", "-c", "x"]);
        assert_eq!(command("true -g a", &[]), ["true", "a"]);
        assert_eq!(parse(StandIn::Tini, "sh -c x", &[]).unwrap_err().status, 1);
    }

    #[test]
    fn tini_options() {
        let options = parse(StandIn::Tini, "-g -e 143 -e 0 -w -s -p SIGKILL app", &[]).unwrap();
        assert_eq!(options.scope, Scope::Group);
        assert_eq!(options.map_exit, [(143, 0), (0, 0)]);
        let expect =
            Persona::Tini { subreaper: true, parent_death: Some(Signal::KILL), verbosity: 1, warn_on_reap: true };
        assert_eq!(options.persona, expect);
        for bad in ["", "-e 256 app", "-e x app", "-p KILL app", "-p SIGX app", "-x app", "--foo app", "-e"] {
            assert_eq!(parse(StandIn::Tini, bad, &[]).unwrap_err().status, 1, "{bad}");
        }
        assert_eq!(parse(StandIn::Tini, "--version", &[]).unwrap_err().status, 0);
    }

    #[test]
    fn dumb_init_options() {
        let options = parse(StandIn::DumbInit, "--rewrite 15:10 -r20:0 -- app -v", &[]).unwrap();
        assert_eq!(options.command, ["app", "-v"]);
        assert_eq!(options.rewrites.apply(Signal::TERM), Some(Signal::USR1));
        assert_eq!(options.rewrites.apply(Signal::TSTP), None);
        assert_eq!(options.rewrites.apply(Signal::TTIN), Some(Signal::STOP));
        let single = parse(StandIn::DumbInit, "--single app", &[]).unwrap();
        assert_eq!(single.persona, Persona::DumbInit { setsid: false, verbose: false });
        assert_eq!(single.rewrites.apply(Signal::TSTP), Some(Signal::TSTP));
        let by_env = parse(StandIn::DumbInit, "app", &[("DUMB_INIT_SETSID", "0"), ("DUMB_INIT_DEBUG", "1")]).unwrap();
        assert_eq!(by_env.persona, Persona::DumbInit { setsid: false, verbose: true });
        for bad in ["", "-r", "-r herp app", "-r 15 app", "-r 15::12 app", "-r 1:32 app", "--yolo app", "--ver app"] {
            assert_eq!(parse(StandIn::DumbInit, bad, &[]).unwrap_err().status, 1, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_panics(words in prop::collection::vec("(-|--)?[a-zA-Z0-9:=]{0,8}", 0..8)) {
            for who in [StandIn::Tini, StandIn::DumbInit] {
                if let Ok(options) = parse(who, &words.join(" "), &[]) {
                    prop_assert!(!options.command.is_empty());
                }
            }
        }
    }
}
