//! `lameduck incident`: a real story, run again on its real components.

use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::drill::own_program;
use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;
use crate::incident::{self, Incident, SCHEMA, Setting, Stage, Told, missing, node};

/// The verb.
pub const VERB: Verb = Verb {
    name: "incident",
    summary: "Run a real incident again: plain, predicted, observed, explained, cured.",
    operands: "NAME...",
    flags: FLAGS,
    from_env: false,
    usage_status: exit::USAGE,
    about: "\
Nothing is installed: what is missing is said. Pods are made of namespaces (root, or a kernel that lets
users make them); the host's network is not touched.

Exit status: 0 all passed, 1 one did not, 2 usage, 4 none could be run. With --strict whatever was skipped is 1.
",
};

const FLAGS: &[Flag] = &[
    Flag::switch("list", "Say which incidents there are, and what each of them lacks here."),
    Flag::switch("all", "Run all of them."),
    Flag::switch("short", "The same with shorter times: a fifth of the story's, where they are waited for."),
    Flag::switch("strict", "Fail where anything had to be skipped."),
    Flag::value("json", "FILE", "Write the results as JSON, lameduck.incident/1 (- is standard output)."),
    Flag::value("html", "FILE", "Write one page that tells each story with this run's figures beside it."),
    Flag::value("keep", "DIR", "Keep the files, logs, records and captures of the run there."),
    Flag::switch("quiet", "Say the results only."),
];

/// The hidden verb that holds a pod.
pub const POD_VERB: &str = "hold-pod";

/// How an incident came out.
struct Outcome {
    incident: &'static Incident,
    told: Told,
    /// Why it could not be run at all, or to its end.
    broken: Option<String>,
}

/// Runs the verb.
pub fn incident(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &in_order(args), env)?;
    let path = env("PATH").unwrap_or_default();
    let wanted = wanted(&given)?;
    let no_node = if env(node::VARIABLE).is_some() { None } else { node::possible(&path).err() };
    if given.switch("list")? {
        for incident in incident::ALL {
            let lacks = no_node.clone().or_else(|| missing(incident.needs, &path));
            let lacks = lacks.map_or_else(|| "can be run here".into(), |why| format!("can not be run here: {why}"));
            println!(
                "{:18} {}\n{:18} {lacks}; takes {}, --short {}",
                incident.name, incident.title, "", incident.takes.1, incident.takes.0
            );
        }
        return Ok(exit::OK);
    }
    if no_node.is_none() && env(node::VARIABLE).is_none() {
        return node::enter(&own_program()?, args)
            .map_err(|error| Failure::Error { message: format!("unshare: {error}"), status: exit::SETUP });
    }
    let work = Work::new(given.raw("keep").map(PathBuf::from))?;
    let mut outcomes = Vec::new();
    for incident in wanted {
        let outcome = match no_node.clone().or_else(|| missing(incident.needs, &path)) {
            Some(why) => Outcome { incident, told: Told::default(), broken: Some(format!("skipped: {why}")) },
            None => play(incident, &work.0, &given, &path)?,
        };
        let words = tell(&outcome);
        if json_to_stdout(&given) {
            eprint!("{words}");
        } else {
            print!("{words}");
        }
        outcomes.push(outcome);
    }
    write(&given, &outcomes)?;
    let ran: Vec<_> = outcomes.iter().filter(|outcome| !skipped(outcome)).collect();
    let strict = given.switch("strict")?;
    let anything_skipped = outcomes.iter().any(|outcome| skipped(outcome) || !outcome.told.skipped.is_empty());
    Ok(if ran.iter().any(|outcome| !passed(outcome)) || (strict && anything_skipped) {
        exit::NEGATIVE
    } else if ran.is_empty() {
        exit::SETUP
    } else {
        exit::OK
    })
}

/// Options may follow the names.
fn in_order(args: &[OsString]) -> Vec<OsString> {
    let (mut options, mut names) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        if text.starts_with('-') && text != "-" {
            options.push(arg.clone());
            if FLAGS.iter().any(|flag| text.strip_prefix("--") == Some(flag.long) && flag.value.is_some()) {
                options.extend(rest.next().cloned());
            }
        } else {
            names.push(arg.clone());
        }
    }
    options.into_iter().chain(names).collect()
}

fn wanted(given: &Given) -> Result<Vec<&'static Incident>, Failure> {
    let names = || incident::ALL.iter().map(|incident| incident.name).collect::<Vec<_>>().join(", ");
    if given.switch("all")? || given.switch("list")? {
        return Ok(incident::ALL.to_vec());
    }
    if given.operands.is_empty() {
        return Err(given.usage(format!("expected the name of an incident ({}), or --all", names())));
    }
    let find = |word: &OsString| {
        let found = incident::ALL.iter().find(|incident| word == incident.name).copied();
        found.ok_or_else(|| given.usage(format!("{} is no incident: expected one of {}", word.display(), names())))
    };
    given.operands.iter().map(find).collect()
}

fn play(incident: &'static Incident, work: &Path, given: &Given, path: &OsString) -> Result<Outcome, Failure> {
    let short = given.switch("short")?;
    let setting = Setting {
        work: work.join(incident.name),
        short,
        scale: if short { 0.2 } else { 1.0 },
        program: own_program()?,
        path: path.clone(),
        quiet: given.switch("quiet")?,
        to_stderr: json_to_stdout(given),
    };
    let mut stage = Stage::new(setting);
    stage.setting.line(&format!("== {}: {}", incident.name, incident.title));
    if short {
        stage.say("short: the story's times are a fifth");
    }
    for what in incident.simulated {
        stage.say(&format!("not real here: {what}"));
    }
    let played = incident::write_files(incident, &stage.files(""));
    let played = played.and_then(|()| (incident.play)(&mut stage));
    Ok(Outcome { incident, told: stage.told, broken: played.err().map(|broken| broken.0) })
}

fn skipped(outcome: &Outcome) -> bool {
    outcome.broken.as_ref().is_some_and(|why| why.starts_with("skipped: "))
}

fn passed(outcome: &Outcome) -> bool {
    outcome.broken.is_none() && outcome.told.passed()
}

/// How it came out, in words.
fn tell(outcome: &Outcome) -> String {
    let name = outcome.incident.name;
    let mut words = match &outcome.broken {
        Some(why) if skipped(outcome) => return format!("\n{name}: {why}\n"),
        Some(why) => format!("\n{name}: could not be run to its end: {why}\n"),
        None if outcome.told.passed() => return format!("\n{name}: passed\n"),
        None => format!("\n{name}: did not pass:\n"),
    };
    for expectation in outcome.told.expectations.iter().filter(|expectation| !expectation.holds) {
        let _ = writeln!(words, "   not so: {}", expectation.what);
    }
    words
}

fn json_to_stdout(given: &Given) -> bool {
    given.raw("json").is_some_and(|path| path == "-")
}

fn write(given: &Given, outcomes: &[Outcome]) -> Result<(), Failure> {
    let short = given.switch("short")?;
    if let Some(path) = given.raw("json").map(PathBuf::from) {
        let incidents: Vec<Value> = outcomes
            .iter()
            .map(|outcome| {
                let mut value = outcome.told.json(outcome.incident, short);
                value["passed"] = passed(outcome).into();
                value["broken"] = outcome.broken.clone().into();
                value
            })
            .collect();
        let text = json!({"schema": SCHEMA, "incidents": incidents}).to_string() + "\n";
        if path == Path::new("-") { print!("{text}") } else { write_file(&path, &text)? }
    }
    if let Some(path) = given.raw("html").map(PathBuf::from) {
        let told: Vec<_> = outcomes.iter().map(|one| (one.incident, &one.told, one.broken.as_deref())).collect();
        write_file(&path, &incident::page(&told, short))?;
    }
    Ok(())
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure::Error {
        message: format!("{}: {error}; the result could not be written there", path.display()),
        status: exit::SETUP,
    })
}

/// Where files, logs and records go: kept where that is asked for.
struct Work(PathBuf, bool);

impl Work {
    fn new(keep: Option<PathBuf>) -> Result<Work, Failure> {
        let kept = keep.is_some();
        let path =
            keep.unwrap_or_else(|| std::env::temp_dir().join(format!("lameduck-incident-{}", std::process::id())));
        // What another run left would be read as this one's.
        if kept && fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some()) {
            let message = format!(
                "--keep {}: expected a folder that is empty or not there yet; it has files in it",
                path.display()
            );
            return Err(Failure::Error { message, status: exit::USAGE });
        }
        let made = fs::create_dir_all(&path).and_then(|()| fs::canonicalize(&path));
        let path = made
            .map_err(|error| Failure::Error { message: format!("{}: {error}", path.display()), status: exit::SETUP })?;
        Ok(Work(path, kept))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if !self.1 {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// Holds one pod: `hold-pod SPEC.json ADDRESS`.
pub fn hold_pod(args: &[OsString]) -> Result<u8, Failure> {
    let wrong = |message: String| Failure::Error { message, status: exit::SETUP };
    let [spec, address] = args else { return Err(wrong("expected a pod's file and its address".into())) };
    let address: Option<Ipv4Addr> = address.to_str().and_then(|text| text.parse().ok());
    let address = address.ok_or_else(|| wrong("expected an IPv4 address".into()))?;
    let text = fs::read_to_string(spec).map_err(|error| wrong(format!("{}: {error}", spec.display())))?;
    let spec = serde_json::from_str(&text).map_err(|error| wrong(format!("{}: {error}", spec.display())))?;
    lameduck_pod::hold(spec, address, Box::new(std::io::stdout())).map_err(|error| wrong(error.to_string()))
}
