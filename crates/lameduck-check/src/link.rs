//! From facts to a world: which image a container runs, which process that is, and what stands in front of it.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use crate::docker::base::{self, Sh};
use crate::docker::image::{Image, Origin};
use crate::files::Files;
use crate::launch::{self, Command, Launch, Opened, Scene};
use crate::model::objects::{Backend, Gateway, Hpa, Ingress, Objects, Pdb, Service};
use crate::model::proxy::Pool;
use crate::model::{Container, Kind, Workload};
use crate::read::Facts;
use crate::server::{self, Balancer, OnSignal, Server};
use crate::span::{FileId, Mapped, Sp};

/// A Dockerfile's image, and where it stands.
#[derive(Debug)]
pub struct Built {
    pub file: FileId,
    pub path: PathBuf,
    pub image: Image,
}

/// Something between clients and a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Hop {
    pub balancer: Balancer,
    /// The object that says so.
    pub at: crate::span::At,
    pub name: String,
    /// How long it keeps idle connections to what is behind it, as configured or by default.
    pub idle: Option<(f64, f64)>,
}

/// Everything that was read, linked.
#[derive(Debug, Default)]
pub struct World {
    pub workloads: Vec<Workload>,
    pub objects: Objects,
    pub pools: Vec<Pool>,
    /// For `--explain-links`: by workload.
    pub links: Vec<Vec<String>>,
    index: Index,
}

/// Who is looked for by what, so that a world of ten thousand objects is not walked ten thousand times.
#[derive(Debug, Default)]
struct Index {
    /// By one label of the selector.
    services: HashMap<(String, String), Vec<usize>>,
    service_names: HashMap<String, Vec<usize>>,
    /// By the name of a service behind it.
    ingresses: HashMap<String, Vec<usize>>,
    /// By the name of what is scaled.
    hpas: HashMap<String, Vec<usize>>,
    /// By every label.
    workloads: HashMap<(String, String), Vec<usize>>,
    on_gke: bool,
    /// Dockerfiles whose own command a manifest runs, and command lines that one runs.
    deployed_files: HashSet<FileId>,
    deployed_apps: HashSet<Vec<String>>,
}

impl Index {
    fn of(world: &World) -> Index {
        let mut index = Index { on_gke: on_gke(&world.objects), ..Index::default() };
        for (n, service) in world.objects.services.iter().enumerate() {
            index.service_names.entry(service.name.clone()).or_default().push(n);
            if let Some(label) = service.selector.first() {
                index.services.entry(label.clone()).or_default().push(n);
            }
        }
        for (n, ingress) in world.objects.ingresses.iter().enumerate() {
            for service in &ingress.services {
                index.ingresses.entry(service.clone()).or_default().push(n);
            }
        }
        for (n, hpa) in world.objects.hpas.iter().enumerate() {
            index.hpas.entry(hpa.target.clone()).or_default().push(n);
        }
        for (n, workload) in world.workloads.iter().enumerate() {
            for label in workload.labels.iter().filter(|_| workload.kind.in_cluster()) {
                index.workloads.entry(label.clone()).or_default().push(n);
            }
            if !(workload.kind.in_cluster() || workload.kind == Kind::Compose) {
                continue;
            }
            for container in &workload.containers {
                index.deployed_files.extend(container.dockerfile.filter(|_| container.command.is_none()));
                let app = container.launch.as_ref().and_then(|launch| launch::app(&launch.node));
                index.deployed_apps.extend(app.map(|(argv, _)| argv.to_vec()));
            }
        }
        index
    }
}

/// Whether the files are meant for Google Kubernetes Engine, where an Ingress without a class is Google's.
fn on_gke(objects: &Objects) -> bool {
    let google = |key: &str| key.starts_with("cloud.google.com/") || key.starts_with("networking.gke.io/");
    !objects.backends.is_empty()
        || objects.services.iter().any(|service| service.annotations.iter().any(|(key, _)| google(key)))
        || objects.ingresses.iter().any(|ingress| {
            ingress.annotations.iter().any(|(key, _)| {
                google(key) || key.starts_with("kubernetes.io/ingress.global-static-ip") || key.contains("gke.")
            })
        })
}

/// Puts the facts together.
pub fn link(files: &Files, facts: Vec<Facts>) -> World {
    let mut world = World::default();
    let (mut built, mut loose, mut processes) = (Vec::new(), Vec::new(), Vec::new());
    for fact in facts {
        let path = files.path(fact.file);
        if let Some(image) = fact.image {
            built.push(Built { file: fact.file, path: path.clone(), image });
        }
        loose.extend(fact.workloads.into_iter().map(|workload| (workload, None)));
        loose.extend(fact.compose.into_iter().map(|(workload, build)| {
            let build = build.map(|build| super::read::folder(&path).join(build.context).join(build.dockerfile));
            (workload, build)
        }));
        processes.extend(fact.processes.into_iter().map(|process| (path.clone(), process)));
        world.pools.extend(fact.pools);
        extend(&mut world.objects, fact.objects);
    }
    let mut named: Vec<&str> = loose
        .iter()
        .flat_map(|(workload, _)| &workload.containers)
        .filter(|container| own_image(container))
        .filter_map(|container| container.image.as_ref().map(|image| image.value.as_str()))
        .collect();
    named.sort_unstable();
    named.dedup();
    let named = named.len();
    let linker = Linker { files, built: &built, alone: built.len() == 1 && named == 1, names: names(&built) };
    for built in &built {
        let (mut workload, mut links) = linker.image_workload(built);
        world.links.push(std::mem::take(&mut links));
        workload.file = built.file;
        world.workloads.push(workload);
    }
    for (path, (name, text, span)) in processes {
        let (workload, links) = linker.process(&path, &name, &text, files.place(text.file, span));
        world.workloads.push(workload);
        world.links.push(links);
    }
    for (mut workload, build) in loose {
        let mut links = Vec::new();
        let init = workload.annotations.iter().any(|(key, _)| key == "compose.init");
        for container in &mut workload.containers {
            linker.container(container, build.as_deref(), init, &mut links);
        }
        world.workloads.push(workload);
        world.links.push(links);
    }
    world.index = Index::of(&world);
    world
}

fn extend(all: &mut Objects, more: Objects) {
    all.services.extend(more.services);
    all.ingresses.extend(more.ingresses);
    all.gateways.extend(more.gateways);
    all.hpas.extend(more.hpas);
    all.pdbs.extend(more.pdbs);
    all.backends.extend(more.backends);
    all.configs.extend(more.configs);
    all.restarters.extend(more.restarters);
}

fn own_image(container: &Container) -> bool {
    container.image.as_ref().is_some_and(|image| base::official(&base::reference(&image.value)).is_none())
}

struct Linker<'f> {
    files: &'f Files,
    built: &'f [Built],
    /// There is one Dockerfile and one image that is nobody else's.
    alone: bool,
    /// By what an image built from it would be called.
    names: HashMap<String, usize>,
}

/// `web/Dockerfile`, `Dockerfile.web` and `web.Dockerfile` are taken to build an image `web`.
fn names(built: &[Built]) -> HashMap<String, usize> {
    let mut names = HashMap::new();
    for (n, built) in built.iter().enumerate() {
        let folder = built.path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        let file = built.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let by_file = file.strip_prefix("Dockerfile.").or_else(|| file.strip_suffix(".Dockerfile")).map(str::to_owned);
        for name in folder.filter(|_| file == "Dockerfile").into_iter().chain(by_file) {
            names.entry(name).or_insert(n);
        }
    }
    names
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

    fn image_workload(&self, built: &Built) -> (Workload, Vec<String>) {
        let image = &built.image;
        let command = image.command();
        let at = if command.words.is_empty() { image.from } else { command.at };
        let name = self.files.show(built.file);
        let mut workload = Workload::new(Kind::Image, at, &name);
        let mut container = Container { name: name.clone(), at, link_sure: true, ..Container::default() };
        let mut links = vec![format!("{name}: base image {}", image.base)];
        self.fill(&mut container, &command, image, &built.path, &mut links);
        container.dockerfile = Some(built.file);
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

    fn process(&self, path: &Path, name: &str, text: &Mapped, at: crate::span::At) -> (Workload, Vec<String>) {
        let mut workload = Workload::new(Kind::Procfile, at, name);
        // A platform runs the line by a bash of its own, which execs a simple command.
        let words = vec![Mapped::word("bash"), Mapped::word("-c"), text.clone()];
        let command = Command { words, at, shell_form: false };
        let image =
            self.built.iter().find(|built| built.path.parent() == path.parent()).map(|built| built.image.clone());
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
        let (image, from, sure) = if let Some((built, sure)) = found {
            links.push(format!("{}: image {name} is built by {}", container.name, self.files.show(built.file)));
            container.dockerfile = Some(built.file);
            (built.image.clone(), built.path.clone(), sure)
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

    /// The Dockerfile of an image: by path, by the last part of its name, or because there is only one of each.
    fn dockerfile(&self, name: &str, build: Option<&Path>) -> Option<(&Built, bool)> {
        if let Some(path) = build {
            let wanted = normal(path);
            return self.built.iter().find(|built| normal(&built.path) == wanted).map(|built| (built, true));
        }
        if name.is_empty() || base::official(&base::reference(name)).is_some() {
            return None;
        }
        let last = base::reference(name).name;
        let by_name = self.names.get(last).map(|n| &self.built[*n]);
        by_name.map(|built| (built, false)).or_else(|| self.alone.then(|| (&self.built[0], false)))
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

fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}

impl World {
    fn same_namespace(a: &str, b: &str) -> bool {
        a == b || a.is_empty() || b.is_empty()
    }

    /// The services that send to a workload.
    pub fn services<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w Service> + 'w {
        let candidates = workload.labels.iter().filter_map(|label| self.index.services.get(label)).flatten();
        candidates.map(|n| &self.objects.services[*n]).filter(move |service| {
            Self::same_namespace(&service.namespace, &workload.namespace)
                && service.selector.iter().all(|label| workload.labels.contains(label))
        })
    }

    /// The services of a name.
    pub fn named<'w>(&'w self, name: &str) -> impl Iterator<Item = &'w Service> + 'w {
        let found = self.index.service_names.get(name).map(Vec::as_slice).unwrap_or_default();
        found.iter().map(|n| &self.objects.services[*n])
    }

    pub fn ingresses<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = (&'w Ingress, &'w Service)> + 'w {
        self.services(workload).flat_map(move |service| {
            let found = self.index.ingresses.get(&service.name).map(Vec::as_slice).unwrap_or_default();
            let found = found.iter().map(|n| &self.objects.ingresses[*n]);
            found
                .filter(|ingress| Self::same_namespace(&ingress.namespace, &service.namespace))
                .map(move |ingress| (ingress, service))
        })
    }

    pub fn hpas<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w Hpa> + 'w {
        let found = self.index.hpas.get(&workload.name).map(Vec::as_slice).unwrap_or_default();
        let found = found.iter().map(|n| &self.objects.hpas[*n]);
        found.filter(move |hpa| Self::same_namespace(&hpa.namespace, &workload.namespace))
    }

    /// The workloads that a budget covers: all of its namespace where its selector is empty.
    pub fn covered<'w>(&'w self, pdb: &'w Pdb) -> impl Iterator<Item = &'w Workload> + 'w {
        let by_label =
            pdb.selector.first().map(|label| self.index.workloads.get(label).map(Vec::as_slice).unwrap_or_default());
        let labelled = by_label.unwrap_or_default().iter().map(|n| &self.workloads[*n]);
        let all = self.workloads.iter().filter(move |_| by_label.is_none());
        labelled.chain(all).filter(move |workload| {
            workload.kind.in_cluster()
                && Self::same_namespace(&pdb.namespace, &workload.namespace)
                && pdb.selector.iter().all(|label| workload.labels.contains(label))
        })
    }

    /// A Dockerfile or a line of a Procfile that a manifest runs is judged there, with its preStop and grace period.
    pub fn is_deployed(&self, workload: &Workload) -> bool {
        let own = workload.containers.first().and_then(|container| container.launch.as_ref());
        let app = own.and_then(|launch| launch::app(&launch.node)).map(|(argv, _)| argv);
        match workload.kind {
            Kind::Image => self.index.deployed_files.contains(&workload.file),
            Kind::Procfile => app.is_some_and(|argv| self.index.deployed_apps.contains(argv)),
            _ => false,
        }
    }

    /// GKE's settings for a service.
    pub fn backends<'w>(&'w self, service: &'w Service) -> impl Iterator<Item = &'w Backend> + 'w {
        let named =
            service.annotations.iter().find(|(key, _)| key.ends_with("/backend-config")).map(|(_, text)| &text.value);
        self.objects.backends.iter().filter(move |backend| {
            Self::same_namespace(&backend.namespace, &service.namespace)
                && (backend.target.as_ref() == Some(&service.name)
                    || named.is_some_and(|text| text.contains(&format!("\"{}\"", backend.name))))
        })
    }

    /// The catalogue's id of what an ingress stands for.
    pub fn controller(&self, ingress: &Ingress) -> Option<&'static str> {
        let class = if ingress.route {
            let gateway: Option<&Gateway> =
                self.objects.gateways.iter().find(|gateway| Some(&gateway.name) == ingress.class.as_ref());
            gateway.map(|gateway| gateway.class.as_str()).unwrap_or_default()
        } else {
            ingress.class.as_deref().unwrap_or_default()
        };
        let annotated = |prefix: &str| ingress.annotations.iter().any(|(key, _)| key.starts_with(prefix));
        Some(match class {
            "gce" | "gce-internal" => "gcp-global-alb",
            class if class.starts_with("gke-l7") => "gcp-global-alb",
            "nginx" | "nginx-internal" | "ingress-nginx" => "ingress-nginx",
            "alb" => "aws-alb",
            "traefik" => "traefik-upstream",
            "kong" => "kong",
            "contour" => "contour",
            "istio" => "istio",
            "skipper" => "skipper",
            "cilium" | "eg" | "envoy-gateway" => "envoy-upstream",
            "" if annotated("nginx.ingress.kubernetes.io/") => "ingress-nginx",
            "" if annotated("alb.ingress.kubernetes.io/") => "aws-alb",
            "" if !ingress.route && self.index.on_gke => "gcp-global-alb",
            _ => return None,
        })
    }

    /// What stands in front of a workload, the nearest first.
    pub fn hops(&self, workload: &Workload) -> Vec<Hop> {
        let mut out: Vec<Hop> = Vec::new();
        for (ingress, _) in self.ingresses(workload) {
            let Some(balancer) = self.controller(ingress).and_then(server::balancer) else { continue };
            let stated: Option<Sp<f64>> = match balancer.id {
                "ingress-nginx" => self.objects.configs.iter().find_map(|config| config.upstream_idle.clone()),
                "aws-alb" => alb_idle(ingress),
                _ => None,
            };
            let idle = stated.map(|stated| (stated.value, stated.value)).or(balancer.idle);
            let hop = Hop { at: ingress.at, name: ingress.name.clone(), idle, balancer };
            if !out.contains(&hop) {
                out.push(hop);
            }
        }
        for service in self.services(workload).filter(|service| service.kind == "LoadBalancer") {
            let aws = service.annotations.iter().any(|(key, _)| key.contains("aws-load-balancer"));
            if let Some(balancer) = aws.then(|| server::balancer("aws-nlb")).flatten() {
                // It keeps flows, not connections of its own: clients' own pools decide.
                out.push(Hop { at: service.at, name: service.name.clone(), idle: None, balancer });
            }
        }
        out
    }
}

/// `idle_timeout.timeout_seconds=N` among the load balancer's attributes.
fn alb_idle(ingress: &Ingress) -> Option<Sp<f64>> {
    let (_, text) =
        ingress.annotations.iter().find(|(key, _)| key == "alb.ingress.kubernetes.io/load-balancer-attributes")?;
    let value = text.value.split(',').find_map(|part| part.trim().strip_prefix("idle_timeout.timeout_seconds="))?;
    Some(Sp { value: value.parse().ok()?, at: text.at })
}
