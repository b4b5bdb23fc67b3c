//! `cargo xtask cluster incident gitlab-pid1`: the incident as two containers of a real pod.
//!
//! `lameduck incident gitlab-pid1` plays it on namespaces of this machine. Here a kubelet does what a kubelet does: both containers are told
//! to stop at once, the pod's end is the later of the two, and routing is what `EndpointSlice`s say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use lameduck_core::Cause;
use lameduck_drill::profile::Profile;
use lameduck_drill::{DrillResult, Plan, Progress, Template, live};
use serde_json::{Value, json};

use super::image::{Image, LAMEDUCK, Source};
use super::watch::Watch;
use super::{Kubectl, NODES, STATE, deployment, programs, run};
use crate::test::root;
use crate::{packages, slim};

const NAME: &str = "gitlab-pid1";
const FILES: &str = "incidents/gitlab-pid1/plain";
const WORKHORSE_IMAGE: &str = "lameduck.test/gitlab-workhorse:1";
const WEBSERVICE_IMAGE: &str = "lameduck.test/gitlab-webservice:1";
/// By their own files; the front's in the cure.
const PUMA: u16 = 8080;
const WORKHORSE: u16 = 8181;
const FRONT: u16 = 8180;
const ADMIN: u16 = 9090;
/// `terminationGracePeriodSeconds`, the default.
const GRACE: Duration = Duration::from_secs(30);
/// Load before the deletion, and after the end.
const AROUND: Duration = Duration::from_secs(3);
/// Pages goes by what it was told some seconds ago.
const LAG: Duration = Duration::from_secs(3);

/// The task.
pub fn incident(name: &str) -> anyhow::Result<ExitCode> {
    ensure!(name == NAME, "{name:?} can not be played in a cluster: there is {NAME}");
    plain_and_cured(&Kubectl::new()?)?;
    Ok(ExitCode::SUCCESS)
}

/// Plays both; fails where plain is no incident, or the cured one loses anything.
pub fn plain_and_cured(kubectl: &Kubectl) -> anyhow::Result<()> {
    provide()?;
    println!("| pods | sent | lost | causes | stop, at most | exit of Workhorse |");
    println!("|---|---|---|---|---|---|");
    let plain = play(kubectl, false)?;
    let cured = play(kubectl, true)?;
    let of = |cause: Cause| plain.tally.causes.get(&cause).copied().unwrap_or(0);
    let (neighbour, deaf) = (of(Cause::PeerDown), of(Cause::SignalNotDelivered));
    ensure!(
        neighbour > 0 && deaf > 0,
        "plain lost {neighbour} by peer-down and {deaf} by signal-not-delivered: that is not the incident"
    );
    let lost: Vec<String> =
        cured.losses.iter().chain(&cured.unknowns).map(|loss| format!("{} {}", loss.path, loss.grounds)).collect();
    ensure!(lost.is_empty(), "cured, and lost: {}", lost.join("; "));
    Ok(())
}

/// Three pods under load, of which one is deleted.
fn play(kubectl: &Kubectl, cured: bool) -> anyhow::Result<DrillResult> {
    let variant = if cured { "cured" } else { "plain" };
    let name = format!("gitlab-{variant}");
    let mix = [
        "GET /api/v4/internal/pages?host=pages.example 14",
        "POST /api/v4/jobs/request 5 64",
        "GET /group/project.git/info/refs 1",
    ];
    let plan = Plan {
        replicas: 3,
        rate: 100.0,
        profile: Profile { max_idle: Some(100), ..Profile::from_id("go-client").context("a profile")? },
        mix: mix.into_iter().map(str::parse::<Template>).collect::<Result<_, _>>()?,
        lag: LAG,
        grace: GRACE,
        ready_path: "/-/liveness".into(),
        ..Plan::default()
    };
    let begun = kubectl
        .apply(&manifest(&name, cured))
        .and_then(|()| kubectl.run(&["rollout", "status", &format!("deployment/{name}"), "--timeout=90s"]).map(|_| ()));
    let played = begun.and_then(|()| under_load(kubectl, &plan, &name));
    deployment::end(kubectl, &name)?;
    let (result, statuses) = played.with_context(|| name.clone())?;
    let causes: Vec<String> =
        result.tally.causes.iter().map(|(cause, count)| format!("{count} {}", cause.id())).collect();
    let stop = result.term_to_exit_s.max.map_or_else(String::new, |longest| format!("{longest:.1} s"));
    let statuses: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    let lost = result.tally.lost + result.tally.unknown;
    println!(
        "| {variant} | {} | {lost} | {} | {stop} | {} |",
        result.tally.sent,
        causes.join(", "),
        statuses.join(", ")
    );
    Ok(result)
}

/// Drives the pods, deletes one, and goes on until it has ended; what became of each request, and with what its Workhorse ended.
fn under_load(kubectl: &Kubectl, plan: &Plan, name: &str) -> anyhow::Result<(DrillResult, Vec<i64>)> {
    let (sender, receiver) = live::channel();
    let tell = Box::new(move |news| {
        // A load that has ended hears nothing more.
        let _ = sender.tell(news);
    });
    let watch = Watch::begin(kubectl, name, tell)?;
    let (began, begins) = mpsc::channel();
    let (kubectl, name) = (kubectl.clone(), name.to_owned());
    // The load ends with the watch.
    let director = thread::spawn(move || {
        let done = delete_one(&kubectl, &watch, &name, &begins);
        watch.enough();
        thread::sleep(AROUND);
        let statuses = watch.statuses();
        watch.stop();
        done.map(|()| statuses)
    });
    let result = lameduck_drill::follow(plan, receiver, |news| {
        if let Progress::LoadBegan { .. } = news {
            let _ = began.send(());
        }
    });
    // Where the load never began the director must not wait for it.
    drop(began);
    let directed = director.join().map_err(|_| anyhow::anyhow!("the director ended"))?;
    let (result, statuses) = (result?, directed?);
    ensure!(result.balances(), "the books do not balance");
    Ok((result, statuses))
}

fn delete_one(kubectl: &Kubectl, watch: &Watch, name: &str, begins: &mpsc::Receiver<()>) -> anyhow::Result<()> {
    begins.recv().context("the load did not begin")?;
    thread::sleep(AROUND);
    let pods = kubectl.get(&["pods", &format!("--selector=app={name}")])?;
    let pod = pods["items"][0]["metadata"]["name"].as_str().context("no pod to delete")?;
    watch.tell("delete");
    kubectl.run(&["delete", "pod", pod, "--wait=false"])?;
    let began = Instant::now();
    while watch.stopping() == 0 || watch.open() > 0 {
        ensure!(began.elapsed() < GRACE * 2, "{pod} has not ended");
        thread::sleep(super::POLL);
    }
    thread::sleep(AROUND);
    Ok(())
}

/// The Deployment of the story, with both commands as their Dockerfiles have them: `CMD` in shell form is `/bin/sh -c`.
fn manifest(name: &str, cured: bool) -> Value {
    let script = ["/bin/sh", "-c", "/scripts/start-workhorse"].map(str::to_owned).to_vec();
    let mut webservice = json!({
        "name": "webservice", "image": WEBSERVICE_IMAGE, "imagePullPolicy": "Never", "workingDir": "/srv/gitlab",
        "command": ["puma", "-b", format!("tcp://0.0.0.0:{PUMA}"), "-w", "2"],
        "ports": [{ "containerPort": PUMA }],
        "readinessProbe": {
            "httpGet": { "path": "/-/readiness", "port": PUMA }, "periodSeconds": 10, "failureThreshold": 3,
        },
    });
    let (port, command) = if cured {
        // lameduck waits for what the blackout guesses, and Puma's hook for the end of lameduck's drain.
        let wait = format!(
            "require 'net/http'; Net::HTTP.start('127.0.0.1', {ADMIN}) {{ |http| http.read_timeout = 600; http.post('/drain?wait', '') }}"
        );
        webservice["env"] = json!([{ "name": "SHUTDOWN_BLACKOUT_SECONDS", "value": "0" }]);
        webservice["lifecycle"] = json!({ "preStop": { "exec": { "command": ["ruby", "-e", wait] } } });
        let run = format!(
            "{LAMEDUCK} run --grace {}s --min 5s --quiet 2s --admin 127.0.0.1:{ADMIN} --listen 0.0.0.0:{FRONT} --upstream \
             127.0.0.1:{WORKHORSE} --",
            GRACE.as_secs()
        );
        (FRONT, run.split(' ').map(str::to_owned).chain(script).collect())
    } else {
        (WORKHORSE, script)
    };
    let workhorse = json!({
        "name": "gitlab-workhorse", "image": WORKHORSE_IMAGE, "imagePullPolicy": "Never", "command": command,
        // Polls of the story's 50 s would neither begin nor end within a termination.
        "env": [{ "name": "WORKHORSE_CI_LONG_POLLING", "value": "5s" }],
        "ports": [{ "containerPort": port }],
        "readinessProbe": { "exec": { "command": ["/scripts/healthcheck"] } },
    });
    let labels = json!({ "app": name });
    let pod = json!({
        "terminationGracePeriodSeconds": GRACE.as_secs(), "enableServiceLinks": false,
        "automountServiceAccountToken": false, "dnsPolicy": "Default", "containers": [webservice, workhorse],
    });
    // What is read of the pods is what the door of each of them writes.
    let template = json!({
        "metadata": { "labels": labels, "annotations": { "kubectl.kubernetes.io/default-container": "gitlab-workhorse" } },
        "spec": pod,
    });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name },
        "spec": { "replicas": 3, "selector": { "matchLabels": labels }, "template": template },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": name },
        "spec": { "selector": labels, "ports": [{ "port": WORKHORSE, "targetPort": port }] },
    });
    json!({ "apiVersion": "v1", "kind": "List", "items": [deployment, service] })
}

/// Makes the two images, and has the nodes know them.
fn provide() -> anyhow::Result<()> {
    for (program, package) in [("puma", "puma"), ("go", "golang-go")] {
        ensure!(packages::find(program).is_some(), "{program} is missing; Debian has it in {package}");
    }
    let ours = |path: &str| Source::File(root().join(FILES).join(path));
    let shell = || vec![PathBuf::from("/bin/sh")];
    let files = vec![
        (LAMEDUCK.to_owned(), Source::File(slim::slim()?)),
        ("/usr/local/bin/gitlab-workhorse".to_owned(), Source::File(build()?)),
        ("/scripts/start-workhorse".to_owned(), ours("gitlab-workhorse/scripts/start-workhorse")),
        ("/scripts/healthcheck".to_owned(), ours("gitlab-workhorse/scripts/healthcheck")),
    ];
    let workhorse = Image::of(WORKHORSE_IMAGE, shell(), &["bash", "coreutils"], files);
    let files = ["config.ru", "config/puma.rb"]
        .map(|name| (format!("/srv/gitlab/{name}"), ours(&format!("webservice/{name}"))));
    let webservice = Image::of(WEBSERVICE_IMAGE, shell(), &["puma"], files.to_vec());
    let folder = Path::new(STATE).join("images");
    let archives = [workhorse.write(&folder)?, webservice.write(&folder)?];
    archives.iter().try_for_each(|archive| import(archive))
}

/// Workhorse, with nothing but Go's standard library.
fn build() -> anyhow::Result<PathBuf> {
    let folder = programs::cache()?.join(NAME);
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let program = folder.join("gitlab-workhorse");
    let mut go = Command::new("go");
    go.args(["build", "-o"]).arg(&program).arg("./cmd/gitlab-workhorse").env("CGO_ENABLED", "0");
    go.env("GOFLAGS", "-mod=mod -buildvcs=false").env("GOPROXY", "off").env("GOTOOLCHAIN", "local");
    let status = go.current_dir(root().join(FILES).join("gitlab-workhorse/src")).status().context("go build")?;
    ensure!(status.success(), "go build of gitlab-workhorse: {status}");
    Ok(program)
}

/// Into the containerd of every node of a cluster that is up.
pub fn import(archive: &Path) -> anyhow::Result<()> {
    let archive = archive.display().to_string();
    for node in 1..=NODES {
        // Its socket is in a mount namespace of its own.
        let pid = containerd(node)?;
        let ctr = ["ctr", "--namespace", "k8s.io", "images", "import", &archive];
        run("nsenter", &[&["--target", &pid, "--mount", "--"][..], &ctr].concat())?;
    }
    Ok(())
}

fn containerd(node: u8) -> anyhow::Result<String> {
    let own = format!("{STATE}/n{node}/containerd.toml");
    let mut processes = fs::read_dir("/proc")?.flatten();
    let found = processes.find(|process| {
        let arguments = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments);
        arguments.starts_with("containerd\0") && arguments.contains(&own)
    });
    let found = found.with_context(|| format!("n{node} has no containerd: cargo xtask cluster status"))?;
    Ok(found.file_name().to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_is_around_the_containers_own_command() {
        let containers =
            |cured: bool| manifest("x", cured)["items"][0]["spec"]["template"]["spec"]["containers"].clone();
        let words = |container: &Value| {
            let words = container["command"].as_array().unwrap().iter().filter_map(Value::as_str);
            words.collect::<Vec<_>>().join(" ")
        };
        let (plain, cured) = (containers(false), containers(true));
        let own = words(&plain[1]);
        assert_eq!(own, "/bin/sh -c /scripts/start-workhorse");
        assert!(words(&cured[1]).starts_with(LAMEDUCK) && words(&cured[1]).ends_with(&format!(" -- {own}")));
        assert_eq!((&plain[1]["image"], words(&plain[0])), (&cured[1]["image"], words(&cured[0])));
        assert!(plain[0]["lifecycle"].is_null() && cured[0]["lifecycle"].is_object());
    }
}
