//! The room: the first process of the new namespaces. It lays the network, starts the control plane and the nodes, and collects
//! whatever ends.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::{Kubectl, NODES, POLL, STATE, UP_TAKES, net, run};

/// A program of the cluster's that goes on.
pub struct Part {
    name: String,
    child: Child,
}

impl Part {
    /// Starts it, with its output in the log folder.
    pub fn start(name: &str, mut command: Command) -> anyhow::Result<Part> {
        let log = fs::File::create(format!("{STATE}/log/{name}.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).current_dir("/");
        let child = command.spawn().with_context(|| name.to_owned())?;
        Ok(Part { name: name.to_owned(), child })
    }

    /// One of the programs that were built.
    pub fn built(program: &str, name: &str, args: &[String]) -> anyhow::Result<Part> {
        let mut command = Command::new(format!("{STATE}/bin/{program}"));
        command.args(args);
        Part::start(name, command)
    }
}

/// Lives as long as the cluster does.
pub fn room() -> anyhow::Result<()> {
    // The mount of /proc is still that of outside, and so is the number.
    let pid = fs::read_link("/proc/self").context("/proc/self")?;
    run("mount", &["-t", "proc", "proc", "/proc"])?;
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    lay_network()?;
    publish("room", &pid.display().to_string())?;
    wait_for("the cable", || Ok(run("ip", &["link", "set", "uplink", "master", "fabric", "up"]).is_ok()))?;
    for (network, via) in net::routes() {
        run("ip", &["route", "add", &network, "via", &via])?;
    }
    let mut parts = control_plane()?;
    for node in 1..=NODES {
        // `ip netns exec` would hide the cgroups behind a new /sys.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/n{node}"));
        command.args(["unshare", "--mount", "--propagation", "private", "--"]);
        command.arg(std::env::current_exe()?).args(["cluster", "node", &node.to_string()]);
        parts.push(Part::start(&format!("n{node}"), command)?);
    }
    let kubectl = Kubectl::new()?;
    wait_for("the nodes", || Ok(ready_nodes(&kubectl) == usize::from(NODES)))?;
    wait_for("the images", || Ok((1..=NODES).all(|node| Path::new(&format!("{STATE}/n{node}/images")).exists())))?;
    publish("ready", "")?;
    collect(&parts)
}

/// A file that is there only when it is whole.
pub fn publish(name: &str, content: &str) -> anyhow::Result<()> {
    let (half, whole) = (format!("{STATE}/{name}.half"), format!("{STATE}/{name}"));
    fs::write(&half, content).and_then(|()| fs::rename(&half, &whole)).context(whole)
}

/// Looks until it is so, as long as the start may take.
pub fn wait_for(what: &str, mut so: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !so()? {
        ensure!(began.elapsed() < UP_TAKES, "waited for {what} for {} s", UP_TAKES.as_secs());
        std::thread::sleep(POLL);
    }
    println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// A bridge, and a namespace with a cable to it for each node.
fn lay_network() -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["link", "add", "fabric", "type", "bridge"])?;
    run("ip", &["address", "add", &format!("{}/24", net::ROOM), "dev", "fabric"])?;
    run("ip", &["link", "set", "fabric", "up"])?;
    for node in 1..=NODES {
        let name = format!("n{node}");
        run("ip", &["netns", "add", &name])?;
        run("ip", &["link", "add", &name, "type", "veth", "peer", "name", "eth0", "netns", &name])?;
        run("ip", &["link", "set", &name, "master", "fabric", "up"])?;
    }
    Ok(())
}

fn control_plane() -> anyhow::Result<Vec<Part>> {
    let config = format!("{STATE}/kubeconfig");
    // Whoever has it may do anything.
    let token = fs::read_to_string("/proc/sys/kernel/random/uuid").context("a token")?;
    let token = token.trim();
    fs::write(&config, kubeconfig(token))?;
    let pki = format!("{STATE}/pki");
    run("openssl", &["genrsa", "-out", &format!("{pki}/accounts.key"), "2048"])?;
    fs::write(format!("{pki}/tokens.csv"), format!("{token},admin,admin,\"system:masters\"\n"))?;
    let mut parts = vec![Part::built(
        "etcd",
        "etcd",
        &[
            format!("--data-dir={STATE}/etcd"),
            "--unsafe-no-fsync".into(),
            "--log-level=warn".into(),
            "--listen-client-urls=http://127.0.0.1:2379".into(),
            "--advertise-client-urls=http://127.0.0.1:2379".into(),
            "--listen-peer-urls=http://127.0.0.1:2380".into(),
        ],
    )?];
    wait_for("etcd", || Ok(TcpStream::connect((Ipv4Addr::LOCALHOST, 2379)).is_ok()))?;
    parts.push(Part::built(
        "kube-apiserver",
        "kube-apiserver",
        &[
            "--etcd-servers=http://127.0.0.1:2379".into(),
            format!("--service-cluster-ip-range={}", net::SERVICES),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={pki}/accounts.key"),
            format!("--service-account-signing-key-file={pki}/accounts.key"),
            format!("--cert-dir={pki}"),
            format!("--token-auth-file={pki}/tokens.csv"),
            "--authorization-mode=RBAC".into(),
            "--bind-address=0.0.0.0".into(),
            format!("--advertise-address={}", net::ROOM),
            "--allow-privileged=true".into(),
            "--kubelet-preferred-address-types=InternalIP".into(),
        ],
    )?);
    let kubectl = Kubectl::new()?;
    wait_for("the API server", || Ok(kubectl.run(&["get", "--raw", "/readyz"]).is_ok()))?;
    parts.push(Part::built(
        "kube-controller-manager",
        "kube-controller-manager",
        &[
            format!("--kubeconfig={config}"),
            format!("--service-account-private-key-file={pki}/accounts.key"),
            format!("--root-ca-file={pki}/apiserver.crt"),
            // Else it makes a folder in /usr.
            format!("--flex-volume-plugin-dir={STATE}/flex"),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
        ],
    )?);
    let scheduler =
        [format!("--kubeconfig={config}"), "--leader-elect=false".into(), "--bind-address=127.0.0.1".into()];
    parts.push(Part::built("kube-scheduler", "kube-scheduler", &scheduler)?);
    Ok(parts)
}

fn kubeconfig(token: &str) -> String {
    // The certificate is the API server's own, which holds its authority too.
    serde_json::json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "lameduck",
        "clusters": [{ "name": "lameduck", "cluster": {
            "server": format!("https://{}:6443", net::ROOM),
            "certificate-authority": format!("{STATE}/pki/apiserver.crt"),
        }}],
        "users": [{ "name": "admin", "user": { "token": token } }],
        "contexts": [{ "name": "lameduck", "context": { "cluster": "lameduck", "user": "admin" } }],
    })
    .to_string()
}

fn ready_nodes(kubectl: &Kubectl) -> usize {
    let Ok(nodes) = kubectl.get(&["nodes"]) else { return 0 };
    let conditions = |node: &serde_json::Value| node["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let ready = |node: &&serde_json::Value| {
        conditions(node).iter().any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    nodes["items"].as_array().map_or(0, |nodes| nodes.iter().filter(ready).count())
}

/// Collects what ends: orphans, and, which is written down, a part that nobody ended.
pub fn collect(parts: &[Part]) -> anyhow::Result<()> {
    let pids: Vec<(u32, String)> = parts.iter().map(|part| (part.child.id(), part.name.clone())).collect();
    loop {
        match rustix::process::wait(rustix::process::WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                let pid = pid.as_raw_nonzero().get().cast_unsigned();
                if let Some((_, name)) = pids.iter().find(|(part, _)| *part == pid) {
                    let path = format!("{STATE}/ended");
                    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path).context(path)?;
                    writeln!(file, "{name}: {status:?}")?;
                }
            }
            Ok(None) => {}
            // Nothing to wait for: nothing of the cluster is left.
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    }
}
