//! `lameduck drill`: from the command line to a [`Plan`], and from its result to files and a terminal.

use std::ffi::OsString;
use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lameduck_core::duration::show;
use lameduck_core::timeline::Moment;
use lameduck_drill::profile::{ALL as PROFILES, RETRIES};
use lameduck_drill::schedule::Spacing;
use lameduck_drill::{CompareResult, DrillResult, Event, Plan, Profile, Progress, Retry, Template, render};

use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;

/// The verb.
pub const VERB: Verb = Verb {
    name: "drill",
    summary: "End a real service under load and account for every request.",
    operands: "[--] COMMAND [ARGS]...",
    flags: FLAGS,
    from_env: false,
    usage_status: exit::USAGE,
    about: "\
Each replica gets its own PORT in the environment, and {port} in an argument is replaced by it.

Exit status: 0 nothing was lost, 1 requests were lost, 2 usage, 3 inconclusive, 4 could not be set up.
",
};

const FLAGS: &[Flag] = &[
    Flag::value("replicas", "N", "How many replicas serve. Default: 3."),
    Flag::value("rate", "N", "Requests a second, open loop, to all replicas together. Default: 100."),
    Flag::value("spacing", "KIND", "constant, or exponential: at random around the rate. Default: constant."),
    Flag::value("duration", "TIME", "The least time under load. Default: 10s."),
    Flag::value("profile", "NAME", "What stands in front: glb, alb, nginx, envoy or go-client. Default: glb."),
    Flag::value(
        "retry",
        "POLICY",
        "Retry as POLICY instead of the profile's own: none, idempotent-once, get-once, go, nginx, envoy-reset.",
    ),
    Flag::list(
        "event",
        "EVENT",
        "ACTION[=VALUE][@AT]: term, roll, scale-down=N, scale-up=N, kill, kill-child=WORD, restart, idle=TIME. May be repeated. Default: roll@2s.",
    ),
    Flag::value("lag", "TIME", "How long routing goes on sending to a replica after its stop signal. Default: 3s."),
    Flag::value("grace", "TIME", "From the stop signal to KILL. Default: 30s."),
    Flag::value("stop-signal", "SIGNAL", "The stop signal's number, or TERM, INT, QUIT. Default: TERM."),
    Flag::list(
        "request",
        "TEMPLATE",
        "METHOD PATH [WEIGHT] [BODY-BYTES] [KIND]; may be repeated. KIND: http1, expect, h2 or websocket[=LIFE[/PACE]]. Default: GET / and some HEAD /.",
    ),
    Flag::value("requests", "FILE", "A file with a template a line."),
    Flag::value("timeout", "TIME", "The most time for one answer. Default: 15s."),
    Flag::value("rtt", "TIME", "The simulated round trip, in which a close and a request can cross. Default: 1ms."),
    Flag::value("ready-path", "PATH", "Asked until a replica is ready. Default: /."),
    Flag::value("ready-timeout", "TIME", "The most time until it is. Default: 30s."),
    Flag::value("port-base", "PORT", "The first port tried. Default: chosen by the process id."),
    Flag::list("env", "NAME=VALUE", "Further environment of the replicas; may be repeated."),
    Flag::value("seed", "N", "What the load is drawn from. Default: 1."),
    Flag::value("min-sample", "N", "The least number of requests for a verdict. Default: 300."),
    Flag::value("max-connections", "N", "The most connections at once. Default: 1000."),
    Flag::switch("id-in-query", "Send the id of each request in the query too, as lameduck-id."),
    Flag::switch("compare", "Run plain and under lameduck run, interleaved, and show both."),
    Flag::value("rounds", "N", "With --compare: how often each. Default: 1."),
    Flag::list(
        "run-option",
        "OPTION",
        "With --compare: an option of lameduck run, as in --run-option=--quiet=1s. May be repeated.",
    ),
    Flag::value("logs", "DIR", "Keep the replicas' output here, a file each."),
    Flag::value("lb-log", "FILE", "Write the log of a Google load balancer in the drill's place, JSON lines."),
    Flag::value(
        "cluster-log",
        "FILE",
        "Write what a cluster records of the replicas: events, pods and endpoint slices, JSON.",
    ),
    Flag::value("json", "FILE", "Write the result as JSON (- is standard output)."),
    Flag::value("junit", "FILE", "Write it as JUnit XML."),
    Flag::value("html", "FILE", "Write it as one self-contained page."),
    Flag::switch("quiet", "No progress."),
];

/// Runs the verb.
pub fn drill(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    let plan = plan(&given)?;
    plan.check().map_err(|error| given.usage(error))?;
    let outputs = Outputs::of(&given);
    let mut live = Live::new(given.switch("quiet")?);
    if given.switch("compare")? {
        let rounds = given.one("rounds", "a number from 1 to 100", |text| in_range(text, 1, 100))?.unwrap_or(1);
        let result = super::with_sockets(|| lameduck_drill::compare(&plan, rounds as usize, |news| live.tell(&news)))
            .map_err(set_up)?;
        live.end();
        outputs.write_compare(&result)?;
        return Ok(result.exit_code());
    }
    let result = super::with_sockets(|| lameduck_drill::run(&plan, |news| live.tell(&news))).map_err(set_up)?;
    live.end();
    outputs.write(&result)?;
    Ok(result.exit_code())
}

/// The hidden verb of the pods that `kubectl drill --workers` starts. What it writes is read by that program.
pub const WORKER_VERB: &str = "drill-worker";

/// A worker: it does what it is told on standard input.
pub fn work() -> Result<u8, Failure> {
    let worked = super::with_sockets(|| lameduck_drill::workers::work(std::io::stdin(), std::io::stdout()));
    let broke = |error| Failure::Error { message: format!("standard output: {error}"), status: exit::SETUP };
    // Why there is no result, it has said there.
    Ok(if worked.map_err(broke)? { exit::OK } else { exit::SETUP })
}

/// A drill that could not be set up.
pub fn set_up(error: lameduck_drill::SetupError) -> Failure {
    match error {
        lameduck_drill::SetupError::Plan(error) => {
            Failure::Error { message: format!("{error}\nSee lameduck drill --help."), status: exit::USAGE }
        }
        error => Failure::Error { message: error.to_string(), status: exit::SETUP },
    }
}

fn in_range(text: &str, least: u64, most: u64) -> Option<u64> {
    text.parse().ok().filter(|n| (least..=most).contains(n))
}

fn plan(given: &Given) -> Result<Plan, Failure> {
    let default = Plan::default();
    let number = |long: &str, least: u64, most: u64| {
        given.one(long, &format!("a number from {least} to {most}"), |text| in_range(text, least, most))
    };
    let names = || PROFILES.iter().map(|profile| profile.id).collect::<Vec<_>>().join(", ");
    let mut profile =
        given.one("profile", &format!("one of {}", names()), Profile::from_id)?.unwrap_or(default.profile);
    let retries = RETRIES.map(|retry| retry.id).join(", ");
    if let Some(retry) = given.one("retry", &format!("one of {retries}"), Retry::from_id)? {
        profile.retry = retry;
    }
    let mut events = Vec::new();
    for text in given.list("event", "an event", |text| Some(text.to_owned()))? {
        events.push(text.parse::<Event>().map_err(|error| given.usage(format!("--event: {error}")))?);
    }
    let mut mix = Vec::new();
    for text in given.list("request", "a template", |text| Some(text.to_owned()))? {
        mix.push(text.parse::<Template>().map_err(|error| given.usage(format!("--request: {error}")))?);
    }
    if let Some(path) = given.raw("requests") {
        let path = Path::new(path);
        let text =
            fs::read_to_string(path).map_err(|error| given.usage(format!("--requests {}: {error}", path.display())))?;
        let templates = lameduck_drill::parse_request_file(&text)
            .map_err(|error| given.usage(format!("--requests {}: {error}", path.display())))?;
        mix.extend(templates);
    }
    let env = given.list("env", "NAME=VALUE", |text| {
        text.split_once('=').filter(|(name, _)| !name.is_empty()).map(|(name, value)| (name.into(), value.into()))
    })?;
    let mut wrap = Vec::new();
    if given.switch("compare")? {
        wrap.push(own_program()?.into_os_string());
        wrap.push("run".into());
        let grace = given.duration("grace")?.unwrap_or(default.grace);
        wrap.extend(["--grace".into(), show(grace).into()]);
        wrap.extend(given.list("run-option", "an option", |text| Some(OsString::from(text)))?);
        wrap.push("--".into());
    }
    Ok(Plan {
        command: given.operands.clone(),
        wrap,
        env,
        replicas: number("replicas", 1, 100)?.map_or(default.replicas, |n| n as usize),
        rate: given
            .one("rate", "a number above 0", |text| text.parse::<f64>().ok().filter(|rate| *rate > 0.0))?
            .unwrap_or(default.rate),
        spacing: given.one("spacing", "constant or exponential", Spacing::from_id)?.unwrap_or(default.spacing),
        duration: given.duration("duration")?.unwrap_or(default.duration),
        profile,
        mix: if mix.is_empty() { default.mix } else { mix },
        events: if events.is_empty() { default.events } else { events },
        lag: given.duration("lag")?.unwrap_or(default.lag),
        grace: given.duration("grace")?.unwrap_or(default.grace),
        stop_signal: given
            .one("stop-signal", "a signal, as in TERM or 15", stop_signal)?
            .unwrap_or(default.stop_signal),
        timeout: given.duration("timeout")?.unwrap_or(default.timeout),
        rtt: given.duration("rtt")?.unwrap_or(default.rtt),
        ready_path: given.text("ready-path")?.unwrap_or(default.ready_path),
        ready_timeout: given.duration("ready-timeout")?.unwrap_or(default.ready_timeout),
        port_base: number("port-base", 1, 65_000)?.map_or(default.port_base, |n| n as u16),
        seed: number("seed", 0, u64::MAX)?.unwrap_or(default.seed),
        min_sample: number("min-sample", 0, u64::MAX)?.unwrap_or(default.min_sample),
        max_connections: number("max-connections", 1, 100_000)?.map_or(default.max_connections, |n| n as usize),
        id_in_query: given.switch("id-in-query")?,
        logs: given.raw("logs").map(PathBuf::from),
        lb_log: given.raw("lb-log").map(PathBuf::from),
        cluster_log: given.raw("cluster-log").map(PathBuf::from),
        ..default
    })
}

fn stop_signal(text: &str) -> Option<i32> {
    match text.trim_start_matches("SIG") {
        "TERM" => Some(15),
        "INT" => Some(2),
        "QUIT" => Some(3),
        "USR1" => Some(10),
        "WINCH" => Some(28),
        number => number.parse().ok().filter(|number| (1..=31).contains(number)),
    }
}

/// This program.
pub fn own_program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| Failure::Error {
        message: format!("this program's own path can not be found: {error}; is /proc mounted?"),
        status: exit::SETUP,
    })
}

/// Where results go, besides the terminal.
pub struct Outputs {
    json: Option<PathBuf>,
    junit: Option<PathBuf>,
    html: Option<PathBuf>,
}

impl Outputs {
    /// From the options of these names.
    pub fn of(given: &Given) -> Outputs {
        let path = |long| given.raw(long).map(PathBuf::from);
        Outputs { json: path("json"), junit: path("junit"), html: path("html") }
    }

    /// The same with another page.
    #[must_use]
    pub fn with_html(self, html: PathBuf) -> Outputs {
        Outputs { html: Some(self.html.unwrap_or(html)), ..self }
    }

    pub(super) fn write(&self, result: &DrillResult) -> Result<(), Failure> {
        let text = |color| render::text(result, color);
        self.all(text, || render::json(result), || render::junit(result), || render::html(result))
    }

    /// Writes a comparison.
    pub fn write_compare(&self, result: &CompareResult) -> Result<(), Failure> {
        let text = |color| render::compare_text(result, color);
        self.all(
            text,
            || render::compare_json(result),
            || render::compare_junit(result),
            || render::compare_html(result),
        )
    }

    fn all(
        &self,
        text: impl Fn(bool) -> String,
        json: impl Fn() -> String,
        junit: impl Fn() -> String,
        html: impl Fn() -> String,
    ) -> Result<(), Failure> {
        let to_stdout = self.json.as_deref() == Some(Path::new("-"));
        if to_stdout {
            println!("{}", json());
            eprint!("{}", text(std::io::stderr().is_terminal() && color_wanted()));
        } else {
            print!("{}", text(std::io::stdout().is_terminal() && color_wanted()));
            write_file(self.json.as_deref(), json)?;
        }
        write_file(self.junit.as_deref(), junit)?;
        write_file(self.html.as_deref(), html)?;
        if let Some(path) = &self.html {
            let path = fs::canonicalize(path).unwrap_or_else(|_| path.clone());
            eprintln!("\nThe picture: file://{}", path.display());
        }
        Ok(())
    }
}

/// <https://no-color.org>
fn color_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn write_file(path: Option<&Path>, content: impl Fn() -> String) -> Result<(), Failure> {
    let Some(path) = path else { return Ok(()) };
    fs::write(path, content()).map_err(|error| Failure::Error {
        message: format!("{}: {error}; the result could not be written there", path.display()),
        status: exit::SETUP,
    })
}

/// Progress: one line that changes on a terminal, one line an event elsewhere.
pub struct Live {
    quiet: bool,
    terminal: bool,
    wrote: bool,
    title: String,
}

impl Live {
    /// Progress on standard error.
    pub fn new(quiet: bool) -> Live {
        Live { quiet, terminal: std::io::stderr().is_terminal(), wrote: false, title: String::new() }
    }

    /// Tells news.
    pub fn tell(&mut self, news: &Progress) {
        if self.quiet {
            return;
        }
        match news {
            Progress::Began { wrapped, round, rounds } => {
                let variant = if *wrapped { "under lameduck run" } else { "plain" };
                self.title = if *rounds > 1 { format!("{variant}, round {round} of {rounds}") } else { variant.into() };
                self.line(&format!("{}: starting the replicas", self.title));
            }
            Progress::Event { at, event } => self.line(&format!("{:>6.1}s  {event}", seconds(*at))),
            Progress::Moment { at, replica, moment } => {
                if let Some(what) = worth_a_line(*moment) {
                    self.line(&format!("{:>6.1}s  {replica} {what}", seconds(*at)));
                }
            }
            Progress::Tick(tick) if self.terminal => {
                let colon = if self.title.is_empty() { "" } else { ": " };
                let line = format!(
                    "{:>6.1}s  {}{colon}{} sent, {} answered, {} failed, {} in flight",
                    seconds(tick.at),
                    self.title,
                    tick.sent,
                    tick.answered,
                    tick.failed,
                    tick.in_flight()
                );
                eprint!("\r\x1b[K{line}");
                let _ = std::io::stderr().flush();
                self.wrote = true;
            }
            Progress::LoadBegan { .. } | Progress::Tick(_) => {}
        }
    }

    /// Says a line.
    pub fn say(&mut self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }

    fn line(&mut self, text: &str) {
        self.end();
        eprintln!("{text}");
    }

    /// Clears the line that changes.
    pub fn end(&mut self) {
        if std::mem::take(&mut self.wrote) {
            eprint!("\r\x1b[K");
        }
    }
}

fn seconds(at: Duration) -> f64 {
    at.as_secs_f64()
}

fn worth_a_line(moment: Moment) -> Option<&'static str> {
    match moment {
        Moment::Ready => Some("is ready"),
        Moment::TermReceived => Some("gets the stop signal"),
        Moment::StoppedAccepting => Some("has stopped accepting"),
        Moment::EndpointRemoved => Some("is out of routing"),
        Moment::Killed => Some("is killed"),
        Moment::Exited => Some("has exited"),
        Moment::Started
        | Moment::Deleted
        | Moment::DrainRequested
        | Moment::LameDuckBegan
        | Moment::Quiet
        | Moment::DrainingBegan
        | Moment::AppSignalled
        | Moment::LastNewConnection
        | Moment::LastRequest => None,
    }
}
