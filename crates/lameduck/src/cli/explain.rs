//! `lameduck explain`: the post mortem.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use lameduck_explain::read::{Context, Custom};
use lameduck_explain::report::{Explanation, Question};
use lameduck_explain::stream::Reading;
use lameduck_explain::{Plan, render};

use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;

/// The verb.
pub const VERB: Verb = Verb {
    name: "explain",
    summary: "Give every lost request of logs, events and captures its cause.",
    operands: "[FILE|FOLDER|-]...",
    flags: FLAGS,
    from_env: false,
    usage_status: exit::USAGE,
    about: "\
What each input is, its content tells; plain, gzip or zstd. Options come before the first file. Without a file, standard input is read.

Exit status: 0 read, whatever was lost; 2 usage; 3 nothing in the inputs was understood; 4 an input or output failed.
",
};

pub(super) const FLAGS: &[Flag] = &[
    Flag::value("format", "KIND", "text, json or html. Default: text."),
    Flag::value("output", "FILE", "Write there instead of to standard output."),
    Flag::value("id", "ID", "Follow the request of this id through every input."),
    Flag::value("slo", "PERCENT", "Also show what was spent of the error budget, as in 99.95."),
    Flag::value(
        "client-wait",
        "TIME",
        "What a loss costs its client beside what the log shows: retries, backoff. Default: 0.",
    ),
    Flag::list(
        "log-format",
        "FORMAT",
        "nginx's log_format or Envoy's format string, for lines of it. May be repeated.",
    ),
    Flag::value("utc-offset", "OFFSET", "The offset of times that have none, as in +02:00. Default: +00:00."),
    Flag::value("threads", "N", "Readers side by side. Default: one a core, at most 8."),
    Flag::switch("quiet", "No progress."),
];

/// What is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Json,
    Html,
}

/// Runs the verb.
pub fn explain(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    let from_stdin = given.operands.is_empty() || given.operands.iter().any(|operand| operand == "-");
    let paths = given.operands.iter().filter(|operand| *operand != "-").map(PathBuf::from).collect();
    these(&given, paths, from_stdin)
}

/// Explains what is in these files and folders.
pub(super) fn these(given: &Given, paths: Vec<PathBuf>, from_stdin: bool) -> Result<u8, Failure> {
    let form = given.one("format", "text, json or html", |text| match text {
        "text" => Some(Form::Text),
        "json" => Some(Form::Json),
        "html" => Some(Form::Html),
        _ => None,
    })?;
    let plan = plan(given, paths)?;
    let stdin: Option<(String, Box<dyn std::io::Read + Send>)> =
        from_stdin.then(|| ("(standard input)".to_owned(), Box::new(std::io::stdin()) as _));
    let mut live =
        Live { on: std::io::stderr().is_terminal() && !given.switch("quiet")?, wrote: None, began: Instant::now() };
    let explanation =
        lameduck_explain::explain(&plan, stdin, &mut |place, all, name, bytes| live.tell(place, all, name, bytes))
            .map_err(|error| Failure::Error { message: error.to_string(), status: exit::SETUP })?;
    live.end();
    write(given, form.unwrap_or(Form::Text), &explanation)?;
    let understood = explanation.inputs.iter().any(|input| !input.formats.is_empty());
    Ok(if understood { exit::OK } else { exit::INCONCLUSIVE })
}

fn plan(given: &Given, paths: Vec<PathBuf>) -> Result<Plan, Failure> {
    let mut custom = Vec::new();
    for text in given.list("log-format", "a format", |text| Some(text.to_owned()))? {
        custom.push(Custom::parse(&text).map_err(|error| given.usage(format!("--log-format: {error}")))?);
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(8);
    let threads =
        given.one("threads", "a number from 1 to 64", |text| text.parse().ok().filter(|n| (1..=64).contains(n)))?;
    let zone = given.one("utc-offset", "an offset, as in +02:00", offset)?.unwrap_or(0);
    let slo = given.one("slo", "a percentage below 100, as in 99.95", |text| {
        text.trim_end_matches('%').parse::<f64>().ok().filter(|n| (1.0..100.0).contains(n)).map(|n| n / 100.0)
    })?;
    let client_wait = given.duration("client-wait")?.map_or(0, |time| i64::try_from(time.as_micros()).unwrap_or(0));
    let id = given.text("id")?;
    let threads = threads.unwrap_or(cores);
    let reading = Reading { context: Context { zone }, custom, id: id.clone(), threads, ..Reading::default() };
    Ok(Plan { paths, reading, question: Question { id, slo, client_wait } })
}

/// `+02:00`, in microseconds.
fn offset(text: &str) -> Option<i64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => (1, text),
    };
    let (hours, minutes) = rest.split_once(':').unwrap_or((rest, "0"));
    let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
    ((0..=14).contains(&hours) && (0..60).contains(&minutes))
        .then_some(sign * (hours * 3600 + minutes * 60) * 1_000_000)
}

fn write(given: &Given, form: Form, explanation: &Explanation) -> Result<(), Failure> {
    let to = given.raw("output").map(PathBuf::from);
    let color = to.is_none()
        && std::io::stdout().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let text = match form {
        Form::Text => render::text(explanation, color),
        Form::Json => render::json(explanation) + "\n",
        Form::Html => render::html(explanation),
    };
    match to {
        None => std::io::stdout().write_all(text.as_bytes()).or_else(|error| match error.kind() {
            // Whoever reads has seen enough.
            std::io::ErrorKind::BrokenPipe => Ok(()),
            _ => Err(Failure::Error { message: format!("standard output: {error}"), status: exit::SETUP }),
        }),
        Some(path) => fs::write(&path, text).map_err(|error| Failure::Error {
            message: format!("{}: {error}; the explanation could not be written there", path.display()),
            status: exit::SETUP,
        }),
    }
}

/// One line that changes, on a terminal.
struct Live {
    on: bool,
    wrote: Option<Instant>,
    began: Instant,
}

impl Live {
    fn tell(&mut self, place: usize, all: usize, name: &str, bytes: u64) {
        if !self.on || self.wrote.is_some_and(|last| last.elapsed() < Duration::from_millis(100)) {
            return;
        }
        let rate = bytes as f64 / 1e6 / self.began.elapsed().as_secs_f64().max(0.001);
        eprint!("\r\x1b[K{} of {all}: {name}, {} MB, {rate:.0} MB/s", place + 1, bytes / 1_000_000);
        let _ = std::io::stderr().flush();
        self.wrote = Some(Instant::now());
    }

    fn end(&mut self) {
        if self.wrote.take().is_some() {
            eprint!("\r\x1b[K");
        }
    }
}
