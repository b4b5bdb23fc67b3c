//! The programs: Kubernetes' own, built from pinned modules once, and Debian's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::packages;
use crate::test::root;

/// Programs that are built from a Go module of ours, which has no code of its own and pins what they are made of.
struct Module {
    /// Where its go.mod is, below the root.
    folder: &'static str,
    /// What its folder in the cache begins with.
    kept_as: &'static str,
    /// The module whose version is theirs.
    versioned_by: &'static str,
    /// The packages, and the names of their programs.
    programs: &'static [(&'static str, &'static str)],
}

const KUBERNETES: Module = Module {
    folder: "xtask/cluster",
    kept_as: "",
    versioned_by: "k8s.io/kubernetes",
    programs: &[
        ("go.etcd.io/etcd/server/v3", "etcd"),
        ("k8s.io/kubernetes/cmd/kube-apiserver", "kube-apiserver"),
        ("k8s.io/kubernetes/cmd/kube-controller-manager", "kube-controller-manager"),
        ("k8s.io/kubernetes/cmd/kube-scheduler", "kube-scheduler"),
        ("k8s.io/kubernetes/cmd/kubelet", "kubelet"),
        ("k8s.io/kubernetes/cmd/kube-proxy", "kube-proxy"),
        ("k8s.io/kubernetes/cmd/kubectl", "kubectl"),
    ],
};

const HELM: Module = Module {
    folder: "xtask/helm",
    kept_as: "helm-",
    versioned_by: "helm.sh/helm/v4",
    programs: &[("helm.sh/helm/v4/cmd/helm", "helm")],
};

/// What the tests of `cargo xtask test` need: the variable that tells them the folder, and the programs in it.
const FOR_TESTS: [(&str, &Module, &[&str]); 2] =
    [("LAMEDUCK_KUBERNETES", &KUBERNETES, &["etcd", "kube-apiserver", "kubectl"]), ("LAMEDUCK_HELM", &HELM, &["helm"])];

/// No program takes longer to build, on any machine that one would wait for.
const BUILD_TAKES: Duration = Duration::from_mins(30);

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

/// Builds the cluster's programs that are not in the cache; returns their folder.
pub fn build() -> anyhow::Result<PathBuf> {
    let all: Vec<&str> = KUBERNETES.programs.iter().map(|(_, name)| *name).collect();
    KUBERNETES.build(&all)
}

/// The folder of helm, which is built where it is not in the cache.
pub fn helm() -> anyhow::Result<PathBuf> {
    HELM.build(&["helm"])
}

/// Builds what tests on an API server alone need, and nothing of a node. Gives the variables that tell them where it is. What can not
/// be built is named, and why: the tests that need it say that they are skipped.
pub fn for_tests() -> Vec<(&'static str, PathBuf)> {
    let wanted = FOR_TESTS.into_iter().filter(|(variable, ..)| std::env::var_os(variable).is_none());
    let built = wanted.filter_map(|(variable, module, names)| match module.build(names) {
        Ok(folder) => Some((variable, folder)),
        Err(error) => {
            println!("MISSING {}: tests that need it are skipped; {error:#}", names.join(", "));
            None
        }
    });
    built.collect()
}

impl Module {
    /// Builds those that are not in the cache; returns their folder.
    fn build(&self, names: &[&str]) -> anyhow::Result<PathBuf> {
        let module = root().join(self.folder);
        let version = version(&fs::read_to_string(module.join("go.mod"))?, self.versioned_by)?;
        let folder = cache()?.join(format!("{}{version}-{}", self.kept_as, fingerprint(&module)?));
        let wanted = self.programs.iter().filter(|(_, name)| names.contains(name));
        let missing: Vec<_> = wanted.filter(|(_, name)| !folder.join(name).exists()).collect();
        if missing.is_empty() {
            return Ok(folder);
        }
        ensure!(packages::find("go").is_some(), "it is built with Go, which is missing; Debian has it in golang-go");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let began = Instant::now();
        for (package, name) in missing {
            eprintln!("building {name} {version}: minutes, once");
            // Into another name first: what has its own is whole.
            let half = folder.join(format!("{name}.half"));
            go_build(&module, package, &half, &stamped(&version))?;
            fs::rename(&half, folder.join(name))?;
        }
        eprintln!("built in {} s, into {}", began.elapsed().as_secs(), folder.display());
        Ok(folder)
    }
}

/// Builds a package, with what the module proxy has of its sources.
fn go_build(module: &Path, package: &str, into: &Path, flags: &str) -> anyhow::Result<()> {
    let said = into.with_extension("log");
    let log = fs::File::create(&said).with_context(|| said.display().to_string())?;
    let mut go = Command::new("go");
    go.args(["build", "-mod=readonly", "-trimpath", "-ldflags", flags, "-o"]).arg(into).arg(package);
    go.env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false").current_dir(module);
    let mut child = go.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn().context("go build")?;
    let began = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if began.elapsed() > BUILD_TAKES {
            let _ = child.kill();
            break child.wait()?;
        }
        std::thread::sleep(super::POLL);
    };
    let text = fs::read_to_string(&said).unwrap_or_default();
    let _ = fs::remove_file(&said);
    if !status.success() {
        // Its last words say what went wrong; before them are the names of what it fetched.
        let words: Vec<&str> = text.lines().filter(|line| !line.starts_with("go: downloading ")).collect();
        let last = words[words.len().saturating_sub(3)..].join(" | ");
        bail!("go build {package} in {}: {status} after {} s: {last}", module.display(), began.elapsed().as_secs());
    }
    Ok(())
}

/// The programs say their version to each other, and some act by it.
fn stamped(version: &str) -> String {
    let mut parts = version.trim_start_matches('v').split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let set = |name: &str, value: &str| format!(" -X k8s.io/component-base/version.{name}={value}");
    let fields = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")];
    fields.iter().fold("-s -w".to_owned(), |flags, (name, value)| flags + &set(name, value))
}

/// `MODULE vX` in go.mod.
fn version(module: &str, of: &str) -> anyhow::Result<String> {
    let mut words = module.lines().map(str::split_whitespace);
    let version = words.find_map(|mut line| (line.next() == Some(of)).then(|| line.next()).flatten());
    Ok(version.with_context(|| format!("go.mod requires no {of}"))?.to_owned())
}

/// Twelve digits that change with any module.
fn fingerprint(module: &Path) -> anyhow::Result<String> {
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
    use super::{FOR_TESTS, HELM, KUBERNETES, stamped, version};
    use crate::test::root;

    #[test]
    fn the_modules_pin_what_is_built() {
        for (module, begins) in [(KUBERNETES, "v1."), (HELM, "v4.")] {
            let text = std::fs::read_to_string(root().join(module.folder).join("go.mod")).unwrap();
            let pinned = version(&text, module.versioned_by).unwrap();
            assert!(pinned.starts_with(begins), "{pinned}");
            // One is `tool PACKAGE`, of several each has a line.
            let tools: Vec<&str> = text.lines().map(|line| line.trim_start_matches("tool ").trim()).collect();
            for (package, _) in module.programs {
                assert!(tools.contains(package), "{package} is no tool of {}/go.mod", module.folder);
            }
        }
        let flags = stamped("v1.36.3");
        assert!(flags.contains("gitVersion=v1.36.3") && flags.contains("gitMinor=36"), "{flags}");
        assert!(version("module x\n", "k8s.io/kubernetes").is_err());
    }

    #[test]
    fn what_tests_need_is_built() {
        for (_, module, names) in FOR_TESTS {
            for name in names {
                assert!(module.programs.iter().any(|(_, built)| built == name), "{name}");
            }
        }
    }
}
