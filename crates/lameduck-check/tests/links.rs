//! What is linked to what: from files to the process, the server and its settings.
#![expect(clippy::unwrap_used, reason = "tests fail by panic")]

use std::fs;

use lameduck_check::{Options, Outcome, check};

fn run(files: &[(&str, &str)]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
        fs::write(dir.path().join(name), text).unwrap();
    }
    check(&Options { paths: vec![dir.path().to_owned()], ..Options::default() })
}

/// The outcome and the app of the workload of this name.
fn term(outcome: &Outcome, name: &str) -> (String, String) {
    let all = outcome.workloads();
    let found = all.iter().find(|workload| workload.name.ends_with(name)).unwrap();
    (found.term.outcome.to_owned(), found.term.app.clone().unwrap_or_default())
}

fn pod(container: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: pod}}\nspec:\n  containers:\n  - name: c\n    image: registry.example/web\n{container}"
    )
}

/// <https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container>
#[test]
fn command_replaces_entrypoint_and_args_replace_cmd() {
    let docker = "FROM debian:12\nCOPY entry.sh /entry.sh\nENTRYPOINT [\"/entry.sh\"]\nCMD [\"a\"]\n";
    let script = "#!/bin/sh\nexec \"$@\"\n";
    let check = |container: &str, outcome: &str, app: &str| {
        let pod = pod(container);
        let got = run(&[("web/Dockerfile", docker), ("web/entry.sh", script), ("pod.yaml", &pod)]);
        assert_eq!(term(&got, "pod"), (outcome.to_owned(), app.to_owned()), "{container}");
    };
    check("", "graceful", "a");
    check("    args: [b, c]\n", "graceful", "b c");
    check("    command: [d]\n", "graceful", "d");
    check("    command: [d]\n    args: [e]\n", "graceful", "d e");
    check("    command: [sh, -c, \"f; true\"]\n", "ignored", "f");
}

/// <https://docs.docker.com/reference/dockerfile/#understand-how-cmd-and-entrypoint-interact>
#[test]
fn dockerfiles_as_buildkit_reads_them() {
    let check = |text: &str, outcome: &str, app: &str| {
        assert_eq!(term(&run(&[("Dockerfile", text)]), "Dockerfile"), (outcome.to_owned(), app.to_owned()), "{text}");
    };
    check("FROM alpine\nENTRYPOINT a\nCMD [\"b\"]\n", "graceful", "a");
    check("FROM debian\nENTRYPOINT [\"a\"]\nCMD b\n", "graceful", "a /bin/sh -c b");
    check("FROM debian AS x\nCMD [\"old\"]\nFROM x\nENTRYPOINT [\"new\"]\n", "graceful", "new");
    check("FROM debian AS x\nSHELL [\"/bin/bash\", \"-c\"]\nFROM x\nCMD a\n", "graceful", "a");
    check("FROM debian\nCMD a\nCMD [\"b\"]\n", "graceful", "b");
    check("FROM debian\nCMD ['a', 'b']\n", "ignored", "[a, b]");
    check("# escape=`\nFROM debian\nCMD [ `\n  \"a\", `\n  # why\n  \"b\" ]\n", "graceful", "a b");
    check("ARG V=3.20\nFROM alpine:${V}\nARG V\nCMD a $HOME\n", "graceful", "a $HOME");
    check("FROM debian\nCOPY <<\"EOF\" /run.sh\n#!/bin/sh\na\nEOF\nCMD [\"/run.sh\"]\n", "ignored", "a");
    check("FROM debian AS x\nONBUILD CMD [\"late\"]\nFROM x\n", "graceful", "late");
    check("FROM scratch\nCMD a\n", "unknown", "");
    check("FROM registry.example/base\nCMD a\n", "unknown", "");
    check("FROM registry.example/base\nCMD exec a\n", "graceful", "a");
}

#[test]
fn settings_files_of_servers() {
    let found = |files: &[(&str, &str)], rule: &str| {
        run(files)
            .findings()
            .unwrap()
            .iter()
            .filter(|finding| finding.rule == rule)
            .map(|finding| (finding.line, finding.message.clone()))
            .next()
    };
    let routed = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  template:\n    metadata: {labels: {a: web}}\n    spec:\n      \
                  containers:\n      - {name: web, image: registry.example/web, ports: [{containerPort: 80}]}\n---\napiVersion: v1\nkind: Service\n\
                  metadata: {name: web}\nspec: {selector: {a: web}}\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: web}\nspec:\n  \
                  ingressClassName: nginx\n  defaultBackend: {service: {name: web, port: {number: 80}}}\n";
    let puma = "FROM ruby:3.3\nWORKDIR /app\nCOPY . .\nCMD [\"bundle\", \"exec\", \"puma\"]\n";
    let config = |text: &'static str| [("web/Dockerfile", puma), ("web/config/puma.rb", text), ("k.yaml", routed)];
    let (line, message) = found(&config("# ours\npersistent_timeout 30\n"), "keepalive-order").unwrap();
    assert!(line == 2 && message.contains("after 30 s"), "{line} {message}");
    assert_eq!(found(&config("persistent_timeout(75)\n"), "keepalive-order"), None);
    let gunicorn = "FROM python:3.12\nCOPY app.py gunicorn.conf.py /\nCMD [\"gunicorn\", \"-c\", \"/gunicorn.conf.py\", \"app:app\"]\n";
    let files = [
        ("web/Dockerfile", gunicorn),
        ("web/gunicorn.conf.py", "worker_class = 'gthread'\ngraceful_timeout = 45\n"),
        ("k.yaml", routed),
    ];
    assert!(found(&files, "stop-exceeds-grace").unwrap().1.contains("45 s"));
    let java = "FROM eclipse-temurin:21\nCOPY target/app.jar /app.jar\nENTRYPOINT [\"java\", \"-jar\", \"/app.jar\"]\n";
    let spring = "server:\n  shutdown: graceful\nspring:\n  lifecycle:\n    timeout-per-shutdown-phase: 40s\n";
    let files = [("web/Dockerfile", java), ("web/src/main/resources/application.yml", spring), ("k.yaml", routed)];
    assert!(found(&files, "stop-exceeds-grace").unwrap().1.contains("40 s"));
    let immediate = [
        ("web/Dockerfile", java),
        ("web/src/main/resources/application.properties", "server.shutdown=immediate\n"),
        ("k.yaml", routed),
    ];
    assert!(found(&immediate, "stop-signal-cuts").is_some());
}

/// Every mention of a Job stays out: it ends when its work does.
#[test]
fn jobs_are_no_workloads() {
    let job = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    spec:\n      containers:\n      - {name: j, image: debian, command: [sh, -c, 'a; b']}\n";
    let outcome = run(&[("job.yaml", job)]);
    assert!(outcome.count == 0 && outcome.findings().unwrap().is_empty());
}

/// YAML 1.2 forbids it; kubectl and Compose read it.
#[test]
fn a_bracket_may_close_in_the_column_of_its_key() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: pod\nspec:\n  containers:\n  - name: c\n    image: debian:12\n    command: [\n      \"sh\",\n      \"-c\", \"a; b\"\n    ]\n    args: [\n    ]\n";
    let outcome = run(&[("pod.yaml", pod)]);
    assert!(outcome.document.unparsed.is_empty(), "{:?}", outcome.document.unparsed);
    assert_eq!(term(&outcome, "pod"), ("ignored".to_owned(), "b".to_owned()));
    let found = outcome.findings().unwrap().into_iter().find(|found| found.rule == "shell-form-command").unwrap();
    assert_eq!((found.line, found.column), (11, 17), "places are those of the file as it is");
    // Characters of several bytes count as one.
    let foreign = pod.replace("metadata:", "# é — ü\nmetadata:");
    let outcome = run(&[("pod.yaml", &foreign)]);
    let found = outcome.findings().unwrap().into_iter().find(|found| found.rule == "shell-form-command").unwrap();
    assert_eq!((found.line, found.column), (12, 17));
    // What is broken otherwise is said with its own line.
    let outcome = run(&[("pod.yaml", "a: [\n]\nb: [\n  c\nd: e\n")]);
    assert_eq!(outcome.document.unparsed.len(), 1, "{:?}", outcome.document.unparsed);
}

#[test]
fn distroless_images_bring_their_interpreter() {
    let check = |text: &str, app: &str| assert_eq!(term(&run(&[("Dockerfile", text)]), "Dockerfile").1, app, "{text}");
    check(
        "FROM gcr.io/distroless/nodejs24-debian13\nCMD [\"--require=./a.js\", \"server.js\"]\n",
        "/nodejs/bin/node --require=./a.js server.js",
    );
    check("FROM gcr.io/distroless/java21-debian12\nCMD [\"app.jar\"]\n", "/usr/bin/java -jar app.jar");
    check("FROM gcr.io/distroless/nodejs24-debian13\nENTRYPOINT [\"/own\"]\nCMD [\"a\"]\n", "/own a");
    check("FROM gcr.io/distroless/static-debian12\nCMD [\"/own\"]\n", "/own");
}

/// A deployment of gunicorn behind a service, each in a file of its own.
fn web(namespace: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: web\n  namespace: {namespace}\nspec:\n  replicas: 2\n  template:\n    metadata:\n      labels: {{tier: front, app: web}}\n    spec:\n      containers:\n      - name: web\n        image: registry.example/web\n        command: [gunicorn, app:app]\n        ports:\n        - containerPort: 80\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  publishNotReadyAddresses: true\n  selector: {app: web, tier: front}\n";

fn ingress(annotations: &str, class: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: web\n  namespace: shop\n{annotations}spec:\n{class}  defaultBackend:\n    service: {{name: web, port: {{number: 80}}}}\n"
    )
}

#[test]
fn what_belongs_together_may_stand_in_many_files() {
    let found = |namespace: &str, others: usize| {
        let (web, ingress) = (web(namespace), ingress("", "  ingressClassName: nginx\n"));
        let pdb = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata:\n  name: web\n  namespace: shop\nspec:\n  minAvailable: 2\n  selector:\n    matchLabels: {tier: front}\n";
        let mut files = vec![
            ("a/web.yaml".to_owned(), web),
            ("b/service.yaml".to_owned(), SERVICE.to_owned()),
            ("c/ingress.yaml".to_owned(), ingress),
            ("d/pdb.yaml".to_owned(), pdb.to_owned()),
        ];
        // Others of the same labels elsewhere; one label of theirs is as common as can be.
        files.extend((0..others).map(|n| (format!("x/{n}.yaml"), SERVICE.replace("shop", &format!("other-{n}")))));
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let outcome = run(&files);
        let mut rules: Vec<&str> = outcome.findings().unwrap().iter().map(|found| found.rule).collect();
        rules.sort_unstable();
        rules
    };
    let all = ["not-ready-published", "pdb-blocks-drains", "prestop-missing", "readiness-missing"];
    for rule in all {
        assert!(
            found("shop", 0).contains(&rule) && found("shop", 200).contains(&rule),
            "{rule}: {:?}",
            found("shop", 0)
        );
        assert!(!found("elsewhere", 200).contains(&rule), "{rule}: {:?}", found("elsewhere", 200));
    }
}

/// Whose targets are nodes does not have to learn of a pod's end.
#[test]
fn aws_target_types_decide_how_long_routing_goes_on() {
    let check = |kind: &str, most: Option<f64>| {
        let annotations = format!("  annotations:\n    alb.ingress.kubernetes.io/target-type: {kind}\n");
        let (web, ingress) = (web("shop"), ingress(&annotations, "  ingressClassName: alb\n"));
        let outcome = run(&[("web.yaml", &web), ("service.yaml", SERVICE), ("ingress.yaml", &ingress)]);
        let all = outcome.workloads();
        let windows = all.iter().flat_map(|workload| &workload.loss_windows);
        let refused = windows.filter(|window| window.cause.id() == "refused-while-routed").map(|one| one.length_max_s);
        assert_eq!(refused.collect::<Vec<_>>(), [most], "{kind}");
    };
    check("instance", Some(3.0));
    check("ip", None);
}

#[test]
fn a_frontend_config_says_whose_ingress_it_is() {
    let config = "apiVersion: networking.gke.io/v1beta1\nkind: FrontendConfig\nmetadata:\n  name: front\nspec:\n  redirectToHttps: {enabled: true}\n";
    let (web, ingress) = (web("shop"), ingress("", ""));
    let found = |files: &[(&str, &str)]| run(files).findings().unwrap().iter().any(|found| found.rule == "neg-missing");
    let files = [("web.yaml", web.as_str()), ("service.yaml", SERVICE), ("ingress.yaml", ingress.as_str())];
    assert!(!found(&files));
    assert!(found(&[&files[..], &[("front.yaml", config)]].concat()));
}
