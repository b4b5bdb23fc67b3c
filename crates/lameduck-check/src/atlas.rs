//! What all files say together, in a few bytes an object: where to look. The objects themselves are read again where they
//! are needed, so that memory does not grow with their number.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::docker::base;
use crate::files::{Files, Kind as FileKind};
use crate::launch;
use crate::model::objects::{Backend, ControllerConfig, Ingress, Labels, Objects, Service};
use crate::model::{Container, Kind, Workload};
use crate::read::{self, Facts};
use crate::span::{FileId, Sp};
use crate::world::{Covered, World, hash};

/// So many other files are looked into for one question, the nearest first. More of them say the same of themselves only
/// where each is a set of files of its own.
const NEAREST: usize = 64;
/// So many objects of other files are kept for the next question.
const CACHED: usize = 4096;

/// Where an object is that somebody may look for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    key: u32,
    /// 0 where none is written.
    namespace: u32,
    file: FileId,
}

fn place(key: &str, namespace: &str, file: FileId) -> Place {
    Place { key: hash(key), namespace: space(namespace), file }
}

fn space(namespace: &str) -> u32 {
    if namespace.is_empty() { 0 } else { hash(namespace).max(1) }
}

fn same_space(a: u32, b: u32) -> bool {
    a == b || a == 0 || b == 0
}

/// Files by the hash of a name, in 12 bytes an object.
#[derive(Debug, Default)]
struct Places(Vec<Place>);

impl Places {
    fn sort(&mut self) {
        self.0.sort_unstable();
        self.0.dedup();
        self.0.shrink_to_fit();
    }

    fn get(&self, key: u32) -> &[Place] {
        let from = self.0.partition_point(|place| place.key < key);
        let many = self.0[from..].partition_point(|place| place.key == key);
        &self.0[from..from + many]
    }

    fn files(&self, key: &str, namespace: &str, into: &mut Vec<FileId>) {
        let namespace = space(namespace);
        let found = self.get(hash(key)).iter().filter(|place| same_space(place.namespace, namespace));
        into.extend(found.map(|place| place.file));
    }
}

/// Files by selectors. Each stands under its rarest label.
#[derive(Debug, Default)]
struct Selectors {
    /// File, namespace, the number of labels, their hashes; one after the other.
    records: Vec<u32>,
    /// Where the record of each begins, by the hash of a label.
    by_label: Vec<(u32, u32)>,
}

fn label(label: &(String, String)) -> u32 {
    hash(label)
}

impl Selectors {
    fn add(&mut self, selector: &Labels, namespace: &str, file: FileId) {
        self.records.extend([file.0, space(namespace), selector.len() as u32]);
        self.records.extend(selector.iter().map(label));
    }

    fn each(&self) -> impl Iterator<Item = (usize, &[u32])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let many = *self.records.get(at + 2)? as usize;
            let labels = self.records.get(at + 3..at + 3 + many)?;
            at += 3 + many;
            Some((at - 3 - many, labels))
        })
    }

    fn sort(&mut self) {
        self.records.shrink_to_fit();
        let mut all: Vec<u32> = self.each().flat_map(|(_, labels)| labels.iter().copied()).collect();
        all.sort_unstable();
        let often = |label: u32| {
            let from = all.partition_point(|known| *known < label);
            all[from..].partition_point(|known| *known == label)
        };
        // What selects everything stands under no label, which is the hash 0.
        let rarest = |labels: &[u32]| labels.iter().copied().min_by_key(|label| often(*label)).unwrap_or(0);
        let mut by_label: Vec<(u32, u32)> = self.each().map(|(at, labels)| (rarest(labels), at as u32)).collect();
        by_label.sort_unstable();
        self.by_label = by_label;
    }

    fn files(&self, workload: &Workload, into: &mut Vec<FileId>) {
        let own: Vec<u32> = workload.labels.iter().map(label).collect();
        let namespace = space(&workload.namespace);
        for key in own.iter().copied().chain(Some(0)) {
            let from = self.by_label.partition_point(|(known, _)| *known < key);
            for (_, at) in self.by_label[from..].iter().take_while(|(known, _)| *known == key) {
                let Some([file, space, many, rest @ ..]) = self.records.get(*at as usize..) else { continue };
                let labels = rest.get(..*many as usize).unwrap_or_default();
                if same_space(*space, namespace) && labels.iter().all(|label| own.contains(label)) {
                    into.push(FileId(*file));
                }
            }
        }
    }
}

/// What the workloads were, all told.
#[derive(Debug, Default)]
pub struct Seen {
    /// Dockerfiles whose own command a manifest runs.
    deployed_files: HashSet<FileId>,
    /// Command lines that a manifest runs; kept where there is a Procfile to compare them with.
    deployed_apps: Option<HashSet<Vec<String>>>,
    /// By where the budget stands.
    covered: HashMap<(FileId, u32), Covered>,
}

/// What is to be remembered of a workload.
#[derive(Debug, Default)]
pub struct Sight {
    files: Vec<FileId>,
    apps: Vec<Vec<String>>,
    budgets: Vec<(FileId, u32)>,
    replicas: Option<f64>,
    scaled: bool,
}

/// Where everything is.
#[derive(Debug, Default)]
pub struct Atlas {
    /// Dockerfiles: the first of them, by what an image built from one would be called, by path, by folder.
    dockerfile: Option<FileId>,
    dockerfiles: usize,
    image_names: Vec<(u32, FileId)>,
    docker_paths: Vec<(u32, FileId)>,
    docker_folders: Vec<(u32, FileId)>,
    /// There is one Dockerfile and one image that is nobody else's.
    alone: bool,
    services: Selectors,
    service_names: Places,
    /// By the name of a service behind it.
    ingresses: Places,
    gateways: Places,
    /// By the name of what is scaled.
    hpas: Places,
    pdbs: Selectors,
    /// GKE's settings, by their own name and by that of their target.
    backends: Places,
    /// By the first part of a host behind it.
    pools: Vec<(u32, FileId, FileKind)>,
    pdb_files: Vec<FileId>,
    any_expressions: bool,
    on_gke: bool,
    config: ControllerConfig,
    seen: Seen,
    cache: Mutex<Cache>,
}

/// What other files say, for as long as there is room.
#[derive(Debug, Default)]
struct Cache {
    worlds: HashMap<FileId, Arc<World>>,
    order: VecDeque<FileId>,
    size: usize,
}

/// What all files say together, gathered a file at a time.
#[derive(Debug, Default)]
pub struct Gathering {
    atlas: Atlas,
    own_images: HashSet<u32>,
    processes: bool,
}

/// What other files may need to know of a file.
#[derive(Debug, Default)]
pub struct Gist {
    file: FileId,
    kind: Option<FileKind>,
    image: bool,
    images: Vec<u32>,
    processes: bool,
    objects: Objects,
    pools: Vec<String>,
}

impl Gist {
    pub fn of(facts: &mut Facts, kind: FileKind) -> Gist {
        let workloads = facts.workloads.iter().chain(facts.compose.iter().map(|(workload, _)| workload));
        let containers = workloads.flat_map(|workload| &workload.containers).filter(|container| own_image(container));
        let images = containers.filter_map(|container| Some(hash(container.image.as_ref()?.value.as_str())));
        Gist {
            file: facts.file,
            kind: Some(kind),
            image: facts.image.is_some(),
            // Whether it is one or more is all there is to know.
            images: images.take(2).collect(),
            processes: !facts.processes.is_empty(),
            objects: std::mem::take(&mut facts.objects),
            pools: facts.pools.iter().flat_map(|pool| &pool.hosts).map(|host| first(host).to_owned()).collect(),
        }
    }
}

fn first(host: &str) -> &str {
    host.split('.').next().unwrap_or_default()
}

impl Gathering {
    /// Takes what other files may need to know of a file.
    pub fn add(&mut self, files: &Files, gist: Gist) {
        let (file, atlas) = (gist.file, &mut self.atlas);
        if gist.image {
            let path = files.path(file);
            atlas.dockerfile.get_or_insert(file);
            atlas.dockerfiles += 1;
            atlas.image_names.extend(image_names(&path).iter().map(|name| (hash(name.as_str()), file)));
            atlas.docker_paths.push((hash(&normal(&path)), file));
            atlas.docker_folders.push((hash(&read::folder(&path)), file));
        }
        if self.own_images.len() < 2 {
            self.own_images.extend(gist.images);
        }
        self.processes |= gist.processes;
        let kind = gist.kind.unwrap_or(FileKind::Yaml);
        atlas.pools.extend(gist.pools.iter().map(|host| (hash(host.as_str()), file, kind)));
        let objects = gist.objects;
        atlas.on_gke |= on_gke(&objects);
        for service in &objects.services {
            if !service.selector.is_empty() {
                atlas.services.add(&service.selector, &service.namespace, file);
            }
            atlas.service_names.0.push(place(&service.name, &service.namespace, file));
        }
        for ingress in &objects.ingresses {
            let services = ingress.services.iter().map(|name| place(name, &ingress.namespace, file));
            atlas.ingresses.0.extend(services);
        }
        atlas.gateways.0.extend(objects.gateways.iter().map(|gateway| place(&gateway.name, "", file)));
        atlas.hpas.0.extend(objects.hpas.iter().map(|hpa| place(&hpa.target, &hpa.namespace, file)));
        for pdb in &objects.pdbs {
            atlas.pdbs.add(&pdb.selector, &pdb.namespace, file);
            atlas.any_expressions |= pdb.expressions;
        }
        atlas.pdb_files.extend((!objects.pdbs.is_empty()).then_some(file));
        for backend in &objects.backends {
            let names = backend.target.iter().chain(Some(&backend.name));
            atlas.backends.0.extend(names.map(|name| place(name, &backend.namespace, file)));
        }
        let idle = &mut atlas.config.upstream_idle;
        if idle.is_none() {
            *idle = objects.configs.iter().find_map(|config| config.upstream_idle.clone());
        }
    }

    /// Nothing more will come.
    pub fn done(self) -> Atlas {
        let mut atlas = self.atlas;
        atlas.alone = atlas.dockerfiles == 1 && self.own_images.len() == 1;
        for files in [&mut atlas.image_names, &mut atlas.docker_paths, &mut atlas.docker_folders] {
            files.sort_unstable();
        }
        atlas.services.sort();
        atlas.pdbs.sort();
        for places in
            [&mut atlas.service_names, &mut atlas.ingresses, &mut atlas.gateways, &mut atlas.hpas, &mut atlas.backends]
        {
            places.sort();
        }
        atlas.pools.sort_unstable_by_key(|(host, file, _)| (*host, *file));
        atlas.pools.dedup();
        atlas.seen.deployed_apps = self.processes.then(HashSet::new);
        atlas
    }
}

/// Whether the files are meant for Google Kubernetes Engine, where an Ingress without a class is Google's.
fn on_gke(objects: &Objects) -> bool {
    let google = |key: &str| key.starts_with("cloud.google.com/") || key.starts_with("networking.gke.io/");
    objects.google
        || !objects.backends.is_empty()
        || objects.services.iter().any(|service| service.annotations.iter().any(|(key, _)| google(key)))
        || objects.ingresses.iter().any(|ingress| {
            ingress.annotations.iter().any(|(key, _)| {
                google(key) || key.starts_with("kubernetes.io/ingress.global-static-ip") || key.contains("gke.")
            })
        })
}

fn own_image(container: &Container) -> bool {
    container.image.as_ref().is_some_and(|image| base::official(&base::reference(&image.value)).is_none())
}

/// `web/Dockerfile`, `Dockerfile.web` and `web.Dockerfile` are taken to build an image `web`.
fn image_names(path: &Path) -> Vec<String> {
    let folder = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let by_file = file.strip_prefix("Dockerfile.").or_else(|| file.strip_suffix(".Dockerfile")).map(str::to_owned);
    folder.filter(|_| file == "Dockerfile").into_iter().chain(by_file).collect()
}

/// The path without `.` and `..`.
pub fn normal(path: &Path) -> PathBuf {
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

/// Adds what is not there yet.
fn add<T: Clone>(all: &mut Vec<T>, at: impl Fn(&T) -> crate::span::At, new: &T) {
    if all.iter().all(|known| at(known) != at(new)) {
        all.push(new.clone());
    }
}

/// The name of the settings that an annotation gives for a port, or for all of them.
fn named_backends(service: &Service) -> Vec<&str> {
    let text: Option<&Sp<String>> =
        service.annotations.iter().find(|(key, _)| key.ends_with("/backend-config")).map(|(_, text)| text);
    // `{"default": "NAME", "ports": {"80": "NAME"}}`: whatever stands in quotes may be one.
    text.map(|text| text.value.split('"').skip(1).step_by(2).collect()).unwrap_or_default()
}

/// The first file of a key that fits.
fn first_of(files: &[(u32, FileId)], key: u32, fits: impl Fn(FileId) -> bool) -> Option<FileId> {
    let from = files.partition_point(|(known, _)| *known < key);
    let same = files[from..].iter().take_while(|(known, _)| *known == key);
    same.map(|(_, file)| *file).find(|file| fits(*file))
}

impl Atlas {
    /// The Dockerfile of a path.
    pub fn dockerfile_at(&self, files: &Files, path: &Path) -> Option<FileId> {
        let wanted = normal(path);
        first_of(&self.docker_paths, hash(&wanted), |file| normal(&files.path(file)) == wanted)
    }

    /// The first Dockerfile of a folder.
    pub fn dockerfile_in(&self, files: &Files, folder: &Path) -> Option<FileId> {
        first_of(&self.docker_folders, hash(folder), |file| read::folder(&files.path(file)) == folder)
    }

    /// The Dockerfile that makes an image of this name, or the only one where there is one image.
    pub fn dockerfile_of(&self, files: &Files, name: &str) -> Option<FileId> {
        let named = |file| image_names(&files.path(file)).iter().any(|known| known == name);
        first_of(&self.image_names, hash(name), named).or_else(|| self.dockerfile.filter(|_| self.alone))
    }

    /// Another file as it says of itself.
    fn open(&self, files: &Files, file: FileId, kind: FileKind) -> Arc<World> {
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(world) = lock().worlds.get(&file) {
            return Arc::clone(world);
        }
        let facts = read::one(files, file, kind);
        let world = Arc::new(World::of(facts.objects, facts.pools));
        let mut cache = lock();
        if cache.worlds.insert(file, Arc::clone(&world)).is_none() {
            cache.order.push_back(file);
            cache.size += world.size();
        }
        while cache.size > CACHED {
            let Some(oldest) = cache.order.pop_front() else { break };
            if let Some(gone) = cache.worlds.remove(&oldest) {
                cache.size -= gone.size();
            }
        }
        world
    }

    /// The nearest of the files, as the folders are walked.
    fn nearest(own: FileId, mut found: Vec<FileId>, world: &mut World) -> Vec<FileId> {
        found.retain(|file| *file != own);
        found.sort_unstable();
        found.dedup();
        if found.len() > NEAREST {
            found.sort_by_key(|file| file.0.abs_diff(own.0));
            world.left_out += found.len() - NEAREST;
            found.truncate(NEAREST);
            found.sort_unstable();
        }
        found
    }

    /// What stands around the workloads and ingresses of a file.
    pub fn around(&self, files: &Files, facts: &mut Facts) -> World {
        let mut world = World::of(std::mem::take(&mut facts.objects), std::mem::take(&mut facts.pools));
        world.budgets_by_label = !self.pdb_files.is_empty() && !self.any_expressions;
        world.on_gke = self.on_gke;
        world.config = self.config.clone();
        world.has_workload = !facts.workloads.is_empty();
        let own = facts.file;
        let open = |file| self.open(files, file, FileKind::Yaml);
        for workload in &facts.workloads {
            let mut found = Vec::new();
            self.services.files(workload, &mut found);
            for file in Self::nearest(own, found, &mut world) {
                for service in open(file).services(workload) {
                    add(&mut world.objects.services, |service| service.at, service);
                }
            }
            let mut found = Vec::new();
            self.hpas.files(&workload.name, &workload.namespace, &mut found);
            for file in Self::nearest(own, found, &mut world) {
                open(file).hpas(workload).for_each(|hpa| add(&mut world.objects.hpas, |hpa| hpa.at, hpa));
            }
            let mut found = Vec::new();
            self.pdbs.files(workload, &mut found);
            for file in Self::nearest(own, found, &mut world) {
                let other = open(file);
                other.pdbs(workload).for_each(|n| add(&mut world.objects.pdbs, |pdb| pdb.at, &other.objects.pdbs[n]));
            }
        }
        self.behind_ingresses(&open, own, &mut world);
        if world.has_workload {
            self.in_front(&open, own, &mut world);
        }
        self.settings(&open, own, &mut world);
        self.pools(files, facts, &mut world);
        world.index();
        world
    }

    /// The services that the file's own ingresses name.
    fn behind_ingresses(&self, open: &dyn Fn(FileId) -> Arc<World>, own: FileId, world: &mut World) {
        let named: Vec<(String, String)> = world
            .own_ingresses()
            .iter()
            .flat_map(|ingress| ingress.services.iter().map(|name| (name.clone(), ingress.namespace.clone())))
            .collect();
        for (name, namespace) in named {
            let mut found = Vec::new();
            self.service_names.files(&name, &namespace, &mut found);
            for file in Self::nearest(own, found, world) {
                for service in open(file).named(&name, &namespace) {
                    add(&mut world.objects.services, |service| service.at, service);
                }
            }
        }
    }

    /// The ingresses that name the services.
    fn in_front(&self, open: &dyn Fn(FileId) -> Arc<World>, own: FileId, world: &mut World) {
        let services: Vec<(String, String)> =
            world.objects.services.iter().map(|one| (one.name.clone(), one.namespace.clone())).collect();
        for (name, namespace) in services {
            let mut found = Vec::new();
            self.ingresses.files(&name, &namespace, &mut found);
            for file in Self::nearest(own, found, world) {
                let other = open(file);
                for ingress in other.naming(&name, &namespace) {
                    add(&mut world.objects.ingresses, |ingress: &Ingress| ingress.at, ingress);
                }
            }
        }
    }

    /// Gateways of the routes, and GKE's settings of the services.
    fn settings(&self, open: &dyn Fn(FileId) -> Arc<World>, own: FileId, world: &mut World) {
        let routes = world.objects.ingresses.iter().filter(|ingress| ingress.route);
        let gateways: HashSet<String> = routes.filter_map(|route| route.class.clone()).collect();
        for name in gateways {
            let mut found = Vec::new();
            self.gateways.files(&name, "", &mut found);
            for file in Self::nearest(own, found, world) {
                let other = open(file);
                let wanted = other.objects.gateways.iter().filter(|gateway| gateway.name == name);
                world.objects.gateways.extend(wanted.cloned());
            }
        }
        if self.backends.0.is_empty() {
            return;
        }
        let services = world.objects.services.clone();
        for service in services {
            let mut found = Vec::new();
            for name in named_backends(&service).into_iter().chain(Some(service.name.as_str())) {
                self.backends.files(name, &service.namespace, &mut found);
            }
            for file in Self::nearest(own, found, world) {
                for backend in open(file).backends(&service) {
                    add(&mut world.objects.backends, |backend: &Backend| backend.at, backend);
                }
            }
        }
    }

    /// The pools of proxies that send to a service, or to a workload by its name.
    fn pools(&self, files: &Files, facts: &Facts, world: &mut World) {
        if self.pools.is_empty() {
            return;
        }
        let services = world.objects.services.iter().map(|service| service.name.as_str());
        let compose = facts.compose.iter().map(|(workload, _)| workload.name.as_str());
        let processes = facts.processes.iter().map(|(name, _, _)| name.as_str());
        let names: Vec<u32> = services.chain(compose).chain(processes).map(hash).collect();
        let mut found: Vec<(FileId, FileKind)> = Vec::new();
        for name in names {
            let from = self.pools.partition_point(|(known, _, _)| *known < name);
            let same = self.pools[from..].iter().take_while(|(known, _, _)| *known == name);
            found.extend(same.map(|(_, file, kind)| (*file, *kind)));
        }
        let wanted = Self::nearest(facts.file, found.iter().map(|(file, _)| *file).collect(), world);
        for file in wanted {
            let kind = found.iter().find(|(known, _)| *known == file).map_or(FileKind::Yaml, |(_, kind)| *kind);
            world.pools.extend(self.open(files, file, kind).pools.iter().cloned());
        }
    }

    /// What is to be remembered of a workload.
    pub fn sight(&self, world: &World, workload: &Workload) -> Sight {
        let mut sight = Sight::default();
        if workload.kind.in_cluster() {
            sight.budgets =
                world.pdbs(workload).map(|n| &world.objects.pdbs[n].at).map(|at| (at.file, at.span.start)).collect();
            sight.replicas = workload.replicas.as_ref().map(|replicas| replicas.value);
            sight.scaled = world.hpas(workload).next().is_some();
        }
        if workload.kind.in_cluster() || workload.kind == Kind::Compose {
            for container in &workload.containers {
                sight.files.extend(container.dockerfile.filter(|_| container.command.is_none()));
                if self.seen.deployed_apps.is_some() {
                    let app = container.launch.as_ref().and_then(|launch| launch::app(&launch.node));
                    sight.apps.extend(app.map(|(argv, _)| argv.to_vec()));
                }
            }
        }
        sight
    }

    pub fn see(seen: &mut Seen, sight: Sight) {
        for budget in sight.budgets {
            let covered = seen.covered.entry(budget).or_default();
            covered.any = true;
            covered.replicas = [covered.replicas, sight.replicas].into_iter().flatten().reduce(f64::min);
            covered.scaled |= sight.scaled;
        }
        seen.deployed_files.extend(sight.files);
        if let Some(apps) = &mut seen.deployed_apps {
            apps.extend(sight.apps);
        }
    }

    /// All workloads were seen.
    pub fn seen(&mut self, seen: Seen) {
        self.seen = seen;
    }

    /// Nothing is seen yet.
    pub fn unseen(&self) -> Seen {
        Seen { deployed_apps: self.seen.deployed_apps.as_ref().map(|_| HashSet::new()), ..Seen::default() }
    }

    /// The files with budgets.
    pub fn pdb_files(&self) -> &[FileId] {
        &self.pdb_files
    }

    /// A file's own budgets, and what each covers; after all workloads were seen.
    pub fn budgets(&self, facts: &mut Facts) -> World {
        let mut world = World::of(std::mem::take(&mut facts.objects), Vec::new());
        let covered = |at: crate::span::At| self.seen.covered.get(&(at.file, at.span.start)).copied();
        world.covered = world.objects.pdbs.iter().map(|pdb| covered(pdb.at).unwrap_or_default()).collect();
        world.has_workload = !facts.workloads.is_empty();
        world
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
}
