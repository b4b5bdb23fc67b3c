//! `gke-keepalive`: a socket timeout that is gone after the first answer.

use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::duration::show;
use lameduck_drill::{Action, Event, Plan, Profile, Template};
use lameduck_pod::{Check, Container, PodSpec, Probe};

use super::stage::{Broken, Stage, Variant};
use super::{Incident, Need, disk, files, which};

/// The incident.
pub const INCIDENT: Incident = Incident {
    name: "gke-keepalive",
    title: "a socket timeout of 620 s that 5 s replace after the first answer",
    story: "A GCE ingress keeps idle connections to its backends for 10 minutes, and sends straight to two Node pods. In every load test \
            some requests came back as 502, all of them backend_connection_closed_before_data_sent_to_client. The server had set \
            socket.setTimeout(620e3) on each connection, and an idle telnet was indeed closed after 620 s. Each request got a random id, \
            the failed ids were written down, and in a capture on the pod the stream with such an id told: two requests within 4 s, one \
            more 5 s later, answered by RST. server.keepAliveTimeout, 5 s by default, replaces the socket's timeout after each answer.",
    source: "Debugging HTTP 502 errors on Google Kubernetes Engine",
    causes: &[Cause::IdleCloseRace],
    needs: &[Need { program: "node", package: "nodejs" }],
    simulated: &[
        "the load balancer is drill's profile glb (600 s idle, newest connection first), with a round trip of 20 ms, so that the race \
         shows within one meeting of timeouts instead of a day",
        "the id is in X-Request-Id; the story's was in X-My-Uuid",
    ],
    files: files!("gke-keepalive":
        "plain/Dockerfile", "plain/k8s.yaml", "plain/server.js", "fixed/server.js"),
    takes: ("1 minute", "3 minutes"),
    play,
};

/// Where the app listens, by its own text.
const APP_PORT: u16 = 3000;
/// Where the front does.
const FRONT_PORT: u16 = 8000;
/// The round trip: what decides how many requests meet a close.
const RTT: Duration = Duration::from_millis(20);
/// How many connections each pod has when they all fall idle. Each is used again within 2 % of the timeout, so of n of them
/// n * RTT / (4 % of 5 to 6 s) meet the close: 17 of 200.
const CONNECTIONS: usize = 100;
/// The least of them for which the run counts: with 17 expected, fewer come in one run of 100,000.
const LEAST: u64 = 3;

fn play(stage: &mut Stage) -> Result<(), Broken> {
    let can_capture = which("tcpdump", &stage.setting.path).is_some();
    stage.check(
        "plain",
        &[
            ("socket-timeout-not-keepalive", Cause::IdleCloseRace, "server.js", 11),
            ("keepalive-order", Cause::IdleCloseRace, "server.js", 3),
        ],
    );
    let idle = probe(stage)?;

    let plain = variant(stage, "plain", "plain: node server.js", &["node", "server.js"], APP_PORT, idle)?;
    let plain = stage.drill(plain)?;
    stage.expect_lost(&plain, &[(Cause::IdleCloseRace, LEAST)]);
    stage.expect(
        format!("plain: all {} lost by idle-close-race", plain.tally.lost),
        plain.tally.causes.keys().all(|cause| *cause == Cause::IdleCloseRace),
    );
    if can_capture {
        captured(stage, &plain)?;
    } else {
        stage.skip("explain: there is no capture, because tcpdump is not in PATH (Debian: tcpdump)");
    }

    let fixed = variant(
        stage,
        "fixed",
        "the story's fix: server.keepAliveTimeout = 620e3",
        &["node", "server.js"],
        APP_PORT,
        idle,
    )?;
    let fixed = stage.drill(fixed)?;
    stage.expect_clean("the story's fix", &fixed, None);

    let grace = show(stage.time(30.0));
    let program = stage.setting.program.display().to_string();
    let upstream = format!("127.0.0.1:{APP_PORT}");
    let listen = format!("0.0.0.0:{FRONT_PORT}");
    let words =
        [&program, "run", "--grace", &grace, "--listen", &listen, "--upstream", &upstream, "--", "node", "server.js"];
    let mut cured =
        variant(stage, "cured", "cured: lameduck run --listen, the app untouched", &words, FRONT_PORT, idle)?;
    // A cure has to end well too: at last one pod is told to stop.
    cured.plan.events.push(Event { at: Duration::from_secs(2), action: Action::Term });
    let cured = stage.drill(cured)?;
    stage.expect_clean("cured", &cured, Some(stage.time(30.0)));
    Ok(())
}

/// Both timeouts of the server, as they are: before the first request and after an answer. Gives the latter.
fn probe(stage: &mut Stage) -> Result<Duration, Broken> {
    stage.heading("probe: the timeout before the first request, and the one after an answer");
    let source = disk::read(&stage.files("plain/server.js"))?;
    // 620 s are too long to wait for; Node's headersTimeout closes a silent connection after 60 s besides.
    let shortened = source.replace("620e3", "12e3");
    let file = stage.setting.work.join("probe/server.js");
    disk::write(&file, &shortened)?;
    let plan = lameduck_probe::Plan {
        target: lameduck_probe::target(&format!("http://127.0.0.1:{APP_PORT}/"))?,
        command: vec!["node".into(), file.into()],
        slow: None,
        most_idle: Duration::from_secs(15),
        most_requests: 100,
        grace: Duration::from_secs(2),
        ready: Duration::from_secs(10),
        behind: lameduck_core::catalog::caller_of("glb").into_iter().collect(),
    };
    let report = crate::cli::with_sockets(|| lameduck_probe::probe(&plan, &mut |_| {}))?;
    let text = lameduck_probe::render::text(&report);
    stage.show("lameduck probe, of server.js with 12 s in the place of 620 s", text);
    let seconds =
        |time: Option<f64>| time.map_or_else(|| "not closed within 15 s".into(), |time| format!("{time:.2} s"));
    stage.fact(
        "idle timeout of a connection that never had a request (the naive test)",
        "620 s, as set",
        format!("{}, with 12 s set", seconds(report.idle_before_first_request_s)),
    );
    stage.fact(
        "idle timeout after an answer",
        "5 s: server.keepAliveTimeout",
        format!("{} (Node adds 1 s to the 5 s since 20.20)", seconds(report.idle_after_response_s)),
    );
    let after = report.idle_after_response_s.unwrap_or(0.0);
    stage.expect(
        format!(
            "probe reports two timeouts: {} before the first request, {after:.2} s after an answer",
            seconds(report.idle_before_first_request_s)
        ),
        report.idle_before_first_request_s.is_some_and(|before| (before - 12.0).abs() < 1.0)
            && report.idle_times_differ
            && (4.5..7.5).contains(&after),
    );
    Ok(Duration::from_secs_f64(after.max(1.0)))
}

fn variant(
    stage: &Stage,
    id: &'static str,
    title: &str,
    command: &[&str],
    port: u16,
    idle: Duration,
) -> Result<Variant, Broken> {
    let image = stage.setting.work.join(id).join("image");
    let source = if id == "fixed" { "fixed/server.js" } else { "plain/server.js" };
    disk::copy(&stage.files(source), &image.join("srv/server.js"))?;
    let pod = PodSpec {
        capture: id == "plain" && which("tcpdump", &stage.setting.path).is_some(),
        containers: vec![Container {
            name: "api".into(),
            image: Some(image),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            workdir: Some("/srv".into()),
            readiness: Some(Probe {
                check: Check::Http { port, path: "/".into() },
                period_s: 5.0,
                timeout_s: 1.0,
                failures: 3,
            }),
            ports: vec![port],
            ..Container::default()
        }],
        ..stage.pod(id, "api", port, 30.0, 3.0)
    };
    let mix = ["GET / 1", "POST / 1 64"].map(str::parse::<Template>);
    let plan = Plan {
        replicas: 2,
        rate: 20.0,
        duration: Duration::from_secs(4),
        profile: Profile::from_id("glb").unwrap_or_default(),
        mix: mix.into_iter().collect::<Result<_, _>>()?,
        events: vec![Event { at: Duration::from_secs(1), action: Action::Idle { quiet: idle } }],
        lag: stage.time(3.0),
        grace: stage.time(30.0),
        rtt: RTT,
        lb_log: Some(stage.left(id).join("requests.log")),
        idle_connections: CONNECTIONS,
        min_sample: 300,
        ..Plan::default()
    };
    Ok(Variant { id, title: title.to_owned(), pods: vec![pod], behind: Vec::new(), nginx: None, plan })
}

/// What the capture tells: of all losses, and of the stream with one failed id.
fn captured(stage: &mut Stage, plain: &lameduck_drill::DrillResult) -> Result<(), Broken> {
    let explanation = stage.explain("plain", None)?;
    stage.expect_explained(&explanation, &[Cause::IdleCloseRace]);
    stage.expect_agreed(&explanation, plain);
    let Some(loss) = plain.losses.first() else { return Ok(()) };
    let one = stage.explain("plain", Some(&loss.id))?;
    let example = one.causes.iter().flat_map(|cause| &cause.examples).find(|example| example.id == loss.id);
    let idle = example.and_then(|example| example.idle_s);
    let Some(followed) = one.followed else {
        stage.expect("explain follows a failed id", false);
        return Ok(());
    };
    let mut text: Vec<String> = followed
        .seen
        .iter()
        .map(|(cite, line)| format!("{} {line}", cite.rsplit('/').next().unwrap_or(cite)))
        .collect();
    text.extend(followed.grounds.iter().map(|grounds| format!("because: {grounds}")));
    text.extend(followed.fixes.iter().map(|fix| format!("fix: {fix}")));
    stage.show(format!("lameduck explain --id {}", loss.id), text.join("\n"));
    let names_setting = followed.fixes.iter().any(|fix| fix.contains("keepAliveTimeout"));
    stage.expect(
        format!("explain --id {} finds the stream, says idle-close-race, and names server.keepAliveTimeout", loss.id),
        followed.cause == Some(Cause::IdleCloseRace) && names_setting,
    );
    stage.fact(
        "the failed request's stream",
        "two answers within 4 s, 5 s of silence, RST by the server",
        format!(
            "{} answers before it, {} idle, {} by the server",
            loss.requests_before,
            idle.or(loss.idle_s).map_or_else(|| "?".into(), |idle| format!("{idle:.2} s")),
            loss.ending.id()
        ),
    );
    Ok(())
}
