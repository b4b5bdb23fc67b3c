//! The files: which are read, and their numbers. The only module that touches the file system.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::span::{At, FileId, Lines, Mapped, Span};

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
    paths: Vec<Arc<Path>>,
    ids: HashMap<Arc<Path>, FileId>,
    texts: HashMap<FileId, String>,
}

impl Files {
    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn id(&self, path: &Path) -> FileId {
        let mut inner = self.inner();
        if let Some(id) = inner.ids.get(path) {
            return *id;
        }
        let id = FileId(inner.paths.len() as u32);
        let path: Arc<Path> = path.into();
        inner.paths.push(Arc::clone(&path));
        inner.ids.insert(path, id);
        id
    }

    /// A text that stands in no file, such as standard input.
    pub fn hold(&self, name: &str, text: String) -> FileId {
        let id = self.id(Path::new(name));
        self.inner().texts.insert(id, text);
        id
    }

    pub fn path(&self, id: FileId) -> PathBuf {
        self.inner().paths.get(id.0 as usize).map(|path| path.to_path_buf()).unwrap_or_default()
    }

    pub fn show(&self, id: FileId) -> String {
        let path = self.path(id);
        path.strip_prefix("./").unwrap_or(&path).display().to_string()
    }

    /// The whole text. What is not UTF-8 is said.
    pub fn text(&self, id: FileId) -> Result<String, String> {
        if let Some(text) = self.inner().texts.get(&id) {
            return Ok(text.clone());
        }
        read(&self.path(id))
    }

    /// The text was given, not read: there is no file to change.
    pub fn is_held(&self, id: FileId) -> bool {
        self.inner().texts.contains_key(&id)
    }

    /// Line and column of a span, from the file itself.
    pub fn place(&self, file: FileId, span: Span) -> At {
        match self.text(file) {
            Ok(text) => Lines::new(file, &text).at(span),
            Err(_) => At { file, span, line: 1, column: 1 },
        }
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
    pub files: Vec<(PathBuf, Kind)>,
    /// What was asked for and can not be read.
    pub unreadable: Vec<(PathBuf, String)>,
    /// Folders with a Chart.yaml.
    pub charts: Vec<PathBuf>,
    /// Folders with a kustomization.
    pub kustomizations: Vec<PathBuf>,
}

/// Walks the paths. Folders are walked as git sees them: what .gitignore leaves out is left out.
pub fn find(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        match fs::metadata(path) {
            Err(error) => found.unreadable.push((path.clone(), error.to_string())),
            Ok(data) if data.is_dir() => walk(path, &mut found),
            Ok(_) => found.files.push((path.clone(), kind(path).unwrap_or(Kind::Other))),
        }
    }
    found.files.dedup_by(|a, b| a.0 == b.0);
    found
}

fn walk(folder: &Path, found: &mut Found) {
    let mut entries = Vec::new();
    let walker = ignore::WalkBuilder::new(folder)
        .hidden(false)
        .require_git(false)
        .filter_entry(|entry| !matches!(entry.file_name().to_str(), Some(".git" | "node_modules")))
        .build();
    for entry in walker {
        match entry {
            Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => entries.push(entry.into_path()),
            Ok(_) => {}
            Err(error) => found.unreadable.push((folder.to_owned(), error.to_string())),
        }
    }
    entries.sort();
    let named = |name: &str| -> Vec<PathBuf> {
        entries
            .iter()
            .filter(|path| path.ends_with(name))
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect()
    };
    found.charts.extend(named("Chart.yaml"));
    for name in ["kustomization.yaml", "kustomization.yml", "Kustomization"] {
        found.kustomizations.extend(named(name));
    }
    let patches: Vec<PathBuf> = found.kustomizations.iter().flat_map(|folder| patches(folder)).collect();
    for path in entries {
        // A patch is a part of an object, and not one by itself.
        if patches.contains(&path) {
            continue;
        }
        let chart = found.charts.iter().any(|chart| path.starts_with(chart.join("templates")));
        match kind(&path) {
            Some(_) if chart => {}
            Some(kind) => found.files.push((path, kind)),
            None => {}
        }
    }
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
