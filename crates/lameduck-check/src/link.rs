//! From facts to workloads: which image a container runs, and which process that is.

use std::path::Path;

use crate::atlas::Atlas;
use crate::docker::base::{self, Sh};
use crate::docker::image::{Image, Origin};
use crate::files::{Files, Kind as FileKind};
use crate::launch::{self, Command, Launch, Opened, Scene};
use crate::model::{Container, Kind, Workload};
use crate::read::Facts;
use crate::server::{self, OnSignal, Server};
use crate::span::{FileId, Mapped};

/// A workload, and the chain that was found for it.
pub type Linked = (Workload, Vec<String>);

/// The workloads of one file, linked to what runs in them.
pub fn workloads(files: &Files, atlas: &Atlas, fact: Facts) -> Vec<Linked> {
    let linker = Linker { files, atlas };
    let path = files.path(fact.file);
    let mut out: Vec<Linked> = Vec::new();
    if let Some(image) = &fact.image {
        let (mut workload, links) = linker.image_workload(fact.file, &path, image);
        workload.file = fact.file;
        out.push((workload, links));
    }
    for (name, text, span) in fact.processes {
        out.push(linker.process(&path, &name, &text, files.place(text.file, span)));
    }
    let manifests = fact.workloads.into_iter().map(|workload| (workload, None));
    let compose = fact.compose.into_iter().map(|(workload, build)| {
        let build = build.map(|build| super::read::folder(&path).join(build.context).join(build.dockerfile));
        (workload, build)
    });
    for (mut workload, build) in manifests.chain(compose) {
        let mut links = Vec::new();
        let init = workload.annotations.iter().any(|(key, _)| key == "compose.init");
        for container in &mut workload.containers {
            linker.container(container, build.as_deref(), init, &mut links);
        }
        out.push((workload, links));
    }
    out
}

struct Linker<'f> {
    files: &'f Files,
    atlas: &'f Atlas,
}

impl Linker<'_> {
    fn scene_open(&self, image: &Image, from: &Path, path: &str) -> Opened {
        if let Some(inner) = path.strip_prefix(server::CONTEXT) {
            return match self.files.near(from, &[inner.to_owned()]) {
                Some((found, text)) => Opened::Text { path: found.display().to_string(), text },
                None => Opened::Missing,
            };
        }
        let candidates = match image.origin(path) {
            Origin::Context(candidates) => candidates,
            Origin::Heredoc(text) => return Opened::Text { path: format!("{path} of the Dockerfile"), text },
            // Relative names are tried beside the file, as bind mounts and development set-ups have them.
            Origin::Elsewhere if !path.starts_with('/') && image.copies.is_empty() => vec![path.to_owned()],
            Origin::Elsewhere => return Opened::Missing,
        };
        match self.files.near(from, &candidates) {
            Some((found, text)) => Opened::Text { path: found.display().to_string(), text },
            None => Opened::Missing,
        }
    }

    /// Follows a command in an image.
    fn run(
        &self,
        command: &Command,
        image: &Image,
        from: &Path,
        vars: &[(String, String)],
    ) -> (Launch, Option<Server>) {
        let open = |path: &str| self.scene_open(image, from, path);
        let all: Vec<(String, String)> = image.vars.iter().chain(vars).cloned().collect();
        let scene = Scene {
            sh: match image.sh {
                Sh::Is(shell) => Some(shell),
                Sh::Absent | Sh::Unknown => None,
            },
            has_shell: image.sh != Sh::Absent,
            base: if image.base.is_empty() { "(not known)" } else { &image.base },
            node: image.node,
            vars: &all,
            open: &open,
            place: &|file, span| self.files.place(file, span),
            is_server: &server::is_server,
        };
        let launch = launch::launch(command, &scene);
        let server = launch::app(&launch.node).and_then(|(argv, at)| server::recognise(argv, at, &open, &all));
        (launch, server)
    }

    /// The image of a Dockerfile, unless the file has gone since it was first read.
    fn image(&self, file: FileId) -> Option<Image> {
        super::read::one(self.files, file, FileKind::Dockerfile).image
    }

    fn image_workload(&self, file: FileId, path: &Path, image: &Image) -> Linked {
        let command = image.command();
        let at = if command.words.is_empty() { image.from } else { command.at };
        let name = self.files.show(file);
        let mut workload = Workload::new(Kind::Image, at, &name);
        let mut container = Container { name: name.clone(), at, link_sure: true, ..Container::default() };
        let mut links = vec![format!("{name}: base image {}", image.base)];
        self.fill(&mut container, &command, image, path, &mut links);
        container.dockerfile = Some(file);
        workload.containers.push(container);
        (workload, links)
    }

    fn fill(&self, container: &mut Container, command: &Command, image: &Image, from: &Path, links: &mut Vec<String>) {
        let (launch, mut server) = self.run(command, image, from, &container.env);
        links.extend(launch.links.iter().cloned());
        links.push(format!("TERM at PID 1 ({}): {}", launch.pid1, launch.outcome.id()));
        links.extend(launch.unsure.iter().map(|why| format!("not resolved: {why}")));
        let own = container.stop_signal.take();
        let signal = own.or_else(|| image.stop_signal.clone());
        let inherited = image.stop_signal().map(|(signal, _)| signal.to_owned());
        if let Some(server) = &mut server {
            links.push(format!("the server is {} (its stop: {})", server.name, server.source));
            let name = signal.as_ref().map(|signal| signal.value.clone()).or(inherited);
            server.on_stop = on_signal(server, name.as_deref());
        } else {
            links.push("the server is not known".to_owned());
        }
        container.stop_signal = signal;
        container.shell_absent = image.sh == Sh::Absent;
        container.image_end = Some(image.end);
        container.server = server;
        container.launch = Some(launch);
    }

    fn process(&self, path: &Path, name: &str, text: &Mapped, at: crate::span::At) -> Linked {
        let mut workload = Workload::new(Kind::Procfile, at, name);
        // A platform runs the line by a bash of its own, which execs a simple command.
        let words = vec![Mapped::word("bash"), Mapped::word("-c"), text.clone()];
        let command = Command { words, at, shell_form: false };
        let beside = self.atlas.dockerfile_in(self.files, &super::read::folder(path));
        let image = beside.and_then(|file| self.image(file));
        let image = image.unwrap_or_else(|| Image { sh: Sh::Unknown, workdir: "/".to_owned(), ..Image::default() });
        let mut container = Container { name: name.to_owned(), at, link_sure: true, ..Container::default() };
        container.ports = if name == "web" { vec![0] } else { Vec::new() };
        let mut links = vec![format!("{}: {name}", path.display())];
        self.fill(&mut container, &command, &image, path, &mut links);
        workload.containers.push(container);
        (workload, links)
    }

    fn container(&self, container: &mut Container, build: Option<&Path>, init: bool, links: &mut Vec<String>) {
        let name = container.image.as_ref().map(|image| image.value.clone()).unwrap_or_default();
        let found = self.dockerfile(&name, build);
        let found = found.and_then(|(file, sure)| Some((file, self.image(file)?, sure)));
        let (image, from, sure) = if let Some((file, image, sure)) = found {
            links.push(format!("{}: image {name} is built by {}", container.name, self.files.show(file)));
            container.dockerfile = Some(file);
            (image, self.files.path(file), sure)
        } else {
            let reference = base::reference(&name);
            let official = base::official(&reference);
            if official.is_none() {
                links.push(format!("{}: not resolved: no Dockerfile for image {name}", container.name));
            }
            let image = Image {
                base: name.clone(),
                sh: base::sh(&name),
                inherited: official.as_ref().map(|official| official.command.clone()).unwrap_or_default(),
                interpreter: base::interpreter(&reference),
                inherited_signal: official.and_then(|official| official.stop_signal),
                workdir: "/".to_owned(),
                ..Image::default()
            };
            let path = container.image.as_ref().map(|image| self.files.path(image.at.file)).unwrap_or_default();
            (image, path, true)
        };
        container.link_sure = sure;
        let mut command = combine(&image, container);
        if command.words.is_empty() {
            links.push(format!("{}: not resolved: the command of image {name}", container.name));
            // The signal may be known all the same.
            container.shell_absent = image.sh == Sh::Absent;
            return;
        }
        if init {
            command.words.insert(0, Mapped::word("docker-init"));
            command.words.insert(1, Mapped::word("--"));
        }
        if command.at.line == 0 {
            command.at = container.at;
        }
        self.fill(container, &command, &image, &from, links);
        if container.dockerfile.is_none() {
            container.image_end = None;
        }
    }

    /// The Dockerfile of an image: by path, by the last part of its name, or because there is only one of each; and whether that is certain.
    fn dockerfile(&self, name: &str, build: Option<&Path>) -> Option<(FileId, bool)> {
        if let Some(path) = build {
            return self.atlas.dockerfile_at(self.files, path).map(|file| (file, true));
        }
        if name.is_empty() || base::official(&base::reference(name)).is_some() {
            return None;
        }
        let file = self.atlas.dockerfile_of(self.files, base::reference(name).name);
        file.map(|file| (file, false))
    }
}

/// What a signal does to a server: TERM as the catalogue has it, its own graceful one, and whatever else.
fn on_signal(server: &Server, signal: Option<&str>) -> OnSignal {
    let signal = signal.unwrap_or("TERM").trim_start_matches("SIG");
    if server.graceful_signal == Some(signal) {
        return OnSignal::Graceful;
    }
    match (server.id, signal) {
        (_, "TERM" | "15") => server.on_stop,
        ("uvicorn" | "puma", "INT") => OnSignal::Graceful,
        (_, "KILL" | "9")
        | ("gunicorn-sync" | "gunicorn-gthread" | "gunicorn-gevent" | "actix-web", "QUIT" | "INT") => {
            OnSignal::Immediate
        }
        _ => OnSignal::Unknown,
    }
}

/// Kubernetes' and Compose's `command` replaces ENTRYPOINT and drops CMD; `args` replaces CMD only.
fn combine(image: &Image, container: &Container) -> Command {
    match (&container.command, &container.args) {
        (Some(command), args) => {
            let mut out = command.clone();
            out.words.extend(args.iter().flat_map(|args| args.words.iter().cloned()));
            out
        }
        (None, Some(args)) => {
            let only = Image { cmd: None, inherited: Vec::new(), ..image.clone() };
            let mut out = only.command();
            // A shell-form ENTRYPOINT reads no arguments.
            if out.shell_form {
                return out;
            }
            out.words.extend(args.words.iter().cloned());
            out.at = args.at;
            out
        }
        (None, None) => image.command(),
    }
}
