//! `kubectl lameduck reports`.

use std::ffi::OsString;
use std::path::PathBuf;

use lameduck_cluster::plugin::reports;
use lameduck_core::duration::show;

use super::super::flag::{self, Failure, Flag, Verb};
use super::{COMMON, block, reach, write};
use crate::exit;

/// `lameduck kubectl reports`
pub const VERB: Verb = Verb {
    name: "kubectl reports",
    summary: "Gather drain reports: what was saved, how long drains take, who needs the front, what --min and --quiet should be.",
    operands: "[FILE...]",
    flags: &FLAGS,
    from_env: false,
    about: "FILE is a log that a log store kept; with one, no cluster is asked.\n\
            Exit status: 0 gathered, 2 usage, 3 no report was found or something could not be read, 4 the cluster could not be \
            asked.\n",
    usage_status: exit::USAGE,
};

const FLAGS: [Flag; 7] = flag::joined(&[COMMON, OWN]);

const OWN: &[Flag] = &[
    Flag::value("for", "TIME", "Gather for so long: follow the logs of the pods that end meanwhile, as in a rollout."),
    Flag::switch("json", "Write lameduck.reports/1 instead of text."),
    Flag::value("output", "FILE", "Write the answer there instead of to standard output."),
];

/// Runs the verb.
pub fn reports(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &flag::options_first(args, &FLAGS), env)?;
    let (json, during) = (given.switch("json")?, given.duration("for")?);
    let estate = if given.operands.is_empty() {
        let (kube, namespace) = reach(&given, env)?;
        if let Some(time) = during {
            eprintln!("gathering for {}: what ends meanwhile is heard, as by kubectl rollout restart", show(time));
        }
        block(reports::gather(&kube, namespace.as_deref(), during))?
    } else {
        if during.is_some() {
            return Err(given.usage("--for gathers from a cluster: expected no FILE beside it"));
        }
        let files: Vec<PathBuf> = given.operands.iter().map(PathBuf::from).collect();
        reports::of_files(&files).map_err(|message| Failure::Error { message, status: exit::SETUP })?
    };
    let text =
        if json { serde_json::to_string_pretty(&estate).unwrap_or_default() + "\n" } else { reports::text(&estate) };
    write(&given, &text)?;
    let whole = estate.reports > 0 && estate.not_read.is_empty();
    Ok(if whole { exit::OK } else { exit::UNREADABLE })
}
