//! The command line.

pub mod flag;

#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "run")]
pub mod control;
#[cfg(feature = "run")]
pub mod copy;
#[cfg(all(feature = "drill", feature = "run"))]
pub mod demo;
#[cfg(feature = "drill")]
pub mod drill;
#[cfg(feature = "cluster")]
pub mod endpoints;
#[cfg(feature = "explain")]
pub mod explain;
#[cfg(feature = "front")]
pub mod front;
#[cfg(feature = "incident")]
pub mod incident;
#[cfg(feature = "cluster")]
pub mod kubectl;
#[cfg(feature = "explain")]
pub mod probe;
#[cfg(feature = "check")]
pub mod rule;
#[cfg(feature = "run")]
pub mod run;
#[cfg(feature = "simulate")]
pub mod simulate;
#[cfg(feature = "cluster")]
pub mod webhook;

use std::fmt::Write;

use flag::Verb;

/// Every verb of this build.
pub const VERBS: &[&Verb] = &[
    #[cfg(feature = "run")]
    &run::VERB,
    #[cfg(feature = "front")]
    &front::VERB,
    #[cfg(feature = "run")]
    &control::DRAIN,
    #[cfg(feature = "run")]
    &control::READY,
    #[cfg(feature = "drill")]
    &drill::VERB,
    #[cfg(all(feature = "drill", feature = "run"))]
    &demo::VERB,
    #[cfg(feature = "check")]
    &check::VERB,
    #[cfg(feature = "check")]
    &rule::VERB,
    #[cfg(feature = "simulate")]
    &simulate::VERB,
    #[cfg(feature = "explain")]
    &explain::VERB,
    #[cfg(feature = "explain")]
    &probe::VERB,
    #[cfg(feature = "incident")]
    &incident::VERB,
    #[cfg(feature = "cluster")]
    &webhook::VERB,
    #[cfg(feature = "cluster")]
    &kubectl::VERB,
];

/// Does what writes to sockets. This program has no `main` of Rust's, which would have SIGPIPE ignored: by default a write to a
/// connection that its peer has reset ends the process (pipe(7), signal(7)). Afterwards it is as before, so that a pipe which
/// nobody reads ends who prints into it. Children get the default from the standard library in either case.
pub fn with_sockets<T>(work: impl FnOnce() -> T) -> T {
    #[cfg(feature = "run")]
    let before = lameduck_run::sys::set_ignored(lameduck_run::signal::Signal::PIPE, true);
    let done = work();
    #[cfg(feature = "run")]
    if let Ok(ignored) = before {
        let _ = lameduck_run::sys::set_ignored(lameduck_run::signal::Signal::PIPE, ignored);
    }
    done
}

/// What lameduck is and what it can do.
pub fn overview() -> String {
    let mut out =
        String::from("lameduck: nobody gets a 502 because a process went away.\n\nUsage: lameduck VERB [OPTIONS]\n\n");
    for verb in VERBS {
        let _ = writeln!(out, "  {:8} {}", verb.name, verb.summary);
    }
    out.push_str("\nlameduck help VERB tells more. Called as tini or dumb-init, it takes their options.\n");
    out
}

/// The help of a verb, or the overview.
pub fn help(verb: Option<&str>) -> String {
    match VERBS.iter().find(|known| Some(known.name) == verb) {
        Some(verb) => flag::help(verb),
        None => overview(),
    }
}

/// The variable by which people say that they want no colour: <https://no-color.org>.
#[cfg(feature = "check")]
fn no_color() -> Option<std::ffi::OsString> {
    std::env::var_os("NO_COLOR").filter(|value| !value.is_empty())
}

#[cfg(all(test, feature = "run"))]
mod tests {
    use std::io::{ErrorKind, IoSlice, Write};
    use std::os::unix::net::UnixStream;

    use lameduck_run::signal::Signal;
    use lameduck_run::sys::set_ignored;

    /// A drill was ended by it: HTTP/2 is written by writev(2), which, unlike send(2), takes no `MSG_NOSIGNAL`.
    #[test]
    fn a_write_to_a_connection_that_is_gone_is_an_error_and_not_the_end() {
        let before = set_ignored(Signal::PIPE, false).unwrap();
        let error = super::with_sockets(|| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            drop(theirs);
            ours.write_vectored(&[IoSlice::new(b"a"), IoSlice::new(b"b")]).unwrap_err()
        });
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
        assert!(!set_ignored(Signal::PIPE, before).unwrap(), "as before");
    }
}
