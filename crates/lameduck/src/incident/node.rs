//! The node: network and mounts of our own, in which the pods live and the drill stands. The host's are untouched.

use std::ffi::{OsStr, OsString};
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};

use super::missing;
use crate::incident::Need;

/// Says to the program that it is in the node already.
pub const VARIABLE: &str = "LAMEDUCK_INCIDENT_NODE";
/// The node's address; pods have others of its /16.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

/// What makes nodes and pods.
const TOOLS: &[Need] = &[
    Need { program: "unshare", package: "util-linux" },
    Need { program: "nsenter", package: "util-linux" },
    Need { program: "setpriv", package: "util-linux" },
    Need { program: "ip", package: "iproute2" },
    Need { program: "chroot", package: "coreutils" },
    Need { program: "mktemp", package: "coreutils" },
];

/// The words that make a node around a command.
fn words(as_root: bool, script: &str) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["unshare".into()];
    if !as_root {
        words.push("--map-root-user".into());
    }
    words.extend(["--net", "--mount", "--", "/bin/sh", "-c", script].map(OsString::from));
    words
}

/// Whether a node can be made here, and a container in it; why not.
pub fn possible(path: &OsStr) -> Result<(), String> {
    if let Some(missing) = missing(TOOLS, path) {
        return Err(missing);
    }
    let script = format!(
        "{} && unshare --net -- ip link set lo up && unshare --mount --pid --fork --kill-child -- sh -c 'mount -t proc proc /proc'",
        lameduck_pod::node_script(ADDRESS)
    );
    let words = words(is_root(), &script);
    match Command::new(&words[0]).args(&words[1..]).stdin(Stdio::null()).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "namespaces can not be made here ({}): run it as root, or where the kernel lets users make them",
                said.lines().next().unwrap_or("no reason was given")
            ))
        }
        Err(error) => Err(format!("unshare: {error}")),
    }
}

/// Runs this program again inside a node; gives its exit status.
pub fn enter(program: &Path, args: &[OsString]) -> std::io::Result<u8> {
    let script = format!("{} && exec \"$0\" \"$@\"", lameduck_pod::node_script(ADDRESS));
    let words = words(is_root(), &script);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(program).arg("incident").args(args).env(VARIABLE, "1");
    let status = command.status()?;
    Ok(status.code().map_or(crate::exit::SETUP, |code| code as u8))
}

/// Whether we may do everything, by the kernel's word.
fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    uids.and_then(|uids| uids.split_whitespace().nth(1)) == Some("0")
}
