//! `kubectl lameduck check`.

use std::ffi::OsString;

use lameduck_cluster::plugin::kube::Refused;
use lameduck_cluster::plugin::live::{self, Settings};
use lameduck_cluster::plugin::pid1;

use super::super::flag::{self, Failure, Flag, Verb};
use super::{COMMON, block, color, reach, write};
use crate::exit;

/// `lameduck kubectl check`
pub const VERB: Verb = Verb {
    name: "kubectl check",
    summary: "Predict lost requests from the live objects of a namespace, as lameduck check does from files.",
    operands: "",
    flags: &FLAGS,
    from_env: false,
    about: "Exit status: 0 no finding at or above --fail-on, 1 findings, 2 usage, 3 something could not be read, 4 the cluster \
            could not be asked.\nlameduck rule NAME explains a finding.\n",
    usage_status: exit::USAGE,
};

const FLAGS: [Flag; 10] = flag::joined(&[COMMON, OWN]);

const OWN: &[Flag] = &[
    Flag::value("format", "FORMAT", "text or json. Default: text."),
    Flag::value("output", "FILE", "Write the answer there instead of to standard output."),
    Flag::value(
        "fail-on",
        "SEVERITY",
        "note, warning, error or never: from where on findings make the exit status 1. Default: warning.",
    ),
    Flag::value("rate", "N", "Requests a second to one replica: loss windows are then also given in requests."),
    Flag::value(
        "lag",
        "TIME",
        "How long routing goes on sending after a deletion. Default: what is known of what stands in front.",
    ),
    Flag::switch(
        "pid1",
        "Also look who really is PID 1 in a running pod of each workload, and whether it catches TERM: runs cat, or lameduck, \
         in the container.",
    ),
];

/// Runs the verb.
pub fn check(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &flag::options_first(args, &FLAGS), env)?;
    if let Some(word) = given.operands.first() {
        return Err(given.usage(format!("{} is one word too many: only options are expected", word.display())));
    }
    let json = given.one("format", "text or json", |text| ["text", "json"].contains(&text).then(|| text == "json"))?;
    let rate = given.one("rate", "a number above 0", |text| text.parse::<f64>().ok().filter(|rate| *rate > 0.0))?;
    let least = given.one("fail-on", "note, warning, error or never", |text| match text {
        "never" => Some(None),
        text => lameduck_check::severity(text).map(Some),
    })?;
    let least = least.unwrap_or_else(|| lameduck_check::severity("warning"));
    let settings = Settings { rate, lag: given.duration("lag")?.map(|lag| lag.as_secs_f64()) };
    let looks = given.switch("pid1")?;
    let (kube, namespace) = reach(&given, env)?;
    let checked = block(async {
        let (mut checked, objects) = live::check(&kube, namespace.as_deref(), settings).await?;
        if looks {
            checked.pid1 = Some(pid1::look(&kube, &objects).await);
        }
        Ok::<_, Refused>(checked)
    })?;
    if json == Some(true) {
        write(&given, &(serde_json::to_string_pretty(&checked).unwrap_or_default() + "\n"))?;
    } else {
        write(&given, &live::text(&checked, color(&given)))?;
    }
    if !checked.not_read.is_empty() {
        return Ok(exit::UNREADABLE);
    }
    let failed = least.is_some_and(|least| checked.count_from(least) > 0);
    Ok(if failed { exit::NEGATIVE } else { exit::OK })
}
