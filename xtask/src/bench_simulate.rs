//! `cargo xtask bench simulate`: a day of 100 services of 1,000 pods each, a million requests a second in all.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::bench::Row;
use crate::bench_check::{measure, write};

const SERVICES: usize = 100;

/// A service that has everything that costs time: an autoscaler, a rollout, a balancer, lags that differ.
const MANIFEST: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata: {name: service-@}
spec:
  replicas: 1000
  selector: {matchLabels: {app: service-@}}
  template:
    metadata:
      labels: {app: service-@}
    spec:
      containers:
        - name: app
          image: registry.example/service-@:1
          command: ["gunicorn", "--worker-class", "gthread", "--bind", ":8080", "app:app"]
          ports: [{containerPort: 8080}]
          readinessProbe: {httpGet: {path: /ready, port: 8080}}
---
apiVersion: v1
kind: Service
metadata: {name: service-@}
spec:
  selector: {app: service-@}
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: service-@}
spec:
  ingressClassName: nginx
  defaultBackend: {service: {name: service-@, port: {number: 80}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: service-@}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: service-@}
  minReplicas: 100
  maxReplicas: 3000
"#;

const TRAFFIC: &str = "[nodes]\ncount = 5000\nremoved-a-day = 100\n[default]\ncrashes-a-day = 0.01\npools = 40\n";

/// The rows of the bench.
pub fn simulate(lameduck: &Path) -> anyhow::Result<Vec<Row>> {
    let dir = std::env::temp_dir().join(format!("lameduck-bench-simulate-{}", std::process::id()));
    let rows = in_folder(lameduck, &dir);
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    rows
}

fn in_folder(lameduck: &Path, dir: &Path) -> anyhow::Result<Vec<Row>> {
    let manifests = dir.join("manifests");
    write(&manifests, SERVICES, "service", ".yaml", MANIFEST)?;
    let traffic = dir.join("traffic.toml");
    fs::write(&traffic, TRAFFIC)?;
    let run = |runs: &str| {
        let mut command = Command::new(lameduck);
        command.args(["simulate", "--no-render", "--rate", "1000000", "--runs", runs, "--format", "json", "--traffic"]);
        command.arg(&traffic).arg(&manifests);
        measure(&mut command)
    };
    let (day, kib) = run("1")?;
    let (many, _) = run("10")?;
    let row = |metric: &str, ours: f64, goal: f64, words: &str| Row {
        metric: metric.into(),
        ours,
        peer: "the goal".into(),
        theirs: goal,
        goal: words.into(),
        met: ours <= goal,
    };
    Ok(vec![
        row("a day, and with each fix, s", day, 60.0, "at most 60"),
        row("the same ten times over, s", many, 60.0, "at most 60"),
        row("peak memory, KiB", kib, 65_536.0, "at most 65536"),
    ])
}
