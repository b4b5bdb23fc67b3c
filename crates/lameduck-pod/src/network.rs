//! Addresses: a bridge in the node's network namespace, and a pair of interfaces for each pod.

use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::PodError;

/// How often, and how far apart, a pair of interfaces is tried to be made.
const TRIES: u32 = 100;
const BETWEEN: Duration = Duration::from_millis(20);

/// The bridge of the node.
pub const BRIDGE: &str = "lameduck0";

/// What makes a new network namespace a node's, for `sh -c`: the bridge, with this address in a /16. Its hardware address is given: else it
/// would be the least of its ports' (`br_stp_recalculate_bridge_id` in `net/bridge/br_stp_if.c`), and change as a pod goes, behind the backs of those that had asked for it.
pub fn node_script(address: Ipv4Addr) -> String {
    let hardware = hardware(address);
    format!(
        "ip link set lo up && ip link add {BRIDGE} address {hardware} type bridge && ip addr add {address}/16 dev {BRIDGE} && ip link set {BRIDGE} up"
    )
}

/// Connects this process's own network namespace to the node's.
pub(crate) fn connect(node: u32, address: Ipv4Addr) -> Result<(), PodError> {
    let (peer, node) = (peer_of(address), node.to_string());
    // The address before had it too: whoever knows its neighbours by it needs not ask again.
    let hardware = hardware(address);
    ip(&["link", "set", "lo", "up"])?;
    add_pair(
        &node,
        &peer,
        &["link", "add", "eth0", "address", &hardware, "type", "veth", "peer", "name", &peer, "netns", &node],
    )?;
    ip(&["addr", "add", &format!("{address}/16"), "dev", "eth0"])?;
    ip(&["link", "set", "eth0", "up"])?;
    let mut at_node = vec!["--target", &node, "--net", "ip", "link", "set", &peer];
    at_node.extend(["master", BRIDGE, "up"]);
    run("nsenter", &at_node)
}

fn hardware(address: Ipv4Addr) -> String {
    let [_, _, high, low] = address.octets();
    format!("02:58:0a:58:{high:02x}:{low:02x}")
}

/// Keeps this process's network there for a while after its end: nothing listens, and the address still answers so.
pub(crate) fn linger(time: Duration) {
    let mut sleep = Command::new("sleep");
    sleep.arg(format!("{:.3}", time.as_secs_f64())).env_clear().process_group(0);
    // Without it the address is gone a little sooner.
    let _ = sleep.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
}

/// The node's end of a pod's connection.
fn peer_of(address: Ipv4Addr) -> String {
    let [_, _, high, low] = address.octets();
    format!("ld{high}-{low}")
}

/// Cuts a pod off, in the node's network. Sockets that wait for peers that are gone keep a network alive after its last process.
pub fn disconnect(address: Ipv4Addr) {
    // It may be gone already.
    let _ = ip(&["link", "del", &peer_of(address)]);
}

/// The pair of a pod that had this address goes a moment after its last process; sockets of it that wait for peers that are gone would keep
/// it longer.
fn add_pair(node: &str, peer: &str, arguments: &[&str]) -> Result<(), PodError> {
    for _ in 0..TRIES {
        match ip(arguments) {
            Err(PodError::Program { why, .. }) if why.contains("File exists") => std::thread::sleep(BETWEEN),
            result => return result,
        }
    }
    run("nsenter", &["--target", node, "--net", "ip", "link", "del", peer])?;
    ip(arguments)
}

fn ip(arguments: &[&str]) -> Result<(), PodError> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), PodError> {
    let failed = |why: String| PodError::Program { command: format!("{program} {}", arguments.join(" ")), why };
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
