//! A whole input of any shape: text, JSON documents, YAML, gzip, zstd, captures; read and explained.
#![no_main]

use std::io::Cursor;

use lameduck_explain::report::Question;
use lameduck_explain::stream::Reading;
use lameduck_explain::{Plan, explain, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let reading = Reading { id: Some("id".into()), ..Reading::default() };
    let question = Question { id: Some("id".into()), slo: Some(0.999), client_wait: 0 };
    let plan = Plan { paths: Vec::new(), reading, question };
    let stream = ("fuzz".to_owned(), Box::new(Cursor::new(input.to_vec())) as Box<dyn std::io::Read + Send>);
    if let Ok(explanation) = explain(&plan, Some(stream), &mut |_, _, _, _| {}) {
        assert_eq!(explanation.causes.iter().map(|cause| cause.requests).sum::<u64>(), explanation.lost);
        render::text(&explanation, false);
        render::html(&explanation);
    }
});
