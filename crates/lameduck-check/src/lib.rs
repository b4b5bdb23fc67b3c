//! Predicts lost requests before anything runs: from Dockerfiles, scripts, manifests, proxy and server settings to the two
//! lanes of a termination, the windows in which requests are lost, and what to change.
//!
//! [`check`] reads and answers; [`render`] writes the answer; [`rule`] explains. Files are read in `files`, and nowhere else.

#![expect(clippy::similar_names, reason = "a thing, its parts and the list of them are called alike")]

mod atlas;
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
mod origin;
mod paths;
mod predict;
mod read;
pub mod render;
pub mod report;
mod rules;
mod server;
mod shell;
mod span;
mod store;
mod world;
mod yaml;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

pub use config::{BASELINE, Baseline, CheckConfig, Config, IgnoreConfig, Known};
use lameduck_core::Severity;
use report::{Document, FindingShown, IgnoredShown, TermShown, WorkloadShown};
pub use yaml::value::values as yaml_values;

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
    /// Texts that another program made from a chart or kustomization.
    pub rendered: Vec<Rendered>,
    /// Charts and kustomizations that could not be rendered: the folder, and why.
    pub not_rendered: Vec<(PathBuf, String)>,
}

/// What another program made of a template.
#[derive(Debug)]
pub struct Rendered {
    /// Where it comes from: the template, or a name for all of it.
    pub path: PathBuf,
    /// `path` is the template itself.
    pub from_template: bool,
    /// What came out.
    pub text: String,
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
    findings: store::Findings,
}

/// So many workloads are kept. Where there are more their files are read again, so that memory does not grow with them.
const KEPT: usize = 256;

impl Outcome {
    /// Hands over the findings, one by one: by file and line.
    ///
    /// # Errors
    ///
    /// What `take` says, and what is kept outside of memory and can not be read again.
    pub fn each_finding(&self, mut take: impl FnMut(FindingShown) -> io::Result<()>) -> io::Result<()> {
        self.each_raw(|finding| take(report::finding(finding, &self.pass.files)))
    }

    fn each_raw(&self, mut take: impl FnMut(finding::Finding) -> io::Result<()>) -> io::Result<()> {
        self.findings.slots.iter().try_for_each(|slot| take(self.findings.get(slot)?))
    }

    /// All findings at once.
    ///
    /// # Errors
    ///
    /// As [`Outcome::each_finding`].
    pub fn findings(&self) -> io::Result<Vec<FindingShown>> {
        let mut all = Vec::new();
        self.each_finding(|finding| {
            all.push(finding);
            Ok(())
        })?;
        Ok(all)
    }

    /// How many findings are at least this severe.
    pub fn count_from(&self, least: Severity) -> usize {
        self.findings.slots.iter().filter(|slot| slot.severity >= least).count()
    }

    /// Hands over what the fixes make of the files, one by one: the safe fixes, or all.
    ///
    /// # Errors
    ///
    /// As [`Outcome::each_finding`].
    pub fn each_change(&self, unsafe_too: bool, mut take: impl FnMut(Change) -> io::Result<()>) -> io::Result<()> {
        let mut edits: HashMap<span::FileId, Vec<edit::Edit>> = HashMap::new();
        self.each_raw(|finding| {
            let Some(fix) = finding.fix.filter(|fix| fix.safe || unsafe_too) else { return Ok(()) };
            // Two findings may want the same place: the first has it, and another run meets the second. A fix is made
            // whole or not at all.
            let free = |new: &edit::Edit| {
                let known = edits.get(&new.file).map(Vec::as_slice).unwrap_or_default();
                known.iter().all(|known| known == new || !overlap(known.span, new.span))
            };
            if fix.edits.iter().all(free) {
                for new in fix.edits {
                    let known = edits.entry(new.file).or_default();
                    if !known.contains(&new) {
                        known.push(new);
                    }
                }
            }
            Ok(())
        })?;
        let mut ids: Vec<span::FileId> = edits.keys().copied().collect();
        // What was asked for in its order, then what that led to: in which order it was met depends on the threads.
        let asked = self.pass.asked;
        let files = &self.pass.files;
        ids.sort_by_cached_key(|id| ((id.0 as usize).min(asked), files.path(*id)));
        for id in ids.into_iter().filter(|id| !files.is_held(*id)) {
            let Ok(before) = files.text(id) else { continue };
            let after = edit::apply(&before, &edits[&id]);
            if after != before {
                take(Change { path: files.path(id), before, after })?;
            }
        }
        Ok(())
    }

    /// All changes at once.
    ///
    /// # Errors
    ///
    /// As [`Outcome::each_finding`].
    pub fn changes(&self, unsafe_too: bool) -> io::Result<Vec<Change>> {
        let mut all = Vec::new();
        self.each_change(unsafe_too, |change| {
            all.push(change);
            Ok(())
        })?;
        Ok(all)
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
            &|world, workload, _| {
                let deployed = pass.atlas.is_deployed(&workload);
                (!deployed).then(|| facts::facts(world, &workload, pass.settings))
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
                &|world, workload, links| self.pass.told(world, &workload, links),
                &mut |told| {
                    take(&told);
                },
            );
        }
    }

    /// The findings as a baseline.
    ///
    /// # Errors
    ///
    /// As [`Outcome::each_finding`].
    pub fn baseline(&self) -> io::Result<Baseline> {
        let mut findings = Vec::new();
        self.each_finding(|finding| {
            findings.push(known(&finding));
            Ok(())
        })?;
        findings.sort();
        findings.dedup();
        Ok(Baseline { schema: BASELINE.to_owned(), findings })
    }
}

fn overlap(a: span::Span, b: span::Span) -> bool {
    if a.start == a.end || b.start == b.end {
        a.start == b.start && a.end == b.end
    } else {
        a.start < b.end && b.start < a.end
    }
}

fn known(finding: &FindingShown) -> Known {
    Known { rule: finding.rule.to_owned(), file: finding.file.clone(), message: finding.message.clone() }
}

/// The folders among these paths that need another program: charts, and kustomizations.
pub fn to_render(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let found = files::find(&files::Files::default(), paths);
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
    let found = files::find(&files, &options.paths);
    let mut unparsed: Vec<read::Unparsed> = Vec::new();
    for (path, why) in found.unreadable {
        unparsed.push(read::Unparsed { file: path.display().to_string(), line: 0, why, unreadable: true });
    }
    for (path, why) in &options.not_rendered {
        let file = path.display().to_string();
        unparsed.push(read::Unparsed { file, line: 0, why: why.clone(), unreadable: false });
    }
    let mut sources = found.files;
    if let Some(text) = &options.stdin {
        sources.push((files.hold(Path::new("-"), text.clone(), None), kind_of_text(text)));
    }
    for rendered in &options.rendered {
        let template = rendered.from_template.then(|| files.text(files.id(&rendered.path)).ok()).flatten();
        let origins = template.map(|template| origin::origins(&template, &rendered.text));
        sources.push((files.hold(&rendered.path, rendered.text.clone(), origins), kind_of_text(&rendered.text)));
    }
    let mut gathering = atlas::Gathering::default();
    let mut ignores: Vec<model::Ignore> = Vec::new();
    let gist = |mut facts: read::Facts, kind| {
        let gist = atlas::Gist::of(&mut facts, kind);
        (gist, facts.unparsed, facts.ignores)
    };
    read::each(&files, &sources, gist, |(gist, mut bad, mut own)| {
        unparsed.append(&mut bad);
        ignores.append(&mut own);
        gathering.add(&files, gist);
    });
    let settings = predict::Settings { rate: options.rate, lag: options.lag };
    let asked = sources.iter().map(|(file, _)| file.0 as usize + 1).max().unwrap_or_default();
    let pass = Pass { files, sources, asked, atlas: gathering.done(), settings };
    answer(options, pass, &ignores, unparsed)
}

/// What it takes to read the files once more and meet their workloads.
#[derive(Debug)]
struct Pass {
    files: files::Files,
    sources: Vec<read::Source>,
    /// Files of lower numbers were asked for, the others were come upon.
    asked: usize,
    atlas: atlas::Atlas,
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
        work: &(impl Fn(&world::World, model::Workload, Vec<String>) -> T + Sync),
        take: &mut impl FnMut(T),
    ) {
        let of_file = |mut facts, _| {
            let world = self.atlas.around(&self.files, &mut facts);
            let linked = link::workloads(&self.files, &self.atlas, facts);
            linked.into_iter().map(|(workload, links)| work(&world, workload, links)).collect::<Vec<_>>()
        };
        read::each(&self.files, sources, of_file, |all| all.into_iter().for_each(&mut *take));
    }

    /// What the rules find about a workload.
    fn findings(&self, world: &world::World, workload: &model::Workload) -> Vec<finding::Finding> {
        let prediction = predict::predict(world, workload, self.settings);
        let subject = rules::Subject { world, workload, prediction: &prediction };
        let mut found = Vec::new();
        if !self.atlas.is_deployed(workload) {
            found.extend(rules::ALL.iter().flat_map(|rule| rules::on_workload(rule, &subject)));
        }
        found.extend(rules::ALL.iter().flat_map(|rule| rules::around(rule, world, workload)));
        found
    }

    fn told(&self, world: &world::World, workload: &model::Workload, chain: Vec<String>) -> report::Told {
        let prediction = predict::predict(world, workload, self.settings);
        let hops =
            world.hops(workload).into_iter().map(|hop| format!("in front: {} ({})", hop.balancer.name, hop.name));
        let services = world.services(workload).map(|service| format!("service {}", service.name));
        let many = (world.left_out > 0).then(|| {
            let n = world.left_out;
            format!("not resolved: {n} more files could belong to what is in {}", self.files.show(workload.file))
        });
        let links = chain.into_iter().chain(services).chain(hops).chain(many).collect();
        report::Told { shown: shown(&self.files, workload, &prediction, self.settings), links }
    }
}

/// What is found in the files, and what there is to ignore by the word of objects.
#[derive(Default)]
struct Met {
    count: usize,
    findings: store::Findings,
    ignores: Vec<(String, Vec<model::Ignore>)>,
}

/// Meets every workload. What manifests run is known before Dockerfiles and Procfiles are judged by themselves.
fn meet(pass: &mut Pass) -> Met {
    struct One {
        findings: Vec<finding::Finding>,
        sights: Vec<atlas::Sight>,
        ignores: Vec<(String, Vec<model::Ignore>)>,
        count: usize,
    }
    let mut met = Met::default();
    let mut seen = pass.atlas.unseen();
    let manifest = |mut facts: read::Facts, _| {
        let world = pass.atlas.around(&pass.files, &mut facts);
        let mut findings: Vec<finding::Finding> =
            rules::ALL.iter().flat_map(|rule| rules::on_world(rule, &world)).collect();
        let linked = link::workloads(&pass.files, &pass.atlas, facts);
        let count = linked.len();
        let (mut sights, mut ignores) = (Vec::new(), Vec::new());
        for (workload, _) in linked {
            findings.extend(pass.findings(&world, &workload));
            sights.push(pass.atlas.sight(&world, &workload));
            if !workload.ignores.is_empty() {
                ignores.push((workload.name, workload.ignores));
            }
        }
        One { findings, sights, ignores, count }
    };
    read::each(&pass.files, &pass.manifests(), manifest, |mut one| {
        met.count += one.count;
        one.findings.iter().for_each(|finding| met.findings.add(finding));
        one.sights.into_iter().for_each(|sight| atlas::Atlas::see(&mut seen, sight));
        met.ignores.append(&mut one.ignores);
    });
    let of_manifests = met.findings.slots.len();
    pass.atlas.seen(seen);
    let alone = |kind| kind == files::Kind::Dockerfile || kind == files::Kind::Procfile;
    let mut alone = pass.of(alone);
    alone.sort_by_key(|(_, kind)| *kind == files::Kind::Procfile);
    pass.each(&alone, &|world, workload, _| pass.findings(world, &workload), &mut |findings: Vec<_>| {
        met.count += 1;
        for finding in &findings {
            met.findings.add(finding);
        }
    });
    let with_budgets: Vec<read::Source> =
        pass.atlas.pdb_files().iter().map(|file| (*file, files::Kind::Yaml)).collect();
    let budgets = |mut facts: read::Facts, _| {
        let world = pass.atlas.budgets(&mut facts);
        rules::ALL.iter().flat_map(|rule| rules::on_budgets(rule, &world)).collect::<Vec<_>>()
    };
    read::each(&pass.files, &with_budgets, budgets, |findings| {
        for finding in &findings {
            met.findings.add(finding);
        }
    });
    // Where both find the same, a Dockerfile speaks for itself.
    met.findings.slots.rotate_left(of_manifests);
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
    sort(files, &mut findings.slots);
    let mut ignored = Vec::new();
    let mut lost = None;
    let mut slots = std::mem::take(&mut findings.slots);
    let baseline: HashSet<&Known> = options.baseline.iter().flat_map(|baseline| &baseline.findings).collect();
    if !(ignores.is_empty() && of_objects.is_empty() && options.ignore.is_empty() && baseline.is_empty()) {
        let ignores = Ignores::of(options, &of_objects, ignores);
        slots.retain(|slot| {
            let found = match findings.get(slot) {
                Ok(found) => found,
                Err(error) => {
                    lost = Some(error);
                    return true;
                }
            };
            if let Some(reason) = ignores.reason(files, &found) {
                ignored.push(IgnoredShown { rule: found.rule, file: files.show(slot.file), line: slot.line, reason });
                return false;
            }
            baseline.is_empty() || !baseline.contains(&known(&report::finding(found, files)))
        });
    }
    findings.slots = slots;
    if let Some(error) = lost {
        let why = format!("findings could not be read again from their temporary file: {error}");
        unparsed.push(read::Unparsed { file: String::new(), line: 0, why, unreadable: true });
    }
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
    unparsed.sort();
    unparsed.dedup();
    let document =
        Document { schema: report::SCHEMA, unparsed: report::unparsed(&unparsed), ignored, files: pass.sources.len() };
    let unreadable = unparsed.iter().any(|one| one.unreadable);
    let mut outcome = Outcome { document, count, unreadable, first: Vec::new(), pass, findings };
    if count <= KEPT {
        let mut first = Vec::new();
        outcome.each(|told| first.push(told.clone()));
        outcome.first = first;
    }
    outcome
}

/// By file and line, each once: a Dockerfile is met as itself and through each manifest that uses it, and what was rendered
/// repeats what its plain parts say already.
fn sort(files: &files::Files, slots: &mut Vec<store::Slot>) {
    let mut ids: Vec<span::FileId> = slots.iter().map(|slot| slot.file).collect();
    ids.sort_unstable();
    ids.dedup();
    ids.sort_by_cached_key(|id| files.show(*id));
    let rank: HashMap<span::FileId, u32> = ids.iter().zip(0..).map(|(id, n)| (*id, n)).collect();
    let name = |slot: &store::Slot| rules::ALL.get(usize::from(slot.rule)).map(|rule| rule.name);
    let place = |slot: &store::Slot| (rank[&slot.file], slot.line, slot.column, name(slot));
    slots.sort_by_key(place);
    slots.dedup_by_key(|slot| place(slot));
    let held: HashSet<span::FileId> = ids.into_iter().filter(|id| files.is_held(*id)).collect();
    if !held.is_empty() {
        let plain: HashSet<u32> =
            slots.iter().filter(|slot| !held.contains(&slot.file)).map(|slot| slot.echo).collect();
        slots.retain(|slot| !held.contains(&slot.file) || !plain.contains(&slot.echo));
        for slot in slots {
            slot.safe_fix &= !held.contains(&slot.file);
        }
    }
}

/// What somebody has said does not matter.
struct Ignores<'o> {
    lines: HashMap<(span::FileId, u32), Vec<&'o model::Ignore>>,
    objects: HashMap<&'o str, Vec<&'o model::Ignore>>,
    configured: &'o [IgnoreConfig],
}

impl<'o> Ignores<'o> {
    fn of(
        options: &'o Options,
        of_objects: &'o [(String, Vec<model::Ignore>)],
        ignores: &'o [model::Ignore],
    ) -> Ignores<'o> {
        let mut lines: HashMap<_, Vec<_>> = HashMap::new();
        for ignore in ignores.iter().filter(|ignore| !ignore.reason.is_empty()) {
            for line in [ignore.at.line, ignore.at.line + 1] {
                lines.entry((ignore.at.file, line)).or_default().push(ignore);
            }
        }
        let mut objects: HashMap<&str, Vec<_>> = HashMap::new();
        for (name, ignores) in of_objects {
            let with_reason = ignores.iter().filter(|ignore| !ignore.reason.is_empty());
            objects.entry(name.as_str()).or_default().extend(with_reason);
        }
        Ignores { lines, objects, configured: &options.ignore }
    }

    /// Why a finding does not matter, if somebody has said so.
    fn reason(&self, files: &files::Files, found: &finding::Finding) -> Option<String> {
        let near = self.lines.get(&(found.at.file, found.at.line)).into_iter().flatten();
        let object = self.objects.get(found.workload.as_str()).into_iter().flatten();
        let said = near.chain(object).find(|ignore| ignore.rule == found.rule).map(|ignore| ignore.reason.clone());
        said.or_else(|| {
            let mut configured = self.configured.iter().filter(|ignore| ignore.rule == found.rule);
            let path = files.show(found.at.file);
            let here =
                |ignore: &&IgnoreConfig| ignore.path.as_ref().is_none_or(|start| path.starts_with(start.as_str()));
            configured.find(here).map(|ignore| ignore.reason.clone())
        })
    }
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
    use super::{atlas, docker, files, link, model, read, shell, span, yaml};

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
        let id = files.hold(std::path::Path::new("-"), text.to_owned(), None);
        let mut facts = read::one(&files, id, files::Kind::Yaml);
        let bad = facts.unparsed.iter().map(|one| one.why.clone()).collect();
        let mut gathering = atlas::Gathering::default();
        gathering.add(&files, atlas::Gist::of(&mut facts, files::Kind::Yaml));
        let atlas = gathering.done();
        let mut facts = read::one(&files, id, files::Kind::Yaml);
        let _ = atlas.around(&files, &mut facts);
        let _ = link::workloads(&files, &atlas, facts);
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
