//! Predicts lost requests before anything runs: from Dockerfiles, scripts, manifests, proxy and server settings to the two
//! lanes of a termination, the windows in which requests are lost, and what to change.
//!
//! [`check`] reads and answers; [`render`] writes the answer; [`rule`] explains. Files are read in `files`, and nowhere else.

#![expect(clippy::similar_names, reason = "a thing, its parts and the list of them are called alike")]

mod config;
mod docker;
mod edit;
mod files;
mod finding;
mod launch;
mod link;
mod model;
#[cfg(test)]
mod oracle;
mod predict;
mod read;
pub mod render;
pub mod report;
mod rules;
mod server;
mod shell;
mod span;
mod yaml;

use std::path::PathBuf;

pub use config::{BASELINE, Baseline, CheckConfig, Config, IgnoreConfig, Known};
use lameduck_core::Severity;
use report::{Document, IgnoredShown, TermShown, WorkloadShown};

/// What to check, and how.
#[derive(Debug, Default)]
pub struct Options {
    /// Files and folders.
    pub paths: Vec<PathBuf>,
    /// A text from standard input.
    pub stdin: Option<String>,
    /// Requests a second to one replica.
    pub rate: Option<f64>,
    /// Seconds for which routing goes on after a deletion, where the files do not say.
    pub lag: Option<f64>,
    /// Findings that do not matter.
    pub ignore: Vec<IgnoreConfig>,
    /// Findings known already.
    pub baseline: Option<Baseline>,
    /// Texts that another program made from a chart or kustomization: where they come from, and the text.
    pub rendered: Vec<(PathBuf, String)>,
    /// Charts and kustomizations that could not be rendered: the folder, and why.
    pub not_rendered: Vec<(PathBuf, String)>,
}

/// A file that fixes change.
#[derive(Debug, Clone)]
pub struct Change {
    /// The path, as shown.
    pub path: PathBuf,
    /// The text as it is.
    pub before: String,
    /// The text as it would be.
    pub after: String,
}

/// The answer.
#[derive(Debug)]
pub struct Outcome {
    /// Everything there is to say.
    pub document: Document,
    /// For `--explain-links`: by workload.
    pub links: Vec<(String, Vec<String>)>,
    /// Something could not be read at all.
    pub unreadable: bool,
    files: files::Files,
    findings: Vec<finding::Finding>,
}

impl Outcome {
    /// What the fixes make of the files: the safe ones, or all.
    pub fn changes(&self, unsafe_too: bool) -> Vec<Change> {
        let fixes = self.findings.iter().filter_map(|finding| finding.fix.as_ref());
        let mut edits: Vec<edit::Edit> = Vec::new();
        for fix in fixes.filter(|fix| fix.safe || unsafe_too) {
            // Two findings may want the same place: the first has it, and another run meets the second. A fix is made
            // whole or not at all.
            let free = |new: &edit::Edit| {
                edits.iter().all(|known| known == new || known.file != new.file || !overlap(known.span, new.span))
            };
            if fix.edits.iter().all(free) {
                edits.extend(fix.edits.iter().filter(|new| !edits.contains(new)).cloned().collect::<Vec<_>>());
            }
        }
        let mut ids: Vec<span::FileId> = edits.iter().map(|edit| edit.file).collect();
        ids.sort();
        ids.dedup();
        let change = |id: span::FileId| {
            if self.files.is_held(id) {
                return None;
            }
            let before = self.files.text(id).ok()?;
            let own: Vec<edit::Edit> = edits.iter().filter(|edit| edit.file == id).cloned().collect();
            let after = edit::apply(&before, &own);
            (after != before).then(|| Change { path: self.files.path(id), before, after })
        };
        ids.into_iter().filter_map(change).collect()
    }

    /// The text of a line, for an excerpt.
    pub fn source(&self, file: &str) -> Option<String> {
        self.findings
            .iter()
            .map(|finding| finding.at.file)
            .find(|id| self.files.show(*id) == file)
            .and_then(|id| self.files.text(id).ok())
    }

    /// The findings as a baseline.
    pub fn baseline(&self) -> Baseline {
        let mut findings: Vec<Known> = self.document.findings.iter().map(known).collect();
        findings.sort();
        findings.dedup();
        Baseline { schema: BASELINE.to_owned(), findings }
    }

    /// How wide a finding's place is, in characters of its first line.
    pub fn width(&self, n: usize) -> usize {
        let Some(finding) = self.findings.get(n) else { return 1 };
        let Ok(text) = self.files.text(finding.at.file) else { return 1 };
        finding.at.span.of(&text).lines().next().map_or(1, |line| line.chars().count()).max(1)
    }
}

fn overlap(a: span::Span, b: span::Span) -> bool {
    if a.start == a.end || b.start == b.end {
        a.start == b.start && a.end == b.end
    } else {
        a.start < b.end && b.start < a.end
    }
}

fn known(finding: &report::FindingShown) -> Known {
    Known { rule: finding.rule.to_owned(), file: finding.file.clone(), message: finding.message.clone() }
}

/// The folders among these paths that need another program: charts, and kustomizations.
pub fn to_render(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let found = files::find(paths);
    (found.charts, found.kustomizations)
}

/// A unified diff of a change.
pub fn diff(change: &Change) -> String {
    let path = change.path.strip_prefix("./").unwrap_or(&change.path);
    edit::diff(&path.display().to_string(), &change.before, &change.after)
}

/// Reads everything and says what it finds.
pub fn check(options: &Options) -> Outcome {
    let files = files::Files::default();
    let found = files::find(&options.paths);
    let mut facts = read::all(&files, &found.files);
    let mut unparsed: Vec<read::Unparsed> = Vec::new();
    let texts =
        options.stdin.iter().map(|text| (PathBuf::from("-"), text.clone())).chain(options.rendered.iter().cloned());
    for (path, text) in texts {
        let kind = kind_of_text(&text);
        let id = files.hold(&path.display().to_string(), text);
        facts.push(read::one(&files, id, kind));
    }
    for (path, why) in &found.unreadable {
        let file = path.display().to_string();
        unparsed.push(read::Unparsed { file, line: 0, why: why.clone(), unreadable: true });
    }
    for (path, why) in &options.not_rendered {
        let file = path.display().to_string();
        unparsed.push(read::Unparsed { file, line: 0, why: why.clone(), unreadable: false });
    }
    unparsed.extend(facts.iter_mut().flat_map(|fact| std::mem::take(&mut fact.unparsed)));
    let ignores: Vec<model::Ignore> = facts.iter_mut().flat_map(|fact| std::mem::take(&mut fact.ignores)).collect();
    let count = facts.len();
    let world = link::link(&files, facts);
    answer(options, files, &world, &ignores, unparsed, count)
}

/// What standard input holds: a Dockerfile begins with an instruction, everything else is YAML.
fn kind_of_text(text: &str) -> files::Kind {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#')).unwrap_or_default();
    let word = first.split_whitespace().next().unwrap_or_default();
    if word.eq_ignore_ascii_case("from") || (word.eq_ignore_ascii_case("arg") && !first.contains(':')) {
        files::Kind::Dockerfile
    } else {
        files::Kind::Yaml
    }
}

fn answer(
    options: &Options,
    files: files::Files,
    world: &link::World,
    ignores: &[model::Ignore],
    mut unparsed: Vec<read::Unparsed>,
    count: usize,
) -> Outcome {
    let settings = predict::Settings { rate: options.rate, lag: options.lag };
    let mut findings: Vec<finding::Finding> = Vec::new();
    let mut workloads = Vec::new();
    let mut links = Vec::new();
    for (workload, chain) in world.workloads.iter().zip(&world.links) {
        let prediction = predict::predict(world, workload, settings);
        let subject = rules::Subject { world, workload, prediction: &prediction };
        if !world.is_deployed(workload) {
            findings.extend(rules::ALL.iter().flat_map(|rule| rules::on_workload(rule, &subject)));
        }
        workloads.push(shown(&files, workload, &prediction, settings));
        let hops =
            world.hops(workload).into_iter().map(|hop| format!("in front: {} ({})", hop.balancer.name, hop.name));
        let services = world.services(workload).map(|service| format!("service {}", service.name));
        let all = chain.iter().cloned().chain(services).chain(hops).collect();
        links.push((format!("{} {}", workload.kind.name(), workload.name), all));
    }
    findings.extend(rules::ALL.iter().flat_map(|rule| rules::on_world(rule, world)));
    // A Dockerfile is met as itself and through each manifest that uses it.
    let place =
        |finding: &finding::Finding| (files.show(finding.at.file), finding.at.line, finding.at.column, finding.rule);
    findings.sort_by_key(&place);
    findings.dedup_by_key(|finding| place(finding));
    without_echoes(&files, &mut findings);
    let mut ignored = Vec::new();
    findings.retain(|found| match reason(&files, options, world, ignores, found) {
        Some(reason) => {
            let (file, line) = (files.show(found.at.file), found.at.line);
            ignored.push(IgnoredShown { rule: found.rule, file, line, reason });
            false
        }
        None => true,
    });
    for ignore in ignores.iter().chain(world.workloads.iter().flat_map(|workload| &workload.ignores)) {
        let why = if ignore.reason.is_empty() {
            format!("ignore[{}] has no reason, so it is not followed: say why", ignore.rule)
        } else if rules::by_name(&ignore.rule).is_none() {
            format!("ignore[{}]: there is no such rule; see lameduck rule --list", ignore.rule)
        } else {
            continue;
        };
        unparsed.push(read::Unparsed {
            file: files.show(ignore.at.file),
            line: ignore.at.line,
            why,
            unreadable: false,
        });
    }
    let show = |id| files.show(id);
    let known_before = |finding: &finding::Finding| {
        let shown = known(&report::finding(finding, &show));
        options.baseline.as_ref().is_some_and(|baseline| baseline.findings.contains(&shown))
    };
    findings.retain(|finding| !known_before(finding));
    unparsed.sort();
    unparsed.dedup();
    let document = Document {
        schema: report::SCHEMA,
        findings: findings.iter().map(|finding| report::finding(finding, &show)).collect(),
        workloads,
        unparsed: report::unparsed(&unparsed),
        ignored,
        files: count,
    };
    Outcome { document, links, unreadable: unparsed.iter().any(|one| one.unreadable), files, findings }
}

/// What was rendered repeats what its plain parts say already.
fn without_echoes(files: &files::Files, findings: &mut Vec<finding::Finding>) {
    let plain: Vec<(&str, String, String)> = findings
        .iter()
        .filter(|found| !files.is_held(found.at.file))
        .map(|found| (found.rule, found.workload.clone(), found.message.clone()))
        .collect();
    findings.retain(|found| {
        let same = |(rule, workload, message): &(&str, String, String)| {
            *rule == found.rule && *workload == found.workload && *message == found.message
        };
        !files.is_held(found.at.file) || !plain.iter().any(same)
    });
}

/// Why a finding does not matter, if somebody has said so.
fn reason(
    files: &files::Files,
    options: &Options,
    world: &link::World,
    ignores: &[model::Ignore],
    found: &finding::Finding,
) -> Option<String> {
    let near = ignores.iter().find(|ignore| {
        let below = found.at.line == ignore.at.line || found.at.line == ignore.at.line + 1;
        ignore.rule == found.rule && ignore.at.file == found.at.file && below && !ignore.reason.is_empty()
    });
    let object = world
        .workloads
        .iter()
        .filter(|workload| !workload.ignores.is_empty())
        .filter(|workload| workload.name == found.workload)
        .flat_map(|w| &w.ignores);
    let object = || object.clone().find(|ignore| ignore.rule == found.rule && !ignore.reason.is_empty());
    let configured = || {
        options.ignore.iter().find(|ignore| {
            let path = ignore.path.as_ref().is_none_or(|path| files.show(found.at.file).starts_with(path.as_str()));
            ignore.rule == found.rule && path
        })
    };
    near.map(|ignore| ignore.reason.clone())
        .or_else(|| object().map(|ignore| ignore.reason.clone()))
        .or_else(|| configured().map(|ignore| ignore.reason.clone()))
}

fn shown(
    files: &files::Files,
    workload: &model::Workload,
    prediction: &predict::Prediction,
    settings: predict::Settings,
) -> WorkloadShown {
    let (outcome, pid1, app) = predict::outcome(workload);
    let launch = predict::main_container(workload).and_then(|container| container.launch.as_ref());
    let because = match launch {
        Some(launch) => launch.unsure.clone(),
        None => Some("the image's command is not known".to_owned()),
    };
    WorkloadShown {
        name: workload.name.clone(),
        file: files.show(workload.file),
        kind: workload.kind.name(),
        grace_s: workload.grace_s(),
        term: TermShown { outcome: outcome.id(), pid1, app, unknown_because: because },
        timeline: report::timeline(prediction),
        loss_windows: report::windows(prediction, settings.rate),
    }
}

/// Every rule: its name, and what it finds in one sentence.
pub fn rules() -> impl Iterator<Item = (&'static str, &'static str)> {
    rules::ALL.iter().map(|rule| (rule.name, rule.summary()))
}

/// The page of a rule.
pub fn rule(name: &str) -> Option<&'static str> {
    rules::by_name(name).map(|rule| rule.page)
}

/// Reads a severity's id.
pub fn severity(id: &str) -> Option<Severity> {
    [Severity::Note, Severity::Warning, Severity::Error].into_iter().find(|known| finding::severity_id(*known) == id)
}

/// For fuzzing: the parsers, one by one. They have to end, and not to panic.
pub mod parsers {
    use super::{docker, files, link, model, read, shell, span, yaml};

    /// A Dockerfile, and the image that it makes.
    pub fn dockerfile(text: &str) {
        let file = span::FileId(0);
        let parsed = docker::parse::parse(file, text);
        let image = docker::image::build(&parsed, &span::Lines::new(file, text));
        if let Some(image) = image {
            let _ = image.command();
        }
    }

    /// A shell script, by every shell.
    pub fn shell(text: &str) {
        let Ok(script) = shell::parse::parse(text) else { return };
        for kind in shell::exec::Shell::ALL {
            for form in [shell::exec::Form::Command, shell::exec::Form::File] {
                let known = shell::condition::Known::default();
                let _ = shell::exec::analyse(&script, kind, form, &known, &|_| false);
            }
        }
    }

    /// YAML: manifests and Compose files. Gives what can not be read.
    pub fn yaml(text: &str) -> Vec<String> {
        let files = files::Files::default();
        let id = files.hold("-", text.to_owned());
        let facts = read::one(&files, id, files::Kind::Yaml);
        let bad = facts.unparsed.iter().map(|one| one.why.clone()).collect();
        let _ = link::link(&files, vec![facts]);
        bad
    }

    /// nginx.conf and haproxy.cfg.
    pub fn proxies(text: &str) {
        let text = span::Mapped::plain(span::FileId(0), text, 0);
        let _ = model::proxy::nginx(&text, &|_| Vec::new());
        let _ = model::proxy::haproxy(&text);
    }

    /// A Node.js source.
    pub fn node(text: &str) {
        let open = |path: &str| {
            if path == "a.js" {
                let text = span::Mapped::plain(span::FileId(0), text, 0);
                super::launch::Opened::Text { path: path.to_owned(), text }
            } else {
                super::launch::Opened::Missing
            }
        };
        let _ = model::node::read("a.js", &open);
    }

    /// The documents of a YAML text: they cover it from the first to the last.
    pub fn documents(text: &str) -> usize {
        yaml::split(text).len()
    }
}
