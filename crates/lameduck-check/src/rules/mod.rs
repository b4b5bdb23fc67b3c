//! The rules. One is a line here, a `.rs` that finds and a `.md` that explains; the page is also the help and a test.

use crate::finding::Finding;
use crate::model::{Container, Workload};
use crate::predict::Prediction;
use crate::world::World;

/// What a rule about a workload sees.
pub struct Subject<'w> {
    pub world: &'w World,
    pub workload: &'w Workload,
    pub prediction: &'w Prediction,
}

impl<'w> Subject<'w> {
    pub fn main(&self) -> Option<&'w Container> {
        crate::predict::main_container(self.workload)
    }
}

/// What a rule looks at.
#[derive(Clone, Copy)]
pub enum Check {
    /// Each workload.
    Workload(fn(&Subject<'_>) -> Vec<Finding>),
    /// The objects of a file, with what they name.
    World(fn(&World) -> Vec<Finding>),
    /// The budgets of a file, after all workloads were seen.
    Budgets(fn(&World) -> Vec<Finding>),
    /// The objects around them, and these once more with each workload.
    Around { world: fn(&World) -> Vec<Finding>, each: fn(&World, &Workload) -> Vec<Finding> },
}

pub struct Rule {
    /// As in every output: kebab-case.
    pub name: &'static str,
    /// Its page.
    pub page: &'static str,
    pub check: Check,
}

impl Rule {
    /// The first sentence of its page.
    pub fn summary(&self) -> &'static str {
        self.page.lines().skip(1).find(|line| !line.trim().is_empty()).unwrap_or_default()
    }
}

mod budget;
mod tree;

macro_rules! rules {
    ($($module:ident $name:literal,)*) => {
        $(mod $module;)*

        /// Every rule, by family.
        pub const ALL: &[Rule] = &[
            $(Rule { name: $name, page: include_str!(concat!(stringify!($module), ".md")), check: $module::CHECK },)*
        ];
    };
}

rules! {
    // PID 1 and signals
    shell_form_command "shell-form-command",
    script_without_exec "script-without-exec",
    pipeline_as_pid1 "pipeline-as-pid1",
    background_not_signalled "background-not-signalled",
    trap_never_runs "trap-never-runs",
    trap_cut_short "trap-cut-short",
    trap_outlasts_grace "trap-outlasts-grace",
    runner_in_front "runner-in-front",
    init_in_front_of_shell "init-in-front-of-shell",
    init_not_pid1 "init-not-pid1",
    orphans_not_reaped "orphans-not-reaped",
    no_term_handler "no-term-handler",
    stop_signal_cuts "stop-signal-cuts",
    // The budget
    prestop_exceeds_grace "prestop-exceeds-grace",
    stop_exceeds_grace "stop-exceeds-grace",
    prestop_missing "prestop-missing",
    prestop_too_short "prestop-too-short",
    prestop_needs_shell "prestop-needs-shell",
    request_outlasts_grace "request-outlasts-grace",
    keepalive_outlasts_grace "keepalive-outlasts-grace",
    neighbour_leaves_first "neighbour-leaves-first",
    prestop_delays_not_ready "prestop-delays-not-ready",
    // Routing
    readiness_missing "readiness-missing",
    readiness_reacts_late "readiness-reacts-late",
    single_replica_gap "single-replica-gap",
    all_unavailable_at_once "all-unavailable-at-once",
    min_ready_missing "min-ready-missing",
    local_traffic_policy "local-traffic-policy",
    not_ready_published "not-ready-published",
    neg_missing "neg-missing",
    drain_timeout_missing "drain-timeout-missing",
    deregistration_delay_short "deregistration-delay-short",
    health_check_slow "health-check-slow",
    pdb_blocks_drains "pdb-blocks-drains",
    pdb_does_nothing "pdb-does-nothing",
    // Keep-alive
    keepalive_order "keepalive-order",
    pool_outlives_server "pool-outlives-server",
    socket_timeout_not_keepalive "socket-timeout-not-keepalive",
    headers_timeout_cuts_idle "headers-timeout-cuts-idle",
    keepalive_requests_low "keepalive-requests-low",
    // Scaling
    scale_down_faster_than_drain "scale-down-faster-than-drain",
    scale_down_flaps "scale-down-flaps",
    spot_shorter_than_grace "spot-shorter-than-grace",
    node_drain_unprotected "node-drain-unprotected",
    // Restarts
    liveness_stricter_than_readiness "liveness-stricter-than-readiness",
    same_probe_for_both "same-probe-for-both",
    forced_restart "forced-restart",
    workers_restart_together "workers-restart-together",
    heap_fills_memory_limit "heap-fills-memory-limit",
}

pub use forced_restart::limit as ends_itself;

/// The rule of a name.
pub fn by_name(name: &str) -> Option<&'static Rule> {
    ALL.iter().find(|rule| rule.name == name)
}

/// Runs a rule over one workload.
pub fn on_workload(rule: &Rule, subject: &Subject<'_>) -> Vec<Finding> {
    let Check::Workload(check) = rule.check else { return Vec::new() };
    let found = check(subject);
    found
        .into_iter()
        .map(|finding| Finding { rule: rule.name, workload: subject.workload.name.clone(), ..finding })
        .collect()
}

/// Runs a rule over the objects around a workload.
pub fn around(rule: &Rule, world: &World, workload: &Workload) -> Vec<Finding> {
    let Check::Around { each, .. } = rule.check else { return Vec::new() };
    each(world, workload).into_iter().map(|finding| Finding { rule: rule.name, ..finding }).collect()
}

/// Runs a rule over the objects of a file.
pub fn on_world(rule: &Rule, world: &World) -> Vec<Finding> {
    let check = match rule.check {
        Check::World(check) | Check::Around { world: check, .. } => check,
        Check::Workload(_) | Check::Budgets(_) => return Vec::new(),
    };
    check(world).into_iter().map(|finding| Finding { rule: rule.name, ..finding }).collect()
}

/// Runs a rule over the budgets of a file.
pub fn on_budgets(rule: &Rule, world: &World) -> Vec<Finding> {
    let Check::Budgets(check) = rule.check else { return Vec::new() };
    check(world).into_iter().map(|finding| Finding { rule: rule.name, ..finding }).collect()
}
