//! Node's idle race, recorded on loopback: 40 clients send a request, wait about 6 s and send another. How: the `.js` and `.py`
//! beside the captures. `cut` is the first four fifths of `lo`, ending within a packet.

use std::collections::BTreeSet;

use super::{causes, data, explain};

fn lost_ids() -> BTreeSet<String> {
    let text = std::fs::read_to_string(data("node-idle-race-lost.txt")).expect("the ids that the clients wrote down");
    text.lines().map(str::to_owned).collect()
}

/// A capture alone names the cause of every loss that it has.
fn check(name: &str, all: bool) {
    let path = data(&format!("node-idle-race-{name}.pcap.gz"));
    let explanation = explain(&[], &[&path]);
    let found = causes(&explanation);
    let lost = lost_ids().len() as u64;
    assert_eq!(found.len(), 1, "{name}: {found:?}");
    assert_eq!(found[0].0, "idle-close-race", "{name}");
    if all {
        assert_eq!(found[0].1, lost, "{name}");
    } else {
        assert!(found[0].1 > 0 && found[0].1 < lost, "{name}: {found:?}");
    }
    let cause = &explanation["causes"][0];
    assert_eq!(cause["grounds"][0]["confidence"], "proven", "{name}");
    let fixes = cause["fixes"].to_string();
    assert!(fixes.contains("server.keepAliveTimeout = 620e3"), "{name}: {fixes}");
    for example in cause["examples"].as_array().expect("examples") {
        let idle = example["idle_s"].as_f64().expect("an idle time");
        assert!((5.9..6.2).contains(&idle), "{name}: {example}");
        let story = example["packets"].as_str().unwrap_or("");
        assert!(story.contains("the server 127.0.0.1:18555 closed the connection (FIN, frame "), "{name}: {story}");
    }
}

#[test]
fn nodes_idle_race_on_loopback() {
    check("lo", true);
}

#[test]
fn nodes_idle_race_on_any() {
    check("any", true);
}

#[test]
fn nodes_idle_race_without_headers() {
    check("snap96", true);
}

#[test]
fn nodes_idle_race_in_a_cut_file() {
    check("cut", false);
    let explanation = explain(&[], &[&data("node-idle-race-cut.pcap.gz")]);
    assert!(explanation["inputs"][0]["samples"].to_string().contains("stops in the middle of frame"), "{explanation}");
}

#[test]
fn the_ids_are_those_that_the_clients_missed() {
    for id in lost_ids() {
        let explanation = explain(&["--id", &id], &[&data("node-idle-race-lo.pcap.gz")]);
        let followed = &explanation["followed"];
        assert_eq!(followed["cause"], "idle-close-race", "{id}");
        assert!(followed["seen"][0][0].as_str().unwrap_or("").contains(" frame "), "{followed}");
        assert!(followed["fixes"].to_string().contains("server.keepAliveTimeout"), "{followed}");
    }
}
