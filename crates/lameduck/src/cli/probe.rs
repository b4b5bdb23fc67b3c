//! `lameduck probe`: one server's true manners.

use std::ffi::OsString;
use std::time::Duration;

use lameduck_core::catalog::{CALLERS, caller_of};
use lameduck_probe::{Plan, ProbeError, local, probe as measure, render, target};

use super::flag::{self, Failure, Flag, Verb};
use crate::exit;

/// The verb.
pub const VERB: Verb = Verb {
    name: "probe",
    summary: "Measure how one server keeps connections, and how it stops.",
    operands: "URL | -- COMMAND [ARGS]...",
    flags: FLAGS,
    from_env: false,
    usage_status: exit::USAGE,
    about: "\
A command gets PORT in its environment, and {port} in an argument is replaced by it; it has to listen there on 127.0.0.1.

Exit status: 0 measured, and no race with who is --behind; 1 a race; 2 usage; 4 the server could not be reached or started.
",
};

const FLAGS: &[Flag] = &[
    Flag::list(
        "behind",
        "NAME",
        "Compare with who stands in front: glb, alb, nginx, envoy and others. May be repeated.",
    ),
    Flag::value("max-idle", "TIME", "The longest idle time that is waited for. Default: 90s."),
    Flag::value("max-requests", "N", "The most requests on one connection. Default: 1100."),
    Flag::value("path", "PATH", "What is asked of a command. Default: /."),
    Flag::value("slow-path", "PATH", "A path that takes a second or more, for a request in flight at TERM."),
    Flag::value("grace", "TIME", "From TERM to KILL. Default: 30s."),
    Flag::value("ready-timeout", "TIME", "The most time until a command answers. Default: 30s."),
    Flag::switch("json", "Write JSON, lameduck.probe/1."),
    Flag::switch("quiet", "No progress."),
];

/// Runs the verb.
pub fn probe(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    let Some(first) = given.operands.first() else {
        return Err(given.usage("expected a URL, or -- and a command"));
    };
    let setup = |error: &dyn std::fmt::Display| Failure::Error { message: error.to_string(), status: exit::SETUP };
    let path = given.text("path")?.unwrap_or_else(|| "/".to_owned());
    let url = first.to_str().filter(|text| given.operands.len() == 1 && text.starts_with("http"));
    let (target, command) = match url {
        Some(url) => (target(url).map_err(|error| given.usage(error))?, Vec::new()),
        None => (local(&path).map_err(|error| setup(&error))?, given.operands.clone()),
    };
    let names = || CALLERS.iter().map(|caller| caller.id).collect::<Vec<_>>().join(", ");
    let time = |long: &str, default: u64| given.duration(long).map(|time| time.unwrap_or(Duration::from_secs(default)));
    let requests = given.one("max-requests", "a number from 1 to 1000000", |text| {
        text.parse().ok().filter(|n| (1..=1_000_000).contains(n))
    })?;
    let plan = Plan {
        target,
        command,
        slow: given.text("slow-path")?,
        most_idle: time("max-idle", 90)?,
        most_requests: requests.unwrap_or(1100),
        grace: time("grace", 30)?,
        ready: time("ready-timeout", 30)?,
        behind: given.list("behind", &format!("one of {}", names()), caller_of)?,
    };
    let quiet = given.switch("quiet")?;
    let report = super::with_sockets(|| {
        measure(&plan, &mut |what| {
            if !quiet {
                eprintln!("lameduck: measuring {what}");
            }
        })
    })
    .map_err(|error: ProbeError| setup(&error))?;
    if given.switch("json")? {
        println!("{}", render::json(&report));
    } else {
        print!("{}", render::text(&report));
    }
    let race = report.behind.iter().any(|behind| behind.race == Some(true));
    Ok(if race { exit::NEGATIVE } else { exit::OK })
}
