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
            .findings().unwrap()
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
