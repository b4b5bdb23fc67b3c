//! `gitlab-pid1`: TERM that stopped at a shell.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::duration::show;
use lameduck_drill::{Action, DrillResult, Event, Plan, Profile, Template};
use lameduck_pod::{Check, Container, PodSpec, Probe};

use super::stage::{Broken, Stage, Variant, started};
use super::{Incident, Need, disk, files};

/// The incident.
pub const INCIDENT: Incident = Incident {
    name: "gitlab-pid1",
    title: "a proxy that never got TERM, in front of an app that did",
    story: "GitLab Pages, a Go client with a pool of connections, asks the webservice pods for each domain. In each of them Workhorse, a \
            Go proxy, stands in front of Puma. At every deploy and scale-down users of Pages saw 502. Puma left 13 s after TERM, its \
            blackout window included; Workhorse went on, answering 502 (connect: connection refused) for 42 s, until KILL. It knew how \
            to stop, and its log would have said so; but PID 1 was /bin/sh -c, of a CMD in shell form, below it a script that did not \
            exec, and TERM stopped there. Quicker readiness probes helped a little: Pages kept its connections although the endpoint \
            was gone. exec in the script was not enough; the exec form of CMD with it was, rolled out zone by zone behind \
            GITLAB_WORKHORSE_EXEC.",
    source: "How we reduced 502 errors by caring about PID 1 in Kubernetes, GitLab, 17 May 2022",
    causes: &[Cause::SignalNotDelivered, Cause::PeerDown],
    needs: &[Need { program: "go", package: "golang-go" }, Need { program: "puma", package: "puma" }],
    simulated: &[
        "kube-proxy: a client chooses a pod when it connects. What is counted is sent by drill's profile go-client with Pages' 100 idle \
         connections a host; beside it runs a client of Go's own net/http",
        "runners poll for 5 s, not for 50 s, so that polls end and begin within the 30 s of a termination",
        "Workhorse is a proxy of Go's net/http and httputil with its log lines and its shutdown, not GitLab's own; Rails is a rack \
         application on real Puma, started without bundler",
    ],
    files: files!("gitlab-pid1":
        "plain/deploy.yaml",
        "plain/gitlab-pages/go.mod",
        "plain/gitlab-pages/main.go",
        "plain/gitlab-workhorse/Dockerfile",
        "plain/gitlab-workhorse/scripts/start-workhorse",
        "plain/gitlab-workhorse/scripts/healthcheck",
        "plain/gitlab-workhorse/src/go.mod",
        "plain/gitlab-workhorse/src/cmd/gitlab-workhorse/main.go",
        "plain/webservice/Dockerfile",
        "plain/webservice/Gemfile",
        "plain/webservice/config.ru",
        "plain/webservice/config/puma.rb",
        "fixed/zones.yaml",
        "fixed/gitlab-workhorse/Dockerfile",
        "fixed/gitlab-workhorse/scripts/start-workhorse",
        "fixed/gitlab-workhorse/scripts/healthcheck",
        "audit/gitaly/Dockerfile",
        "audit/gitlab-exporter/Dockerfile",
        "audit/gitlab-kas/Dockerfile",
        "audit/gitlab-mailroom/Dockerfile",
        "audit/gitlab-pages/Dockerfile",
        "audit/gitlab-shell/Dockerfile",
        "audit/gitlab-sidekiq/Dockerfile",
        "audit/gitlab-toolbox/Dockerfile",
        "audit/gitlab-webservice/Dockerfile",
        "audit/gitlab-workhorse/Dockerfile",
        "audit/gitlab-zoekt/Dockerfile",
        "audit/registry/Dockerfile"),
    takes: ("1 minute", "3 minutes"),
    play,
};

/// Puma's port, and that of Workhorse, by their own files; and the front's, in the cure.
const PUMA: u16 = 8080;
const WORKHORSE: u16 = 8181;
const FRONT: u16 = 8180;
/// Seconds of the story, before any scaling.
const GRACE: f64 = 30.0;
const BLACKOUT: f64 = 10.0;
const LAG: f64 = 3.0;
/// From the deletion until the kubelet sends TERM, seconds, where routing is quicker than that. It is not of the story, and not scaled.
const KUBELET: f64 = 0.5;
const POLL: f64 = 5.0;
/// Requests a second: 14 in 20 from Pages, 5 polls, 1 by git.
const RATE: f64 = 100.0;

/// How Workhorse is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it was: CMD in shell form, a script that does not exec.
    Shell,
    /// Halfway: the script does.
    ShellExec,
    /// As it was mended: both.
    Exec,
    /// As it was, below `lameduck run`, and Puma too, which waits for it.
    Cured,
}

fn play(stage: &mut Stage) -> Result<(), Broken> {
    stage.told.story_sleep_s = Some(stage.time(GRACE).as_secs_f64());
    stage.check(
        "plain",
        &[
            ("shell-form-command", Cause::SignalNotDelivered, "gitlab-workhorse/Dockerfile", 10),
            ("script-without-exec", Cause::SignalNotDelivered, "gitlab-workhorse/scripts/start-workhorse", 7),
            ("neighbour-leaves-first", Cause::PeerDown, "deploy.yaml", 26),
        ],
    );
    audit(stage);
    build(stage)?;

    let as_it_was = variant(stage, "plain", "plain: CMD in shell form, a script without exec", &[Form::Shell])?;
    let (plain, pages) = beside_pages(stage, as_it_was)?;
    // From Puma's end to KILL nothing that Pages sends on a kept connection is answered. How many of its connections lead to that
    // pod is chance; one of them, used once a second, is the least.
    let window = stage.time(GRACE - BLACKOUT).as_secs();
    stage.expect_lost(&plain, &[(Cause::PeerDown, window.max(1)), (Cause::SignalNotDelivered, 1)]);
    let explanation = stage.explain("plain", None)?;
    stage.expect_explained(&explanation, &[Cause::PeerDown, Cause::SignalNotDelivered]);
    stage.expect_agreed(&explanation, &plain);
    timeline(stage, &plain);
    stage.expect(
        format!("Go's http.Client met {} times 502 from the pod that was told to stop, {} of them after its endpoint was gone", pages.failed, pages.unlisted),
        pages.unlisted > 0 && pages.reused == pages.unlisted,
    );
    stage.fact(
        "Pages' own client (Go's net/http) after the endpoint was gone",
        "goes on using the connections that it has",
        format!("{} requests on kept connections to that pod, answered by 502", pages.unlisted),
    );
    tree(stage, "plain", 2, "process tree as it was", "sh -c, script, workhorse")?;

    zones(stage)?;

    own_fix(stage)?;
    let cure = variant(
        stage,
        "cured",
        "cured: both as they were, Workhorse below lameduck run --listen and Puma below lameduck run",
        &[Form::Cured],
    )?;
    let (cured, pages) = beside_pages(stage, cure)?;
    stage.expect_clean("cured", &cured, Some(stage.time(GRACE)));
    stage.expect(
        format!(
            "cured: Go's http.Client asked the pod that was told to stop {} times, and {} failed",
            pages.asked, pages.failed
        ),
        pages.asked > 0 && pages.failed == 0,
    );
    tree(stage, "cured", 2, "process tree, cured", "(not in the story)")?;
    Ok(())
}

/// The story's fix removes the story's causes, and its graphs showed none after it: the routing there was quicker than its TERM. Workhorse
/// closes its listener at TERM, so where routing goes on for a while, as in the other drills here, new connections are refused: that is
/// another cause, which `check` names too (prestop-missing). Both are drilled.
fn own_fix(stage: &mut Stage) -> Result<(), Broken> {
    let title = "the story's fix: exec form and exec; the endpoint goes before TERM comes";
    let mut prompt = variant(stage, "fixed", title, &[Form::Exec])?;
    prompt.plan.lag = Duration::ZERO;
    for pod in &mut prompt.pods {
        (pod.lag_s, pod.kubelet_s) = (0.0, KUBELET);
    }
    let fixed = stage.drill(prompt)?;
    own_stop_only(stage, "the story's fix", &fixed, OWN_STOP);

    let title = format!("the story's fix where routing goes on for {}", show(stage.time(LAG)));
    let late = stage.drill(variant(stage, "fixed-late", &title, &[Form::Exec])?)?;
    own_stop_only(stage, &title, &late, &[OWN_STOP, &[Cause::RefusedWhileRouted]].concat());
    let of = |cause: Cause| late.tally.causes.get(&cause).copied().unwrap_or(0);
    let (refused, race) = (of(Cause::RefusedWhileRouted), of(Cause::IdleCloseRace));
    stage.fact(
        "lost with the story's fix",
        "nothing that its graphs showed",
        format!(
            "{} of {}; where routing goes on for 3 s, {} of {}: {refused} refused, {race} on idle connections that Workhorse closed",
            fixed.lost_after_retries, fixed.tally.sent, late.tally.lost, late.tally.sent
        ),
    );
    Ok(())
}

/// What Workhorse's own stop can lose though no endpoint is left: net/http's Shutdown closes a connection as a request comes on it. It was
/// seen twice in 18,000 requests; a GET is sent again by Go's Transport, and no client may send a POST again.
const OWN_STOP: &[Cause] = &[Cause::IdleCloseRace, Cause::CutMidResponse];

/// Whatever is lost is lost at the pod that was told to stop, by its own stop, so by nothing that the story was about.
fn own_stop_only(stage: &mut Stage, title: &str, fixed: &DrillResult, causes: &[Cause]) {
    let own =
        fixed.losses.iter().filter(|loss| loss.since_term_s.is_some() && causes.contains(&loss.cause)).count() as u64;
    stage.expect(
        format!(
            "{title}: {own} of {} lost by Workhorse's own stop, {} by anything else",
            fixed.tally.sent,
            fixed.tally.lost - own
        ),
        fixed.tally.lost == own && fixed.tally.unknown == 0 && fixed.tally.sent >= fixed.min_sample,
    );
}

/// The ten Dockerfiles that the story found, and two that are in order.
fn audit(stage: &mut Stage) {
    let before = stage.told.check.len();
    stage.check("audit", &[]);
    let found: Vec<_> =
        stage.told.check[before..].iter().filter(|finding| finding["rule"] == "shell-form-command").collect();
    let files: std::collections::BTreeSet<_> = found.iter().map(|finding| finding["file"].to_string()).collect();
    let of = INCIDENT.files.iter().filter(|file| file.path.starts_with("audit/")).count();
    stage.expect(
        format!("check finds {} of the {of} Dockerfiles of the audit in shell form: the 10", files.len()),
        files.len() == 10,
    );
    stage.fact(
        "Dockerfiles with CMD in shell form",
        "10, found by an audit",
        format!("{}, found by check", files.len()),
    );
}

/// Builds Workhorse with the machine's own Go.
fn build(stage: &Stage) -> Result<(), Broken> {
    stage.heading("go build: gitlab-workhorse, gitlab-pages");
    go_build(stage, "plain/gitlab-workhorse/src", "gitlab-workhorse", "./cmd/gitlab-workhorse")?;
    go_build(stage, "plain/gitlab-pages", "gitlab-pages", ".")
}

fn go_build(stage: &Stage, source: &str, name: &str, package: &str) -> Result<(), Broken> {
    let mut command = Command::new("go");
    command.args(["build", "-o"]).arg(binary(stage, name)).arg(package).current_dir(stage.files(source));
    // Only the standard library is used: nothing is fetched.
    command.env("GOFLAGS", "-mod=mod").env("GOPROXY", "off").env("GOTOOLCHAIN", "local").env("CGO_ENABLED", "0");
    let output = started("go", command.output())?;
    if output.status.success() {
        return Ok(());
    }
    Err(Broken(format!("go build failed: {}", String::from_utf8_lossy(&output.stderr))))
}

fn binary(stage: &Stage, name: &str) -> PathBuf {
    stage.setting.work.join(name)
}

/// What Pages' client saw of the pod that was told to stop.
#[derive(Debug, Default)]
struct Pages {
    /// Requests to it.
    asked: usize,
    /// Those that failed, or were answered by a 5xx.
    failed: usize,
    /// Of the failed ones: once its endpoint was no longer listed.
    unlisted: usize,
    /// Of these: on a connection that had been used before.
    reused: usize,
}

/// Drills with the story's own client beside the drill's.
fn beside_pages(stage: &mut Stage, variant: Variant) -> Result<(DrillResult, Pages), Broken> {
    let (log, last) = (stage.setting.work.join(variant.id).join("pages.json"), variant.plan.replicas - 1);
    let endpoints = stage.left(variant.id).join("endpoints");
    let mut command = Command::new(binary(stage, "gitlab-pages"));
    command.arg("-least").arg(variant.plan.replicas.to_string());
    command.arg("-endpoints").arg(endpoints).stdin(Stdio::null()).stdout(disk::create(&log)?);
    let client = Client(started("gitlab-pages", command.spawn())?);
    let result = stage.drill(variant);
    drop(client);
    let result = result?;
    let leaving = stage.address(last).to_string();
    let mut pages = Pages::default();
    for line in disk::read(&log)?.lines() {
        let Ok(line) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let backend = line["backend"].as_str().and_then(|backend| backend.rsplit_once(':'));
        if backend.is_none_or(|(host, _)| host != leaving) {
            continue;
        }
        pages.asked += 1;
        if line["status"].as_u64().is_some_and(|status| (200..500).contains(&status)) {
            continue;
        }
        pages.failed += 1;
        if line["listed"] == false {
            pages.unlisted += 1;
            pages.reused += usize::from(line["reused"] == true);
        }
    }
    Ok((result, pages))
}

/// A process that ends with whoever started it.
struct Client(Child);

impl Drop for Client {
    fn drop(&mut self) {
        // Gone already is gone.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn variant(stage: &Stage, id: &'static str, title: &str, forms: &[Form]) -> Result<Variant, Broken> {
    let pods = forms.iter().map(|form| pod(stage, id, *form)).collect::<Result<Vec<_>, _>>()?;
    let mix = [
        "GET /api/v4/internal/pages?host=pages.example 14",
        "POST /api/v4/jobs/request 5 64",
        "GET /group/project.git/info/refs 1",
    ];
    let plan = Plan {
        replicas: 3,
        rate: RATE,
        duration: stage.time(10.0),
        profile: Profile { max_idle: Some(100), ..Profile::from_id("go-client").unwrap_or_default() },
        mix: mix.into_iter().map(str::parse::<Template>).collect::<Result<_, _>>()?,
        events: vec![Event { at: Duration::from_secs(2), action: Action::Term }],
        lag: stage.time(LAG),
        grace: stage.time(GRACE),
        ready_path: "/-/liveness".into(),
        lb_log: Some(stage.left(id).join("requests.log")),
        ..Plan::default()
    };
    Ok(Variant { id, title: title.to_owned(), pods, behind: Vec::new(), nginx: None, plan })
}

fn pod(stage: &Stage, id: &str, form: Form) -> Result<PodSpec, Broken> {
    let images = stage.setting.work.join(id).join(format!("{form:?}"));
    let (workhorse, webservice) = (images.join("workhorse"), images.join("webservice"));
    let version = if form == Form::Shell || form == Form::Cured { "plain" } else { "fixed" };
    disk::copy(&stage.files(&format!("{version}/gitlab-workhorse/scripts")), &workhorse.join("scripts"))?;
    disk::copy(&binary(stage, "gitlab-workhorse"), &workhorse.join("gitlab/bin/gitlab-workhorse"))?;
    disk::folder(&workhorse.join("srv/gitlab"))?;
    disk::copy(&stage.files("plain/webservice"), &webservice.join("srv/gitlab"))?;

    let path = format!("/gitlab/bin:{}", stage.setting.path.to_string_lossy());
    let mut env = BTreeMap::from([
        ("PATH".to_owned(), path),
        ("WORKHORSE_CI_LONG_POLLING".to_owned(), go_duration(stage.time(POLL))),
    ]);
    if form == Form::ShellExec || form == Form::Exec {
        env.insert("GITLAB_WORKHORSE_EXEC".into(), "true".into());
    }
    let script = "/scripts/start-workhorse";
    let started: Vec<&str> = match form {
        Form::Shell | Form::ShellExec | Form::Cured => vec!["/bin/sh", "-c", script],
        Form::Exec => vec![script],
    };
    let puma = ["puma", "-b", "tcp://0.0.0.0:8080", "-w", "2"];
    // The cure is around both containers' own commands. TERM comes to both at once; they find each other, and Puma stays until the proxy
    // before it has left.
    let cured = form == Form::Cured;
    let lameduck = |options: &[&str], command: &[&str]| {
        if !cured {
            return owned(command);
        }
        let program = stage.setting.program.display().to_string();
        let (grace, least, quiet) = (show(stage.time(GRACE)), show(stage.time(5.0)), show(stage.time(2.0)));
        let run = [&program, "run", "--grace", &grace, "--min", &least, "--quiet", &quiet];
        owned(&[&run[..], options, &["--"], command].concat())
    };
    let (listen, upstream) = (format!("0.0.0.0:{FRONT}"), format!("127.0.0.1:{WORKHORSE}"));
    let port = if cured { FRONT } else { WORKHORSE };
    // lameduck waits for what the blackout guesses.
    let blackout = if cured { 0.0 } else { stage.time(BLACKOUT).as_secs_f64() };
    let probe = |check: Check| Probe { check, period_s: stage.time(10.0).as_secs_f64(), timeout_s: 2.0, failures: 3 };
    let webservice = Container {
        name: "webservice".into(),
        image: Some(webservice),
        command: lameduck(&[], &puma),
        pre_stop: None,
        env: BTreeMap::from([("SHUTDOWN_BLACKOUT_SECONDS".to_owned(), blackout.to_string())]),
        workdir: Some("/srv/gitlab".into()),
        readiness: Some(probe(Check::Http { port: PUMA, path: "/-/readiness".into() })),
        ports: vec![PUMA],
    };
    let workhorse = Container {
        name: "gitlab-workhorse".into(),
        image: Some(workhorse),
        command: lameduck(&["--listen", &listen, "--upstream", &upstream], &started),
        env,
        readiness: Some(probe(Check::Exec { command: vec!["/scripts/healthcheck".into()] })),
        ports: vec![port],
        ..Container::default()
    };
    Ok(PodSpec { containers: vec![webservice, workhorse], ..stage.pod(id, "webservice", port, GRACE, LAG) })
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn go_duration(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}

/// What became of the leaving pod, beside the story's minutes.
fn timeline(stage: &mut Stage, plain: &DrillResult) {
    let by_puma: Vec<f64> =
        plain.losses.iter().filter(|loss| loss.cause == Cause::PeerDown).filter_map(|loss| loss.since_term_s).collect();
    let (first, last) = (by_puma.iter().copied().fold(f64::MAX, f64::min), by_puma.iter().copied().fold(0.0, f64::max));
    if by_puma.is_empty() {
        return;
    }
    let scaled = |seconds: f64| {
        if stage.setting.short {
            format!("{seconds:.1} s ({:.0} s on the story's clock)", seconds / stage.setting.scale)
        } else {
            format!("{seconds:.1} s")
        }
    };
    let (after, long) = (scaled(first), scaled(last - first));
    let exit = plain.term_to_exit_s.max.map_or_else(|| "not known".into(), scaled);
    stage.fact("Puma is gone, after TERM", "13 s", after);
    stage.fact("502 by Workhorse, for", "42 s", long);
    stage.fact("Workhorse ends, after TERM", "30 s, by KILL", exit);
    stage.fact(
        "requests answered by 502",
        "every one to that pod but /api/v4/jobs/request",
        format!("{}", by_puma.len()),
    );
}

/// The log and the tree of Workhorse in the pod that was started n-th.
fn words_of(stage: &Stage, variant: &str, index: usize, ending: &str) -> Result<String, Broken> {
    let ending_so = |path: &PathBuf| path.to_string_lossy().ends_with(&format!("_gitlab-workhorse.{ending}"));
    let path = disk::entries(&stage.left(variant))?.into_iter().filter(ending_so).nth(index);
    let path = path.ok_or_else(|| Broken(format!("no {ending} of Workhorse {index} in the {variant} run")))?;
    disk::read(&path)
}

/// Shows a tree; gives the command lines in it, and how many are zombies.
fn tree(
    stage: &mut Stage,
    variant: &str,
    index: usize,
    title: &str,
    story: &str,
) -> Result<(Vec<String>, usize), Broken> {
    let text = words_of(stage, variant, index, "tree")?;
    let lines: Vec<&str> = text.lines().skip(1).collect();
    let zombies = lines.iter().filter(|line| line.split_whitespace().nth(1) == Some("Z")).count();
    let living: Vec<String> = lines
        .iter()
        .filter(|line| line.split_whitespace().nth(1) != Some("Z"))
        .map(|line| line.split_whitespace().skip(2).filter(|word| *word != "\\_").collect::<Vec<_>>().join(" "))
        .filter(|command| !command.starts_with("sleep ") && !command.contains("echo refs"))
        .collect();
    let shown: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("sleep 0.1") && line.split_whitespace().nth(1) != Some("Z"))
        .collect();
    let said = words_of(stage, variant, index, "log")?.contains("shutdown initiated");
    stage.show(format!("{title} ({story})"), shown.join("\n"));
    stage.fact(
        title,
        story,
        format!(
            "{} processes; \"shutdown initiated\" {}; {zombies} zombies",
            living.len(),
            if said { "logged" } else { "not logged" }
        ),
    );
    Ok((living, zombies))
}

/// The change in one image and three zones: on, halfway, off. Three pods of four are told to stop at once.
fn zones(stage: &mut Stage) -> Result<(), Broken> {
    // The first pod stays; those started after it are the zones.
    let forms = [Form::Exec, Form::Exec, Form::ShellExec, Form::Shell];
    let mut variant = variant(stage, "zones", "zone by zone: on, exec in the script only, off", &forms)?;
    variant.plan.replicas = forms.len();
    variant.plan.events = vec![Event { at: Duration::from_secs(2), action: Action::ScaleDown { count: 3 } }];
    let result = stage.drill(variant)?;
    let (mended, _) = tree(stage, "zones", 1, "process tree, exec form", "workhorse alone")?;
    let (halfway, _) = tree(stage, "zones", 2, "process tree, exec in the script only", "sh -c, workhorse")?;
    let (plain, _) = tree(stage, "zones", 3, "process tree, shell form", "sh -c, script, workhorse")?;
    stage.expect(
        format!(
            "process trees of {}, {} and {} processes: exec form, exec in the script only, as it was",
            mended.len(),
            halfway.len(),
            plain.len()
        ),
        [mended.len(), halfway.len(), plain.len()] == [1, 2, 3]
            && mended[0].starts_with("gitlab-workhorse")
            && halfway[0].starts_with("/bin/sh -c")
            && plain[1].starts_with("/bin/bash /scripts/start-workhorse"),
    );
    let mut said = Vec::new();
    for index in 1..=3 {
        said.push(words_of(stage, "zones", index, "log")?.contains("shutdown initiated"));
    }
    stage.expect("\"shutdown initiated\" is logged in the exec form only", said == [true, false, false]);
    let of_puma = |n: usize| {
        let losses = result.losses.iter().filter(|loss| loss.cause == Cause::PeerDown);
        losses.filter(|loss| loss.replica == format!("r{n}")).count()
    };
    let lost = [1, 2, 3].map(of_puma);
    stage.expect(
        format!("502 by zone: {} where it is on, {} and {} where it is not", lost[0], lost[1], lost[2]),
        lost[0] == 0 && lost[1] + lost[2] > 0,
    );
    stage.fact(
        "502 by zone: on, halfway, off",
        "gone in the first zone at once",
        format!("{}, {}, {}", lost[0], lost[1], lost[2]),
    );
    Ok(())
}
