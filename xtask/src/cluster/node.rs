//! A node: containerd, kubelet and kube-proxy in a network and with mounts of their own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::json;

use super::room::{Part, collect, publish, wait_for};
use super::{CGROUP, STATE, image, net, run};

/// Lives as long as the node does.
pub fn node(number: u8) -> anyhow::Result<()> {
    let name = format!("n{number}");
    let own = format!("{STATE}/{name}");
    fs::create_dir_all(format!("{own}/lib")).with_context(|| own.clone())?;
    mounts(&own)?;
    network(number)?;
    configure(number, &own)?;
    cgroups(&name)?;
    let mut containerd = Command::new("containerd");
    containerd.args(["--config", &format!("{own}/containerd.toml")]);
    let mut parts = vec![Part::start(&format!("{name}-containerd"), containerd)?];
    wait_for("containerd", || Ok(run("ctr", &["version"]).is_ok()))?;
    // Before the pods come: none of them waits for an image.
    let mut images: Vec<_> = fs::read_dir(format!("{STATE}/images"))?.flatten().map(|entry| entry.path()).collect();
    images.sort();
    image::import(
        &images.iter().filter(|path| path.extension().is_some_and(|kind| kind == "tar")).collect::<Vec<_>>(),
    )?;
    publish(&format!("{name}/images"), "")?;
    parts.push(Part::built(
        "kubelet",
        &format!("{name}-kubelet"),
        &[
            format!("--config={own}/kubelet.json"),
            format!("--kubeconfig={STATE}/kubeconfig"),
            format!("--hostname-override={name}"),
            format!("--node-ip={}", net::node_address(number)),
        ],
    )?);
    parts.push(Part::built(
        "kube-proxy",
        &format!("{name}-kube-proxy"),
        &[
            format!("--kubeconfig={STATE}/kubeconfig"),
            format!("--hostname-override={name}"),
            "--proxy-mode=iptables".into(),
            format!("--cluster-cidr={}", net::PODS),
            // The machine's limits are not a namespace's to set.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-tcp-timeout-established=0".into(),
            "--conntrack-tcp-timeout-close-wait=0".into(),
        ],
    )?);
    collect(&parts)
}

/// What containers' programs write at fixed places is the node's own.
fn mounts(own: &str) -> anyhow::Result<()> {
    run("mount", &["--make-rshared", "/"])?;
    run("mount", &["-t", "tmpfs", "tmpfs", "/run"])?;
    run("mount", &["-t", "tmpfs", "tmpfs", "/var/log"])?;
    run("mount", &["--bind", &format!("{own}/lib"), "/var/lib"])?;
    Ok(())
}

/// The cgroup that the kubelet puts its pods into, in every hierarchy.
fn cgroups(name: &str) -> anyhow::Result<()> {
    let top = Path::new("/sys/fs/cgroup");
    let unified = top.join("cgroup.procs").exists();
    let hierarchies =
        fs::read_dir(top)?.flatten().map(|entry| entry.path()).filter(|path| path.join("cgroup.procs").exists());
    for hierarchy in if unified { vec![top.to_owned()] } else { hierarchies.collect() } {
        let path = hierarchy.join(CGROUP).join(name);
        fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        // In version 2 a cgroup has the controllers that the one above it hands down.
        let controllers = fs::read_to_string(hierarchy.join("cgroup.controllers")).unwrap_or_default();
        for controller in controllers.split_whitespace() {
            for above in [&hierarchy, &hierarchy.join(CGROUP)] {
                let _ = fs::write(above.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
    }
    Ok(())
}

fn network(number: u8) -> anyhow::Result<()> {
    run("ip", &["link", "set", "lo", "up"])?;
    run("ip", &["address", "add", &format!("{}/24", net::node_address(number)), "dev", "eth0"])?;
    run("ip", &["link", "set", "eth0", "up"])?;
    for (network, via) in net::routes() {
        // The own pods are behind the own bridge, Services everywhere behind the own kube-proxy.
        if network != net::node_pods(number) && network != net::SERVICES {
            run("ip", &["route", "add", &network, "via", &via])?;
        }
    }
    // A packet to a Service needs a route before its address is rewritten.
    run("ip", &["route", "add", "default", "via", net::ROOM])?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("ip_forward")?;
    let bridged = Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables");
    if bridged.exists() {
        // A pod's packets to a Service whose pod is on the same bridge pass the rules, too.
        fs::write(bridged, "1").context("bridge-nf-call-iptables")?;
    }
    Ok(())
}

fn configure(number: u8, own: &str) -> anyhow::Result<()> {
    let containerd = format!(
        r#"version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{own}/cni"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
"#,
        pause = image::PAUSE
    );
    fs::write(format!("{own}/containerd.toml"), containerd)?;
    fs::create_dir_all(format!("{own}/cni"))?;
    let bridge = json!({
        "cniVersion": "0.4.0", "name": "pods",
        "plugins": [{
            "type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "ranges": [[{ "subnet": net::node_pods(number), "gateway": net::node_gateway(number) }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            },
        }],
    });
    fs::write(format!("{own}/cni/10-pods.conflist"), bridge.to_string())?;
    let kubelet = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
        "authentication": { "anonymous": { "enabled": true }, "webhook": { "enabled": false } },
        "authorization": { "mode": "AlwaysAllow" },
        "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": true, "enforceNodeAllocatable": [],
        "cgroupRoot": format!("/{CGROUP}/n{number}"),
        "failSwapOn": false, "localStorageCapacityIsolation": false, "resolvConf": "",
        "evictionHard": { "memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%" },
        "imageGCHighThresholdPercent": 100, "maxPods": 200,
        "volumePluginDir": "/var/lib/kubelet/plugins",
    });
    fs::write(format!("{own}/kubelet.json"), kubelet.to_string())?;
    Ok(())
}
