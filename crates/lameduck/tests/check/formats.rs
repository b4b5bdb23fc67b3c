//! Every format says the same.

use serde_json::Value;

use super::{BAD, folder, lameduck, schema, stdout};

const DEPLOY: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata: {labels: {a: web}}\n    \
                      spec:\n      containers:\n      - name: web\n        image: debian:12\n        command: [uvicorn, 'x:y']\n        \
                      ports: [{containerPort: 80}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {a: web}}\n";

#[test]
fn json_is_the_contract() {
    let dir = folder(&[("Dockerfile", BAD), ("a b/deploy.yaml", DEPLOY), ("broken.yaml", "a: [\n")]);
    let json: Value =
        serde_json::from_str(&stdout(&lameduck(dir.path(), &["check", "--format", "json", "--rate", "50"]))).unwrap();
    assert_eq!(json["schema"], "lameduck.check/1");
    for finding in json["findings"].as_array().unwrap() {
        for field in ["rule", "cause", "severity", "confidence", "file", "message", "help"] {
            assert!(finding[field].is_string(), "{field} in {finding}");
        }
        assert!(finding["line"].as_u64() > Some(0) && finding["column"].as_u64() > Some(0), "{finding}");
        assert!(finding.get("fix").is_some());
    }
    let web = json["workloads"].as_array().unwrap().iter().find(|workload| workload["name"] == "web").unwrap();
    assert_eq!(web["term"]["outcome"], "graceful");
    assert_eq!(web["term"]["app"], "uvicorn x:y");
    let refused =
        web["loss_windows"].as_array().unwrap().iter().find(|w| w["cause"] == "refused-while-routed").unwrap();
    assert_eq!(
        (refused["start_s"].as_f64(), refused["length_s"].as_f64(), refused["length_max_s"].as_f64()),
        (Some(0.0), Some(1.0), Some(3.0))
    );
    assert_eq!(refused["lost"], serde_json::json!([50.0, 150.0]));
    let docker =
        json["workloads"].as_array().unwrap().iter().find(|workload| workload["name"] == "Dockerfile").unwrap();
    assert_eq!(docker["term"]["outcome"], "ignored");
    assert_eq!(docker["term"]["pid1"], "/bin/sh -c");
    assert_eq!(json["unparsed"][0]["file"], "broken.yaml");
    assert!(json["unparsed"][0]["line"].as_u64() > Some(0));
}

#[test]
fn sarif_validates_against_its_schema() {
    let dir = folder(&[("Dockerfile", BAD), ("a b/deploy.yaml", DEPLOY), ("broken.yaml", "a: [\n")]);
    let sarif: Value = serde_json::from_str(&stdout(&lameduck(dir.path(), &["check", "--format", "sarif"]))).unwrap();
    let rules: Value = serde_json::from_str(include_str!("sarif-schema-2.1.0.json")).unwrap();
    let complaints = schema::validate(&rules, &sarif);
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
    assert!(sarif["runs"][0]["results"].as_array().unwrap().len() >= 2);
    // The validator itself can say no.
    let mut wrong = sarif.clone();
    wrong["runs"][0]["results"][0]["level"] = "fatal".into();
    assert!(!schema::validate(&rules, &wrong).is_empty());
    let mut wrong = sarif.clone();
    wrong["runs"][0]["results"][0]["surprise"] = 1.into();
    assert!(!schema::validate(&rules, &wrong).is_empty());
    let mut wrong = sarif;
    wrong["runs"][0]["tool"] = serde_json::json!({});
    assert!(!schema::validate(&rules, &wrong).is_empty());
}

#[test]
fn github_junit_and_html() {
    let dir = folder(&[("Dockerfile", BAD), ("deploy.yaml", DEPLOY)]);
    let run = |format: &str| stdout(&lameduck(dir.path(), &["check", "--format", format]));
    let github = run("github");
    assert!(
        github.contains("::error file=Dockerfile,line=2,col=1,title=shell-form-command (signal-not-delivered)::"),
        "{github}"
    );
    assert!(github.lines().all(|line| line.starts_with("::")), "{github}");
    let junit = run("junit");
    assert!(junit.starts_with("<?xml") && junit.contains("<failure type=\"signal-not-delivered\""), "{junit}");
    assert_eq!(
        junit.matches("<testcase").count(),
        junit.matches("</testcase>").count() + junit.matches("\"/>").count()
    );
    let html = run("html");
    assert!(html.contains("<svg") && html.contains("refused-while-routed") && !html.contains("http://"), "{html}");
    let text = run("text");
    assert!(
        text.contains("--> Dockerfile:2:1") && text.contains("2 | CMD /server") && text.contains("lost    |"),
        "{text}"
    );
}
