//! The front: its options, one table for `lameduck run --listen` and `lameduck front`, and the processes behind them.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::fd::{AsFd, RawFd};
use std::path::{Path, PathBuf};

use lameduck_core::front::Page;
use lameduck_front::config::{AccessLog, Config, Forwarded, LongPoll, Upstream, UpstreamProtocol};
use lameduck_front::{Handover, serve};
use lameduck_run::EXIT_OWN_FAILURE;
use lameduck_run::options::{FrontPlan, Mode, Options, PodPlan};
use lameduck_run::pid1::{self, Begin, COMMANDS_DESCRIPTOR, LISTENERS_DESCRIPTOR, MOST_LISTENERS, PAGE_DESCRIPTOR};
use lameduck_run::signal::Signal;
use lameduck_run::sys;

use super::flag::{self, Failure, Flag, Given, Verb};
use super::run::{BUDGET, POD, TELLING, address, self_exe, shared};
use crate::exit;

/// The options of the front.
pub const FLAGS: &[Flag] = &[
    Flag::list("listen", "ADDRESS", "Put a proxy in the path that tells clients to leave: at [IP]:PORT. Repeatable."),
    Flag::value(
        "upstream",
        "ADDRESS",
        "Where the app listens: IP:PORT, :PORT, unix:PATH. Default: at a PORT that is handed to it.",
    ),
    Flag::value(
        "upstream-protocol",
        "auto|http1|http2",
        "What is spoken with the app. Default: auto, HTTP/2 for gRPC alone.",
    ),
    Flag::value("upstream-timeout", "TIME", "How long the app may take to begin its answer. Default: 0, for ever."),
    Flag::value("hold", "TIME", "How long a request waits for an app that does not listen. Default: 10s."),
    Flag::value("hold-requests", "N", "The most requests that wait so. Default: 1024."),
    Flag::value("hold-bytes", "BYTES", "The most bytes of requests that wait so. Default: 64M."),
    Flag::value("idle-timeout", "TIME", "How long a client connection may be idle between requests. Default: 620s."),
    Flag::value("head-timeout", "TIME", "How long a request's head may take. Default: 60s."),
    Flag::value("body-timeout", "TIME", "How long a body may make no progress; 0: for ever. Default: 5m."),
    Flag::value("head-bytes", "BYTES", "The longest request head. Default: 64k."),
    Flag::value("max-connections", "N", "The most client connections. Default: what the descriptors allow."),
    Flag::value("max-requests", "N", "The most requests in flight. Default: 0, no limit."),
    Flag::value("max-connection-age", "TIME", "A connection older than this is asked to leave. Default: 0, never."),
    Flag::value("first-byte-grace", "TIME", "How long a drain waits for a silent new connection. Default: 5s."),
    Flag::value("shed-spread", "TIME", "Over how long idle connections are closed in a drain. Default: 1s."),
    Flag::value("linger", "TIME", "How long a connection that was closed is still read from. Default: 2s."),
    Flag::value("websocket-grace", "TIME", "How long WebSockets may go on in a drain. Default: 5s."),
    Flag::value("stream-grace", "TIME", "How long event streams may go on in a drain. Default: 5s."),
    Flag::list(
        "long-poll",
        "PREFIX=STATUS",
        "Answer requests to paths with this prefix in a drain, as in /poll=204. Repeatable.",
    ),
    Flag::list("probe-agent", "PREFIX", "A User-Agent of probes, besides the known ones. Repeatable."),
    Flag::value("health-path", "PATH", "Answer 503 there once this is not ready."),
    Flag::switch("proxy-protocol", "Each connection begins with a PROXY protocol header, version 1 or 2."),
    Flag::value(
        "forwarded",
        "off|x-forwarded|forwarded",
        "Which fields tell the app who the client is. Default: off, they are left as they come.",
    ),
    Flag::switch("request-id", "Give requests without X-Request-Id one."),
    Flag::value("access-log", "FILE", "Write a line of JSON for each request; -: to standard output."),
];

const ALL: [Flag; BUDGET.len() + FLAGS.len() + POD.len() + TELLING.len()] =
    flag::joined(&[FLAGS, BUDGET, POD, TELLING]);

/// The verb.
pub const VERB: Verb = Verb {
    name: "front",
    summary: "Be a draining HTTP proxy in front of an app that runs elsewhere (a sidecar).",
    operands: "",
    flags: &ALL,
    from_env: true,
    usage_status: EXIT_OWN_FAILURE,
    about: "\
--listen and --upstream are needed. On TERM (and INT) clients are asked to leave and everything is still served until the
traffic is measured quiet; then it closes. For an app that lameduck itself starts: lameduck run --listen.

Exit status: 0 ended by a signal, 125 it could not be started.
",
};

/// The hidden verb of the front's process. PID 1 adds how many listeners there are and, if it chose it, the app's port.
pub const SERVE_VERB: &str = "serve-front";
/// The hidden verb of the main process where there is no app.
pub const PLACE_VERB: &str = "hold-place";

/// The front that `lameduck run` was asked for, if it was.
pub fn plan(given: &Given, mode: Mode) -> Result<Option<FrontPlan>, Failure> {
    let listen = listeners(given)?;
    let Some(first) = listen.first() else {
        return match FLAGS.iter().find_map(|flag| given.source(flag.long)) {
            Some(source) => Err(given.usage(format!(
                "{source} is an option of the front, and there is none: give --listen too, as in --listen :8080"
            ))),
            None => Ok(None),
        };
    };
    let upstream = upstream(given)?;
    if let (Mode::Off, Some(upstream)) = (mode, &upstream) {
        return Err(given.usage(format!(
            "--mode off is the command alone: nothing would listen at --listen {first} and pass on to --upstream {upstream}; \
             leave --upstream out and let the command listen at PORT, or use --mode observe"
        )));
    }
    made(given, listen, upstream).map(Some)
}

/// `lameduck front`.
pub fn front(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>, mask: u64) -> Result<u8, Failure> {
    let options = options(args, env).inspect_err(|_| {
        sys::set_signal_mask(mask);
    })?;
    pid1::run(options, &Begin { mask, self_exe: self_exe() })
        .map_err(|error| Failure::Error { status: error.status(), message: error.to_string() })
}

/// Reads the command line and the environment of `lameduck front`.
pub fn options(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<Options, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    if let Some(word) = given.operands.first() {
        return Err(given.usage(format!(
            "{} was not expected: to start a command behind the front, use lameduck run --listen",
            word.display()
        )));
    }
    let listen = listeners(&given)?;
    if listen.is_empty() {
        return Err(given.usage("no --listen was given: expected an address, as in --listen :8080"));
    }
    let upstream = upstream(&given)?.ok_or_else(|| {
        given.usage("no --upstream was given: expected where the app listens, as in --upstream :3000")
    })?;
    let shared = shared(&given, env)?;
    let options = Options {
        command: vec![self_exe().into(), PLACE_VERB.into()],
        // The one who holds the place may be told before it listens to signals.
        map_exit: vec![(128 + Signal::TERM.number(), exit::OK)],
        // Ctrl-C is how a proxy in a terminal is stopped.
        drain_on: vec![Signal::TERM, Signal::INT],
        stop_signal: Some(Signal::TERM),
        front: Some(made(&given, listen, Some(upstream))?),
        pod: PodPlan { default_name: Some("front"), ..shared.pod.clone() },
        ..shared
    };
    options.policy().map_err(|impossible| given.usage(impossible))?;
    Ok(options)
}

fn made(given: &Given, listen: Vec<SocketAddr>, upstream: Option<Upstream>) -> Result<FrontPlan, Failure> {
    let app_port = match &upstream {
        Some(Upstream::Tcp(address)) => address.ip().is_loopback().then_some(address.port()),
        Some(Upstream::Unix(_)) | None => None,
    };
    let known = upstream.as_ref().map(ToString::to_string);
    let config = config(given, upstream)?;
    let stdout = config.access_log == Some(AccessLog::Stdout);
    let json = serde_json::to_string(&config).map_err(|error| given.usage(error))?;
    Ok(FrontPlan { listen, words: vec![SERVE_VERB.into(), json.into()], upstream: known, app_port, stdout })
}

fn listeners(given: &Given) -> Result<Vec<SocketAddr>, Failure> {
    let listen = given.list("listen", "an address with a port, as in :8080 or 10.0.0.1:8080", address)?;
    if listen.len() > MOST_LISTENERS {
        return Err(
            given.usage(format!("--listen: {} addresses were given, at most {MOST_LISTENERS} can be", listen.len()))
        );
    }
    Ok(listen)
}

fn upstream(given: &Given) -> Result<Option<Upstream>, Failure> {
    let upstream = given.one(
        "upstream",
        "IP:PORT, :PORT, localhost:PORT or unix:PATH (names are not looked up)",
        Upstream::parse,
    )?;
    Ok(upstream.map(|upstream| match upstream {
        Upstream::Unix(path) => Upstream::Unix(absolute(&path)),
        Upstream::Tcp(address) => Upstream::Tcp(address),
    }))
}

/// PID 1 leaves its directory, and the front starts in its.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn config(given: &Given, upstream: Option<Upstream>) -> Result<Config, Failure> {
    let defaults = Config::default();
    let number = |long| given.one(long, "a whole number", |text| text.parse::<usize>().ok());
    let bytes = |long| given.one(long, "a number of bytes, as in 65536, 64k or 64M", size);
    let mut probe_agents = defaults.probe_agents;
    probe_agents
        .extend(given.list("probe-agent", "what a User-Agent begins with", |text| {
            (!text.is_empty()).then(|| text.to_owned())
        })?);
    Ok(Config {
        upstream: upstream.unwrap_or(defaults.upstream),
        upstream_protocol: given
            .one("upstream-protocol", "auto, http1 or http2", |text| match text {
                "auto" => Some(UpstreamProtocol::Auto),
                "http1" => Some(UpstreamProtocol::Http1),
                "http2" => Some(UpstreamProtocol::Http2),
                _ => None,
            })?
            .unwrap_or_default(),
        upstream_timeout: given.duration("upstream-timeout")?.unwrap_or(defaults.upstream_timeout),
        hold: given.duration("hold")?.unwrap_or(defaults.hold),
        hold_requests: number("hold-requests")?.unwrap_or(defaults.hold_requests),
        hold_bytes: bytes("hold-bytes")?.unwrap_or(defaults.hold_bytes),
        idle_timeout: given.duration("idle-timeout")?.unwrap_or(defaults.idle_timeout),
        head_timeout: given.duration("head-timeout")?.unwrap_or(defaults.head_timeout),
        body_timeout: given.duration("body-timeout")?.unwrap_or(defaults.body_timeout),
        head_bytes: bytes("head-bytes")?.unwrap_or(defaults.head_bytes),
        max_connections: number("max-connections")?.unwrap_or(defaults.max_connections),
        max_requests: number("max-requests")?.unwrap_or(defaults.max_requests),
        max_connection_age: given.duration("max-connection-age")?.unwrap_or(defaults.max_connection_age),
        first_byte_grace: given.duration("first-byte-grace")?.unwrap_or(defaults.first_byte_grace),
        shed_spread: given.duration("shed-spread")?.unwrap_or(defaults.shed_spread),
        linger: given.duration("linger")?.unwrap_or(defaults.linger),
        websocket_grace: given.duration("websocket-grace")?.unwrap_or(defaults.websocket_grace),
        stream_grace: given.duration("stream-grace")?.unwrap_or(defaults.stream_grace),
        long_polls: given.list("long-poll", "PREFIX=STATUS, as in /poll=204", LongPoll::parse)?,
        probe_agents,
        health_path: given
            .one("health-path", "a path, as in /healthz", |text| text.starts_with('/').then(|| text.to_owned()))?,
        proxy_protocol: given.switch("proxy-protocol")?,
        forwarded: given
            .one("forwarded", "off, x-forwarded or forwarded", |text| match text {
                "off" => Some(Forwarded::Off),
                "x-forwarded" => Some(Forwarded::XForwarded),
                "forwarded" => Some(Forwarded::Forwarded),
                _ => None,
            })?
            .unwrap_or_default(),
        request_id: given.switch("request-id")?,
        access_log: given.text("access-log")?.map(|file| match file.as_str() {
            "-" => AccessLog::Stdout,
            file => AccessLog::File(absolute(Path::new(file))),
        }),
    })
}

/// Reads `65536`, `64k`, `64M`, `1G`: powers of 1024.
fn size(text: &str) -> Option<usize> {
    let (digits, shift) = match text.as_bytes().last()?.to_ascii_lowercase() {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// The front's process: started by PID 1 with its descriptors.
pub fn serve_front(args: &[OsString]) -> Result<u8, Failure> {
    let wrong = |message: String| Failure::Error { message, status: exit::USAGE };
    let (config, listeners) = told(args)
        .ok_or_else(|| wrong(format!("{SERVE_VERB} is for lameduck run --listen and lameduck front only")))?;
    let handed = |fd: RawFd| sys::inherited(fd).map_err(|error| wrong(format!("descriptor {fd}: {error}")));
    let commands = handed(COMMANDS_DESCRIPTOR)?;
    let page = handed(PAGE_DESCRIPTOR)?;
    let words = sys::map_shared(&page).map_err(|error| wrong(format!("the shared page: {error}")))?;
    let listeners = (LISTENERS_DESCRIPTOR..).take(listeners).map(handed).collect::<Result<_, _>>()?;
    // It has no life of its own. Where the parent has ended before, its end of the command socket is closed.
    let _ = sys::set_parent_death_signal(Signal::KILL);
    match serve(config, Handover { listeners, commands, page: Page::new(words) }) {
        Ok(()) => Ok(exit::OK),
        Err(error) => Err(Failure::Error { message: format!("the front ended: {error}"), status: exit::SETUP }),
    }
}

/// The configuration and the number of listeners.
fn told(args: &[OsString]) -> Option<(Config, usize)> {
    let text = |at: usize| args.get(at).map(OsString::as_os_str).and_then(OsStr::to_str);
    let mut config: Config = serde_json::from_slice(args.first()?.as_encoded_bytes()).ok()?;
    let listeners = text(1)?.parse().ok().filter(|many| *many <= MOST_LISTENERS)?;
    if let Some(port) = text(2) {
        config.upstream = Upstream::Tcp((std::net::Ipv4Addr::LOCALHOST, port.parse().ok()?).into());
    }
    Some((config, listeners))
}

/// In the place of an app: waits until it is told to stop. Every signal is blocked.
pub fn hold_place() -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::Error { message: error.to_string(), status: exit::SETUP };
    let _ = sys::set_parent_death_signal(Signal::KILL);
    let signals = sys::signalfd(Signal::TERM.bit() | Signal::INT.bit()).map_err(failed)?;
    loop {
        match sys::next_signal(signals.as_fd()).map_err(failed)? {
            // A terminal sends Ctrl-C to us, who have the foreground.
            Signal::INT => sys::kill_parent(Signal::INT).map_err(failed)?,
            _ => return Ok(exit::OK),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<usize>| assert_eq!(size(text), expect, "{text}");
        check("65536", Some(65_536));
        check("64k", Some(65_536));
        check("64M", Some(64 << 20));
        check("1g", Some(1 << 30));
        for bad in ["", "k", "64kb", "-1", "1.5M", "99999999999999999999", "18446744073709551615k"] {
            check(bad, None);
        }
    }

    #[test]
    fn what_pid_1_hands_on_is_read_again() {
        let args = ["--listen", ":8080", "--upstream", ":3000", "--hold", "3s", "--probe-agent", "curl/"];
        let options = options(&words(&args), &|_| None).unwrap();
        let plan = options.front.unwrap();
        let mut handed = plan.words[1..].to_vec();
        handed.extend(words(&["1", "4000"]));
        let (config, listeners) = told(&handed).unwrap();
        assert_eq!((listeners, config.upstream.to_string().as_str()), (1, "127.0.0.1:4000"));
        assert_eq!(config.hold, std::time::Duration::from_secs(3));
        assert_eq!(config.probe_agents.len(), Config::default().probe_agents.len() + 1);
        assert!(told(&words(&["{}"])).is_none());
    }
}
