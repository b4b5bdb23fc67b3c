//! What stands around the workloads of a file: services, ingresses, budgets and the like, its own and those of other
//! files that belong to them.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::model::Workload;
use crate::model::objects::{Annotations, Backend, ControllerConfig, Gateway, Hpa, Ingress, Objects, Pdb, Service};
use crate::model::proxy::Pool;
use crate::server::{self, Balancer};
use crate::span::Sp;

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

/// The surroundings of one file. Its own objects come first.
#[derive(Debug, Default)]
pub struct World {
    pub objects: Objects,
    pub pools: Vec<Pool>,
    /// How many objects are the file's own.
    pub own: Own,
    /// What budgets cover; known only after all workloads were seen.
    pub covered: Vec<Covered>,
    /// There is a workload in the file.
    pub has_workload: bool,
    /// There are budgets among all files, and all of them select by labels: expressions are not evaluated.
    pub budgets_by_label: bool,
    pub on_gke: bool,
    /// ingress-nginx's settings.
    pub config: ControllerConfig,
    /// Files that could belong here and were too many to be looked into.
    pub left_out: usize,
    index: Index,
}

/// How many objects of a kind are a file's own.
#[derive(Debug, Default, Clone, Copy)]
pub struct Own {
    pub ingresses: usize,
    pub hpas: usize,
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

/// Who is looked for by what, so that a file of ten thousand objects is not walked ten thousand times.
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
}

/// Numbers by the hash of a key, in 8 bytes each. Who asks compares the key itself.
#[derive(Debug, Default)]
struct Lookup(Vec<(u32, u32)>);

impl Lookup {
    fn of<K: Hash>(pairs: impl Iterator<Item = (K, usize)>) -> Lookup {
        let mut all: Vec<(u32, u32)> = pairs.map(|(key, n)| (hash(&key), n as u32)).collect();
        all.sort_unstable();
        all.dedup();
        Lookup(all)
    }

    /// In ascending order; others may be among them.
    fn get<K: Hash + ?Sized>(&self, key: &K) -> impl Iterator<Item = usize> + use<'_, K> {
        let wanted = hash(key);
        let from = self.0.partition_point(|(known, _)| *known < wanted);
        self.0[from..].iter().take_while(move |(known, _)| *known == wanted).map(|(_, n)| *n as usize)
    }
}

/// Of a key, the same in one run of the program.
pub fn hash<K: Hash + ?Sized>(key: &K) -> u32 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish() as u32
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
        }
    }
}

impl World {
    pub fn of(objects: Objects, pools: Vec<Pool>) -> World {
        let own = Own { ingresses: objects.ingresses.len(), hpas: objects.hpas.len() };
        World { index: Index::of(&objects), objects, pools, own, ..World::default() }
    }

    /// After objects of other files were added.
    pub fn index(&mut self) {
        self.index = Index::of(&self.objects);
    }

    pub fn size(&self) -> usize {
        let all = &self.objects;
        let lists = all.services.len() + all.ingresses.len() + all.gateways.len() + all.hpas.len();
        1 + lists + all.pdbs.len() + all.backends.len() + self.pools.len()
    }

    pub fn same_namespace(a: &str, b: &str) -> bool {
        a == b || a.is_empty() || b.is_empty()
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
    pub fn named<'w>(&'w self, name: &'w str, namespace: &'w str) -> impl Iterator<Item = &'w Service> + 'w {
        let found = self.index.service_names.get(name).map(|n| &self.objects.services[n]);
        found.filter(move |service| service.name == name && Self::same_namespace(&service.namespace, namespace))
    }

    /// The ingresses that send to a service.
    pub fn naming<'w>(&'w self, service: &'w str, namespace: &'w str) -> impl Iterator<Item = &'w Ingress> + 'w {
        let found = self.index.ingresses.get(service).map(|n| &self.objects.ingresses[n]);
        found
            .filter(move |ingress| ingress.services.iter().any(|name| name == service))
            .filter(move |ingress| Self::same_namespace(&ingress.namespace, namespace))
    }

    pub fn ingresses<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = (&'w Ingress, &'w Service)> + 'w {
        self.services(workload).flat_map(move |service| {
            self.naming(&service.name, &service.namespace).map(move |ingress| (ingress, service))
        })
    }

    pub fn hpas<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = &'w Hpa> + 'w {
        let found = self.index.hpas.get(workload.name.as_str()).map(|n| &self.objects.hpas[n]);
        found
            .filter(move |hpa| hpa.target == workload.name && Self::same_namespace(&hpa.namespace, &workload.namespace))
    }

    /// The budgets that cover a workload: by its labels, or all of the namespace where the selector is empty.
    pub fn pdbs<'w>(&'w self, workload: &'w Workload) -> impl Iterator<Item = usize> + 'w {
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

    /// The ingresses of the file itself.
    pub fn own_ingresses(&self) -> &[Ingress] {
        self.objects.ingresses.get(..self.own.ingresses).unwrap_or_default()
    }

    /// The autoscalers of the file itself.
    pub fn own_hpas(&self) -> &[Hpa] {
        self.objects.hpas.get(..self.own.hpas).unwrap_or_default()
    }

    /// The budgets of the file itself, and what each covers.
    pub fn budgets(&self) -> impl Iterator<Item = (&Pdb, Covered)> {
        self.objects.pdbs.iter().zip(self.covered.iter().copied())
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
            "" if !ingress.route && self.on_gke => "gcp-global-alb",
            _ => return None,
        })
    }

    /// What stands in front of a workload, the nearest first.
    pub fn hops(&self, workload: &Workload) -> Vec<Hop> {
        let mut out: Vec<Hop> = Vec::new();
        for (ingress, service) in self.ingresses(workload) {
            let Some(balancer) = self.controller(ingress).and_then(server::balancer) else { continue };
            let stated: Option<Sp<f64>> = match balancer.id {
                "ingress-nginx" => self.config.upstream_idle.clone(),
                "aws-alb" => alb_idle(ingress),
                _ => None,
            };
            let mut balancer = balancer;
            if balancer.id == "aws-alb" && aws_setting(ingress, service, "target-type").as_deref() == Some("instance") {
                // Its targets are nodes, which stay: the way to the pod is kube-proxy's.
                balancer.lag = (1.0, Some(3.0));
            }
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
    attribute(&ingress.annotations, "load-balancer-attributes", "idle_timeout.timeout_seconds")
}

const AWS: &str = "alb.ingress.kubernetes.io/";

/// One of the `KEY=VALUE` pairs of an annotation.
fn attribute(annotations: &Annotations, annotation: &str, key: &str) -> Option<Sp<f64>> {
    let (_, text) = annotations.iter().find(|(name, _)| name.strip_prefix(AWS) == Some(annotation))?;
    let mut pairs = text.value.split(',').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(name, _)| name.trim() == key)?;
    Some(Sp { value: value.trim().parse().ok()?, at: text.at })
}

/// What AWS's controller is told by annotation: the service's word goes before the ingress's.
pub fn aws_setting(ingress: &Ingress, service: &Service, annotation: &str) -> Option<String> {
    let all = service.annotations.iter().chain(&ingress.annotations);
    let mut said = all.filter(|(name, _)| name.strip_prefix(AWS) == Some(annotation));
    said.next().map(|(_, text)| text.value.clone())
}

/// An attribute of the target group, by annotation.
pub fn target_attribute(ingress: &Ingress, service: &Service, key: &str) -> Option<Sp<f64>> {
    let of = |annotations| attribute(annotations, "target-group-attributes", key);
    of(&service.annotations).or_else(|| of(&ingress.annotations))
}
