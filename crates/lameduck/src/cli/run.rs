//! `lameduck run`: from the command line to [`lameduck_run::Options`].

use std::ffi::OsString;
use std::path::PathBuf;

use lameduck_core::budget::Shares;
use lameduck_run::EXIT_OWN_FAILURE;
use lameduck_run::log::Format;
use lameduck_run::observe::Cidr;
use lameduck_run::options::{Mode, Options, PodPlan, Readiness, Scope, parse_map_exit};
use lameduck_run::persona::{self, StandIn};
use lameduck_run::pid1::{self, Begin};
use lameduck_run::pod::identity::is_name;
use lameduck_run::pod::wire::MOST_NAMES;
use lameduck_run::signal::{Rewrites, Signal};

use super::flag::{self, Failure, Flag, Given, Verb};

/// The verb.
pub const VERB: Verb = Verb {
    name: "run",
    summary: "Run a command as PID 1 and drain its traffic before it is stopped.",
    operands: "[--] COMMAND [ARGS]...",
    flags: &ALL,
    from_env: true,
    usage_status: EXIT_OWN_FAILURE,
    about: "\
On TERM everything is still accepted and served until the traffic is measured quiet; only then is the app told to stop.
No option is needed. --grace should be the pod's terminationGracePeriodSeconds.

Exit status: the command's own, 128 + n where signal n ended it; 125 lameduck's own failure, 126 the command can not be
executed, 127 it was not found.
",
};

/// The division of the grace period: also options of the front alone.
pub const BUDGET: &[Flag] = &[
    Flag::value("grace", "TIME", "The whole time from the stop signal to the platform's KILL. Default: 30s."),
    Flag::value("margin", "TIME", "Kill what is left this long before the end of --grace. Default: 1s."),
    Flag::value("min", "TIME", "The least time in lame duck. Default: 5s."),
    Flag::value("quiet", "TIME", "No arrivals for this long, and nothing in flight, is quiet. Default: 2s."),
    Flag::value("max", "TIME", "The most time in lame duck. Default: 60 % of --grace less --margin."),
];

const OWN: &[Flag] = &[
    Flag::list("port", "PORT", "A port of the app; may be repeated. Default: its listening sockets are found out."),
    Flag::list("ignore-from", "CIDR", "Connections from these addresses are no traffic; may be repeated."),
    Flag::list("rewrite", "FROM:TO", "Pass signal FROM on as TO (names or numbers); 0: not at all. May be repeated."),
    Flag::list("drain-on", "SIGNAL", "The signals that begin the drain; may be repeated. Default: TERM."),
    Flag::value(
        "stop-signal",
        "SIGNAL",
        "The signal that tells the app to stop. Default: the one received, rewritten.",
    ),
    Flag::value("stop-command", "COMMAND", "The command that stops the app, instead of a signal."),
    Flag::list("pre-stop", "COMMAND", "A command to run when the drain begins; may be repeated, one after another."),
    Flag::value("pre-stop-timeout", "TIME", "The timeout of each --pre-stop command. Default: 5s."),
    Flag::switch("force-on-repeat", "A repeated stop signal cuts the drain short; one more kills."),
    Flag::switch("group", "Signals go to the process group of the command."),
    Flag::switch("single-child", "Signals go to the command only, never to its descendants."),
    Flag::value("wait-for", "main|all", "Whose end ends lameduck: the command's, or that of all. Default: main."),
    Flag::list("map-exit", "FROM=TO", "Exit with TO where the status would be FROM, as in 143=0. May be repeated."),
    Flag::value("mode", "off|observe|on", "off: become the command. observe: only report. on: act. Default: on."),
];

/// What is told to others: also options of the front alone.
pub const TELLING: &[Flag] = &[
    Flag::value("readiness", "fail|keep|auto", "What readiness says while draining. Default: auto."),
    Flag::value("admin", "ADDRESS", "Serve /livez, /readyz, /metrics and POST /drain at [IP]:PORT."),
    Flag::value("report", "FILE", "Write the drain report to this file too."),
    Flag::value("log-format", "text|json", "How lines on standard error look. Default: text."),
];

/// What is around: the other containers of the pod, and routing. Also options of the front alone.
pub const POD: &[Flag] = &[
    Flag::switch(
        "watch-endpoints",
        "See in the EndpointSlices when routing has let go of this pod, in place of --min.",
    ),
    Flag::value("name", "NAME", "The name by which neighbours in the pod know this one. Default: the container's."),
    Flag::list("after", "NAME", "Leave after the neighbour of this name; may be repeated. Default: found out."),
    Flag::value(
        "order",
        "auto|off",
        "off: neighbours in the pod neither wait for this one nor are waited for. Default: auto.",
    ),
];

#[cfg(feature = "front")]
const FRONT: &[Flag] = super::front::FLAGS;
#[cfg(not(feature = "front"))]
const FRONT: &[Flag] = &[];

const ALL: [Flag; BUDGET.len() + OWN.len() + POD.len() + TELLING.len() + FRONT.len()] =
    flag::joined(&[BUDGET, OWN, POD, TELLING, FRONT]);

/// Runs the command.
pub fn run(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>, mask: u64) -> Result<u8, Failure> {
    let options = match options(args, env) {
        Ok(options) => options,
        Err(failure) => {
            lameduck_run::sys::set_signal_mask(mask);
            return Err(failure);
        }
    };
    pid1::run(options, &Begin { mask, self_exe: self_exe() })
        .map_err(|error| Failure::Error { status: error.status(), message: error.to_string() })
}

/// Runs a command as tini or dumb-init would.
pub fn as_stand_in(who: StandIn, args: &[OsString], env: impl Fn(&str) -> Option<OsString>, mask: u64) -> u8 {
    let options = match persona::options(who, args, env) {
        Ok(options) => options,
        Err(stop) => {
            lameduck_run::sys::set_signal_mask(mask);
            if stop.stdout {
                print!("{}", stop.text);
            } else {
                eprint!("{}", stop.text);
            }
            return stop.status;
        }
    };
    match pid1::run(options, &Begin { mask, self_exe: self_exe() }) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("lameduck: {error}");
            1
        }
    }
}

/// This program, for its helpers. Through `/proc` it is found even where it was replaced or has no name.
pub fn self_exe() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

/// Reads the command line and the environment.
pub fn options(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<Options, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    if given.operands.is_empty() {
        return Err(given.usage("no command was given: expected lameduck run [OPTIONS] -- COMMAND [ARGS]..."));
    }
    let signal = "a signal's name or number, as in TERM or 15";
    let defaults = Options::default();
    let mut rewrites = Rewrites::default();
    for (from, to) in given.list("rewrite", "FROM:TO, as in TERM:QUIT, 15:10 or 15:0", Rewrites::parse_one)? {
        rewrites.set(from, to);
    }
    let drain_on = given.list("drain-on", signal, Signal::parse)?;
    let mode = given
        .one("mode", "off, observe or on", |text| {
            [Mode::Off, Mode::Observe, Mode::On].into_iter().find(|mode| mode.name() == text)
        })?
        .unwrap_or(defaults.mode);
    let options = Options {
        mode,
        #[cfg(feature = "front")]
        front: super::front::plan(&given, mode)?,
        ports: given.list("port", "a port from 1 to 65535", |text| text.parse().ok().filter(|port| *port > 0))?,
        ignore_from: given.list("ignore-from", "an address or a range, as in 10.0.0.0/8", Cidr::parse)?,
        rewrites,
        drain_on: if drain_on.is_empty() { defaults.drain_on } else { drain_on },
        stop_signal: given.one("stop-signal", signal, Signal::parse)?,
        stop_command: given.one("stop-command", "a command", some_command)?,
        pre_stop: given.list("pre-stop", "a command", some_command)?,
        pre_stop_timeout: given.duration("pre-stop-timeout")?.unwrap_or(defaults.pre_stop_timeout),
        force_on_repeat: given.switch("force-on-repeat")?,
        scope: match (given.switch("group")?, given.switch("single-child")?) {
            (false, false) => Scope::Tree,
            (true, false) => Scope::Group,
            (false, true) => Scope::Single,
            (true, true) => return Err(given.usage("--group and --single-child exclude each other: give one of them")),
        },
        wait_for_all: given
            .one("wait-for", "main or all", |text| match text {
                "main" => Some(false),
                "all" => Some(true),
                _ => None,
            })?
            .unwrap_or(false),
        map_exit: given.list("map-exit", "FROM=TO, each from 0 to 255, as in 143=0", parse_map_exit)?,
        ..shared(&given, env)?
    };
    // With --mode off nothing is budgeted, so nothing can be wrong with it.
    if let (Mode::Observe | Mode::On, Err(impossible)) = (options.mode, options.policy()) {
        return Err(given.usage(impossible));
    }
    Ok(Options { command: given.operands, ..options })
}

/// The options that the front alone has too; the others have their defaults.
pub fn shared(given: &Given, env: &impl Fn(&str) -> Option<OsString>) -> Result<Options, Failure> {
    let defaults = Options::default();
    Ok(Options {
        shares: Shares {
            grace: given.duration("grace")?.unwrap_or(defaults.shares.grace),
            margin: given.duration("margin")?,
            min: given.duration("min")?,
            quiet: given.duration("quiet")?,
            max: given.duration("max")?,
            pre_stop: defaults.shares.pre_stop,
        },
        log_format: given
            .one("log-format", "text or json", |text| match text {
                "text" => Some(Format::Text),
                "json" => Some(Format::Json),
                _ => None,
            })?
            .unwrap_or(defaults.log_format),
        report: given.raw("report").map(PathBuf::from),
        admin: given.one("admin", "an address with a port, as in :9090 or 127.0.0.1:9090", address)?,
        readiness: given
            .one("readiness", "fail, keep or auto", |text| match text {
                "fail" => Some(Readiness::Fail),
                "keep" => Some(Readiness::Keep),
                "auto" => Some(Readiness::Auto),
                _ => None,
            })?
            .unwrap_or(defaults.readiness),
        in_kubernetes: env("KUBERNETES_SERVICE_HOST").is_some(),
        pod: pod(given)?,
        watch_endpoints: watch_endpoints(given)?,
        ..defaults
    })
}

/// The words of the process that watches, where this build has it.
fn watch_endpoints(given: &Given) -> Result<Option<Vec<OsString>>, Failure> {
    let wanted = given.switch("watch-endpoints")?;
    #[cfg(feature = "cluster")]
    return Ok(wanted.then(|| vec![super::endpoints::VERB.into()]));
    #[cfg(not(feature = "cluster"))]
    if wanted {
        let source = given.source("watch-endpoints").unwrap_or_default();
        return Err(given.usage(format!(
            "{source}: this build can not watch EndpointSlices: expected one with the feature `cluster`, which builds for images \
             leave out; leave the option out, or build with --features cluster"
        )));
    }
    #[cfg(not(feature = "cluster"))]
    Ok(None)
}

fn pod(given: &Given) -> Result<PodPlan, Failure> {
    let name = |text: &str| is_name(text).then(|| text.to_owned());
    let expected = "a name of up to 63 letters, digits, '-', '_' and '.'";
    let order = |text: &str| match text {
        "auto" => Some(true),
        "off" => Some(false),
        _ => None,
    };
    let plan = PodPlan {
        order: given.one("order", "auto or off", order)?.unwrap_or(true),
        name: given.one("name", expected, name)?,
        default_name: None,
        after: given.list("after", expected, name)?,
    };
    if plan.after.len() > MOST_NAMES {
        return Err(
            given.usage(format!("--after is given {} times: expected {MOST_NAMES} names at most", plan.after.len()))
        );
    }
    if !plan.order && !plan.after.is_empty() {
        return Err(given.usage(
            "--order off and --after exclude each other: nobody is waited for with the one, NAME with the other",
        ));
    }
    Ok(plan)
}

fn some_command(text: &str) -> Option<String> {
    (!text.trim().is_empty()).then(|| text.to_owned())
}

/// `:9090` is every address, IPv4 and IPv6 alike.
pub fn address(text: &str) -> Option<std::net::SocketAddr> {
    match text.strip_prefix(':') {
        Some(port) => Some((std::net::Ipv6Addr::UNSPECIFIED, port.parse().ok()?).into()),
        None => text.parse().ok(),
    }
}
