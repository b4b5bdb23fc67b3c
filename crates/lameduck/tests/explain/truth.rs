//! Labelled truth: real servers ended by `lameduck drill`, with a capture beside it. The drill knows the cause of each loss, because it saw both
//! sides; explain gets the capture, and of the replicas' lives only what a cluster would have recorded, to the second.

use std::path::Path;

use serde_json::Value;

use super::{data, explain};

/// Right, open, wrong; of as many losses as the drill had.
fn compare(name: &str) -> (usize, usize, Vec<String>) {
    let [capture, cluster, truth] =
        ["pcap.gz", "k8s.json", "truth.json"].map(|end| data(&format!("drill-{name}.{end}")));
    let inputs: [&Path; 2] = [&capture, &cluster];
    let explanation = explain(&[], &inputs);
    let mut found: Vec<Option<&Value>> = explanation["losses"].as_array().expect("losses").iter().map(Some).collect();
    let truth: Value = serde_json::from_str(&std::fs::read_to_string(truth).expect("the labels")).expect("JSON");
    let (mut right, mut open, mut wrong) = (0, 0, Vec::new());
    for label in truth.as_array().expect("labels") {
        // A request that was never sent has no id in the packets: its server and its moment tell which it was.
        let is = |loss: &&Value| {
            let near = (loss["at_s"].as_f64().unwrap_or(0.0) - label["at_s"].as_f64().unwrap_or(0.0)).abs() < 0.1;
            if loss["id"] == "" {
                label["ending"] == "refused" && loss["backend"] == label["backend"] && near
            } else {
                loss["id"] == label["id"]
            }
        };
        let place = found.iter().position(|loss| loss.as_ref().is_some_and(is));
        let cause = place.and_then(|place| found[place].take()).map_or(Value::Null, |loss| loss["cause"].clone());
        match cause.as_str() {
            Some(cause) if label["cause"] == cause => right += 1,
            None | Some("unknown") => open += 1,
            Some(cause) => wrong.push(format!("{name}: {label} was called {cause}")),
        }
    }
    (right, open, wrong)
}

#[test]
fn five_drills() {
    let (mut right, mut open, mut wrong) = (0, 0, Vec::new());
    for name in ["node-roll", "node-kill", "node-restart", "puma-roll", "gunicorn-roll"] {
        let (of_right, of_open, of_wrong) = compare(name);
        right += of_right;
        open += of_open;
        wrong.extend(of_wrong);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(right + open > 1000, "{right} right, {open} open");
    assert!(right * 100 >= 99 * (right + open), "{right} right, {open} open");
}
