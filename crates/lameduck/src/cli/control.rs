//! `lameduck drain` and `lameduck ready`: for hooks and probes in the same container.

use std::ffi::OsString;
use std::time::Duration;

use lameduck_run::admin;
use lameduck_run::control::{self, AskError, Request};
use lameduck_run::pid1::ADMIN_DESCRIPTOR;
use lameduck_run::sys;

use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;

const PID: Flag = Flag::value("pid", "PID", "The lameduck to ask. Default: PID 1, or the only one in this container.");
const TIMEOUT: Flag = Flag::value("timeout", "TIME", "How long to wait for the answer.");

/// The verb.
pub const DRAIN: Verb = Verb {
    name: "drain",
    summary: "Ask this container's PID 1 to begin the lame-duck phase (for a preStop hook).",
    operands: "",
    flags: &[Flag::switch("wait", "Return when the traffic is quiet, or its time is over."), PID, TIMEOUT],
    from_env: false,
    usage_status: exit::USAGE,
    about: "\
The app is not stopped: that takes the stop signal, which then finds the waiting already done.
Exit status: 0 begun (with --wait: over), 2 usage, 4 lameduck could not be asked.
",
};

/// The verb.
pub const READY: Verb = Verb {
    name: "ready",
    summary: "Tell whether the app is ready for traffic (for an exec probe).",
    operands: "",
    flags: &[PID, TIMEOUT],
    from_env: false,
    usage_status: exit::USAGE,
    about: "Exit status: 0 ready, 1 not ready (also where lameduck could not be asked), 2 usage.\n",
};

/// Asks for the drain.
pub fn drain(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = no_operands(flag::parse(&DRAIN, args, env)?)?;
    let wait = given.switch("wait")?;
    let patience = given.duration("timeout")?.or((!wait).then_some(Duration::from_secs(5)));
    let request = if wait { Request::DrainAndWait } else { Request::Drain };
    let reply = ask(&given, request, patience)?
        .map_err(|error| Failure::Error { message: error.to_string(), status: exit::SETUP })?;
    print!("{reply}");
    Ok(exit::OK)
}

/// Asks for readiness.
pub fn ready(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = no_operands(flag::parse(&READY, args, env)?)?;
    let patience = given.duration("timeout")?.unwrap_or(Duration::from_secs(1));
    let reply = ask(&given, Request::Status, Some(patience))?
        .map_err(|error| Failure::Error { message: error.to_string(), status: exit::NEGATIVE })?;
    print!("{reply}");
    Ok(if reply.contains("\"ready\":true") { exit::OK } else { exit::NEGATIVE })
}

fn ask(given: &Given, request: Request, patience: Option<Duration>) -> Result<Result<String, AskError>, Failure> {
    let pid = given.one("pid", "a pid", |text| text.parse::<i32>().ok().filter(|pid| *pid > 0))?;
    Ok(control::ask(pid, request, patience))
}

fn no_operands(given: Given) -> Result<Given, Failure> {
    match given.operands.first() {
        Some(word) => Err(given.usage(format!("{} was not expected", word.display()))),
        None => Ok(given),
    }
}

/// The admin process: started by PID 1 with the listener as its descriptor 3 and PID 1's pid as its argument.
pub fn serve_admin(args: &[OsString]) -> Result<u8, Failure> {
    let wrong = |message: String| Failure::Error { message, status: exit::USAGE };
    let pid = args.first().and_then(|pid| pid.to_str()?.parse::<i32>().ok());
    let pid = pid.ok_or_else(|| wrong("serve-admin is for lameduck run --admin only".into()))?;
    let listener =
        sys::inherited(ADMIN_DESCRIPTOR).map_err(|error| wrong(format!("no listener was handed down: {error}")))?;
    // It has no life of its own. The parent may have ended before this took effect; then nothing is there to ask.
    let _ = sys::set_parent_death_signal(lameduck_run::signal::Signal::KILL);
    let error = admin::serve(&listener.into(), pid);
    Err(Failure::Error { message: format!("the admin endpoints ended: {error}"), status: exit::SETUP })
}
