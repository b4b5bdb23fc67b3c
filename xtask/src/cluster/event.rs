//! What ends pods, and who does it while the load goes on.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::Kubectl;
use super::deployment::REPLICAS;
use super::watch::Watch;

/// Load before an event, and after all that it ended has ended.
const AROUND: Duration = Duration::from_secs(2);
/// The most time until the load is on.
const BEGINS: Duration = Duration::from_mins(1);
/// The most time that an event takes: every pod one after another, each with its grace and its start.
const LONGEST: Duration = Duration::from_mins(3);
/// How often one looks whether something has happened.
const POLL: Duration = Duration::from_millis(100);

/// What ends pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// `kubectl rollout restart`.
    Restart,
    /// `kubectl scale`, from three to one.
    Scale,
    /// `kubectl delete pod`.
    Delete,
    /// `kubectl drain`: the node with most of the pods.
    Drain,
}

/// All of them.
pub const EVENTS: [Event; 4] = [Event::Restart, Event::Scale, Event::Delete, Event::Drain];

impl Event {
    /// Its word.
    pub const fn id(self) -> &'static str {
        match self {
            Event::Restart => "restart",
            Event::Scale => "scale-down",
            Event::Delete => "delete",
            Event::Drain => "drain",
        }
    }

    /// The event of that word.
    pub fn from_id(id: &str) -> anyhow::Result<Event> {
        EVENTS
            .into_iter()
            .find(|event| event.id() == id)
            .with_context(|| format!("{id:?} is no event: restart, scale-down, delete, drain"))
    }

    /// How many pods end by it at least.
    const fn ends(self) -> usize {
        match self {
            Event::Restart => REPLICAS,
            Event::Scale | Event::Drain => REPLICAS - 1,
            Event::Delete => 1,
        }
    }

    fn carry_out(self, kubectl: &Kubectl, name: &str) -> anyhow::Result<()> {
        let deployment = format!("deployment/{name}");
        let selector = format!("--selector=app={name}");
        match self {
            Event::Restart => kubectl.run(&["rollout", "restart", &deployment])?,
            Event::Scale => kubectl.run(&["scale", &deployment, "--replicas=1"])?,
            Event::Delete => {
                let pods = kubectl.get(&["pods", &selector])?;
                let pod = pods["items"][0]["metadata"]["name"].as_str().context("no pod to delete")?.to_owned();
                kubectl.run(&["delete", "pod", &pod, "--wait=false"])?
            }
            Event::Drain => {
                let node = fullest_node(kubectl, &selector)?;
                // The webhook's volume is an emptyDir, and drain refuses to evict a pod with one unless it is told that it may.
                let of_ours = format!("--pod-selector=app={name}");
                kubectl.run(&["drain", &node, &of_ours, "--force", "--delete-emptydir-data", "--timeout=120s"])?
            }
        };
        Ok(())
    }
}

/// The node with most of the pods.
fn fullest_node(kubectl: &Kubectl, selector: &str) -> anyhow::Result<String> {
    let pods = kubectl.get(&["pods", selector])?;
    let mut pods_of: BTreeMap<&str, usize> = BTreeMap::new();
    for pod in pods["items"].as_array().context("no pods")? {
        *pods_of.entry(pod["spec"]["nodeName"].as_str().unwrap_or_default()).or_default() += 1;
    }
    let fullest = pods_of.into_iter().max_by_key(|(_, pods)| *pods).context("no pods")?;
    Ok(fullest.0.to_owned())
}

/// Lets all loads run, does what ends pods, and waits for their ends.
pub fn direct(
    kubectl: &Kubectl,
    watch: &Watch,
    event: Event,
    name: &str,
    begins: &mpsc::Receiver<()>,
    loads: usize,
) -> anyhow::Result<()> {
    for _ in 0..loads {
        begins.recv_timeout(BEGINS).context("a load did not begin")?;
    }
    thread::sleep(AROUND);
    watch.tell(event.id());
    event.carry_out(kubectl, name)?;
    let began = Instant::now();
    while watch.stopping() < event.ends() || watch.open() > 0 {
        ensure!(began.elapsed() < LONGEST, "{} of {} pods still have not ended", watch.open(), watch.stopping());
        thread::sleep(POLL);
    }
    kubectl.run(&["rollout", "status", &format!("deployment/{name}"), "--timeout=60s"])?;
    thread::sleep(AROUND);
    Ok(())
}
