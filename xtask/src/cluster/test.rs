//! `cargo xtask test --cluster`: what is claimed of a cluster, on a real one that is started for it and ended after it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lameduck_drill::servers::Server;
use serde_json::Value;

use super::deployment::{self, By, Mode};
use super::event::Event;
use super::{Kubectl, STATE, SYSCTLS, UP_TAKES, drill, left, net, programs, run};

/// What is done with the cluster while it is up, in this order. A further test is a line here.
const TESTS: [(&str, Test); 7] = [
    ("pods_are_ready_with_addresses_of_their_own", pods_have_addresses),
    ("endpoint_slices_name_the_pods", slices_name_the_pods),
    ("a_service_is_reached_from_this_machine", service_is_reached),
    ("a_restart_under_lameduck_loses_nothing", restart_loses_nothing),
    ("the_incident_of_gitlab_happens_in_real_pods_and_is_cured", super::incident::plain_and_cured),
    ("the_first_hour_is_as_it_is_written", super::hour::as_written),
    ("workers_in_the_cluster_send_the_load", super::workers::send_the_load),
];

type Test = fn(&Kubectl) -> anyhow::Result<()>;

/// The Deployment of the first tests.
const NAME: &str = "two";
const SERVER: &str = "node";
/// The most time that one question takes.
const ANSWER: Duration = Duration::from_secs(5);

/// Starts a cluster, tests it, ends it.
pub fn test() -> anyhow::Result<ExitCode> {
    ensure!(!super::is_up(), "a cluster is up, and these tests start and end one: cargo xtask cluster down");
    crate::packages::provide();
    // Built first: that is once, and no part of what is timed.
    programs::provide()?;
    programs::build()?;
    let before = machine();
    let took = super::up()?;
    let mut results = vec![("it_is_up_in_a_minute", in_time(took))];
    match Kubectl::new().and_then(|kubectl| started(&kubectl).map(|()| kubectl)) {
        Ok(kubectl) => results.extend(TESTS.map(|(name, test)| (name, test(&kubectl)))),
        Err(error) => results.push(("a_deployment_starts", Err(error))),
    }
    results.push(("every_part_still_runs", every_part_runs()));
    results.push(("down_leaves_nothing", super::down().and_then(|()| same(&before, &machine()))));
    for (name, result) in &results {
        println!("test {name} ... {}", if result.is_ok() { "ok" } else { "FAILED" });
        if let Err(error) = result {
            println!("{error:#}");
        }
    }
    let failed = results.iter().filter(|(_, result)| result.is_err()).count();
    println!("\n{} passed, {failed} failed; up in {:.1} s", results.len() - failed, took.as_secs_f64());
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn in_time(took: Duration) -> anyhow::Result<()> {
    ensure!(took < UP_TAKES, "it took {:.1} s", took.as_secs_f64());
    Ok(())
}

fn started(kubectl: &Kubectl) -> anyhow::Result<()> {
    let plain = deployment::manifest(&server()?, Mode::Plain, By::Command, NAME, 2);
    deployment::begin(kubectl, &plain, NAME)
}

fn server() -> anyhow::Result<Server> {
    Server::from_id(SERVER).context(SERVER)
}

/// What a cluster could change of this machine.
fn machine() -> Vec<(&'static str, BTreeSet<String>)> {
    let lines = |text: String| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let of = |program: &str, args: &[&str]| lines(run(program, args).unwrap_or_default());
    let sysctls = SYSCTLS.iter().map(|name| fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default());
    // Comments of iptables-save have the time, and counters go on.
    let rules = of("iptables-save", &[]).into_iter().filter(|line| line.starts_with("-A"));
    vec![
        (
            "links",
            of("ip", &["-oneline", "link", "show"])
                .iter()
                .filter_map(|line| line.split(' ').nth(1))
                .map(str::to_owned)
                .collect(),
        ),
        ("routes", of("ip", &["route", "show"])),
        ("rules", rules.collect()),
        ("network namespaces", of("ip", &["netns", "list"])),
        ("mounts", of("findmnt", &["--noheadings", "--list", "--output", "TARGET"])),
        ("sysctls", sysctls.enumerate().map(|(n, value)| format!("{} {}", SYSCTLS[n], value.trim())).collect()),
        ("the cluster's own", left().into_iter().collect()),
    ]
}

fn same(before: &[(&str, BTreeSet<String>)], after: &[(&str, BTreeSet<String>)]) -> anyhow::Result<()> {
    for ((what, before), (_, after)) in before.iter().zip(after) {
        let differ: Vec<_> = before.symmetric_difference(after).cloned().collect();
        ensure!(differ.is_empty(), "{what} differ: {}", differ.join("; "));
    }
    Ok(())
}

fn every_part_runs() -> anyhow::Result<()> {
    match fs::read_to_string(Path::new(STATE).join("ended")) {
        Ok(ended) => bail!("ended by themselves: {ended}"),
        Err(_) => Ok(()),
    }
}

fn addresses(of: &Value, path: &str) -> BTreeSet<IpAddr> {
    let items = of["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item.pointer(path)?.as_str()?.parse().ok()).collect()
}

fn pods(kubectl: &Kubectl) -> anyhow::Result<Value> {
    kubectl.get(&["pods", &format!("--selector=app={NAME}")])
}

fn pods_have_addresses(kubectl: &Kubectl) -> anyhow::Result<()> {
    let found = addresses(&pods(kubectl)?, "/status/podIP");
    ensure!(found.len() == 2, "two pods, and these addresses: {found:?}");
    let nodes: Vec<String> = (1..=super::NODES).map(|node| net::node_pods(node).replace(".0/24", ".")).collect();
    let of_a_node = |address: &IpAddr| nodes.iter().any(|node| address.to_string().starts_with(node));
    ensure!(found.iter().all(of_a_node), "{found:?} are not in the networks of the nodes");
    Ok(())
}

fn slices_name_the_pods(kubectl: &Kubectl) -> anyhow::Result<()> {
    let slices = kubectl.get(&["endpointslices", &format!("--selector=kubernetes.io/service-name={NAME}")])?;
    let slices = slices["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let endpoints = slices.iter().filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    let named: BTreeSet<IpAddr> =
        ready.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok()).collect();
    let pods = addresses(&pods(kubectl)?, "/status/podIP");
    ensure!(named == pods, "the slices name {named:?}, the pods have {pods:?}");
    Ok(())
}

fn service_is_reached(kubectl: &Kubectl) -> anyhow::Result<()> {
    let service = kubectl.get(&["service", NAME])?;
    let address = service["spec"]["clusterIP"].as_str().context("clusterIP")?.parse()?;
    let address = SocketAddr::new(address, 80);
    // kube-proxy hears of a Service later than kubectl does. A connection that came before it is in nobody's rules, and stays so.
    let began = Instant::now();
    while let Err(error) = TcpStream::connect_timeout(&address, Duration::from_secs(1)) {
        ensure!(began.elapsed() < UP_TAKES, "{address}: {error}");
    }
    let ids: Vec<String> = (0..20).map(|n| format!("through-kube-proxy-{n}.")).collect();
    for id in &ids {
        let answer = ask(address, id)?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{address} answered {answer:?}");
    }
    // Whoever answered: the pods say that it was they.
    let logs = kubectl.run(&["logs", &format!("--selector=app={NAME}"), "--tail=-1"])?;
    let missing: Vec<_> = ids.iter().filter(|id| !logs.contains(id.as_str())).collect();
    ensure!(missing.is_empty(), "no pod has seen {missing:?}");
    deployment::end(kubectl, NAME)
}

fn ask(address: SocketAddr, id: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).with_context(|| address.to_string())?;
    stream.set_read_timeout(Some(ANSWER))?;
    write!(stream, "GET / HTTP/1.1\r\nHost: {address}\r\nX-Request-Id: {id}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).with_context(|| address.to_string())?;
    Ok(answer)
}

fn restart_loses_nothing(kubectl: &Kubectl) -> anyhow::Result<()> {
    let lost = drill::under_lameduck(kubectl, &server()?, Event::Restart)?;
    ensure!(lost.is_empty(), "lost: {}", lost.join("; "));
    Ok(())
}
