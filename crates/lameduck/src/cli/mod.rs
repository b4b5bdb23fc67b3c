//! The command line.

pub mod flag;

#[cfg(feature = "check")]
pub mod check;
#[cfg(feature = "run")]
pub mod control;
#[cfg(all(feature = "drill", feature = "run"))]
pub mod demo;
#[cfg(feature = "drill")]
pub mod drill;
#[cfg(feature = "front")]
pub mod front;
#[cfg(feature = "check")]
pub mod rule;
#[cfg(feature = "run")]
pub mod run;

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
];

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
