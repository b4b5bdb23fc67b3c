//! What the tests need that is not Rust: real servers, real inits.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A program that tests use, and the Debian package it is in.
struct Need {
    program: &'static str,
    package: &'static str,
}

const NEEDS: &[Need] = &[
    Need { program: "python3", package: "python3" },
    Need { program: "bash", package: "bash" },
    Need { program: "setsid", package: "util-linux" },
    Need { program: "unshare", package: "util-linux" },
    Need { program: "setpriv", package: "util-linux" },
    Need { program: "ip", package: "iproute2" },
    Need { program: "tcpdump", package: "tcpdump" },
    Need { program: "tini", package: "tini" },
    Need { program: "dumb-init", package: "dumb-init" },
    Need { program: "catatonit", package: "catatonit" },
    Need { program: "nginx", package: "nginx-light" },
    Need { program: "haproxy", package: "haproxy" },
    Need { program: "puma", package: "puma" },
    Need { program: "node", package: "nodejs" },
    Need { program: "go", package: "golang-go" },
    Need { program: "gunicorn", package: "gunicorn" },
    Need { program: "uvicorn", package: "uvicorn" },
    Need { program: "passenger", package: "passenger" },
];

/// Makes sure they are there: as root by installing Debian's packages, else by saying which are missing. A test without its
/// program says that it is skipped.
pub fn provide() {
    let mut missing: Vec<&Need> = NEEDS.iter().filter(|need| find(need.program).is_none()).collect();
    if missing.is_empty() {
        return;
    }
    if rustix::process::geteuid().is_root() && find("apt-get").is_some() {
        let packages: Vec<&str> = missing.iter().map(|need| need.package).collect();
        install(&packages);
        missing.retain(|need| find(need.program).is_none());
    }
    for need in missing {
        println!("MISSING {}: tests that need it are skipped; Debian has it in {}", need.program, need.package);
    }
}

/// Installs Debian's packages; where that fails it says so.
pub fn install(packages: &[&str]) {
    let mut packages = packages.to_vec();
    packages.sort_unstable();
    packages.dedup();
    println!("installing {}", packages.join(" "));
    let apt = |args: &[&str]| {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let install: Vec<&str> = ["install", "-y", "-qq", "--no-install-recommends"].into_iter().chain(packages).collect();
    if !(apt(&["update", "-qq"]) && apt(&install)) {
        eprintln!("xtask: apt-get failed; going on with what is there");
    }
}

/// Where a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(sbin).map(|folder| folder.join(program)).find(|found| is_program(found))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
