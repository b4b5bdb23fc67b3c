//! From files to facts, a file at a time: a text is dropped before the next one is read.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::docker::image::{self, Image};
use crate::docker::parse as docker;
use crate::files::{Files, Kind};
use crate::model::compose::{self, Build};
use crate::model::objects::Objects;
use crate::model::proxy::{self, Pool};
use crate::model::{Ignore, Workload, kubernetes};
use crate::span::{FileId, Lines, Mapped, Span};
use crate::yaml;

/// Something that was not understood.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Unparsed {
    pub file: String,
    pub line: u32,
    pub why: String,
    /// The whole file could not be read: exit status 3.
    pub unreadable: bool,
}

/// What one file says.
#[derive(Debug, Default)]
pub struct Facts {
    pub file: FileId,
    pub workloads: Vec<Workload>,
    pub compose: Vec<(Workload, Option<Build>)>,
    pub objects: Objects,
    pub image: Option<Image>,
    pub processes: Vec<(String, Mapped, Span)>,
    pub pools: Vec<Pool>,
    pub unparsed: Vec<Unparsed>,
    pub ignores: Vec<Ignore>,
}

/// How many files are read at once, at most.
const TOGETHER: usize = 64;

/// A file to read, and what it is.
pub type Source = (FileId, Kind);

/// Reads all files, some at a time on as many threads as there are processors, and hands over what becomes of each in the
/// order of the files.
pub fn each<T: Send>(files: &Files, list: &[Source], work: impl Fn(Facts, Kind) -> T + Sync, mut take: impl FnMut(T)) {
    for some in list.chunks(TOGETHER) {
        together(files, some, &work).into_iter().for_each(&mut take);
    }
}

fn together<T: Send>(files: &Files, list: &[Source], work: &(impl Fn(Facts, Kind) -> T + Sync)) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(list.len()));
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(8).min(list.len().div_ceil(16)).max(1);
    let run = || {
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            let Some((id, kind)) = list.get(n) else { return };
            let one = work(one(files, *id, *kind), *kind);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((n, one));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(run);
        }
        run();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|(n, _)| *n);
    done.into_iter().map(|(_, one)| one).collect()
}

/// Reads one file.
pub fn one(files: &Files, id: FileId, kind: Kind) -> Facts {
    let mut facts = Facts { file: id, ..Facts::default() };
    match files.text(id) {
        Ok(text) => read_text(files, id, kind, &text, &mut facts),
        Err(why) => {
            facts.unparsed.push(Unparsed { file: files.show(id), line: 0, why, unreadable: true });
        }
    }
    facts
}

fn read_text(files: &Files, id: FileId, kind: Kind, text: &str, facts: &mut Facts) {
    let lines = Lines::new(id, text);
    let mut bad = |line: usize, why: String| {
        facts.unparsed.push(Unparsed { file: files.show(id), line: line as u32, why, unreadable: false });
    };
    match kind {
        Kind::Template => bad(1, "a template for another program: render it, then check what comes out".to_owned()),
        Kind::Dockerfile => {
            let parsed = docker::parse(id, text);
            parsed.bad.iter().for_each(|error| bad(error.line, error.why.clone()));
            facts.image = image::build(&parsed, &lines);
            if facts.image.is_none() && parsed.bad.is_empty() {
                bad(1, "a Dockerfile without FROM".to_owned());
            }
        }
        Kind::Yaml => yaml_file(files, &lines, facts),
        Kind::Procfile => {
            let mut offset = 0;
            for line in text.split_inclusive('\n') {
                if let Some((name, command)) = line.split_once(':').filter(|_| !line.trim_start().starts_with('#')) {
                    let trimmed = command.trim();
                    let start = offset + line.len() - command.trim_start().len();
                    let mapped = Mapped::plain(id, trimmed, start);
                    facts.processes.push((name.trim().to_owned(), mapped, Span::new(start, start + trimmed.len())));
                }
                offset += line.len();
            }
        }
        Kind::Nginx => {
            let path = files.path(id);
            let proxy = proxy::nginx(&Mapped::plain(id, text, 0), &|pattern| files.include(&path, pattern));
            proxy.bad.iter().for_each(|(line, why)| bad(*line, why.clone()));
            facts.pools = proxy.pools;
        }
        Kind::Haproxy => facts.pools = proxy::haproxy(&Mapped::plain(id, text, 0)).pools,
        Kind::Other => {
            bad(1, "not a kind of file that is known: Dockerfile, YAML, Procfile, nginx.conf, haproxy.cfg".to_owned());
        }
    }
    if text.contains("lameduck: ignore") {
        facts.ignores = ignores(&lines);
    }
}

fn yaml_file(files: &Files, lines: &Lines<'_>, facts: &mut Facts) {
    let text = lines.text();
    let id = lines.file();
    let mut bad = |line: usize, why: String| {
        facts.unparsed.push(Unparsed { file: files.show(id), line: line as u32, why, unreadable: false });
    };
    if text.len() > yaml::LARGEST {
        return bad(1, format!("refused: larger than {} MiB", yaml::LARGEST >> 20));
    }
    let mut compose = Vec::new();
    for (start, document) in yaml::split(text) {
        let read = match yaml::read(lines, start, document) {
            Ok(Some(read)) => read,
            Ok(None) => continue,
            Err(error) => {
                let template = document.contains("{{");
                let hint =
                    if template { " (it looks like a template: render it, then check what comes out)" } else { "" };
                bad(error.line, format!("{}{hint}", error.why));
                continue;
            }
        };
        let root = read.root();
        if kubernetes::read(root, &mut facts.workloads, &mut facts.objects) || compose::read(root, &mut compose) {
            continue;
        }
        if root.get("static_resources").is_some() {
            facts.pools.extend(proxy::envoy(root).pools);
        }
    }
    facts.compose.extend(compose);
}

/// `# lameduck: ignore[rule] reason`, for its own line and the one below.
fn ignores(lines: &Lines<'_>) -> Vec<Ignore> {
    const MARK: &str = "lameduck: ignore[";
    let text = lines.text();
    text.match_indices(MARK)
        .filter_map(|(at, _)| {
            let rest = text[at + MARK.len()..].lines().next()?;
            let (rules, reason) = rest.split_once(']')?;
            let at = lines.at(Span::new(at, at + MARK.len() + rules.len() + 1));
            let reason = reason.trim().to_owned();
            Some(rules.split(',').map(move |rule| Ignore {
                rule: rule.trim().to_owned(),
                reason: reason.clone(),
                at,
                line: true,
            }))
        })
        .flatten()
        .collect()
}

/// The folder of a file.
pub fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
