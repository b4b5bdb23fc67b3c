//! Where an incident is played: each step calls one verb's library, says on the terminal what it saw, and keeps it.

use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use lameduck_core::Cause;
use lameduck_core::duration::show;
use lameduck_drill::result::Retried;
use lameduck_drill::{DrillResult, Plan, Pods, Progress, Via};
use lameduck_explain::report::{Explanation, Question};
use lameduck_explain::stream::Reading;
use lameduck_pod::PodSpec;
use serde_json::{Value, json};

use super::ingress::{self, Ingress};
use super::{Expectation, Fact, Told, disk};
use crate::cli::drill::Live;
use crate::cli::incident::POD_VERB;

/// Why an incident could not be played to its end: its machinery failed, which says nothing about the service.
#[derive(Debug)]
pub struct Broken(pub String);

/// Errors that say by themselves what was read and what was wrong with it. An `io::Error` does not: see `disk` and [`started`].
macro_rules! broken_by {
    ($($error:ty),+ $(,)?) => {
        $(impl From<$error> for Broken {
            fn from(error: $error) -> Broken {
                Broken(error.to_string())
            }
        })+
    };
}

broken_by!(
    lameduck_drill::SetupError,
    lameduck_drill::mix::NotATemplate,
    lameduck_drill::plan::BadPlan,
    lameduck_explain::input::InputError,
    lameduck_probe::ProbeError,
    serde_json::Error,
);

/// A program that was to be started.
pub fn started<T>(program: &str, result: std::io::Result<T>) -> Result<T, Broken> {
    result.map_err(|error| Broken(format!("{program}: could not be started: {error}")))
}

/// What is the same for the whole run of an incident.
#[derive(Debug, Clone)]
pub struct Setting {
    /// A folder of its own.
    pub work: PathBuf,
    /// Whether the times are short.
    pub short: bool,
    /// By what the story's times are multiplied.
    pub scale: f64,
    /// This program.
    pub program: PathBuf,
    /// `PATH`
    pub path: OsString,
    /// Whether nothing is said but the results.
    pub quiet: bool,
    /// Whether standard output is for the JSON, and words go to standard error.
    pub to_stderr: bool,
}

impl Setting {
    /// A line on the terminal.
    pub fn line(&self, text: &str) {
        if self.to_stderr {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }
}

/// One way to run the service.
pub struct Variant {
    /// Its id: `plain`, `cured`, or what else there is.
    pub id: &'static str,
    /// In words.
    pub title: String,
    /// The pods: the replica started n-th is the n-th of them, and begins again where they end.
    pub pods: Vec<PodSpec>,
    /// Pods that these send on to. They are there before the first of them, and end after the last.
    pub behind: Vec<PodSpec>,
    /// Real nginx before them: where its configuration is, in the incident's files, and the name of its upstream.
    pub nginx: Option<(&'static str, &'static str)>,
    /// The load and what happens; its command and pods are given here.
    pub plan: Plan,
}

/// The first address of pods that are not drilled themselves.
pub const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 88, 250, 10);
/// How long such pods may take until they are ready.
const READY: Duration = Duration::from_secs(30);
/// nginx's `proxy_connect_timeout`, by its configuration.
const CONNECT: Duration = Duration::from_secs(3);
/// How long they may take to end, once told.
const ENDS: Duration = Duration::from_secs(5);

fn behind_at(index: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(BEHIND) + index as u32)
}

/// Pods that are held beside a drill; they end with this.
#[derive(Default)]
struct Behind(Vec<Child>);

impl Drop for Behind {
    fn drop(&mut self) {
        for pod in &self.0 {
            lameduck_pod::delete(pod.id());
        }
        let began = Instant::now();
        for pod in &mut self.0 {
            while matches!(pod.try_wait(), Ok(None)) && began.elapsed() < ENDS {
                thread::sleep(Duration::from_millis(10));
            }
            // What does not end by itself ends now; whether it had is all the same.
            let _ = pod.kill().and_then(|()| pod.wait());
        }
        for index in 0..self.0.len() {
            lameduck_pod::disconnect(behind_at(index));
        }
    }
}

/// The stage.
pub struct Stage {
    /// What is the same for the whole run.
    pub setting: Setting,
    /// What was shown so far.
    pub told: Told,
    /// How many drills there were.
    drills: u8,
}

impl Stage {
    /// An empty one.
    pub fn new(setting: Setting) -> Stage {
        Stage { setting, told: Told::default(), drills: 0 }
    }

    /// A time of the story, on the clock of this run.
    pub fn time(&self, story_seconds: f64) -> Duration {
        Duration::from_secs_f64(story_seconds * self.setting.scale)
    }

    /// The incident's own files.
    pub fn files(&self, part: &str) -> PathBuf {
        self.setting.work.join("files").join(part)
    }

    /// Where the pods of a variant leave their logs and records.
    pub fn left(&self, variant: &str) -> PathBuf {
        self.setting.work.join(variant).join("left")
    }

    /// A pod with nothing in it yet, to be one of a variant.
    pub fn pod(&self, variant: &str, name: &str, port: u16, grace: f64, lag: f64) -> PodSpec {
        PodSpec {
            name: name.to_owned(),
            node: std::process::id(),
            folder: self.left(variant),
            grace_s: self.time(grace).as_secs_f64(),
            lag_s: self.time(lag).as_secs_f64(),
            kubelet_s: 0.0,
            port,
            told_deadline: true,
            capture: false,
            sidecars: Vec::new(),
            containers: Vec::new(),
        }
    }

    /// The address of the replica that was started n-th in the last drill.
    pub fn address(&self, index: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 88, self.drills, 10 + index as u8)
    }

    /// A heading.
    pub fn heading(&self, text: &str) {
        if !self.setting.quiet {
            self.setting.line(&format!("\n-- {text}"));
        }
    }

    /// A line.
    pub fn say(&self, text: &str) {
        if !self.setting.quiet {
            self.setting.line(&format!("   {text}"));
        }
    }

    /// Notes what has to hold.
    pub fn expect(&mut self, what: impl Into<String>, holds: bool) {
        let what = what.into();
        if !self.setting.quiet || !holds {
            self.setting.line(&format!("   {} {what}", if holds { "ok" } else { "NOT SO:" }));
        }
        self.told.expectations.push(Expectation { what, holds });
    }

    /// Puts the story beside this run.
    pub fn fact(&mut self, what: impl Into<String>, story: impl Into<String>, here: impl Into<String>) {
        self.told.facts.push(Fact { what: what.into(), story: story.into(), here: here.into() });
    }

    /// Keeps a text for the page, and says it.
    pub fn show(&mut self, title: impl Into<String>, text: impl Into<String>) {
        let (title, text) = (title.into(), text.into());
        self.say(&format!("{title}:"));
        for line in text.lines().take(24) {
            self.say(&format!("  {line}"));
        }
        self.told.shown.push((title, text));
    }

    /// Notes what was not done.
    pub fn skip(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.setting.line(&format!("   skipped: {what}"));
        self.told.skipped.push(what);
    }

    /// Drills a variant: its pods are started, driven, ended, and gone when this returns.
    pub fn drill(&mut self, variant: Variant) -> Result<DrillResult, Broken> {
        self.heading(&format!("drill: {}", variant.title));
        self.drills += 1;
        let folder = self.setting.work.join(variant.id);
        disk::folder(&folder.join("left"))?;
        let pods = Pods { first: self.address(0), port: variant.pods.first().map_or(80, |pod| pod.port) };
        // A roll starts as many again.
        for (index, pod) in
            variant.pods.iter().cycle().take(2 * variant.plan.replicas.max(variant.pods.len())).enumerate()
        {
            let path = folder.join(format!("spec-{}.json", pods.address(index).ip()));
            disk::write(&path, &serde_json::to_string_pretty(pod)?)?;
        }
        let command = self.holder(folder.join("spec-{host}.json"), "{host}".into()).to_vec();
        let behind = self.hold_behind(&folder, &variant.behind)?;
        let ingress = match variant.nginx {
            None => None,
            Some((config, upstream)) => {
                let pods: Vec<_> = (0..variant.plan.replicas).map(|index| pods.address(index)).collect();
                let endpoints = self.left(variant.id).join("endpoints");
                Some(Ingress::start(&self.files(config), upstream, &folder.join("nginx"), &pods, endpoints)?)
            }
        };
        let via = ingress.as_ref().map(|_| Via { address: ingress::address(), keeps: false, connect_timeout: CONNECT });
        let plan = Plan { command, pods: Some(pods), via, logs: Some(folder.join("output")), ..variant.plan };
        plan.check()?;
        let mut live = Live::new(self.setting.quiet);
        let result = crate::cli::with_sockets(|| {
            lameduck_drill::run(&plan, |news| match news {
                // Its words are those of a comparison.
                Progress::Began { .. } => {}
                news => live.tell(&news),
            })
        });
        live.end();
        drop(behind);
        if ingress.is_some() {
            drop(ingress);
            for log in [ingress::ACCESS, ingress::ERRORS] {
                disk::copy(&folder.join("nginx").join(log), &self.left(variant.id).join(log))?;
            }
        }
        let result = result?;
        let tally = &result.tally;
        let causes: Vec<_> = tally.causes.iter().map(|(cause, n)| format!("{n} {cause}")).collect();
        let causes = if causes.is_empty() { String::new() } else { format!(" ({})", causes.join(", ")) };
        self.say(&format!(
            "{} sent = {} answered + {} lost{causes} + {} unknown",
            tally.sent, tally.answered, tally.lost, tally.unknown
        ));
        if let Some(max) = result.term_to_exit_s.max {
            self.say(&format!("from TERM to exit: {max:.1} s at most"));
        }
        self.told.drills.push((variant.id.to_owned(), variant.title, result.clone()));
        Ok(result)
    }

    /// The words that hold a pod.
    fn holder(&self, spec: PathBuf, address: OsString) -> [OsString; 7] {
        let program = self.setting.program.clone().into();
        ["unshare".into(), "--net".into(), "--".into(), program, POD_VERB.into(), spec.into(), address]
    }

    /// Starts pods that are not drilled, at [`BEHIND`] and the addresses after it, and waits until they are ready.
    fn hold_behind(&self, folder: &Path, pods: &[PodSpec]) -> Result<Behind, Broken> {
        let mut behind = Behind::default();
        for (index, pod) in pods.iter().enumerate() {
            let address = behind_at(index).to_string();
            let spec = folder.join(format!("spec-{address}.json"));
            disk::write(&spec, &serde_json::to_string_pretty(pod)?)?;
            disk::folder(&pod.folder)?;
            let words = self.holder(spec, address.into());
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null());
            behind.0.push(started("unshare", command.spawn())?);
        }
        let began = Instant::now();
        while pods.iter().any(|pod| fs::read_dir(pod.folder.join("endpoints")).map_or(0, Iterator::count) < pods.len())
        {
            let mut held = behind.0.iter_mut().enumerate();
            if let Some((index, status)) = held.find_map(|(index, pod)| Some((index, pod.try_wait().ok()??))) {
                let (pod, address) = (&pods[index], behind_at(index));
                let logs = pod.folder.display();
                return Err(Broken(format!(
                    "the pod {} at {address} ended before it was ready: {status}; its logs: {logs}",
                    pod.name
                )));
            }
            if began.elapsed() > READY {
                let logs = pods[0].folder.display();
                return Err(Broken(format!(
                    "the pods from {BEHIND} on were not ready after {}; their logs: {logs}",
                    show(READY)
                )));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(behind)
    }

    /// Checks a part of the incident's files, and expects these: rule, cause, file, line.
    pub fn check(&mut self, part: &str, expected: &[(&str, Cause, &str, u32)]) {
        self.heading(&format!("check: {part}, before anything runs"));
        let folder = self.files(part);
        let options = lameduck_check::Options { paths: vec![folder.clone()], ..lameduck_check::Options::default() };
        let outcome = lameduck_check::check(&options);
        let mut found = Vec::new();
        // What a handful of files gave is held in memory: nothing has to be read again.
        for finding in &outcome.findings().unwrap_or_default() {
            let file = Path::new(&finding.file);
            let file = file.strip_prefix(&folder).unwrap_or(file).display().to_string();
            self.say(&format!("{file}:{}:{}: {} ({})", finding.line, finding.column, finding.rule, finding.cause));
            let mut value = serde_json::to_value(finding).unwrap_or(Value::Null);
            value["file"] = format!("{part}/{file}").into();
            self.told.check.push(value);
            found.push((finding.rule, finding.cause, file, finding.line));
        }
        for (rule, cause, file, line) in expected {
            let holds = found.iter().any(|(r, c, f, l)| (r, c, f.as_str(), l) == (rule, cause, *file, line));
            self.expect(format!("check finds {rule} ({cause}) at {part}/{file}:{line}"), holds);
        }
    }

    /// Explains what a variant's pods left behind, and nothing else.
    pub fn explain(&mut self, variant: &str, id: Option<&str>) -> Result<Explanation, Broken> {
        let what = id.map_or(String::new(), |id| format!(" --id {id}"));
        self.heading(&format!("explain{what}: from what the {variant} run left behind"));
        let mut paths = disk::entries(&self.left(variant))?;
        paths.retain(|path| {
            path.extension().is_some_and(|ending| ["log", "json", "pcap"].iter().any(|known| ending == *known))
        });
        let reading = Reading { id: id.map(str::to_owned), threads: 1, ..Reading::default() };
        let question = Question { id: id.map(str::to_owned), ..Question::default() };
        let plan = lameduck_explain::Plan { paths, reading, question };
        let explanation = lameduck_explain::explain(&plan, None, &mut |_, _, _, _| {})?;
        for input in &explanation.inputs {
            let name = Path::new(&input.name).file_name().unwrap_or_default().display().to_string();
            let formats: Vec<_> = input.formats.keys().copied().collect();
            self.say(&format!(
                "{name}: {} ({} lines, {} not understood)",
                formats.join(", "),
                input.lines,
                input.unparsed
            ));
        }
        for cause in &explanation.causes {
            self.say(&format!("{} {}: {}", cause.requests, cause.cause, cause.what));
        }
        self.told.explain.push(json!({
            "variant": variant,
            "id": id,
            "requests": explanation.requests,
            "lost": explanation.lost,
            "causes": explanation.causes,
            "followed": explanation.followed,
        }));
        Ok(explanation)
    }

    /// Expects of a plain drill at least `least` losses by each of these causes, and every request accounted for.
    pub fn expect_lost(&mut self, result: &DrillResult, least: &[(Cause, u64)]) {
        for (cause, least) in least {
            let lost = result.tally.causes.get(cause).copied().unwrap_or(0);
            let id = self.told.drills.last().map_or("plain", |(id, ..)| id).to_owned();
            self.expect(format!("{id}: {lost} lost by {cause}, at least {least}"), lost >= *least);
        }
        let unknown = result.tally.causes.get(&Cause::Unknown).copied().unwrap_or(0);
        self.expect(
            format!(
                "drill accounts for every request: {unknown} of unknown cause, {} of unknown fate",
                result.tally.unknown
            ),
            unknown == 0 && result.tally.unknown == 0,
        );
    }

    /// Expects of a cure that nothing was lost, and that stopping was quicker than the story's sleep.
    pub fn expect_clean(&mut self, id: &str, result: &DrillResult, sleep: Option<Duration>) {
        let (lost, sent) = (result.tally.lost + result.tally.unknown, result.tally.sent);
        self.expect(format!("{id}: {lost} of {sent} lost"), lost == 0 && result.exit_code() == 0);
        if let (Some(sleep), Some(took)) = (sleep, result.term_to_exit_s.max) {
            let holds = took < sleep.as_secs_f64();
            self.expect(
                format!("{id}: {took:.1} s from TERM to exit, less than the fixed wait or grace of {}", show(sleep)),
                holds,
            );
        }
    }

    /// Expects that explain gives each lost request the cause that drill saw. One that the client's own retry made good is in no log.
    pub fn expect_agreed(&mut self, explanation: &Explanation, result: &DrillResult) {
        let (agreed, _, all) = agreement(explanation, result);
        let what =
            format!("explain gives {agreed} of the {all} lost requests, each told once, the cause that drill saw");
        self.expect(what, agreed == all);
    }

    /// The same where the evidence that was left may not decide each of them: none has another cause than drill saw, and of twenty no more
    /// than one is left open.
    pub fn expect_uncontradicted(&mut self, explanation: &Explanation, result: &DrillResult) {
        let (agreed, open, all) = agreement(explanation, result);
        let what = format!(
            "explain gives {agreed} of the {all} lost requests, each told once, the cause that drill saw, and {open} none"
        );
        self.expect(what, agreed + open == all && open * 20 <= all);
    }

    /// Expects that explain found these causes by itself.
    pub fn expect_explained(&mut self, explanation: &Explanation, causes: &[Cause]) {
        for cause in causes {
            let found =
                explanation.causes.iter().find(|report| report.cause == *cause).map_or(0, |report| report.requests);
            self.expect(format!("explain names {cause} for {found} requests"), found > 0);
        }
    }
}

/// How many lost requests explain gave the cause that drill saw, how many it left open, and how many there are.
fn agreement(explanation: &Explanation, result: &DrillResult) -> (usize, usize, usize) {
    let (mut agreed, mut open) = (0, 0);
    for loss in &result.losses {
        let mut told = explanation.losses.iter().filter(|known| known.id == loss.id).map(|known| known.cause);
        match (told.next(), told.next()) {
            (Some(cause), None) if cause == loss.cause => agreed += 1,
            (Some(Cause::Unknown), None) => open += 1,
            (None, None) if loss.retried == Some(Retried::Answered) => agreed += 1,
            _ => {}
        }
    }
    (agreed, open, result.losses.len())
}
