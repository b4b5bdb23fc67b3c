//! What the files say of each workload, as plain data for who works on with it. `None` is "they do not say".

use crate::launch::Outcome as Launched;
use crate::model::Workload;
use crate::predict::{self, End, When};
use crate::world::{Hop, World};

/// What TERM does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TermFact {
    /// It stops accepting, finishes, exits.
    Drains,
    /// It is gone at once.
    Dies,
    /// Nothing happens until SIGKILL: the signal reached the app, or it did not.
    Stays {
        /// It reached the app, which goes on.
        delivered: bool,
    },
    /// The files do not decide, and why.
    Unknown {
        /// What is missing.
        because: String,
    },
}

/// A hop in front.
#[derive(Debug, Clone, PartialEq)]
pub struct HopFacts {
    /// The catalogue's id.
    pub id: &'static str,
    /// How long it keeps idle connections: as configured, or by default.
    pub idle_s: Option<f64>,
    /// From the deletion until it sends nothing new, where it knows pods.
    pub lag_s: When,
    /// It knows nodes, not pods: Google's balancer without container-native load balancing.
    pub knows_nodes: bool,
    /// Connection draining where it has such a setting; the inner `None` is "off".
    pub drain_s: Option<Option<f64>>,
}

/// A horizontal autoscaler.
#[derive(Debug, Clone, PartialEq)]
pub struct HpaFacts {
    /// The fewest pods.
    pub least: Option<f64>,
    /// The stabilization window of scale-down.
    pub stabilization_s: Option<f64>,
    /// Policies of scale-down: whether the value is in percent, the value, its period.
    pub policies: Vec<(bool, f64, f64)>,
    /// Scale-down is disabled.
    pub disabled: bool,
}

/// What the files say of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkloadFacts {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Kubernetes runs it: it has a grace period and endpoints.
    pub in_cluster: bool,
    /// Something is routed to it.
    pub routed: bool,
    /// `spec.replicas`.
    pub replicas: Option<f64>,
    /// From the deletion to SIGKILL.
    pub grace_s: f64,
    /// What TERM does.
    pub term: TermFact,
    /// From the deletion until the app is told, at least and at most: preStop, and what a trap sleeps.
    pub pre_stop_s: (f64, f64),
    /// The server's name in the catalogue.
    pub server: Option<&'static str>,
    /// After how long it closes idle connections; infinity is "never".
    pub idle_s: Option<(f64, f64)>,
    /// The longest that it works on what is in flight after TERM, by its own rules.
    pub finish_s: Option<f64>,
    /// A readiness probe: how long it fails before anybody acts.
    pub readiness_s: Option<f64>,
    /// From the deletion until nothing new is sent.
    pub lag_s: Option<When>,
    /// What stands in front, the nearest first.
    pub hops: Vec<HopFacts>,
    /// What scales it.
    pub hpa: Option<HpaFacts>,
    /// Its container ends itself after so many seconds: `timeout`.
    pub ends_itself_s: Option<f64>,
}

pub(crate) fn facts(world: &World, workload: &Workload, settings: predict::Settings) -> WorkloadFacts {
    let grace = workload.grace_s();
    let container = predict::main_container(workload);
    let server = container.and_then(|container| container.server.as_ref());
    WorkloadFacts {
        name: workload.name.clone(),
        kind: workload.kind.name(),
        in_cluster: workload.kind.in_cluster(),
        routed: predict::is_routed(world, workload),
        replicas: workload.replicas.as_ref().map(|replicas| replicas.value),
        grace_s: grace,
        term: term(workload),
        pre_stop_s: container.map_or((0.0, 0.0), |container| predict::told(container, grace)),
        server: server.map(|server| server.name),
        idle_s: server.and_then(|server| server.idle),
        finish_s: server.and_then(|server| server.shutdown).map(|(_, most)| most).filter(|most| most.is_finite()),
        readiness_s: container.and_then(|container| container.readiness.as_ref()).map(crate::model::Probe::reacts_s),
        lag_s: predict::lag(world, workload, settings),
        hops: hops(world, workload),
        hpa: world.hpas(workload).next().map(|hpa| HpaFacts {
            least: hpa.min.as_ref().map(|min| min.value),
            stabilization_s: hpa.stabilization.as_ref().map(|window| window.value),
            policies: hpa.policies.iter().map(|(kind, value, period)| (kind == "Percent", *value, *period)).collect(),
            disabled: hpa.disabled,
        }),
        ends_itself_s: workload.containers.iter().find_map(crate::rules::ends_itself),
    }
}

fn term(workload: &Workload) -> TermFact {
    let Some(container) = predict::main_container(workload) else {
        return TermFact::Unknown { because: "there is no container".to_owned() };
    };
    match predict::end(container) {
        End::Drains => TermFact::Drains,
        End::Dies => TermFact::Dies,
        End::Stays => {
            let delivered = container.launch.as_ref().is_some_and(|launch| launch.outcome == Launched::Graceful)
                && !predict::handler_is_absent(container);
            TermFact::Stays { delivered }
        }
        End::Unknown => {
            let launch = container.launch.as_ref();
            let unsure = launch.and_then(|launch| launch.unsure.clone());
            let because = match (launch, unsure) {
                (None, _) => "the image's command is not known".to_owned(),
                (Some(_), Some(why)) => why,
                (Some(_), None) => "what the app does on TERM is not known".to_owned(),
            };
            TermFact::Unknown { because }
        }
    }
}

fn hops(world: &World, workload: &Workload) -> Vec<HopFacts> {
    let google = |id: &str| id == "gcp-global-alb";
    let native = world.ingresses(workload).any(|(ingress, service)| {
        let neg = service.annotations.iter().find(|(key, _)| key == "cloud.google.com/neg");
        ingress.route || neg.is_some_and(|(_, text)| text.value.contains("ingress"))
    });
    let drains = world
        .services(workload)
        .flat_map(|service| world.backends(service))
        .find_map(|backend| backend.drain.as_ref().map(|drain| drain.value).filter(|drain| *drain > 0.0));
    let hop = |hop: Hop| HopFacts {
        id: hop.balancer.id,
        idle_s: hop.idle.map(|(_, most)| most),
        lag_s: hop.balancer.lag,
        knows_nodes: google(hop.balancer.id) && !native,
        drain_s: google(hop.balancer.id).then_some(drains),
    };
    world.hops(workload).into_iter().map(hop).collect()
}
