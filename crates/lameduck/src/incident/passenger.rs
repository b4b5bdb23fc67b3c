//! `passenger-sigterm`: an app server that takes TERM as "exit now".

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::duration::show;
use lameduck_core::timeline::Moment;
use lameduck_drill::{Action, DrillResult, Event, Plan, Profile, Retry, Template};
use lameduck_pod::{Check, Container, PodSpec, Probe, SANDBOX};

use super::ingress::ERRORS;
use super::stage::{Broken, Stage, Variant};
use super::{Incident, Need, disk, files, which};

/// The incident.
pub const INCIDENT: Incident = Incident {
    name: "passenger-sigterm",
    title: "an app server that takes TERM as exit now, and a sleep in a trap",
    story: "A Rails shop runs on Passenger standalone, behind nginx, and an autoscaler adds and ends pods with the load. Right after each \
            scale-down nginx logs: upstream prematurely closed connection while reading response header from upstream. Passenger takes \
            TERM as an order to exit at once, and it is still routed to for a while. The cure of the story is dumb-init twice: as PID 1, \
            with a bash script below it whose trap prints passenger-status, sleeps 30 s and calls passenger stop; and again around \
            Passenger with --rewrite 15:0, so that it never hears TERM. The grace period has to be longer than the sleep.",
    source: "502s the Why and How to address them, a public gist of 2021",
    causes: &[Cause::CutMidResponse, Cause::RefusedWhileRouted],
    needs: &[
        Need { program: "passenger", package: "passenger" },
        Need { program: "ruby", package: "ruby" },
        Need { program: "bash", package: "bash" },
        Need { program: "nginx", package: "nginx-light" },
    ],
    simulated: &[
        "nginx has the Service's pods as its one upstream, and is told of them as they come and go; a request is tried once, as with one \
         Service behind a name. The autoscaler is drill, which ends one pod of four under load",
        "Rails is a rack application, and bundler a script of one line: both would only take longer to start",
    ],
    files: files!("passenger-sigterm":
        "plain/Dockerfile",
        "plain/Procfile",
        "plain/Passengerfile.json",
        "plain/config.ru",
        "plain/deploy.yaml",
        "fixed/Dockerfile",
        "fixed/Procfile",
        "fixed/deploy.yaml",
        "fixed/script/entrypoint",
        "fixed/script/start",
        "nginx/nginx.conf"),
    takes: ("1 minute", "3 minutes"),
    play,
};

/// Passenger's port, by the story.
const PORT: u16 = 5000;
/// Seconds of the story, before any scaling: the platform's grace, the story's longer one, its sleep; and how long routing goes on,
/// which it does not say.
const GRACE: f64 = 30.0;
const LONGER_GRACE: f64 = 60.0;
const SLEEP: f64 = 30.0;
const LAG: f64 = 5.0;
/// Pods, and requests a second to each. An answer takes longer than the next request takes to come and 100 ms more: at any moment one is in
/// flight for so long that no log takes its end for that of an idle connection.
const PODS: usize = 4;
const RATE: f64 = 5.0;
const ANSWER_MS: u32 = 310;

/// nginx's words for an upstream that closed before it answered.
const STORY_LINE: &str = "upstream prematurely closed connection while reading response header from upstream";

/// How Passenger is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// The Dockerfile's CMD.
    Plain,
    /// The story's scripts, below the real dumb-init.
    Story,
    /// The story's scripts, with lameduck at dumb-init's place.
    AsDumbInit,
    /// The plain command below `lameduck run`.
    Cured,
}

impl Form {
    /// The grace period that its manifest has.
    fn grace(self) -> f64 {
        match self {
            Form::Plain | Form::Cured => GRACE,
            Form::Story | Form::AsDumbInit => LONGER_GRACE,
        }
    }
}

fn play(stage: &mut Stage) -> Result<(), Broken> {
    stage.told.story_sleep_s = Some(stage.time(SLEEP).as_secs_f64());
    stage.check(
        "plain",
        &[
            ("stop-signal-cuts", Cause::CutMidResponse, "Dockerfile", 6),
            ("prestop-missing", Cause::RefusedWhileRouted, "deploy.yaml", 13),
            ("scale-down-faster-than-drain", Cause::CutMidResponse, "deploy.yaml", 34),
        ],
    );
    too_short(stage)?;

    let plain = stage.drill(variant(stage, "plain", "plain: passenger start", Form::Plain)?)?;
    // Constant spacing, and an answer that outlasts it: one at least is in flight. What is routed to the pod once it has closed, which
    // takes it less than half a second, is refused, for as long as it has its network.
    let routed = stage.time(LAG).min(SANDBOX).as_secs_f64();
    let refused = (RATE * (routed - 0.5)).floor().max(1.0) as u64;
    stage.expect_lost(&plain, &[(Cause::CutMidResponse, 1), (Cause::RefusedWhileRouted, refused)]);
    let explanation = stage.explain("plain", None)?;
    stage.expect_explained(&explanation, &[Cause::RefusedWhileRouted]);
    if which("tcpdump", &stage.setting.path).is_some() {
        stage.expect_explained(&explanation, &[Cause::CutMidResponse]);
        stage.expect_agreed(&explanation, &plain);
    } else {
        stage.skip("explain: nginx's log alone does not tell a cut answer from a closed idle connection; a capture does, and tcpdump is not in PATH (Debian: tcpdump)");
    }
    nginx_said(stage)?;
    let took = |result: &DrillResult| result.term_to_exit_s.max.map_or_else(|| "?".into(), |s| format!("{s:.1} s"));
    stage.fact("Passenger after TERM", "exits at once", closed(&plain));

    if which("dumb-init", &stage.setting.path).is_some() {
        let story = stage.drill(variant(
            stage,
            "fixed",
            "the story's fix: dumb-init, a trap, a sleep, dumb-init again",
            Form::Story,
        )?)?;
        stage.expect_clean("the story's fix", &story, None);
        said(stage, "fixed")?;
        let sleep = show(stage.time(SLEEP));
        stage.fact(
            "from TERM to exit with the story's fix",
            format!("its sleep of {sleep}, and Passenger's stop"),
            took(&story),
        );
    } else {
        stage.skip("the story's fix as it was: dumb-init is not in PATH (Debian: dumb-init)");
    }
    let called = stage.drill(variant(
        stage,
        "as-dumb-init",
        "lameduck at dumb-init's place, the story's lines unchanged",
        Form::AsDumbInit,
    )?)?;
    stage.expect_clean("lameduck called as dumb-init", &called, None);
    said(stage, "as-dumb-init")?;

    let cured = stage.drill(variant(
        stage,
        "cured",
        "cured: lameduck run --stop-command, no script, no sleep",
        Form::Cured,
    )?)?;
    stage.expect_clean("cured", &cured, Some(stage.time(SLEEP)));
    stage.fact("from TERM to exit below lameduck run", "-", took(&cured));
    Ok(())
}

/// The line that the story begins with.
fn nginx_said(stage: &mut Stage) -> Result<(), Broken> {
    let log = disk::read(&stage.left("plain").join(ERRORS))?;
    let times = log.lines().filter(|line| line.contains(STORY_LINE)).count();
    stage.expect(format!("in nginx's log, lines: {times}: {STORY_LINE}"), times > 0);
    let line = log.lines().find(|line| line.contains(STORY_LINE)).unwrap_or_default();
    stage.show("nginx's error log, plain", line);
    stage.fact("what nginx logs", STORY_LINE, format!("the same; lines: {times}"));
    Ok(())
}

/// When the pod that was ended closed its listener.
fn closed(plain: &DrillResult) -> String {
    let after = |replica: &lameduck_drill::result::ReplicaReport| {
        let at = |moment| replica.timeline.at(moment);
        Some(at(Moment::StoppedAccepting)?.saturating_sub(at(Moment::TermReceived)?))
    };
    let after = plain.replicas.iter().find_map(after);
    after.map_or_else(
        || "?".into(),
        |after| format!("closes its port after {:.2} s, and cuts what is in flight", after.as_secs_f64()),
    )
}

/// The sum that the story warns of: with the platform's grace its trap can not end.
fn too_short(stage: &mut Stage) -> Result<(), Broken> {
    let (fixed, short) = (stage.files("fixed"), stage.files("too-short"));
    disk::copy(&fixed, &short)?;
    let manifest = disk::read(&fixed.join("deploy.yaml"))?;
    let shorter: Vec<&str> = manifest.lines().filter(|line| !line.contains("terminationGracePeriodSeconds")).collect();
    disk::write(&short.join("deploy.yaml"), &(shorter.join("\n") + "\n"))?;
    stage.check("too-short", &[("trap-outlasts-grace", Cause::KilledAtDeadline, "script/entrypoint", 3)]);
    stage.fact("a grace of 30 s and a sleep of 30 s", "all that was done is moot", "check: trap-outlasts-grace");
    Ok(())
}

/// The trap ran, to its end.
fn said(stage: &mut Stage, id: &'static str) -> Result<(), Broken> {
    let mut words = String::new();
    for path in disk::entries(&stage.left(id))? {
        if path.extension().is_some_and(|ending| ending == "log") {
            words.push_str(&disk::read(&path)?);
        }
    }
    let slept = words.contains("SIGTERM received - sleeping") && words.contains("stopping Passenger");
    stage.expect(
        format!("{id}: the trap ran to its end, passenger-status and passenger stop in it"),
        slept && words.contains("Requests in queue"),
    );
    Ok(())
}

fn variant(stage: &Stage, id: &'static str, title: &str, form: Form) -> Result<Variant, Broken> {
    let pod = pod(stage, id, form)?;
    let mix = [format!("GET /buy?ms={ANSWER_MS}")];
    let plan = Plan {
        replicas: PODS,
        rate: RATE * PODS as f64,
        duration: Duration::from_secs(17),
        profile: Profile { retry: Retry::from_id("none").unwrap_or(Profile::default().retry), ..Profile::default() },
        mix: mix.iter().map(|text| text.parse::<Template>()).collect::<Result<_, _>>()?,
        events: vec![Event { at: Duration::from_secs(2), action: Action::ScaleDown { count: 1 } }],
        lag: stage.time(LAG),
        grace: stage.time(form.grace()),
        // Four times Ruby and Passenger, on what cores there are.
        ready_timeout: Duration::from_secs(90),
        ..Plan::default()
    };
    Ok(Variant {
        id,
        title: title.to_owned(),
        pods: vec![pod],
        behind: Vec::new(),
        nginx: Some(("nginx/nginx.conf", "shop")),
        plan,
    })
}

fn pod(stage: &Stage, id: &str, form: Form) -> Result<PodSpec, Broken> {
    let image = stage.setting.work.join(id).join("image");
    let app = image.join("app");
    disk::copy(&stage.files("plain"), &app)?;
    disk::copy(&stage.files("fixed"), &app)?;
    let entrypoint = app.join("script/entrypoint");
    let scaled = disk::read(&entrypoint)?.replace("sleep 30;", &format!("sleep {};", stage.time(SLEEP).as_secs_f64()));
    disk::write(&entrypoint, &scaled)?;
    disk::write(&app.join("bin/bundle"), "#!/bin/sh\n# bundle exec COMMAND...\nshift\nexec \"$@\"\n")?;

    let (program, grace) = (&stage.setting.program, show(stage.time(GRACE)));
    if form == Form::AsDumbInit {
        disk::link(program, &image.join("usr/bin/dumb-init"))?;
    }
    let passenger: Vec<String> = command_of(&stage.files("plain/Dockerfile"))?;
    let lameduck = program.display().to_string();
    let stop = format!("passenger stop --port {PORT}");
    let command = match form {
        Form::Plain => passenger,
        Form::Story | Form::AsDumbInit => command_of(&stage.files("fixed/Dockerfile"))?,
        Form::Cured => {
            let run = [&lameduck, "run", "--grace", &grace, "--stop-command", &stop, "--"];
            run.into_iter().map(str::to_owned).chain(passenger).collect()
        }
    };
    // Containers see the machine's /tmp, and Passenger looks there for others of its kind.
    disk::folder(&app.join("tmp"))?;
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), format!("/app/bin:{}", stage.setting.path.to_string_lossy())),
        ("PASSENGER_INSTANCE_REGISTRY_DIR".to_owned(), "/app/tmp".to_owned()),
    ]);
    if stage.setting.short && form == Form::Cured {
        // The defaults, on this run's clock.
        env.insert("LAMEDUCK_MIN".into(), show(stage.time(5.0)));
        env.insert("LAMEDUCK_QUIET".into(), show(stage.time(2.0)));
    }
    Ok(PodSpec {
        capture: form == Form::Plain && which("tcpdump", &stage.setting.path).is_some(),
        containers: vec![Container {
            name: "web".into(),
            image: Some(image),
            command,
            env,
            workdir: Some("/app".into()),
            readiness: Some(Probe {
                check: Check::Http { port: PORT, path: "/".into() },
                period_s: 5.0,
                timeout_s: 2.0,
                failures: 3,
            }),
            ports: vec![PORT],
            ..Container::default()
        }],
        ..stage.pod(id, "shop", PORT, form.grace(), LAG)
    })
}

/// The words of a Dockerfile's CMD in exec form, which is JSON.
fn command_of(dockerfile: &Path) -> Result<Vec<String>, Broken> {
    let text = disk::read(dockerfile)?;
    let words = text.lines().rev().find_map(|line| line.strip_prefix("CMD ")).unwrap_or_default();
    serde_json::from_str(words)
        .map_err(|error| Broken(format!("{}: CMD is not a list of words: {error}", dockerfile.display())))
}
