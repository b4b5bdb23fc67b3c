//! A chart rendered by helm itself: what is found is found in the template, at its line.

use std::process::{Command, Stdio};

use super::{folder, lameduck, stdout};

const CHART: &str = "apiVersion: v2\nname: shop\nversion: 0.1.0\n";

const HELPERS: &str = "{{- define \"shop.labels\" -}}\napp: shop\npart: front\n{{- end }}\n";

/// Two objects in one template, labels made by a helper, a condition that leaves lines out.
const WEB: &str = "\
{{- /* what serves */}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}-shop
spec:
  replicas: {{ .Values.replicas }}
  selector:
    matchLabels:
      {{- include \"shop.labels\" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include \"shop.labels\" . | nindent 8 }}
    spec:
      {{- if .Values.patient }}
      terminationGracePeriodSeconds: 120
      {{- end }}
      containers:
        - name: shop
          image: {{ .Values.image | quote }}
          ports:
            - containerPort: 8080
          readinessProbe:
            httpGet: {path: /ready, port: 8080}
          lifecycle:
            preStop:
              exec:
                command: [\"sleep\", \"40\"]
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}-shop
spec:
  publishNotReadyAddresses: true
  selector:
    {{- include \"shop.labels\" . | nindent 4 }}
  ports:
    - port: 80
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ .Release.Name }}-shop
spec:
  ingressClassName: nginx
  defaultBackend:
    service:
      name: {{ .Release.Name }}-shop
      port: {number: 80}
";

/// A loop: two workloads out of one text.
const CACHE: &str = "\
{{- range list \"a\" \"b\" }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: cache-{{ . }}
spec:
  selector:
    matchLabels: {app: cache-{{ . }}}
  template:
    metadata:
      labels: {app: cache-{{ . }}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
        - name: cache
          image: registry.example/cache:1
          lifecycle:
            preStop:
              sleep: {seconds: 30}
{{- end }}
";

/// Rule, file and line of what is found.
fn found(dir: &std::path::Path, args: &[&str]) -> Vec<(String, String, u64)> {
    let all = [&["check", "--format", "json", "--fail-on", "never"][..], args].concat();
    let out = lameduck(dir, &all);
    let document: serde_json::Value = serde_json::from_str(&stdout(&out)).unwrap();
    assert_eq!(document["unparsed"].as_array().unwrap().len(), 0, "{}", document["unparsed"]);
    let findings = document["findings"].as_array().unwrap().iter().map(|finding| {
        assert!(finding["fix"].is_null() && finding["rendered_line"].is_u64(), "{finding}");
        let text = |key: &str| finding[key].as_str().unwrap().to_owned();
        (text("rule"), text("file"), finding["line"].as_u64().unwrap())
    });
    findings.collect()
}

#[test]
fn findings_of_a_chart_name_the_template_and_its_line() {
    let helm = Command::new("helm").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !helm.is_ok_and(|status| status.success()) {
        println!("SKIPPED findings_of_a_chart_name_the_template_and_its_line: needs helm");
        return;
    }
    let dir = folder(&[
        ("shop/Chart.yaml", CHART),
        ("shop/values.yaml", "replicas: 3\nimage: registry.example/shop:1\npatient: false\n"),
        ("shop/templates/_helpers.tpl", HELPERS),
        ("shop/templates/web.yaml", WEB),
        ("shop/charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 0.1.0\n"),
        ("shop/charts/cache/templates/cache.yaml", CACHE),
        ("common/Chart.yaml", "apiVersion: v2\nname: common\nversion: 0.1.0\ntype: library\n"),
        ("patient.yaml", "patient: true\n"),
    ]);
    let all = found(dir.path(), &["."]);
    let has = |all: &[(String, String, u64)], rule: &str, file: &str, line: u64| {
        all.iter().filter(|one| one.0 == rule && one.1 == file && one.2 == line).count()
    };
    let (web, cache) = ("shop/templates/web.yaml", "shop/charts/cache/templates/cache.yaml");
    assert_eq!(has(&all, "prestop-exceeds-grace", web, 29), 1, "{all:?}");
    assert_eq!(has(&all, "not-ready-published", web, 36), 1, "{all:?}");
    assert_eq!(has(&all, "prestop-exceeds-grace", cache, 20), 2, "{all:?}");
    let patient = found(dir.path(), &[".", "--values", "patient.yaml"]);
    assert_eq!(has(&patient, "prestop-exceeds-grace", web, 29), 0, "{patient:?}");
}
