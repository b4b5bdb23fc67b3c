//! From facts to a world: which image a container runs, which process that is, and what stands in front of it.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use crate::docker::base::{self, Sh};
use crate::docker::image::{Image, Origin};
use crate::files::{Files, Kind as FileKind};
use crate::launch::{self, Command, Launch, Opened, Scene};
use crate::model::objects::{Backend, Gateway, Hpa, Ingress, Objects, Pdb, Service};
use crate::model::proxy::Pool;
use crate::model::{Container, Kind, Workload};
use crate::read::Facts;
use crate::server::{self, Balancer, OnSignal, Server};
use crate::span::{FileId, Mapped, Sp};

/// A Dockerfile that makes an image. The image is read again where it is needed.
#[derive(Debug)]
pub struct Built {
    pub file: FileId,
    pub path: PathBuf,
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

/// What is known across files: the objects around workloads. Workloads themselves are met one file at a time, and none is
/// kept.
#[derive(Debug, Default)]
pub struct World {
    pub objects: Objects,
    pub pools: Vec<Pool>,
    built: Vec<Built>,
    /// There is one Dockerfile and one image that is nobody else's.
    alone: bool,
    /// Dockerfiles by what an image built from them would be called.
    names: HashMap<String, usize>,
    index: Index,
    pub seen: Seen,
}

/// Who is looked for by what, so that a world of ten thousand objects is not walked ten thousand times.
#[derive(Debug, Default)]
struct Index {
    /// By one label of the selector.
    services: Lookup,
    service_names: Lookup,
    /// By the name of a service behind it.
    ingresses: Lookup,
    /// By the name of what is scaled.
    hpas: Lookup,
    /// By one label of the selector; those without one apart.
    pdbs: Lookup,
    pdbs_of_all: Vec<usize>,
    /// Files with a budget in them.
    pdb_files: HashSet<FileId>,
    on_gke: bool,
}

/// Numbers by the hash of a key, in 16 bytes each. Who asks compares the key itself.
#[derive(Debug, Default)]
struct Lookup(Vec<(u64, u32)>);

impl Lookup {
    fn of<K: Hash>(pairs: impl Iterator<Item = (K, usize)>) -> Lookup {
        let mut all: Vec<(u64, u32)> = pairs.map(|(key, n)| (hash(&key), n as u32)).collect();
        all.sort_unstable();
        all.dedup();
        all.shrink_to_fit();
        Lookup(all)
    }

    /// In ascending order; others may be among them.
    fn get<K: Hash + ?Sized>(&self, key: &K) -> impl Iterator<Item = usize> + use<'_, K> {
        let wanted = hash(key);
        let from = self.0.partition_point(|(known, _)| *known < wanted);
        self.0[from..].iter().take_while(move |(known, _)| *known == wanted).map(|(_, n)| *n as usize)
    }
}

fn hash<K: Hash + ?Sized>(key: &K) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

impl Index {
    fn of(objects: &Objects) -> Index {
        let services = objects.services.iter().enumerate();
        let ingresses = objects.ingresses.iter().enumerate();
        let pdbs = objects.pdbs.iter().enumerate();
        Index {
            services: Lookup::of(services.clone().filter_map(|(n, service)| Some((service.selector.first()?, n)))),
            service_names: Lookup::of(services.map(|(n, service)| (service.name.as_str(), n))),
            ingresses: Lookup::of(
                ingresses.flat_map(|(n, ingress)| ingress.services.iter().map(move |name| (name.as_str(), n))),
            ),
            hpas: Lookup::of(objects.hpas.iter().enumerate().map(|(n, hpa)| (hpa.target.as_str(), n))),
            pdbs: Lookup::of(pdbs.clone().filter_map(|(n, pdb)| Some((pdb.selector.first()?, n)))),
            pdbs_of_all: pdbs.filter(|(_, pdb)| pdb.selector.is_empty()).map(|(n, _)| n).collect(),
            pdb_files: objects.pdbs.iter().map(|pdb| pdb.at.file).collect(),
            on_gke: on_gke(objects),
        }
    }
}

/// What a budget covers.
#[derive(Debug, Default, Clone, Copy)]
pub struct Covered {
    /// The fewest replicas that are written down.
    pub replicas: Option<f64>,
    /// There is a workload that it covers.
    pub any: bool,
    /// One of them is scaled.
    pub scaled: bool,
}

/// What the workloads were, all told.
#[derive(Debug, Default)]
pub struct Seen {
    /// Dockerfiles whose own command a manifest runs.
    deployed_files: HashSet<FileId>,
    /// Command lines that a manifest runs; kept where there is a Procfile to compare them with.
    deployed_apps: Option<HashSet<Vec<String>>>,
    /// By budget.
    covered: HashMap<usize, Covered>,
    /// Files with a budget and a workload.
    beside_pdb: HashSet<FileId>,
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

/// What all files say together, gathered a file at a time.
#[derive(Debug, Default)]
pub struct Gathering {
    world: World,
    own_images: HashSet<u64>,
    processes: bool,
}

impl Gathering {
    /// Takes what other files may need to know of a file.
    pub fn add(&mut self, files: &Files, fact: Facts) {
        if fact.image.is_some() {
            self.world.built.push(Built { file: fact.file, path: files.path(fact.file) });
        }
        let workloads = fact.workloads.iter().chain(fact.compose.iter().map(|(workload, _)| workload));
        // Whether it is one or more is all there is to know.
        for container in workloads.flat_map(|workload| &workload.containers).filter(|container| own_image(container)) {
            if self.own_images.len() < 2 {
                self.own_images.extend(container.image.as_ref().map(|image| hash(image.value.as_str())));
            }
        }
        self.processes |= !fact.processes.is_empty();
        self.world.pools.extend(fact.pools);
        extend(&mut self.world.objects, fact.objects);
    }

    /// Nothing more will come.
    pub fn done(self) -> World {
        let mut world = self.world;
        world.alone = world.built.len() == 1 && self.own_images.len() == 1;
        world.names = names(&world.built);
        world.index = Index::of(&world.objects);
        world.seen.deployed_apps = self.processes.then(HashSet::new);
        world
    }
}

/// A workload, and the chain that was found for it.
pub type Linked = (Workload, Vec<String>);

/// The workloads of one file, linked to what runs in them.
pub fn workloads(files: &Files, world: &World, fact: Facts) -> Vec<Linked> {
    let linker = Linker { files, world };
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
    world: &'f World,
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

    /// The image of a Dockerfile, unless the file has gone since it was first read.
    fn image(&self, built: &Built) -> Option<Image> {
        super::read::one(self.files, built.file, FileKind::Dockerfile).image
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
        let beside = self.world.built.iter().find(|built| built.path.parent() == path.parent());
        let image = beside.and_then(|built| self.image(built));
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
        let found = found.and_then(|(built, sure)| Some((built, self.image(built)?, sure)));
        let (image, from, sure) = if let Some((built, image, sure)) = found {
            links.push(format!("{}: image {name} is built by {}", container.name, self.files.show(built.file)));
            container.dockerfile = Some(built.file);
            (image, built.path.clone(), sure)
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
            return self.world.built.iter().find(|built| normal(&built.path) == wanted).map(|built| (built, true));
        }
        if name.is_empty() || base::official(&base::reference(name)).is_some() {
            return None;
        }
        let last = base::reference(name).name;
        let by_name = self.world.names.get(last).map(|n| &self.world.built[*n]);
        by_name.map(|built| (built, false)).or_else(|| self.world.alone.then(|| (&self.world.built[0], false)))
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

    /// Takes note of a workload.
    pub fn see(&self, workload: &Workload, seen: &mut Seen) {
        if workload.kind.in_cluster() {
            for n in self.pdbs(workload) {
                let scaled = self.hpas(workload).next().is_some();
                let covered = seen.covered.entry(n).or_default();
                let replicas = workload.replicas.as_ref().map(|replicas| replicas.value);
                covered.any = true;
                covered.replicas = [covered.replicas, replicas].into_iter().flatten().reduce(f64::min);
                covered.scaled |= scaled;
            }
            seen.beside_pdb.extend(Some(workload.file).filter(|file| self.index.pdb_files.contains(file)));
        }
        if workload.kind.in_cluster() || workload.kind == Kind::Compose {
            for container in &workload.containers {
                seen.deployed_files.extend(container.dockerfile.filter(|_| container.command.is_none()));
                if let Some(apps) = &mut seen.deployed_apps {
                    let app = container.launch.as_ref().and_then(|launch| launch::app(&launch.node));
                    apps.extend(app.map(|(argv, _)| argv.to_vec()));
                }
            }
        }
    }

    /// The services that send to a workload.
    pub fn services<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w Service> + 'w {
        let candidates = workload.labels.iter().flat_map(move |label| {
            let found = self.index.services.get(label).map(|n| &self.objects.services[n]);
            found.filter(move |service| service.selector.first() == Some(label))
        });
        candidates.filter(move |service| {
            Self::same_namespace(&service.namespace, &workload.namespace)
                && service.selector.iter().all(|label| workload.labels.contains(label))
        })
    }

    /// The services of a name.
    pub fn named<'w>(&'w self, name: &'w str) -> impl Iterator<Item = &'w Service> + 'w {
        let found = self.index.service_names.get(name).map(|n| &self.objects.services[n]);
        found.filter(move |service| service.name == name)
    }

    pub fn ingresses<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = (&'w Ingress, &'w Service)> + 'w {
        self.services(workload).flat_map(move |service| {
            let found = self.index.ingresses.get(service.name.as_str()).map(|n| &self.objects.ingresses[n]);
            found
                .filter(|ingress| ingress.services.contains(&service.name))
                .filter(|ingress| Self::same_namespace(&ingress.namespace, &service.namespace))
                .map(move |ingress| (ingress, service))
        })
    }

    pub fn hpas<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w Hpa> + 'w {
        let found = self.index.hpas.get(workload.name.as_str()).map(|n| &self.objects.hpas[n]);
        found
            .filter(move |hpa| hpa.target == workload.name && Self::same_namespace(&hpa.namespace, &workload.namespace))
    }

    /// The budgets that cover a workload: by its labels, or all of the namespace where the selector is empty.
    fn pdbs<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = usize> + 'w {
        let labelled = workload.labels.iter().flat_map(move |label| {
            let found = self.index.pdbs.get(label);
            found.filter(move |n| self.objects.pdbs[*n].selector.first() == Some(label))
        });
        let all = labelled.chain(self.index.pdbs_of_all.iter().copied());
        all.filter(move |n| Self::covers(&self.objects.pdbs[*n], workload))
    }

    fn covers(pdb: &Pdb, workload: &Workload) -> bool {
        Self::same_namespace(&pdb.namespace, &workload.namespace)
            && pdb.selector.iter().all(|label| workload.labels.contains(label))
    }

    /// The budgets, and what each covers.
    pub fn budgets(&self) -> impl Iterator<Item = (&Pdb, Covered)> {
        let covered = |n| self.seen.covered.get(&n).copied().unwrap_or_default();
        self.objects.pdbs.iter().enumerate().map(move |(n, pdb)| (pdb, covered(n)))
    }

    /// A workload stands in the file of a budget.
    pub fn has_workload_beside(&self, pdb: &Pdb) -> bool {
        self.seen.beside_pdb.contains(&pdb.at.file)
    }

    /// A Dockerfile or a line of a Procfile that a manifest runs is judged there, with its preStop and grace period.
    pub fn is_deployed(&self, workload: &Workload) -> bool {
        let own = workload.containers.first().and_then(|container| container.launch.as_ref());
        let app = own.and_then(|launch| launch::app(&launch.node)).map(|(argv, _)| argv);
        match workload.kind {
            Kind::Image => self.seen.deployed_files.contains(&workload.file),
            Kind::Procfile => app.zip(self.seen.deployed_apps.as_ref()).is_some_and(|(argv, apps)| apps.contains(argv)),
            Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Pod
            | Kind::ReplicaSet
            | Kind::Rollout
            | Kind::KnativeService
            | Kind::DeploymentConfig
            | Kind::ReplicationController
            | Kind::Compose => false,
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
