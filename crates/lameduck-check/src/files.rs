//! The files: which are read, and their numbers. The only module that touches the file system.

use std::collections::{HashMap, HashSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::origin::Origin;
use crate::paths::Paths;
use crate::span::{At, FileId, Lined, Lines, Mapped, Span};

/// The largest script or source that is followed to.
const LARGEST_SCRIPT: u64 = 2 << 20;

/// What a file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dockerfile,
    Yaml,
    Procfile,
    Nginx,
    Haproxy,
    /// A Dockerfile, manifest or such with placeholders of another program.
    Template,
    /// What was given by name and fits nothing.
    Other,
}

/// What a name says. `None`: it is none of ours.
pub fn kind(path: &Path) -> Option<Kind> {
    const TEMPLATES: [&str; 9] = ["j2", "jinja", "jinja2", "erb", "tmpl", "template", "tpl", "mustache", "gotmpl"];
    let name = path.file_name()?.to_string_lossy();
    let lower = name.to_lowercase();
    let extension = lower.rsplit_once('.').map_or("", |(_, extension)| extension);
    let docker = ["dockerfile", "containerfile"]
        .iter()
        .any(|stem| lower == *stem || lower.starts_with(&format!("{stem}.")) || lower.ends_with(&format!(".{stem}")));
    if docker {
        const NOT: [&str; 7] = ["dockerignore", "md", "txt", "sh", "py", "go", "json"];
        if TEMPLATES.contains(&extension) {
            return Some(Kind::Template);
        }
        return (!NOT.contains(&extension)).then_some(Kind::Dockerfile);
    }
    match lower.as_str() {
        "procfile" => return Some(Kind::Procfile),
        "nginx.conf" => return Some(Kind::Nginx),
        "haproxy.cfg" => return Some(Kind::Haproxy),
        _ => {}
    }
    let in_nginx = path.parent().is_some_and(|folder| folder.to_string_lossy().contains("nginx"));
    match extension {
        "yaml" | "yml" => Some(Kind::Yaml),
        "conf" if in_nginx || lower.ends_with("nginx.conf") => Some(Kind::Nginx),
        _ => None,
    }
}

/// Numbers for paths, and the texts of what has no path.
#[derive(Debug, Default)]
pub struct Files {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    paths: Paths,
    held: HashMap<FileId, Held>,
    /// The files that places were last looked for in.
    recent: VecDeque<(FileId, Arc<Lined>)>,
}

/// So many of them: a manifest, and the scripts that it leads to.
const RECENT: usize = 4;

/// A text that stands in no file: standard input, or what another program has made of a template.
#[derive(Debug)]
struct Held {
    text: Arc<str>,
    /// By line, from which line of the template it comes.
    origins: Option<Vec<Origin>>,
}

impl Files {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn id(&self, path: &Path) -> FileId {
        self.inner().paths.id(path.as_os_str().as_bytes())
    }

    /// A text that stands in no file, or in the template that it was rendered from.
    pub fn hold(&self, name: &Path, text: String, origins: Option<Vec<Origin>>) -> FileId {
        let id = self.id(name);
        self.inner().held.insert(id, Held { text: text.into(), origins });
        id
    }

    pub fn path(&self, id: FileId) -> PathBuf {
        OsString::from_vec(self.inner().paths.get(id.0)).into()
    }

    pub fn show(&self, id: FileId) -> String {
        let path = self.path(id);
        path.strip_prefix("./").unwrap_or(&path).display().to_string()
    }

    /// Line and column in the template, of a place in what was rendered from it.
    pub fn origin(&self, at: At) -> Option<(u32, u32)> {
        let inner = self.inner();
        let origins = inner.held.get(&at.file)?.origins.as_ref()?;
        let origin = origins.get(at.line.saturating_sub(1) as usize).or(origins.last())?;
        Some((origin.line, if origin.same { at.column } else { origin.column }))
    }

    /// The whole text. What is not UTF-8 is said.
    pub fn text(&self, id: FileId) -> Result<String, String> {
        let held = self.inner().held.get(&id).map(|held| Arc::clone(&held.text));
        held.map_or_else(|| read(&self.path(id)), |text| Ok(text.to_string()))
    }

    /// The text that people see under the file's name: of what was rendered, the template.
    pub fn seen(&self, id: FileId) -> Result<String, String> {
        let rendered = self.inner().held.get(&id).is_some_and(|held| held.origins.is_some());
        if rendered { read(&self.path(id)) } else { self.text(id) }
    }

    /// The text was given, not read: there is no file to change.
    pub fn is_held(&self, id: FileId) -> bool {
        self.inner().held.contains_key(&id)
    }

    /// Line and column of a span, from the file itself.
    pub fn place(&self, file: FileId, span: Span) -> At {
        let known = self.inner().recent.iter().find(|(known, _)| *known == file).map(|(_, lined)| Arc::clone(lined));
        if let Some(lined) = known {
            return lined.lines().at(span);
        }
        let Ok(text) = self.text(file) else { return At { file, span, line: 1, column: 1 } };
        let lined = Arc::new(Lined::new(file, text));
        let at = lined.lines().at(span);
        let mut inner = self.inner();
        inner.recent.push_front((file, lined));
        inner.recent.truncate(RECENT);
        at
    }

    /// A text file near another one: in its folder or, as build contexts are often higher up, in one of those above.
    pub fn near(&self, from: &Path, candidates: &[String]) -> Option<(PathBuf, Mapped)> {
        let mut folder = from.parent();
        for _ in 0..4 {
            let here = folder?;
            for candidate in candidates.iter().filter(|candidate| !candidate.is_empty() && !candidate.contains('$')) {
                let path = here.join(candidate);
                let small = fs::metadata(&path).is_ok_and(|data| data.is_file() && data.len() <= LARGEST_SCRIPT);
                if let Some(text) = small.then(|| read(&path).ok()).flatten() {
                    return Some((path.clone(), Mapped::plain(self.id(&path), &text, 0)));
                }
            }
            folder = here.parent().filter(|_| !here.join(".git").exists());
        }
        None
    }

    /// What nginx would include by a path or a pattern.
    pub fn include(&self, from: &Path, pattern: &str) -> Vec<Mapped> {
        let Some(folder) = from.parent() else { return Vec::new() };
        let name = pattern.strip_prefix("/etc/nginx/").unwrap_or(pattern);
        if !name.contains('*') {
            return self.near(from, &[name.to_owned()]).into_iter().map(|(_, text)| text).collect();
        }
        let (inner, pattern) = name.rsplit_once('/').unwrap_or(("", name));
        let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
        let Ok(entries) = fs::read_dir(folder.join(inner)) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        let fits = |path: &PathBuf| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .is_some_and(|name| name.starts_with(before) && name.ends_with(after))
        };
        let found = paths.into_iter().filter(fits);
        found.filter_map(|path| Some(Mapped::plain(self.id(&path), &read(&path).ok()?, 0))).collect()
    }
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    String::from_utf8(bytes)
        .map_err(|error| format!("it is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
}

/// What was found to read.
#[derive(Debug, Default)]
pub struct Found {
    pub files: Vec<(FileId, Kind)>,
    /// What was asked for and can not be read.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Folders with a Chart.yaml that are in no other chart.
    pub charts: Vec<PathBuf>,
    /// Folders with a kustomization.
    pub kustomizations: Vec<PathBuf>,
}

/// Walks the paths. Folders are walked as git sees them: what .gitignore leaves out is left out.
pub fn find(files: &Files, paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        match fs::metadata(path) {
            Err(error) => found.unreadable.push((path.clone(), error.to_string())),
            Ok(data) if data.is_dir() => walk(files, path, &mut found),
            Ok(_) => found.files.push((files.id(path), kind(path).unwrap_or(Kind::Other))),
        }
    }
    // What is named and stands in a folder that is named is read once.
    let mut met = HashSet::new();
    found.files.retain(|(file, _)| paths.len() < 2 || met.insert(*file));
    found
}

fn walk(files: &Files, folder: &Path, found: &mut Found) {
    let walker = ignore::WalkBuilder::new(folder)
        .hidden(false)
        .require_git(false)
        .filter_entry(|entry| !matches!(entry.file_name().to_str(), Some(".git" | "node_modules")))
        .sort_by_file_name(std::ffi::OsStr::cmp)
        .build();
    let mut own: Vec<(FileId, Kind)> = Vec::new();
    let (mut charts, mut kustomizations) = (HashSet::new(), Vec::new());
    for entry in walker {
        let path = match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => entry.into_path(),
            Ok(_) => continue,
            Err(error) => {
                found.unreadable.push((folder.to_owned(), error.to_string()));
                continue;
            }
        };
        let parent = path.parent().unwrap_or(folder);
        match path.file_name().and_then(|name| name.to_str()) {
            Some("Chart.yaml") => {
                charts.insert(parent.to_owned());
            }
            Some("kustomization.yaml" | "kustomization.yml" | "Kustomization") => {
                kustomizations.push(parent.to_owned());
            }
            _ => {}
        }
        if let Some(kind) = kind(&path) {
            own.push((files.id(&path), kind));
        }
    }
    // A patch is a part of an object, and not one by itself; a template is none before it is rendered.
    let patches: HashSet<PathBuf> =
        kustomizations.iter().flat_map(|folder| patches(folder)).map(|path| crate::atlas::normal(&path)).collect();
    let chart = |path: &Path| in_chart(path, "templates", &charts);
    if !(patches.is_empty() && charts.is_empty()) {
        own.retain(|(file, _)| {
            let path = files.path(*file);
            !chart(&path) && (patches.is_empty() || !patches.contains(&crate::atlas::normal(&path)))
        });
    }
    own.shrink_to_fit();
    if found.files.is_empty() {
        found.files = own;
    } else {
        found.files.append(&mut own);
    }
    // A chart renders those that it contains, and a library renders nothing by itself.
    let mut outer: Vec<PathBuf> =
        charts.iter().filter(|path| !in_chart(path, "charts", &charts) && !is_library(path)).cloned().collect();
    outer.sort();
    found.charts.append(&mut outer);
    found.kustomizations.append(&mut kustomizations);
}

/// Whether a path is inside of this folder of a chart.
fn in_chart(path: &Path, inner: &str, charts: &HashSet<PathBuf>) -> bool {
    let mut above = path.ancestors().skip(1);
    above.any(|folder| folder.ends_with(inner) && folder.parent().is_some_and(|chart| charts.contains(chart)))
}

fn is_library(chart: &Path) -> bool {
    let text = read(&chart.join("Chart.yaml")).unwrap_or_default();
    text.lines()
        .any(|line| line.strip_prefix("type:").is_some_and(|kind| kind.trim().trim_matches(['"', '\'']) == "library"))
}

/// The files that a kustomization uses as patches.
fn patches(folder: &Path) -> Vec<PathBuf> {
    let names = ["kustomization.yaml", "kustomization.yml", "Kustomization"];
    let Some(text) = names.iter().find_map(|name| read(&folder.join(name)).ok()) else { return Vec::new() };
    let lines = Lines::new(FileId(0), &text);
    let mut out = Vec::new();
    for (start, document) in crate::yaml::split(&text) {
        let Ok(Some(document)) = crate::yaml::read(&lines, start, document) else { continue };
        for key in ["patches", "patchesStrategicMerge", "patchesJson6902"] {
            for patch in document.root().get(key).map(crate::yaml::Node::items).unwrap_or_default() {
                let path = patch.text().or_else(|| patch.str("path"));
                out.extend(path.filter(|path| !path.contains('\n')).map(|path| folder.join(path)));
            }
        }
    }
    out
}
