//! The public account's staircase, 45,000 a day, then 4,000 to 5,000, then none, out of `incidents/taskcluster-glb/simulate`. Three
//! figures of its traffic file are calibrated, each on one published number:
//!
//! - `pools` of ingress-nginx on the 40,000 a day that the right order of the timeouts took away;
//! - `node-detection` on the 4,000 to 5,000 that were left;
//! - `noise` on "almost a hundred of scale up/down events" in 24 hours.
//!
//! That the race is more than 85 % of all, that everything else comes to what is left, which fix takes which part, and that nothing
//! is left at the end, is not calibrated.

use serde_json::Value;

use super::{json, root};

/// The account's order.
const ORDER: [&str; 8] =
    ["keep-alive-order", "drain", "pre-stop", "scale-down", "restarts", "container-native", "drain-timeout", "grace"];

fn mean(step: &Value) -> f64 {
    step["lost"]["mean"].as_f64().expect("a figure")
}

/// The table of the page, as numbers: the mean, and the interval.
fn page() -> Vec<[f64; 3]> {
    let page = std::fs::read_to_string(root().join("docs/simulate.md")).expect("docs/simulate.md");
    let row = |name: &str| {
        let line = page.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let line = line.unwrap_or_else(|| panic!("docs/simulate.md lacks the step {name}"));
        let words = line.split([' ', '|']).filter_map(|word| word.parse().ok());
        words.collect::<Vec<f64>>().try_into().expect("three figures")
    };
    ["as it is".to_owned()].into_iter().chain(ORDER.map(|fix| format!("+ `{fix}`"))).map(|name| row(&name)).collect()
}

#[test]
fn the_staircase_of_the_account_comes_out() {
    let folder = root().join("incidents/taskcluster-glb/simulate");
    let fixes: Vec<&str> = ORDER.iter().flat_map(|fix| ["--fix", fix]).collect();
    let args = [&["--traffic", "traffic.toml", "--staircase"], fixes.as_slice(), &["."]].concat();
    let report = json(&folder, &args);
    let steps = report["staircase"].as_array().expect("steps");
    assert_eq!(steps.len(), 1 + ORDER.len());
    let first = mean(&steps[0]);
    assert!((first / 45_000.0 - 1.0).abs() < 0.15, "45,000 a day, within 15 %: {first}");
    let race = steps[0]["causes"].as_array().into_iter().flatten().find(|one| one["cause"] == "idle-close-race");
    let share = race.and_then(|race| race["share"].as_f64()).expect("a share");
    assert!(share > 0.85, "more than 85 % of them the idle race: {share}");
    let in_order = mean(&steps[1]);
    assert!((4_000.0..=5_000.0).contains(&in_order), "4,000 to 5,000 after the timeouts: {in_order}");
    let last = mean(&steps[ORDER.len()]);
    assert!(last < 0.5, "none at the end: {last}");
    // No fix of the account made it worse.
    for pair in steps.windows(2) {
        assert!(mean(&pair[1]) <= mean(&pair[0]), "{}: {} after {}", pair[1]["fix"], mean(&pair[1]), mean(&pair[0]));
    }
    // The last digits hang on the machine's own exponential function.
    for (step, shown) in steps.iter().zip(page()) {
        for (field, shown) in ["mean", "low", "high"].into_iter().zip(shown) {
            let figure = step["lost"][field].as_f64().expect("a figure");
            assert!(
                (figure - shown).abs() <= 0.02 * shown + 0.51,
                "{} {field}: {figure}, the page says {shown}",
                step["fix"]
            );
        }
    }
    let scalings = report["scalings"].as_f64().expect("a figure");
    assert!((85.0..=110.0).contains(&scalings), "almost a hundred scalings a day: {scalings}");
    // Most of what drains and sleeps could not take away comes from nodes, as the account found.
    let left = &steps[5]["causes"];
    assert_eq!(left[0]["cause"], "gone-address", "{left}");
}

/// Nothing of the staircase is in the files: without the mechanism a step is not there.
#[test]
fn a_step_is_what_its_mechanism_takes() {
    let folder = root().join("incidents/taskcluster-glb/simulate");
    let text = std::fs::read_to_string(folder.join("traffic.toml")).expect("the traffic file");
    let run = |text: &str, args: &[&str]| {
        let other = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(other.path(), text).expect("a file");
        let path = other.path().to_str().expect("UTF-8").to_owned();
        mean(&json(&folder, &[&["--traffic", &path, "--runs", "10", "."], args].concat()))
    };
    // Without a window there is no race, and the order of the timeouts all but changes nothing.
    let still = text.replace("window = 0.1", "window = 0");
    assert_ne!(still, text);
    let (before, after) = (run(&still, &[]), run(&still, &["--fix", "keep-alive-order"]));
    assert!(before < 7_000.0 && after > before * 0.6, "{before} {after}");
    // Without restarts by the clock there is nothing in that fix.
    let calm = text.replace("restarts-a-day = 1", "restarts-a-day = 0");
    let (before, after) = (run(&calm, &[]), run(&calm, &["--fix", "restarts"]));
    assert!((before - after).abs() < 1e-6, "{before} {after}");
}
