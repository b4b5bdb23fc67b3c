//! `lameduck rule`: what a rule of `lameduck check` finds, why it matters, and what to do.

use std::ffi::OsString;

use super::flag::{self, Failure, Flag, Verb};
use crate::exit;

/// `lameduck rule`
pub const VERB: Verb = Verb {
    name: "rule",
    summary: "Explain a rule of lameduck check.",
    operands: "[NAME]",
    flags: &[Flag::switch("list", "List every rule.")],
    from_env: false,
    about: "",
    usage_status: exit::USAGE,
};

/// Runs the verb.
pub fn rule(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    if given.switch("list")? {
        for (name, summary) in lameduck_check::rules() {
            println!("{name:34} {summary}");
        }
        return Ok(exit::OK);
    }
    let [name] = given.operands.as_slice() else {
        return Err(given.usage("no rule was named"));
    };
    let name = name.to_string_lossy();
    if let Some(page) = lameduck_check::rule(&name) {
        print!("{page}");
        return Ok(exit::OK);
    }
    let near = flag::nearest(&name, lameduck_check::rules().map(|(name, _)| name));
    let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    Err(given.usage(format!("{name:?} is no rule{near} lameduck rule --list has them all")))
}
