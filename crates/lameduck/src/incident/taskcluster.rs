//! `taskcluster-glb`: everything at once, hop by hop.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::duration::show;
use lameduck_drill::{Action, DrillResult, Event, Plan, Profile, Retry, Template};
use lameduck_explain::report::Explanation;
use lameduck_pod::{Check, Container, PodSpec, Probe, SANDBOX};

use super::stage::{Broken, Stage, Variant};
use super::{Incident, Need, disk, files, which};

/// The incident.
pub const INCIDENT: Incident = Incident {
    name: "taskcluster-glb",
    title: "40,000 to 50,000 lost answers a day, and a cause at every hop",
    story: "A Google load balancer keeps connections to its backends for 600 s; nginx as the ingress closes them after 75 s, and the Node \
            services behind it after 5 s. Of the 502s more than 85 % are backend_connection_closed_before_data_sent_to_client, while the \
            services log success, and each costs its client 75 s. With the timeouts in order 4,000 to 5,000 a day are left: autoscalers \
            end pods faster than they drain, services exit at TERM, nginx is not waited for, containers are restarted every day for no \
            reason and take live logs with them, the load balancer has no draining timeout and does not see pods. The last settings: a \
            grace of 210 s, a preStop sleep of 120 s, a draining timeout of 60 s, container-native balancing. Then none.",
    source: "Firefox-CI 502s post mortem, Taskcluster",
    causes: &[Cause::IdleCloseRace, Cause::RefusedWhileRouted, Cause::CutMidResponse, Cause::CrashRestart],
    needs: &[
        Need { program: "node", package: "nodejs" },
        Need { program: "nginx", package: "nginx-light" },
        Need { program: "pgrep", package: "procps" },
    ],
    simulated: &[
        "the load balancer is drill's profile glb, sending straight to the ingress pods; for the services behind, drill is the ingress (its \
         profile nginx), so that each hop's losses are counted at that hop; in the ingress's own drill real services stand behind nginx",
        "a pod's network goes 1 s after its last container",
        "neither hop sends anything again: each has one backend, the Service, and no next one to try",
        "the autoscaler is drill, which ends one pod of three; the daily restart is SIGKILL to the service's process, and its container is \
         started again",
        "idle connections are used again together, around the moment at which the server closes them, with a round trip of 20 ms: a day's \
         races in one meeting",
    ],
    files: files!("taskcluster-glb":
        "plain/k8s.yaml",
        "plain/ingress.yaml",
        "plain/ingress/Dockerfile",
        "plain/ingress/nginx.conf",
        "plain/queue/Dockerfile",
        "plain/queue/src/main.js",
        "plain/queue/src/claims.js",
        "plain/queue/src/livelog.js",
        "fixed/k8s.yaml",
        "fixed/ingress.yaml",
        "fixed/ingress/nginx.conf",
        "fixed/queue/src/main.js"),
    takes: ("3 minutes", "12 minutes"),
    play,
};

/// Where nginx and the services listen, by their own files; and the front, in the cures.
const INGRESS: u16 = 8080;
const QUEUE: u16 = 80;
const FRONT: u16 = 8000;
/// Seconds of the story, before any scaling.
const SLEEP: f64 = 120.0;
const LONG_GRACE: f64 = 210.0;
/// And what it does not say: Kubernetes' default grace, how long routing goes on, the life of a live log.
const GRACE: f64 = 30.0;
const LAG: f64 = 10.0;
const LIVE_LOG: f64 = 10.0;
/// nginx's `keepalive_timeout`, and Node's `keepAliveTimeout` with the second that it adds since 20.20.
const NGINX_IDLE: f64 = 75.0;
const NODE_IDLE: f64 = 6.0;
/// In which a close and a request cross.
const RTT: Duration = Duration::from_millis(20);
/// Pods of each.
const PODS: usize = 3;
/// Requests a second to all. A service answers after 300 ms, so six are in flight in each pod at any moment.
const RATE: f64 = 60.0;

/// One hop of the story, drilled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    /// nginx behind the load balancer.
    Ingress,
    /// A service behind nginx.
    Queue,
}

/// How its pods are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// The story's last settings.
    Story,
    /// The plain files below `lameduck run --listen`.
    Cured,
}

fn play(stage: &mut Stage) -> Result<(), Broken> {
    stage.told.story_sleep_s = Some(stage.time(SLEEP).as_secs_f64());
    stage.check(
        "plain",
        &[
            ("keepalive-order", Cause::IdleCloseRace, "ingress/Dockerfile", 4),
            ("keepalive-order", Cause::IdleCloseRace, "queue/src/main.js", 7),
            ("stop-signal-cuts", Cause::CutMidResponse, "ingress/Dockerfile", 4),
            ("stop-signal-cuts", Cause::CutMidResponse, "queue/src/main.js", 11),
            ("prestop-missing", Cause::RefusedWhileRouted, "ingress.yaml", 17),
            ("prestop-missing", Cause::RefusedWhileRouted, "k8s.yaml", 18),
            ("neg-missing", Cause::RefusedWhileRouted, "ingress.yaml", 30),
            ("drain-timeout-missing", Cause::CutMidResponse, "k8s.yaml", 44),
            ("scale-down-faster-than-drain", Cause::CutMidResponse, "k8s.yaml", 70),
            ("forced-restart", Cause::CrashRestart, "k8s.yaml", 89),
        ],
    );
    // Both exit at once. Until the pod's network goes too, what is routed there is refused; after that it is not answered at all.
    let refused = (RATE / PODS as f64 * SANDBOX.as_secs_f64() * 0.5) as u64;

    let queue = stage.drill(variant(stage, "plain", "plain: a service behind nginx", Hop::Queue, Form::Plain)?)?;
    stage.expect_lost(
        &queue,
        &[
            (Cause::IdleCloseRace, 3),
            (Cause::RefusedWhileRouted, refused),
            (Cause::CutMidResponse, 1),
            (Cause::CrashRestart, 1),
        ],
    );
    let explanation = stage.explain("plain", None)?;
    stage.expect_explained(&explanation, &[Cause::IdleCloseRace, Cause::RefusedWhileRouted, Cause::CrashRestart]);
    cut_explained(stage, &explanation, &queue);
    success_and_502(stage, &queue)?;

    let ingress = stage.drill(variant(
        stage,
        "plain-ingress",
        "plain: nginx behind the load balancer",
        Hop::Ingress,
        Form::Plain,
    )?)?;
    stage.expect_lost(
        &ingress,
        &[(Cause::IdleCloseRace, 3), (Cause::RefusedWhileRouted, refused), (Cause::CutMidResponse, 1)],
    );
    let explanation = stage.explain("plain-ingress", None)?;
    stage.expect_explained(&explanation, &[Cause::IdleCloseRace, Cause::RefusedWhileRouted]);
    cut_explained(stage, &explanation, &ingress);
    let closed: u64 = [&queue, &ingress].iter().filter_map(|drill| drill.tally.causes.get(&Cause::IdleCloseRace)).sum();
    stage.fact(
        "lost to keep-alive timeouts out of order",
        "more than 85 % of 40,000 to 50,000 a day",
        format!("{closed} in the two meetings of idle connections with their timeouts"),
    );

    let took = |drill: &DrillResult| drill.term_to_exit_s.max.map_or_else(|| "?".into(), |s| format!("{s:.1} s"));
    for (id, hop, form, title) in [
        ("fixed", Hop::Queue, Form::Story, "the story's last settings: a service"),
        ("fixed-ingress", Hop::Ingress, Form::Story, "the story's last settings: nginx"),
        ("cured", Hop::Queue, Form::Cured, "cured: a service below lameduck run --listen, untouched"),
        ("cured-ingress", Hop::Ingress, Form::Cured, "cured: nginx below lameduck run --listen, untouched"),
    ] {
        let drill = stage.drill(variant(stage, id, title, hop, form)?)?;
        stage.expect_clean(id, &drill, (form == Form::Cured).then(|| stage.time(SLEEP)));
        let story = if form == Form::Cured {
            "-".to_owned()
        } else {
            format!("a sleep of {}, and what comes after", show(stage.time(SLEEP)))
        };
        stage.fact(format!("from TERM to exit, {title}"), story, took(&drill));
    }
    Ok(())
}

/// The load balancer's log alone can not tell a cut answer from an idle connection that was closed at the stop; packets do.
fn cut_explained(stage: &mut Stage, explanation: &Explanation, plain: &DrillResult) {
    if which("tcpdump", &stage.setting.path).is_some() {
        stage.expect_explained(explanation, &[Cause::CutMidResponse]);
        stage.expect_uncontradicted(explanation, plain);
    } else {
        stage.skip("explain: cut-mid-response needs a capture; tcpdump is not in PATH (Debian: tcpdump)");
    }
}

/// What the post mortem calls out: the service says success, and its client saw 502.
fn success_and_502(stage: &mut Stage, queue: &DrillResult) -> Result<(), Broken> {
    let cut = queue
        .losses
        .iter()
        .find(|loss| loss.cause == Cause::CutMidResponse && loss.server_saw == Some(true) && loss.kind == "http1");
    let Some(loss) = cut else {
        stage.expect("a loss that the service logged as a success", false);
        return Ok(());
    };
    let id = loss.id.clone();
    let one = stage.explain("plain", Some(&id))?;
    let Some(followed) = one.followed else {
        stage.expect(format!("explain follows {id}"), false);
        return Ok(());
    };
    let lines: Vec<String> = followed
        .seen
        .iter()
        .map(|(cite, line)| format!("{}: {line}", cite.rsplit('/').next().unwrap_or(cite)))
        .collect();
    let success = followed.seen.iter().any(|(_, line)| line.contains("claimWork") && line.contains("200"));
    let failure = followed.seen.iter().any(|(_, line)| line.contains("502"));
    stage.show(format!("lameduck explain --id {id}"), lines.join("\n"));
    stage.expect(
        format!("explain --id {id} shows the service's success and the load balancer's 502 side by side"),
        success && failure,
    );
    stage.fact(
        "one request, seen from both ends",
        "the service logs success, the client sees 502",
        "both lines, by id",
    );
    Ok(())
}

fn variant(stage: &Stage, id: &'static str, title: &str, hop: Hop, form: Form) -> Result<Variant, Broken> {
    let pods = vec![pod(stage, id, hop, form)?];
    let behind = match hop {
        Hop::Queue => Vec::new(),
        // They are not drilled: all that is lost is lost at nginx.
        Hop::Ingress => {
            let mut service = PodSpec {
                folder: stage.setting.work.join(id).join("behind"),
                ..pod(stage, id, Hop::Queue, Form::Story)?
            };
            service.containers[0].pre_stop = None;
            vec![service.clone(), service]
        }
    };
    let life = stage.time(LIVE_LOG);
    let mix = [
        "POST /api/queue/v1/claim-work 8 256".to_owned(),
        "GET /api/queue/v1/status 3".to_owned(),
        format!("GET /livelog 1 websocket={}/200ms", show(life)),
    ];
    let (profile, idle, connections) = match hop {
        Hop::Ingress => ("glb", stage.time(NGINX_IDLE), 300),
        Hop::Queue => ("nginx", Duration::from_secs_f64(NODE_IDLE), 100),
    };
    let seconds = Duration::from_secs;
    // Connections are idle once the last live log has ended. So far apart that what a cluster writes down to the second tells one
    // from another.
    let scale_down = life + idle + seconds(10);
    let mut events = vec![
        Event { at: seconds(2), action: Action::Idle { quiet: idle } },
        Event { at: scale_down, action: Action::ScaleDown { count: 1 } },
    ];
    if hop == Hop::Queue {
        let action = match form {
            Form::Plain => Action::KillChild { word: "src/main.js".into() },
            // The daily restart is taken away; a rollout takes its place.
            Form::Story | Form::Cured => Action::Term,
        };
        events.push(Event { at: scale_down + seconds(6), action });
    }
    let plan = Plan {
        replicas: PODS,
        rate: RATE,
        duration: seconds(8) + scale_down,
        profile: Profile {
            retry: Retry::from_id("none").unwrap_or(Profile::default().retry),
            ..Profile::from_id(profile).unwrap_or_default()
        },
        mix: mix.iter().map(|text| text.parse::<Template>()).collect::<Result<_, _>>()?,
        events,
        lag: stage.time(LAG),
        grace: stage.time(if form == Form::Story { LONG_GRACE } else { GRACE }),
        rtt: RTT,
        idle_connections: connections,
        max_connections: 2000,
        ready_path: "/api/ready".into(),
        lb_log: Some(stage.left(id).join("requests.log")),
        ..Plan::default()
    };
    Ok(Variant { id, title: title.to_owned(), pods, behind, nginx: None, plan })
}

fn pod(stage: &Stage, id: &str, hop: Hop, form: Form) -> Result<PodSpec, Broken> {
    let version = if form == Form::Story { "fixed" } else { "plain" };
    let (image, command, port, app) = match hop {
        Hop::Ingress => (
            ingress_image(stage, id, version)?,
            ["nginx", "-c", "/srv/nginx.conf", "-g", "daemon off;"].as_slice(),
            INGRESS,
            "nginx",
        ),
        Hop::Queue => (queue_image(stage, id, version)?, ["node", "src/main.js"].as_slice(), QUEUE, "queue"),
    };
    let mut command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
    let mut env = BTreeMap::new();
    let mut serves = port;
    if form == Form::Cured {
        serves = FRONT;
        let run = [
            stage.setting.program.display().to_string(),
            "run".into(),
            "--grace".into(),
            show(stage.time(GRACE)),
            "--listen".into(),
            format!("0.0.0.0:{FRONT}"),
            "--upstream".into(),
            format!("127.0.0.1:{port}"),
            "--".into(),
        ];
        command = run.into_iter().chain(command).collect();
        if stage.setting.short {
            // The defaults, on this run's clock.
            env.insert("LAMEDUCK_MIN".into(), show(stage.time(5.0)));
            env.insert("LAMEDUCK_QUIET".into(), show(stage.time(2.0)));
        }
    }
    let sleep = stage.time(SLEEP).as_secs_f64();
    let pre_stop = (form == Form::Story).then(|| match hop {
        Hop::Ingress => {
            format!("sleep {sleep}; nginx -c /srv/nginx.conf -s quit; while pgrep -x nginx; do sleep 1; done")
        }
        Hop::Queue => format!("sleep {sleep}"),
    });
    Ok(PodSpec {
        capture: form == Form::Plain && which("tcpdump", &stage.setting.path).is_some(),
        containers: vec![Container {
            name: app.into(),
            image: Some(image),
            command,
            env,
            workdir: Some("/srv".into()),
            pre_stop: pre_stop.map(|line| vec!["/bin/sh".into(), "-c".into(), line]),
            readiness: Some(Probe {
                check: Check::Http { port: serves, path: "/api/ready".into() },
                period_s: 5.0,
                timeout_s: 1.0,
                failures: 3,
            }),
            ports: vec![serves],
        }],
        ..stage.pod(id, app, serves, if form == Form::Story { LONG_GRACE } else { GRACE }, LAG)
    })
}

fn queue_image(stage: &Stage, id: &str, part: &str) -> Result<PathBuf, Broken> {
    let image = stage.setting.work.join(id).join(format!("queue-{part}"));
    // The story changed one file.
    for version in ["plain", part] {
        disk::copy(&stage.files(&format!("{version}/queue/src")), &image.join("srv/src"))?;
    }
    Ok(image)
}

/// nginx, with its default `keepalive_timeout` on this run's clock.
fn ingress_image(stage: &Stage, id: &str, part: &str) -> Result<PathBuf, Broken> {
    let image = stage.setting.work.join(id).join(format!("ingress-{part}"));
    let text = disk::read(&stage.files(&format!("{part}/ingress/nginx.conf")))?;
    let idle = stage.time(NGINX_IDLE).as_millis();
    let text = if text.contains("keepalive_timeout") {
        text
    } else {
        text.replace("http {\n", &format!("http {{\n  keepalive_timeout {idle}ms;\n"))
    };
    disk::write(&image.join("srv/nginx.conf"), &format!("user root;\npid /srv/nginx.pid;\n{text}"))?;
    Ok(image)
}
