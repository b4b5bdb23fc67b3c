//! `lameduck check`: from the command line to files, and from the answer to a terminal, files and an exit status.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use lameduck_check::{Baseline, Change, Config, Options, Outcome, Rendered, render};

use super::flag::{self, Failure, Flag, Given, Verb};
use crate::exit;

/// `lameduck check`
pub const VERB: Verb = Verb {
    name: "check",
    summary: "Predict lost requests from Dockerfiles, scripts, manifests, proxy and server settings.",
    operands: "[PATH...]",
    flags: FLAGS,
    from_env: true,
    about: "PATH is a file, a folder (walked as git sees it) or - for standard input; without one, the current folder.\n\
            Exit status: 0 no finding at or above --fail-on, 1 findings, 2 usage, 3 something could not be read.\n\
            lameduck rule NAME explains a finding.\n",
    usage_status: exit::USAGE,
};

const FORMATS: [&str; 6] = ["text", "json", "sarif", "github", "junit", "html"];

const FLAGS: &[Flag] = &[
    Flag::value("format", "FORMAT", "text, json, sarif, github, junit or html. Default: text."),
    Flag::value("output", "FILE", "Write the answer there instead of to standard output."),
    Flag::value(
        "fail-on",
        "SEVERITY",
        "note, warning, error or never: from where on findings make the exit status 1. Default: warning.",
    ),
    Flag::value("fix", "KIND", "Edit the files: --fix makes the safe changes, --fix=unsafe all of them."),
    Flag::switch("diff", "Show what --fix would change, and change nothing."),
    Flag::switch(
        "explain-links",
        "Show the chain from image to load balancer that was found, and what could not be resolved.",
    ),
    Flag::value("rate", "N", "Requests a second to one replica: loss windows are then also given in requests."),
    Flag::value(
        "lag",
        "TIME",
        "How long routing goes on sending after a deletion. Default: what is known of what stands in front.",
    ),
    Flag::value("config", "FILE", "Settings. Default: lameduck.toml, where it exists."),
    Flag::value("baseline", "FILE", "Leave out the findings that this file lists."),
    Flag::value("write-baseline", "FILE", "Write the findings there, for --baseline."),
    Flag::value("values", "FILE", "Values for charts, over their own: helm template --values FILE."),
    Flag::switch("no-render", "Do not run helm or kubectl for charts and kustomizations."),
];

/// Runs the verb.
pub fn check(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &in_order(args), env)?;
    let config = config(&given)?;
    let mut options = options(&given, &config)?;
    if !given.switch("no-render")? {
        render_all(&mut options, given.raw("values"));
    }
    let outcome = lameduck_check::check(&options);
    let fix =
        given.one("fix", "safe or unsafe", |text| ["safe", "unsafe"].contains(&text).then(|| text == "unsafe"))?;
    if given.switch("diff")? {
        let mut out = BufWriter::new(std::io::stdout().lock());
        let print = |change: Change| out.write_all(lameduck_check::diff(&change).as_bytes());
        let done = outcome.each_change(fix == Some(true), print).and_then(|()| out.flush());
        done.map_err(|error| unwritten(Path::new("standard output"), &error))?;
        return status(&given, &config, &outcome);
    }
    if let Some(unsafe_too) = fix {
        let (mut changed, mut failed) = (false, None);
        let done = outcome.each_change(unsafe_too, |change| {
            changed = true;
            let written = fs::write(&change.path, &change.after);
            match &written {
                Ok(()) => eprintln!("fixed {}", change.path.display()),
                Err(_) => failed = Some(change.path),
            }
            written
        });
        let path = failed.unwrap_or_else(|| PathBuf::from("the findings"));
        done.map_err(|error| unwritten(&path, &error))?;
        let after = if changed { lameduck_check::check(&options) } else { outcome };
        show(&given, &after)?;
        return status(&given, &config, &after);
    }
    if let Some(path) = given.raw("write-baseline") {
        let path = Path::new(path);
        let baseline = outcome.baseline().map_err(|error| unwritten(path, &error))?;
        write(path, &(serde_json::to_string_pretty(&baseline).unwrap_or_default() + "\n"))?;
    }
    show(&given, &outcome)?;
    status(&given, &config, &outcome)
}

/// Options may follow paths, and `--fix` needs no value.
fn in_order(args: &[OsString]) -> Vec<OsString> {
    let safe = |arg: &OsString| if arg == "--fix" { "--fix=safe".into() } else { arg.clone() };
    flag::options_first(&args.iter().map(safe).collect::<Vec<_>>(), FLAGS)
}

fn setup(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::Error { message: format!("{}: {error}", path.display()), status: exit::USAGE }
}

fn config(given: &Given) -> Result<Config, Failure> {
    let named = given.raw("config").map(PathBuf::from);
    let path = named.clone().unwrap_or_else(|| PathBuf::from("lameduck.toml"));
    match fs::read_to_string(&path) {
        Ok(text) => Config::parse(&text).map_err(|error| setup(&path, error)),
        Err(error) if named.is_some() || error.kind() != std::io::ErrorKind::NotFound => Err(setup(&path, error)),
        Err(_) => Ok(Config::default()),
    }
}

fn options(given: &Given, config: &Config) -> Result<Options, Failure> {
    let rate = given.one("rate", "a number above 0", |text| text.parse::<f64>().ok().filter(|rate| *rate > 0.0))?;
    let baseline =
        given.raw("baseline").map(PathBuf::from).or_else(|| config.check.baseline.as_ref().map(PathBuf::from));
    let baseline = match baseline {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(&path).map_err(|error| setup(&path, error))?;
            Some(Baseline::parse(&text).map_err(|error| setup(&path, error))?)
        }
    };
    let mut options = Options {
        rate: rate.or(config.check.rate),
        lag: given.duration("lag")?.map(|lag| lag.as_secs_f64()).or(config.check.lag),
        ignore: config.check.ignore.clone(),
        baseline,
        ..Options::default()
    };
    for operand in &given.operands {
        if operand == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| Failure::Error {
                message: format!("standard input could not be read as text: {error}"),
                status: exit::UNREADABLE,
            })?;
            options.stdin = Some(text);
        } else {
            options.paths.push(PathBuf::from(operand));
        }
    }
    if given.operands.is_empty() {
        options.paths.push(PathBuf::from("."));
    }
    Ok(options)
}

/// Has charts and kustomizations rendered by the programs that define what they mean, where these are installed.
pub(super) fn render_all(options: &mut Options, values: Option<&OsStr>) {
    let (charts, kustomizations) = lameduck_check::to_render(&options.paths);
    for chart in charts {
        let values = values.into_iter().flat_map(|file| [OsStr::new("--values"), file]);
        match output(Command::new("helm").args(["template", "check"]).arg(&chart).args(values)) {
            Ok(text) => options.rendered.extend(by_source(&chart, &text)),
            Err(why) => options.not_rendered.push((chart, format!("a Helm chart, and helm template failed: {why}"))),
        }
    }
    for folder in kustomizations {
        match output(Command::new("kubectl").arg("kustomize").arg(&folder)) {
            Ok(text) => {
                let path = folder.join("kustomization.yaml (rendered)");
                options.rendered.push(Rendered { path, from_template: false, text });
            }
            Err(why) => {
                options.not_rendered.push((folder, format!("a kustomization, and kubectl kustomize failed: {why}")));
            }
        }
    }
}

fn output(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => format!("{name} is not installed, so this was not checked"),
        _ => error.to_string(),
    })?;
    if !out.status.success() {
        let stderr = String::from_utf8_lossy(&out.stderr);
        let said: Vec<&str> = stderr.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let said: String = said.join(" ").chars().take(400).collect();
        return Err(if said.is_empty() { "it said nothing".to_owned() } else { said });
    }
    String::from_utf8(out.stdout).map_err(|error| error.to_string())
}

/// helm says before each document which template it comes from; a template may make several.
fn by_source(chart: &Path, text: &str) -> Vec<Rendered> {
    let mut out: Vec<Rendered> = Vec::new();
    for document in text.split("\n---\n").map(|document| document.strip_prefix("---\n").unwrap_or(document)) {
        let source = document.lines().find_map(|line| line.strip_prefix("# Source: "));
        let Some((_, inner)) = source.and_then(|source| source.split_once('/')) else { continue };
        let path = chart.join(inner);
        match out.iter_mut().find(|known| known.path == path) {
            Some(known) => known.text.extend(["\n---\n", document]),
            None => out.push(Rendered { path, from_template: true, text: document.to_owned() }),
        }
    }
    out
}

fn show(given: &Given, outcome: &Outcome) -> Result<(), Failure> {
    let format = given.one("format", &format!("one of {}", FORMATS.join(", ")), |text| {
        FORMATS.into_iter().find(|known| *known == text)
    })?;
    let to_file = given.raw("output").map(Path::new);
    let color = to_file.is_none() && std::io::stdout().is_terminal() && super::no_color().is_none();
    let links = given.switch("explain-links")?;
    let in_front = format.is_none_or(|format| format == "text");
    if links && !in_front {
        let done = render::links(outcome, BufWriter::new(std::io::stderr().lock()));
        done.map_err(|error| unwritten(Path::new("standard error"), &error))?;
    }
    let all = |out: &mut dyn Write| {
        let mut out = BufWriter::new(out);
        if links && in_front {
            render::links(outcome, &mut out)?;
        }
        match format.unwrap_or("text") {
            "json" => render::json(outcome, &mut out)?,
            "sarif" => render::sarif(outcome, &mut out)?,
            "github" => render::github(outcome, &mut out)?,
            "junit" => render::junit(outcome, &mut out)?,
            "html" => render::html(outcome, &mut out)?,
            _ => render::text(outcome, color, &mut out)?,
        }
        out.flush()
    };
    match to_file {
        Some(path) => {
            fs::File::create(path).and_then(|mut file| all(&mut file)).map_err(|error| unwritten(path, &error))
        }
        None => all(&mut std::io::stdout().lock()).map_err(|error| unwritten(Path::new("standard output"), &error)),
    }
}

fn unwritten(path: &Path, error: &std::io::Error) -> Failure {
    Failure::Error { message: format!("{}: {error}; it could not be written", path.display()), status: exit::SETUP }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| unwritten(path, &error))
}

fn status(given: &Given, config: &Config, outcome: &Outcome) -> Result<u8, Failure> {
    let expected = "note, warning, error or never";
    let read = |text: &str| match text {
        "never" => Some(None),
        text => lameduck_check::severity(text).map(Some),
    };
    let asked = given.one("fail-on", expected, read)?;
    let configured = match config.check.fail_on.as_deref() {
        Some(text) => Some(
            read(text)
                .ok_or_else(|| given.usage(format!("lameduck.toml: fail-on: read {text:?}, expected {expected}")))?,
        ),
        None => None,
    };
    let least = asked.or(configured).unwrap_or_else(|| lameduck_check::severity("warning"));
    if outcome.unreadable {
        return Ok(exit::UNREADABLE);
    }
    let failed = least.is_some_and(|least| outcome.count_from(least) > 0);
    Ok(if failed { exit::NEGATIVE } else { exit::OK })
}
