//! What the API has: names, groups, paths.

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    /// Its group; the core's is empty.
    pub group: &'static str,
    /// Its version.
    pub version: &'static str,
    /// As paths have it.
    pub plural: &'static str,
    /// As objects have it.
    pub kind: &'static str,
}

/// A constant for each is shorter than a struct.
const fn of(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Resource {
    Resource { group, version, plural, kind }
}

/// Pods.
pub const PODS: Resource = of("", "v1", "pods", "Pod");
/// Deployments.
pub const DEPLOYMENTS: Resource = of("apps", "v1", "deployments", "Deployment");
/// Replica sets.
pub const REPLICA_SETS: Resource = of("apps", "v1", "replicasets", "ReplicaSet");
/// Services.
pub const SERVICES: Resource = of("", "v1", "services", "Service");
/// Config maps.
pub const CONFIG_MAPS: Resource = of("", "v1", "configmaps", "ConfigMap");
/// Events.
pub const EVENTS: Resource = of("", "v1", "events", "Event");
/// Endpoint slices.
pub const SLICES: Resource = of("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
/// Which groups there are, of what kind ever.
pub const GROUPS: Resource = of("", "", "apis", "APIGroupList");
/// Jobs.
pub const JOBS: Resource = of("batch", "v1", "jobs", "Job");
/// Nodes.
pub const NODES: Resource = of("", "v1", "nodes", "Node");

/// What `lameduck check` reads of a cluster; those of the first list are in every cluster.
pub const CHECKED: [Resource; 11] = [
    DEPLOYMENTS,
    of("apps", "v1", "statefulsets", "StatefulSet"),
    of("apps", "v1", "daemonsets", "DaemonSet"),
    REPLICA_SETS,
    of("", "v1", "replicationcontrollers", "ReplicationController"),
    PODS,
    SERVICES,
    of("networking.k8s.io", "v1", "ingresses", "Ingress"),
    of("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    of("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget"),
    of("batch", "v1", "cronjobs", "CronJob"),
];

/// What a cluster may have beside: 404 says that it has not. Config maps are of use where they are an ingress controller's.
pub const PERHAPS: [Resource; 12] = [
    CONFIG_MAPS,
    of("gateway.networking.k8s.io", "v1", "gateways", "Gateway"),
    of("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute"),
    of("gateway.networking.k8s.io", "v1", "grpcroutes", "GRPCRoute"),
    of("argoproj.io", "v1alpha1", "rollouts", "Rollout"),
    of("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject"),
    of("apps.openshift.io", "v1", "deploymentconfigs", "DeploymentConfig"),
    of("serving.knative.dev", "v1", "services", "Service"),
    of("cloud.google.com", "v1", "backendconfigs", "BackendConfig"),
    of("networking.gke.io", "v1beta1", "frontendconfigs", "FrontendConfig"),
    of("networking.gke.io", "v1", "gcpbackendpolicies", "GCPBackendPolicy"),
    of("networking.gke.io", "v1", "healthcheckpolicies", "HealthCheckPolicy"),
];

impl Resource {
    /// `apps/v1`, or `v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `deployments.apps`, as rights and `kubectl get` have it.
    pub fn full(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Its path; without a namespace, all of them.
    pub fn path(&self, namespace: Option<&str>) -> String {
        if self.version.is_empty() {
            return format!("/{}", self.plural);
        }
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let inner = namespace.map(|name| format!("/namespaces/{name}")).unwrap_or_default();
        format!("{root}/{}{inner}/{}", self.api_version(), self.plural)
    }
}
