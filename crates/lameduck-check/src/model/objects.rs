//! The objects around workloads: routing and scaling.

use crate::edit::Insert;
use crate::span::{At, Sp};

pub type Labels = Vec<(String, String)>;
pub type Annotations = Vec<(String, Sp<String>)>;

#[derive(Debug, Clone, Default)]
pub struct Service {
    pub at: At,
    pub name: String,
    pub namespace: String,
    pub kind: String,
    pub selector: Labels,
    pub annotations: Annotations,
    pub external_policy: Option<Sp<String>>,
    pub not_ready: Option<Sp<bool>>,
    /// Where an annotation can be added, and whether `annotations:` is there already.
    pub annotate: Option<(Insert, bool)>,
}

#[derive(Debug, Clone, Default)]
pub struct Ingress {
    pub at: At,
    pub name: String,
    pub namespace: String,
    /// Class, controller, or the gateway's name for a route.
    pub class: Option<String>,
    /// An `HTTPRoute`, not an Ingress.
    pub route: bool,
    pub annotations: Annotations,
    pub services: Vec<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Gateway {
    pub name: String,
    pub class: String,
}

#[derive(Debug, Clone, Default)]
pub struct Hpa {
    pub at: At,
    pub namespace: String,
    pub target: String,
    pub min: Option<Sp<f64>>,
    pub stabilization: Option<Sp<f64>>,
    /// Policies of scale-down: pods or percent, value, period.
    pub policies: Vec<(String, f64, f64)>,
    pub scale_down: Option<At>,
    pub disabled: bool,
    pub behavior: bool,
    pub insert: Option<Insert>,
}

#[derive(Debug, Clone, Default)]
pub struct Pdb {
    pub at: At,
    pub namespace: String,
    pub selector: Labels,
    /// It selects by expressions, which are not evaluated.
    pub expressions: bool,
    pub min_available: Option<Sp<String>>,
    pub max_unavailable: Option<Sp<String>>,
}

/// `BackendConfig`, `GCPBackendPolicy`, `HealthCheckPolicy`.
#[derive(Debug, Clone, Default)]
pub struct Backend {
    pub at: At,
    pub kind: String,
    pub name: String,
    pub namespace: String,
    pub target: Option<String>,
    pub drain: Option<Sp<f64>>,
    pub timeout: Option<Sp<f64>>,
    pub interval: Option<Sp<f64>>,
    pub unhealthy: Option<Sp<f64>>,
    pub insert: Option<Insert>,
}

/// The settings of an ingress controller, out of its `ConfigMap`.
#[derive(Debug, Clone, Default)]
pub struct ControllerConfig {
    pub upstream_idle: Option<Sp<f64>>,
}

/// A job that ends pods by the clock.
#[derive(Debug, Clone, Default)]
pub struct Restarter {
    pub at: At,
    pub name: String,
    pub command: String,
    /// Where `suspend` can stand.
    pub insert: Option<Insert>,
}

#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub services: Vec<Service>,
    pub ingresses: Vec<Ingress>,
    pub gateways: Vec<Gateway>,
    pub hpas: Vec<Hpa>,
    pub pdbs: Vec<Pdb>,
    pub backends: Vec<Backend>,
    pub configs: Vec<ControllerConfig>,
    pub restarters: Vec<Restarter>,
    /// There is an object of Google's that says nothing about a termination, but where it is meant to run.
    pub google: bool,
}
