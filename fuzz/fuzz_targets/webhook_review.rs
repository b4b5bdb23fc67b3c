//! The body of an admission review: anybody who reaches the port may send one, and anybody who may create pods decides what is
//! in it.
#![no_main]

use lameduck_cluster::annotation::Said;
use lameduck_cluster::image::{Challenge, Config, Manifest, Reference};
use lameduck_cluster::inject::{Images, Settings, images, inject};
use lameduck_cluster::{advise, review};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|body: &[u8]| {
    // What registries say comes from strangers too.
    let _ = (Config::parse(body), Manifest::parse(body, "amd64"));
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = (Reference::parse(text), Challenge::parse(text));
    }
    let object = match review::read(body) {
        Ok(request) => request.object,
        Err(_) => match serde_json::from_slice(body) {
            Ok(object) => object,
            Err(_) => return,
        },
    };
    let settings = Settings {
        image: "lameduck".to_owned(),
        defaults: [("log-format".to_owned(), "json".to_owned())].into(),
        options: vec!["quiet", "log-format", "mode"],
        accept: |_| Ok(()),
    };
    let asks = Said::of(Some(&serde_json::json!({"labels": {"lameduck.dev/inject": "true"}})));
    let known: Images = images(&object, &asks)
        .into_iter()
        .map(|name| (name, Ok(Config { cmd: vec!["$(x)".to_owned()], ..Config::default() })))
        .collect();
    let once = inject(&object, &asks, &known, &settings);
    let twice = inject(&once.pod, &asks, &known, &settings);
    assert!(twice.patch.is_empty() && twice.pod == once.pod);
    let verdict = review::Verdict { denied: None, patch: once.patch, warnings: once.warnings };
    let answer: Value = serde_json::from_slice(&review::write("1", &verdict)).expect("an answer is JSON");
    assert_eq!(answer["response"]["allowed"], true);
    advise::advise(&once.pod);
});
