//! The programs: Kubernetes' own, built from pinned modules once, and Debian's.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::packages;
use crate::test::root;

/// Built from the module in `xtask/cluster`: the package, and the name of its program.
const BUILT: [(&str, &str); 7] = [
    ("go.etcd.io/etcd/server/v3", "etcd"),
    ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
    ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
    ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
    ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
    ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
    ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
];

/// What comes with the distribution: the program, and its Debian package.
const INSTALLED: [(&str, &str); 10] = [
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("openssl", "openssl"),
    ("mount", "mount"),
];

/// Makes sure that Debian's are there.
pub fn provide() -> anyhow::Result<()> {
    let missing: Vec<&str> = INSTALLED
        .iter()
        .filter(|(program, _)| packages::find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        packages::install(&missing);
    }
    for (program, package) in INSTALLED {
        ensure!(packages::find(program).is_some(), "{program} is missing; Debian has it in {package}");
    }
    Ok(())
}

/// Builds what is not in the cache; returns the folder of the programs.
pub fn build() -> anyhow::Result<PathBuf> {
    let module = root().join("xtask/cluster");
    let version = kubernetes(&fs::read_to_string(module.join("go.mod"))?)?;
    let folder = cache()?.join(format!("{version}-{}", fingerprint(&module)?));
    let missing: Vec<_> = BUILT.iter().filter(|(_, name)| !folder.join(name).exists()).collect();
    if missing.is_empty() {
        return Ok(folder);
    }
    ensure!(
        packages::find("go").is_some(),
        "Kubernetes is built with Go, which is missing; Debian has it in golang-go"
    );
    let began = Instant::now();
    for (package, name) in missing {
        eprintln!("building {name} {version}; all of them take about ten minutes on two cores, once");
        // Into another name first: what has its own is whole.
        let half = folder.join(format!("{name}.half"));
        let status = Command::new("go")
            .args(["build", "-mod=readonly", "-trimpath", "-ldflags", &stamped(&version), "-o"])
            .args([half.as_os_str(), package.as_ref()])
            .env("CGO_ENABLED", "0")
            .env("GOFLAGS", "-buildvcs=false")
            .current_dir(&module)
            .stdin(Stdio::null())
            .status()
            .context("go build")?;
        ensure!(status.success(), "go build {package} in {}: {status}", module.display());
        fs::rename(&half, folder.join(name))?;
    }
    eprintln!("built in {} s, into {}", began.elapsed().as_secs(), folder.display());
    Ok(folder)
}

/// The programs say their version to each other, and some act by it.
fn stamped(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let fields = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
    fields.iter().fold("-s -w".to_owned(), |flags, (name, value)| flags + &set(name, value))
}

/// `k8s.io/kubernetes vX` in go.mod.
fn kubernetes(module: &str) -> anyhow::Result<String> {
    let mut words = module.lines().map(str::split_whitespace);
    let version = words.find_map(|mut line| (line.next() == Some("k8s.io/kubernetes")).then(|| line.next()).flatten());
    Ok(version.context("xtask/cluster/go.mod requires no k8s.io/kubernetes")?.to_owned())
}

/// Twelve digits that change with any module.
fn fingerprint(module: &std::path::Path) -> anyhow::Result<String> {
    let sum = super::run("sha256sum", &[&module.join("go.sum").display().to_string()])?;
    Ok(sum.chars().take(12).collect())
}

/// Where what was built is kept.
pub fn cache() -> anyhow::Result<PathBuf> {
    let of = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = of("XDG_CACHE_HOME").or_else(|| of("HOME").map(|home| home.join(".cache")));
    Ok(home.context("neither XDG_CACHE_HOME nor HOME is set")?.join("lameduck/cluster"))
}

#[cfg(test)]
mod tests {
    use super::{BUILT, kubernetes, stamped};
    use crate::test::root;

    #[test]
    fn the_module_pins_what_is_built() {
        let module = std::fs::read_to_string(root().join("xtask/cluster/go.mod")).unwrap();
        let version = kubernetes(&module).unwrap();
        assert!(version.starts_with("v1."), "{version}");
        for (package, _) in BUILT {
            assert!(module.contains(&format!("\t{package}\n")), "{package} is no tool of go.mod");
        }
        let flags = stamped("v1.36.3");
        assert!(flags.contains("gitVersion=v1.36.3") && flags.contains("gitMinor=36"), "{flags}");
        assert!(kubernetes("module x\n").is_err());
    }
}
