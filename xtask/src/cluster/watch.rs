//! What a cluster says of a Deployment's pods, as it says it: routing from `EndpointSlice`s, ends from pods, exits from the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lameduck_drill::live::News;
use lameduck_drill::live::slices::{self, Slices};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;

use super::{Kubectl, cgroups};

/// How often a thread that waits for an exit looks whether anybody wants to know.
const LOOK: Duration = Duration::from_millis(100);

/// Who is told what is new.
pub type Tell = Box<dyn Fn(News) + Send + Sync>;

/// The watch over a Deployment's pods. Ends with [`Watch::stop`].
pub struct Watch {
    kubectls: Vec<Child>,
    threads: Vec<thread::JoinHandle<()>>,
    known: Arc<Known>,
}

struct Known {
    kubectl: Kubectl,
    /// Those that read pods' output.
    logs: Mutex<Vec<Child>>,
    tell: Tell,
    over: AtomicBool,
    pods: Mutex<BTreeMap<String, Pod>>,
}

/// How far a pod is known to be.
#[derive(Debug, Clone, Copy, Default)]
struct Pod {
    followed: bool,
    stopping: bool,
    exited: bool,
    status: Option<i64>,
}

impl Watch {
    /// Begins to tell of the pods with the label `app=NAME` and of the Service with that name.
    pub fn begin(kubectl: &Kubectl, name: &str, tell: Tell) -> anyhow::Result<Watch> {
        let known = Arc::new(Known {
            kubectl: kubectl.clone(),
            logs: Mutex::default(),
            tell,
            over: AtomicBool::new(false),
            pods: Mutex::default(),
        });
        let mut watch = Watch { kubectls: Vec::new(), threads: Vec::new(), known };
        let of_pods = format!("--selector=app={name}");
        let of_slices = format!("--selector=kubernetes.io/service-name={name}");
        let mut slices = Slices::default();
        watch.follow(kubectl, "pods", &of_pods, Known::pod)?;
        watch.follow(kubectl, "endpointslices", &of_slices, move |known, event| {
            for piece in slices.hear(event) {
                (known.tell)(piece);
            }
        })?;
        Ok(watch)
    }

    fn follow(
        &mut self,
        kubectl: &Kubectl,
        kind: &str,
        selector: &str,
        mut hear: impl FnMut(&Arc<Known>, &Value) + Send + 'static,
    ) -> anyhow::Result<()> {
        let mut child =
            kubectl.follow(&["get", kind, selector, "--watch", "--output-watch-events", "--output=json"])?;
        let output = child.stdout.take();
        let known = Arc::clone(&self.known);
        self.kubectls.push(child);
        self.threads.push(thread::spawn(move || {
            let Some(output) = output else { return };
            let events = serde_json::Deserializer::from_reader(BufReader::new(output)).into_iter::<Value>();
            events.map_while(Result::ok).for_each(|event| hear(&known, &event));
        }));
        Ok(())
    }

    /// Tells of something that was done.
    pub fn tell(&self, what: &str) {
        (self.known.tell)(News::Event { what: what.to_owned() });
    }

    /// Ends the load; what is still written of it is heard.
    pub fn enough(&self) {
        (self.known.tell)(News::Enough);
    }

    /// How many pods were told to stop.
    pub fn stopping(&self) -> usize {
        self.known.count(|pod| pod.stopping)
    }

    /// How many pods were told to stop, and have not ended or not said with which status.
    pub fn open(&self) -> usize {
        self.known.count(|pod| pod.stopping && !(pod.exited && pod.status.is_some()))
    }

    /// The statuses of those that ended.
    pub fn statuses(&self) -> Vec<i64> {
        let pods = self.known.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().filter_map(|pod| pod.status).collect()
    }

    /// Ends it: nobody tells anything any more.
    pub fn stop(mut self) {
        self.known.over.store(true, Ordering::Relaxed);
        let mut logs = self.known.logs.lock().unwrap_or_else(PoisonError::into_inner);
        for kubectl in self.kubectls.iter_mut().chain(logs.iter_mut()) {
            let _ = kubectl.kill();
            let _ = kubectl.wait();
        }
        drop(logs);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Known {
    fn count(&self, which: impl Fn(&Pod) -> bool) -> usize {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.values().filter(|pod| which(pod)).count()
    }

    /// Changes what is known of a pod; returns what it was.
    fn change(&self, name: &str, change: impl FnOnce(&mut Pod)) -> Pod {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let pod = pods.entry(name.to_owned()).or_default();
        let before = *pod;
        change(pod);
        before
    }

    fn pod(self: &Arc<Self>, event: &Value) {
        let object = &event["object"];
        let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else { return };
        if object["metadata"]["deletionTimestamp"].is_string()
            && !self.change(&name, |pod| pod.stopping = true).stopping
        {
            (self.tell)(News::Stopping { name: name.clone() });
        }
        let container = &object["status"]["containerStatuses"][0];
        if container["state"]["running"].is_object()
            && let Some(id) = container["containerID"].as_str().and_then(|id| id.split("//").last())
            && !self.change(&name, |pod| pod.followed = true).followed
        {
            self.follow_log(&name);
            let (known, name, id) = (Arc::clone(self), name.clone(), id.to_owned());
            thread::spawn(move || known.follow_exit(name, &id));
        }
        if let Some(code) = container["state"]["terminated"]["exitCode"].as_i64()
            && self.change(&name, |pod| pod.status = Some(code)).status.is_none()
        {
            (self.tell)(News::Status { name: name.clone(), code: code as i32 });
        }
        if event["type"] == "DELETED" {
            self.exited(name);
        }
    }

    fn exited(&self, name: String) {
        if !self.change(&name, |pod| pod.exited = true).exited {
            (self.tell)(News::Exited { name });
        }
    }

    /// What a pod writes, line by line, as long as it writes.
    fn follow_log(self: &Arc<Self>, name: &str) {
        let Ok(mut child) = self.kubectl.follow(&["logs", "--follow", name]) else { return };
        let output = child.stdout.take();
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(child);
        let (known, name) = (Arc::clone(self), name.to_owned());
        thread::spawn(move || {
            let lines = output.into_iter().flat_map(|output| BufReader::new(output).lines()).map_while(Result::ok);
            lines.for_each(|line| {
                (known.tell)(News::Log { name: name.clone(), line });
            });
        });
    }

    /// The API says to the second when a container ended, and says it late. Its first process is on this machine: the kernel
    /// says it at once.
    fn follow_exit(self: Arc<Self>, name: String, id: &str) {
        let Some(pid) = first_process(id) else { return };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return };
        while !self.over.load(Ordering::Relaxed) {
            let mut wanted = [PollFd::new(&process, PollFlags::IN)];
            let timeout = Timespec::try_from(LOOK).unwrap_or_default();
            if matches!(poll(&mut wanted, Some(&timeout)), Ok(1)) {
                return self.exited(name);
            }
        }
    }
}

/// The first process of a container: the oldest of its cgroup.
fn first_process(container: &str) -> Option<Pid> {
    let folder = cgroups().iter().find_map(|root| folder_named(root, container))?;
    let text = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
    let started = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse::<u64>().ok()
    };
    let pids = text.lines().filter_map(|line| line.parse::<i32>().ok());
    Pid::from_raw(pids.min_by_key(|pid| (started(pid), *pid))?)
}

fn folder_named(root: &Path, name: &str) -> Option<PathBuf> {
    let folders = fs::read_dir(root).ok()?.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let paths: Vec<PathBuf> = folders.map(|entry| entry.path()).collect();
    let found = paths.iter().find(|path| path.file_name().is_some_and(|own| own == name));
    found.cloned().or_else(|| paths.iter().find_map(|path| folder_named(path, name)))
}

/// The endpoints that a Service's slices name now.
pub fn routed(kubectl: &Kubectl, name: &str) -> anyhow::Result<BTreeSet<(String, SocketAddr)>> {
    let slices = kubectl.get(&["endpointslices", &format!("--selector=kubernetes.io/service-name={name}")])?;
    Ok(slices["items"].as_array().into_iter().flatten().flat_map(|slice| slices::ready(slice, None)).collect())
}
