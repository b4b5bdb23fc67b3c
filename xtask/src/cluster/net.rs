//! Addresses, and how this machine reaches them.

use super::run;

/// This machine's end of the cable.
const HOST_LINK: &str = "lameduck-host";
/// Its address there.
pub const HOST: &str = "10.213.0.1";
/// Where the API server is.
pub const ROOM: &str = "10.213.0.2";
/// Where Services are.
pub const SERVICES: &str = "10.213.128.0/24";
/// Where all pods are.
pub const PODS: &str = "10.213.64.0/18";

/// A node's own address.
pub fn node_address(node: u8) -> String {
    format!("10.213.0.{}", 10 + node)
}

/// The pods of a node.
pub fn node_pods(node: u8) -> String {
    format!("10.213.{}.0/24", 64 + node)
}

/// Where a node's own pods find everybody else.
pub fn node_gateway(node: u8) -> String {
    format!("10.213.{}.1", 64 + node)
}

/// Lays the cable from this machine into the room, whose first process is `pid`. Services are reached through kube-proxy on the first node.
pub fn reach(pid: &str) -> anyhow::Result<()> {
    run("ip", &["link", "add", HOST_LINK, "type", "veth", "peer", "name", "uplink", "netns", pid])?;
    run("ip", &["address", "add", &format!("{HOST}/24"), "dev", HOST_LINK])?;
    run("ip", &["link", "set", HOST_LINK, "up"])?;
    for (network, via) in routes() {
        run("ip", &["route", "add", &network, "via", &via])?;
    }
    Ok(())
}

/// The networks behind the nodes.
pub fn routes() -> Vec<(String, String)> {
    let pods = (1..=super::NODES).map(|node| (node_pods(node), node_address(node)));
    pods.chain([(SERVICES.to_owned(), node_address(1))]).collect()
}

/// Takes the cable away, and the routes with it; the end of the room does the same, a little later.
pub fn unreach() {
    let _ = run("ip", &["link", "delete", HOST_LINK]);
}

/// What is left of it.
pub fn left() -> Vec<String> {
    let shown = |args: &[&str]| run("ip", args).unwrap_or_default();
    let links = shown(&["-oneline", "link", "show"]);
    let routes = shown(&["-oneline", "route", "show"]);
    let links = links.lines().filter(|line| line.contains(HOST_LINK)).map(|line| format!("link {line}"));
    let routes = routes.lines().filter(|line| line.starts_with("10.213.")).map(|line| format!("route {line}"));
    links.chain(routes).collect()
}
