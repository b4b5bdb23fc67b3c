#![expect(clippy::needless_pass_by_value, reason = "a table reads better without borrowing")]

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn accept(variables: &BTreeMap<String, String>) -> Result<(), String> {
    match variables.get("LAMEDUCK_QUIET").map(String::as_str) {
        Some("soon") => Err("LAMEDUCK_QUIET: read \"soon\"".to_owned()),
        Some(_) | None => Ok(()),
    }
}

fn settings() -> Settings {
    Settings {
        image: "example/lameduck:1".to_owned(),
        defaults: BTreeMap::from([("log-format".to_owned(), "json".to_owned())]),
        options: vec!["grace", "quiet", "mode", "log-format", "drain-on", "min", "port", "listen"],
        accept,
    }
}

fn images() -> Images {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let nginx = Config {
        entrypoint: words(&["/docker-entrypoint.sh"]),
        cmd: words(&["nginx", "-g", "daemon off;"]),
        stop_signal: Some("SIGQUIT".to_owned()),
    };
    let odd = Config { entrypoint: words(&["/bin/sh", "-c", "echo $(HOME)"]), ..Config::default() };
    let ours = Config { entrypoint: words(&["/lameduck", "run", "--"]), ..Config::default() };
    Images::from([
        ("nginx".to_owned(), Ok(nginx)),
        ("odd".to_owned(), Ok(odd)),
        ("ours".to_owned(), Ok(ours)),
        ("empty".to_owned(), Ok(Config::default())),
        ("private".to_owned(), Err("its registry asks for credentials".to_owned())),
    ])
}

fn injected(pod: &Value, namespace: &Value) -> Injection {
    inject(pod, &Said::of(Some(namespace)), &images(), &settings())
}

/// A pod that asks, with these containers and whatever else its spec has.
fn pod(containers: Value, rest: Value) -> Value {
    let mut spec = rest;
    spec["containers"] = containers;
    json!({"metadata": {"name": "web", "annotations": {"lameduck.dev/inject": "true"}}, "spec": spec})
}

fn one(container: Value) -> Value {
    let mut container = container;
    container["name"] = json!("web");
    pod(json!([container]), json!({}))
}

/// What the first container becomes: its command, its arguments, and the variables that came.
fn check(container: Value, command: &[&str], args: Value, env: &[(&str, &str)]) {
    let before = one(container);
    let done = injected(&before, &Value::Null);
    whole(&before, &done);
    let now = &done.pod["spec"]["containers"][0];
    let mut expect = vec!["/.lameduck/lameduck", "run", "--"];
    expect.extend(command);
    assert_eq!(now["command"], json!(expect), "{before}: {:?}", done.warnings);
    assert_eq!(now.get("args").unwrap_or(&Value::Null), &args, "{before}");
    let env: Value = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    assert_eq!(now["env"], env, "{before}");
}

/// What holds for every pod: an independent implementation of RFC 6902 makes the same pod of the patch, Kubernetes' types
/// read it, and a second time changes nothing.
fn whole(before: &Value, done: &Injection) {
    let operations: json_patch::Patch = serde_json::from_value(json!(done.patch)).expect("a patch");
    let mut by_others = before.clone();
    json_patch::patch(&mut by_others, &operations).expect("a patch that applies");
    assert_eq!(by_others, done.pod);
    if serde_json::from_value::<Pod>(before.clone()).is_ok() {
        serde_json::from_value::<Pod>(done.pod.clone()).expect("still a pod");
    }
    let again = injected(&done.pod, &Value::Null);
    assert_eq!(again.patch, [], "once is enough");
}

/// Left as it is, with one warning that says so, or none.
fn check_left_alone(before: &Value, namespace: &Value, warning: Option<&str>) {
    let done = injected(before, namespace);
    assert_eq!(done.patch, [], "{before}");
    assert_eq!(&done.pod, before);
    match warning {
        None => assert_eq!(done.warnings, [""; 0], "{before}"),
        Some(text) => assert!(done.warnings.iter().any(|one| one.contains(text)), "{before}: {:?}", done.warnings),
    }
}

#[test]
fn the_autoscaler_may_evict_what_could_be_evicted_before() {
    let check = |before: Value, expect: Value| {
        let mut pod = one(json!({"image": "x", "command": ["app"]}));
        if !before.is_null() {
            pod["metadata"]["annotations"][SAFE_TO_EVICT] = before;
        }
        let done = injected(&pod, &Value::Null);
        whole(&pod, &done);
        assert_eq!(done.pod["metadata"]["annotations"][SAFE_TO_EVICT], expect);
    };
    check(Value::Null, json!("lameduck"));
    check(json!("cache,tmp"), json!("cache,tmp,lameduck"));
    check(json!("lameduck,tmp"), json!("lameduck,tmp"));
    check(json!(""), json!("lameduck"));
}

#[test]
fn a_command_is_put_behind_ours() {
    let usual = [("LAMEDUCK_GRACE", "30s"), ("LAMEDUCK_LOG_FORMAT", "json")];
    check(json!({"command": ["node", "server.js"]}), &["node", "server.js"], Value::Null, &usual);
    check(json!({"command": ["node"], "args": ["server.js"]}), &["node"], json!(["server.js"]), &usual);
    check(json!({"command": ["sh", "-c", "exec $(APP)"]}), &["sh", "-c", "exec $(APP)"], Value::Null, &usual);
}

#[test]
fn without_a_command_it_is_the_image_s() {
    let quit = [("LAMEDUCK_DRAIN_ON", "TERM\nSIGQUIT"), ("LAMEDUCK_GRACE", "30s"), ("LAMEDUCK_LOG_FORMAT", "json")];
    let cmd = json!(["nginx", "-g", "daemon off;"]);
    check(json!({"image": "nginx"}), &["/docker-entrypoint.sh"], cmd, &quit);
    check(json!({"image": "nginx", "args": ["-v"]}), &["/docker-entrypoint.sh"], json!(["-v"]), &quit);
    // With a command the image's CMD does not count, with or without us.
    check(json!({"image": "nginx", "command": ["nginx"]}), &["nginx"], Value::Null, &quit);
}

#[test]
fn what_an_image_says_is_not_expanded_by_kubernetes() {
    let usual = [("LAMEDUCK_GRACE", "30s"), ("LAMEDUCK_LOG_FORMAT", "json")];
    check(json!({"image": "odd"}), &["/bin/sh", "-c", "echo $$(HOME)"], Value::Null, &usual);
}

#[test]
fn what_is_not_known_is_left_alone() {
    let check = |container: Value, warning| check_left_alone(&one(container), &Value::Null, Some(warning));
    check(json!({"image": "private"}), "asks for credentials. Add command:");
    check(json!({"image": "never-heard-of"}), "its image's own is not known");
    check(json!({"image": "empty"}), "neither it nor its image names a command");
    check(json!({"image": "ours"}), "runs \"/lameduck\" already");
    check(json!({"command": "node"}), "command is no list of texts");
    check(json!({"command": ["node"], "volumeMounts": [{"mountPath": "/.lameduck/x"}]}), "mounts something");
    check_left_alone(&one(json!({"command": ["/usr/bin/lameduck", "run", "--", "node"]})), &Value::Null, None);
}

#[test]
fn what_the_container_sets_itself_stays() {
    let own = json!([{"name": "LAMEDUCK_GRACE", "value": "9"}, {"name": "LAMEDUCK_LOG_FORMAT", "valueFrom": {}}]);
    let before = one(json!({"command": ["node"], "env": own}));
    let done = injected(&before, &Value::Null);
    whole(&before, &done);
    assert_eq!(done.pod["spec"]["containers"][0]["env"], own);
}

#[test]
fn the_grace_is_the_pod_s_less_what_the_hook_uses_up() {
    let check = |rest: Value, hook: Value, grace: &str, warned: bool| {
        let container = json!({"name": "web", "command": ["node"], "lifecycle": {"preStop": hook}});
        let before = pod(json!([container]), rest);
        let done = injected(&before, &Value::Null);
        let env = &done.pod["spec"]["containers"][0]["env"][0];
        assert_eq!(env, &json!({"name": "LAMEDUCK_GRACE", "value": grace}), "{before}");
        assert_eq!(!done.warnings.is_empty(), warned, "{before}: {:?}", done.warnings);
    };
    let sixty = || json!({"terminationGracePeriodSeconds": 60});
    check(sixty(), Value::Null, "60s", false);
    check(json!({}), Value::Null, "30s", false);
    check(sixty(), json!({"sleep": {"seconds": 15}}), "45s", true);
    check(sixty(), json!({"exec": {"command": ["sleep", "15"]}}), "45s", true);
    check(sixty(), json!({"exec": {"command": ["/bin/sh", "-c", "sleep 15"]}}), "45s", true);
    check(json!({}), json!({"exec": {"command": ["sleep", "45"]}}), "1s", true);
    check(sixty(), json!({"exec": {"command": ["/bin/sh", "-c", "sleep 15 && nginx -s quit"]}}), "60s", true);
    check(sixty(), json!({"exec": {"command": ["/lameduck", "drain", "--wait"]}}), "60s", false);
}

#[test]
fn annotations_are_options() {
    let with = |annotations: Value, namespace: Value| {
        let mut before = one(json!({"command": ["node"]}));
        before["metadata"]["annotations"] = annotations;
        let done = injected(&before, &namespace);
        let env = done.pod["spec"]["containers"][0]["env"].as_array().cloned().unwrap_or_default();
        let pair = |one: &Value| (one["name"].as_str().unwrap().to_owned(), one["value"].as_str().unwrap().to_owned());
        (env.iter().map(pair).collect::<BTreeMap<_, _>>(), done.warnings)
    };
    let namespace = json!({"annotations": {"lameduck.dev/mode": "observe", "lameduck.dev/quiet": "3s"}});
    let (env, warnings) = with(
        json!({
            "lameduck.dev/inject": "true", "lameduck.dev/quiet": "4s", "lameduck.dev/min.web": "1s",
            "lameduck.dev/min": "9s", "lameduck.dev/port.other": "7", "lameduck.dev/log-format": "text",
        }),
        namespace,
    );
    let expect = [("GRACE", "30s"), ("LOG_FORMAT", "text"), ("MIN", "1s"), ("MODE", "observe"), ("QUIET", "4s")];
    let expect: BTreeMap<_, _> = expect.map(|(name, value)| (format!("LAMEDUCK_{name}"), value.to_owned())).into();
    assert_eq!((env, warnings), (expect, Vec::new()));

    let (_, warnings) = with(json!({"lameduck.dev/inject": "true", "lameduck.dev/qiet": "4s"}), Value::Null);
    assert!(warnings[0].contains("lameduck.dev/qiet: there is no such option"), "{warnings:?}");
    // A container that would not start is worse than one that is not protected.
    let (env, warnings) = with(json!({"lameduck.dev/inject": "true", "lameduck.dev/quiet": "soon"}), Value::Null);
    assert!(env.is_empty() && warnings[0].contains("would refuse"), "{warnings:?}");
}

#[test]
fn who_asks() {
    let check = |pod: Value, namespace: Value, restart: &str, expect: bool| {
        let spec = json!({"restartPolicy": restart, "containers": [{"name": "a", "command": ["x"]}]});
        let before = json!({"metadata": pod, "spec": spec});
        let done = injected(&before, &namespace);
        assert_eq!(!done.patch.is_empty(), expect, "{before} in {namespace}");
    };
    let annotation = |value: &str| json!({"annotations": {"lameduck.dev/inject": value}});
    let label = |value: &str| json!({"labels": {"lameduck.dev/inject": value}});
    check(json!({}), json!({}), "Always", false);
    check(annotation("true"), json!({}), "Always", true);
    check(label("true"), json!({}), "Always", true);
    check(json!({}), annotation("true"), "Always", true);
    check(json!({}), label("true"), "Always", true);
    check(annotation("false"), annotation("true"), "Always", false);
    check(annotation("true"), annotation("false"), "Always", true);
    check(annotation("yes"), annotation("true"), "Always", false);
    // What ends by itself, only if it asks itself.
    check(json!({}), annotation("true"), "Never", false);
    check(annotation("true"), json!({}), "OnFailure", true);
    let mirror = json!({"annotations": {"lameduck.dev/inject": "true", "kubernetes.io/config.mirror": "x"}});
    check(mirror, json!({}), "Always", false);
}

#[test]
fn which_containers() {
    let check = |names: Option<&str>, expect: &str, warned: bool| {
        let mut before = pod(
            json!([{"name": "web", "command": ["a"]}, {"name": "istio-proxy", "command": ["b"]}]),
            json!({"initContainers": [
                {"name": "migrate", "command": ["c"]},
                {"name": "logs", "command": ["d"], "restartPolicy": "Always"},
            ]}),
        );
        if let Some(names) = names {
            before["metadata"]["annotations"]["lameduck.dev/containers"] = json!(names);
        }
        let done = injected(&before, &Value::Null);
        whole(&before, &done);
        let found = &done.pod["metadata"]["annotations"]["lameduck.dev/injected"];
        assert_eq!(found.as_str().unwrap_or_default(), expect, "{names:?}");
        assert_eq!(!done.warnings.is_empty(), warned, "{names:?}: {:?}", done.warnings);
        // Whoever fills the volume is before everybody who may need it.
        if !expect.is_empty() {
            assert_eq!(done.pod["spec"]["initContainers"][0]["name"], COPIER);
        }
    };
    check(None, "web", false);
    check(Some("web"), "web", false);
    check(Some("web, istio-proxy"), "web,istio-proxy", false);
    check(Some("logs,web"), "logs,web", false);
    check(Some("migrate"), "", true);
    check(Some("web,nobody"), "web", true);
}

#[test]
fn a_pod_that_can_not_have_it_is_left_alone() {
    let check = |rest: Value, warning: &str| {
        let before = pod(json!([{"name": "web", "command": ["x"]}]), rest);
        check_left_alone(&before, &Value::Null, Some(warning));
    };
    check(json!({"os": {"name": "windows"}}), "on Windows");
    check(json!({"nodeSelector": {"kubernetes.io/os": "windows"}}), "on Windows");
    check(json!({"volumes": [{"name": "lameduck", "configMap": {}}]}), "is no emptyDir");
    check(json!({"initContainers": [{"name": "lameduck-copy"}]}), "a container \"lameduck-copy\" of its own");
    check(json!({"volumes": "none"}), "/spec/volumes is neither absent nor a list");
}

#[test]
fn the_init_container_passes_the_restricted_standard_and_changes_no_class_of_service() {
    let with = |container: Value, rest: Value| {
        let mut container = container;
        container["name"] = json!("web");
        container["command"] = json!(["x"]);
        injected(&pod(json!([container]), rest), &Value::Null).pod["spec"]["initContainers"][0].clone()
    };
    let copier = with(json!({}), json!({}));
    assert_eq!(
        copier["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": true,
            "runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"},
        })
    );
    assert!(copier.get("resources").is_none(), "a BestEffort pod stays one");
    let copier = with(json!({"resources": {"limits": {"cpu": "1", "memory": "1Gi"}}}), json!({}));
    assert_eq!(copier["resources"]["requests"], copier["resources"]["limits"], "a Guaranteed pod stays one");
    let copier = with(json!({}), json!({"securityContext": {"runAsUser": 0}}));
    assert_eq!(copier["securityContext"]["runAsUser"], 65_532);
}

#[test]
fn a_second_webhook_that_adds_a_container_has_it_injected_by_the_reinvocation() {
    let done = injected(&one(json!({"command": ["node"]})), &Value::Null);
    let mut later = done.pod;
    let added = json!({"name": "added", "command": ["x"]});
    later["spec"]["containers"].as_array_mut().unwrap().push(added);
    let again = injected(&later, &Value::Null);
    whole(&later, &again);
    assert_eq!(again.pod["metadata"]["annotations"]["lameduck.dev/injected"], "web,added");
    assert_eq!(again.pod["spec"]["initContainers"].as_array().unwrap().len(), 1);
    assert_eq!(again.pod["spec"]["volumes"].as_array().unwrap().len(), 1);
}

#[test]
fn shapes_of_real_deployments() {
    for (name, text) in [
        ("Rails with Puma behind nginx", include_str!("pods/rails.json")),
        ("Django with gunicorn", include_str!("pods/gunicorn.json")),
        ("a Go server, hardened", include_str!("pods/go.json")),
        ("in a mesh", include_str!("pods/mesh.json")),
        ("a worker", include_str!("pods/worker.json")),
    ] {
        let before: Value = serde_json::from_str(text).expect(name);
        serde_json::from_value::<Pod>(before.clone()).expect(name);
        let done = injected(&before, &Value::Null);
        assert!(!done.patch.is_empty(), "{name}: {:?}", done.warnings);
        whole(&before, &done);
        let all = |pod: &Value, list: &str| pod["spec"][list].as_array().cloned().unwrap_or_default();
        // Nothing of it is lost: each container has what it had, and more.
        for container in all(&before, "containers").iter().chain(&all(&before, "initContainers")) {
            let after = all(&done.pod, "containers").into_iter().chain(all(&done.pod, "initContainers"));
            let after = after.into_iter().find(|other| other["name"] == container["name"]).expect(name);
            for (key, value) in container.as_object().unwrap().iter().filter(|(key, _)| *key != "command") {
                match (value.as_array(), after[key].as_array()) {
                    (Some(had), Some(has)) => assert_eq!(&has[..had.len()], had, "{name}: {key}"),
                    (_, _) => assert_eq!(&after[key], value, "{name}: {key}"),
                }
            }
        }
    }
}

/// Any JSON, of names that mean something here more often than not.
fn anything() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "true",
        "false",
        "web",
        "lameduck",
        "lameduck-copy",
        "/.lameduck",
        "/.lameduck/lameduck",
        "run",
        "nginx",
        "odd",
        "private",
        "Always",
        "Never",
        "windows",
        "sleep",
        "15",
        "soon",
        "SIGQUIT",
        "",
        "\u{0}",
        "~/",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(vec![-1_i64, 0, 1, 30, i64::MAX]).prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "metadata",
        "spec",
        "annotations",
        "labels",
        "containers",
        "initContainers",
        "volumes",
        "volumeMounts",
        "name",
        "image",
        "command",
        "args",
        "env",
        "value",
        "mountPath",
        "emptyDir",
        "lifecycle",
        "preStop",
        "exec",
        "sleep",
        "seconds",
        "stopSignal",
        "restartPolicy",
        "os",
        "lameduck.dev/inject",
        "lameduck.dev/containers",
        "lameduck.dev/quiet",
        "lameduck.dev/injected",
        "terminationGracePeriodSeconds",
        "resources",
        "limits",
    ]);
    leaf.prop_recursive(6, 96, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::hash_map(key.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())),
        ]
    })
}

/// A pod that asks, with anything in every place that is read.
fn nearly_a_pod() -> impl Strategy<Value = Value> {
    let parts = || (anything(), anything(), anything(), anything());
    let container = (parts(), prop::bool::ANY).prop_map(|((command, args, env, mounts), command_too)| {
        let mut container = json!({"name": "web", "image": "nginx", "args": args, "env": env, "volumeMounts": mounts});
        if command_too {
            container["command"] = command;
        } else {
            container["lifecycle"] = command;
        }
        container
    });
    let said = prop::collection::hash_map(
        prop::sample::select(vec!["inject", "containers", "quiet", "quiet.web", "grace", "drain-on", "injected", "x"]),
        prop::sample::select(vec!["true", "web", "3s", "soon", "web,a", "", "SIGUSR1"]),
        0..4,
    );
    (prop::collection::vec(container, 0..3), parts(), said).prop_map(|(containers, (a, b, c, d), said)| {
        let mut pod = json!({
            "metadata": {"annotations": {"lameduck.dev/inject": "true"}, "labels": a},
            "spec": {"containers": containers, "initContainers": b, "volumes": c, "restartPolicy": d},
        });
        for (name, value) in said {
            pod["metadata"]["annotations"][format!("lameduck.dev/{name}")] = json!(value);
        }
        pod
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pod_is_injected_once_by_a_patch_that_applies(pod in prop_oneof![anything(), nearly_a_pod()], namespace in anything()) {
        let namespace = Said::of(Some(&namespace));
        let wanted = super::images(&pod, &namespace);
        prop_assert!(wanted.len() <= 64);
        let done = inject(&pod, &namespace, &images(), &settings());
        let operations: json_patch::Patch = serde_json::from_value(json!(done.patch)).expect("a patch");
        let mut by_others = pod.clone();
        json_patch::patch(&mut by_others, &operations).expect("a patch that applies");
        prop_assert_eq!(&by_others, &done.pod);
        let again = inject(&done.pod, &namespace, &images(), &settings());
        prop_assert_eq!(again.patch, []);
        prop_assert_eq!(again.pod, done.pod);
    }
}
