//! `kubectl get -o yaml`: read or refused, and its objects understood or not.
#![no_main]

use lameduck_explain::books::Books;
use lameduck_explain::input::yaml;
use lameduck_explain::read::{Context, kube};
use lameduck_explain::record::Place;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut books = Books::default();
    let list = format!("kind: List\nitems:\n{text}");
    for text in [text, &list] {
        let _ = yaml::objects(text, |line, value| {
            if let Some(said) = kube::object(&value, Context::default()) {
                books.enter(Place { input: 0, line }, 0, said);
            }
        });
    }
    books.close();
    lameduck_explain::world::World::build(&books, &["pods.yaml".to_owned()]);
});
