//! Predicts lost requests before anything runs: from Dockerfiles, scripts, manifests, proxy and server settings to the two
//! lanes of a termination, the windows in which requests are lost, and what to change.
//!
//! [`check`] reads and answers; [`render`] writes the answer; [`rule`] explains. Files are read in `files`, and nowhere else.

#![expect(clippy::similar_names, reason = "a thing, its parts and the list of them are called alike")]

mod config;
mod docker;
mod edit;
pub mod facts;
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

use std::path::{Path, PathBuf};

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
    /// How many workloads there are.
    pub count: usize,
    /// Something could not be read at all.
    pub unreadable: bool,
    /// The first workloads; all of them, where they are few.
    first: Vec<report::Told>,
    pass: Pass,
    findings: Vec<finding::Finding>,
}

/// So many workloads are kept. Where there are more their files are read again, so that memory does not grow with them.
const KEPT: usize = 256;

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
        // What was asked for in its order, then what that led to: in which order it was met depends on the threads.
        let asked = self.pass.sources.len();
        ids.sort_by_cached_key(|id| ((id.0 as usize).min(asked), self.pass.files.path(*id)));
        ids.dedup();
        let change = |id: span::FileId| {
            let files = &self.pass.files;
            if files.is_held(id) {
                return None;
            }
            let before = files.text(id).ok()?;
            let own: Vec<edit::Edit> = edits.iter().filter(|edit| edit.file == id).cloned().collect();
            let after = edit::apply(&before, &own);
            (after != before).then(|| Change { path: files.path(id), before, after })
        };
        ids.into_iter().filter_map(change).collect()
    }

    /// Hands over the workloads, one by one: Dockerfiles, then Procfiles, then manifests, each in the order they were read.
    pub fn each_workload(&self, mut take: impl FnMut(&WorkloadShown)) {
        self.each(|told| take(&told.shown));
    }

    /// Hands over what the files say of each workload, in the same order, reading them again. Images and Procfile lines that a
    /// manifest runs are left out.
    pub fn each_facts(&self, mut take: impl FnMut(facts::WorkloadFacts)) {
        let pass = &self.pass;
        pass.each(
            &pass.dockerfiles_first(),
            &|workload, _| {
                let deployed = pass.world.is_deployed(&workload);
                (!deployed).then(|| facts::facts(&pass.world, &workload, pass.settings))
            },
            &mut |facts| facts.into_iter().for_each(&mut take),
        );
    }

    /// All workloads at once.
    pub fn workloads(&self) -> Vec<WorkloadShown> {
        let mut all = Vec::new();
        self.each_workload(|workload| all.push(workload.clone()));
        all
    }

    fn each(&self, mut take: impl FnMut(&report::Told)) {
        if self.first.len() == self.count {
            self.first.iter().for_each(take);
        } else {
            self.pass.each(
                &self.pass.dockerfiles_first(),
                &|workload, links| self.pass.told(&workload, links),
                &mut |told| {
                    take(&told);
                },
            );
        }
    }

    /// The text of a line, for an excerpt.
    pub fn source(&self, file: &str) -> Option<String> {
        self.findings
            .iter()
            .map(|finding| finding.at.file)
            .find(|id| self.pass.files.show(*id) == file)
            .and_then(|id| self.pass.files.text(id).ok())
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
        let Ok(text) = self.pass.files.text(finding.at.file) else { return 1 };
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

/// Reads everything and says what it finds: once for what files have to know of each other, once for the workloads.
pub fn check(options: &Options) -> Outcome {
    let files = files::Files::default();
    let found = files::find(&options.paths);
    let mut unparsed: Vec<read::Unparsed> = Vec::new();
    for (path, why) in found.unreadable {
        unparsed.push(read::Unparsed { file: path.display().to_string(), line: 0, why, unreadable: true });
    }
    for (path, why) in &options.not_rendered {
        let file = path.display().to_string();
        unparsed.push(read::Unparsed { file, line: 0, why: why.clone(), unreadable: false });
    }
    let mut sources: Vec<read::Source> = found.files.into_iter().map(|(path, kind)| (files.id(&path), kind)).collect();
    let stdin = options.stdin.iter().map(|text| (Path::new("-"), text));
    for (path, text) in stdin.chain(options.rendered.iter().map(|(path, text)| (path.as_path(), text))) {
        sources.push((files.hold(&path.display().to_string(), text.clone()), kind_of_text(text)));
    }
    let mut gathering = link::Gathering::default();
    let mut ignores: Vec<model::Ignore> = Vec::new();
    read::each(
        &files,
        &sources,
        |facts| facts,
        |mut facts| {
            unparsed.append(&mut facts.unparsed);
            ignores.append(&mut facts.ignores);
            gathering.add(&files, facts);
        },
    );
    let settings = predict::Settings { rate: options.rate, lag: options.lag };
    let pass = Pass { files, sources, world: gathering.done(), settings };
    answer(options, pass, &ignores, unparsed)
}

/// What it takes to read the files once more and meet their workloads.
#[derive(Debug)]
struct Pass {
    files: files::Files,
    sources: Vec<read::Source>,
    world: link::World,
    settings: predict::Settings,
}

impl Pass {
    fn of(&self, kinds: fn(files::Kind) -> bool) -> Vec<read::Source> {
        self.sources.iter().copied().filter(|(_, kind)| kinds(*kind)).collect()
    }

    fn manifests(&self) -> Vec<read::Source> {
        self.of(|kind| kind == files::Kind::Yaml)
    }

    fn dockerfiles_first(&self) -> Vec<read::Source> {
        let mut all = self.of(|kind| kind == files::Kind::Dockerfile);
        all.extend(self.of(|kind| kind == files::Kind::Procfile));
        all.extend(self.manifests());
        all
    }

    /// Links the workloads of these files, and hands over what becomes of each.
    fn each<T: Send>(
        &self,
        sources: &[read::Source],
        work: &(impl Fn(model::Workload, Vec<String>) -> T + Sync),
        take: &mut impl FnMut(T),
    ) {
        let of_file = |facts| {
            let linked = link::workloads(&self.files, &self.world, facts);
            linked.into_iter().map(|(workload, links)| work(workload, links)).collect::<Vec<_>>()
        };
        read::each(&self.files, sources, of_file, |all| all.into_iter().for_each(&mut *take));
    }

    /// What the rules find about a workload.
    fn findings(&self, workload: &model::Workload) -> Vec<finding::Finding> {
        let prediction = predict::predict(&self.world, workload, self.settings);
        let subject = rules::Subject { world: &self.world, workload, prediction: &prediction };
        let mut found = Vec::new();
        if !self.world.is_deployed(workload) {
            found.extend(rules::ALL.iter().flat_map(|rule| rules::on_workload(rule, &subject)));
        }
        found.extend(rules::ALL.iter().flat_map(|rule| rules::around(rule, &self.world, workload)));
        found
    }

    fn told(&self, workload: &model::Workload, chain: Vec<String>) -> report::Told {
        let world = &self.world;
        let prediction = predict::predict(world, workload, self.settings);
        let hops =
            world.hops(workload).into_iter().map(|hop| format!("in front: {} ({})", hop.balancer.name, hop.name));
        let services = world.services(workload).map(|service| format!("service {}", service.name));
        let links = chain.into_iter().chain(services).chain(hops).collect();
        report::Told { shown: shown(&self.files, workload, &prediction, self.settings), links }
    }
}

/// What is found in the files, and what there is to ignore by the word of objects.
#[derive(Default)]
struct Met {
    count: usize,
    findings: Vec<finding::Finding>,
    ignores: Vec<(String, Vec<model::Ignore>)>,
}

/// Meets every workload. What manifests run is known before Dockerfiles and Procfiles are judged by themselves.
fn meet(pass: &mut Pass) -> Met {
    let mut met = Met::default();
    let mut seen = std::mem::take(&mut pass.world.seen);
    let judge = |pass: &Pass, workload: model::Workload| (pass.findings(&workload), workload);
    pass.each(&pass.manifests(), &|workload, _| judge(pass, workload), &mut |(findings, workload)| {
        pass.world.see(&workload, &mut seen);
        met.count += 1;
        met.findings.extend(findings);
        if !workload.ignores.is_empty() {
            met.ignores.push((workload.name, workload.ignores));
        }
    });
    pass.world.seen = seen;
    let mut own = Vec::new();
    let alone = |kind| kind == files::Kind::Dockerfile || kind == files::Kind::Procfile;
    let mut alone = pass.of(alone);
    alone.sort_by_key(|(_, kind)| *kind == files::Kind::Procfile);
    pass.each(&alone, &|workload, _| pass.findings(&workload), &mut |findings| {
        met.count += 1;
        own.extend(findings);
    });
    own.append(&mut met.findings);
    met.findings = own;
    met.findings.extend(rules::ALL.iter().flat_map(|rule| rules::on_world(rule, &pass.world)));
    met
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

fn answer(options: &Options, mut pass: Pass, ignores: &[model::Ignore], mut unparsed: Vec<read::Unparsed>) -> Outcome {
    let Met { count, mut findings, ignores: of_objects } = meet(&mut pass);
    let files = &pass.files;
    // A Dockerfile is met as itself and through each manifest that uses it.
    let place =
        |finding: &finding::Finding| (files.show(finding.at.file), finding.at.line, finding.at.column, finding.rule);
    findings.sort_by_key(&place);
    findings.dedup_by_key(|finding| place(finding));
    without_echoes(files, &mut findings);
    let mut ignored = Vec::new();
    findings.retain(|found| match reason(files, options, &of_objects, ignores, found) {
        Some(reason) => {
            let (file, line) = (files.show(found.at.file), found.at.line);
            ignored.push(IgnoredShown { rule: found.rule, file, line, reason });
            false
        }
        None => true,
    });
    for ignore in ignores.iter().chain(of_objects.iter().flat_map(|(_, ignores)| ignores)) {
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
        unparsed: report::unparsed(&unparsed),
        ignored,
        files: pass.sources.len(),
    };
    let unreadable = unparsed.iter().any(|one| one.unreadable);
    let mut outcome = Outcome { document, count, unreadable, first: Vec::new(), pass, findings };
    if count <= KEPT {
        let mut first = Vec::new();
        outcome.each(|told| first.push(told.clone()));
        outcome.first = first;
    }
    outcome
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
    of_objects: &[(String, Vec<model::Ignore>)],
    ignores: &[model::Ignore],
    found: &finding::Finding,
) -> Option<String> {
    let near = ignores.iter().find(|ignore| {
        let below = found.at.line == ignore.at.line || found.at.line == ignore.at.line + 1;
        ignore.rule == found.rule && ignore.at.file == found.at.file && below && !ignore.reason.is_empty()
    });
    let object = of_objects.iter().filter(|(name, _)| *name == found.workload).flat_map(|(_, ignores)| ignores);
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
        let mut gathering = link::Gathering::default();
        gathering.add(&files, facts);
        let _ = link::workloads(&files, &gathering.done(), read::one(&files, id, files::Kind::Yaml));
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
