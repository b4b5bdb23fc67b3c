//! JSON: whatever is an object to serde is one here, unless it is too deep, and its texts are the same; and documents come apart into
//! the same objects wherever the stream is cut.
#![no_main]

use lameduck_explain::input::objects::{Objects, Piece};
use lameduck_explain::json::{fields, unescape};
use lameduck_explain::read::{Context, kube};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Containers within containers.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn pieces(text: &[u8], step: usize) -> Vec<(bool, u64, Vec<u8>)> {
    let mut objects = Objects::default();
    let mut found = Vec::new();
    let mut out = |piece: Piece<'_>| {
        found.push(match piece {
            Piece::Object(line, text) => (true, line, text.to_vec()),
            Piece::Refused(line, text) => (false, line, text.to_vec()),
        });
    };
    for part in text.chunks(step) {
        objects.take(part, &mut out);
    }
    objects.end(&mut out);
    found
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, text) = input;
    let mut texts = Vec::new();
    let whole = fields(text, |_, key, value| texts.push((unescape(key).into_owned(), unescape(value).into_owned())));
    if let Ok(value @ Value::Object(_)) = serde_json::from_slice::<Value>(text)
        && depth(&value) < 40
    {
        assert!(whole, "{value}");
        // Twice the same key: serde has the last.
        for (key, own) in value.as_object().into_iter().flatten() {
            if let Value::String(own) = own {
                assert!(texts.iter().any(|(name, text)| name == key.as_bytes() && text == own.as_bytes()), "{value}");
            }
        }
    }
    let at_once = pieces(text, text.len().max(1));
    assert_eq!(pieces(text, usize::from(step).max(1)), at_once);
    for (whole, _, object) in at_once {
        if whole {
            let _ = kube::read(&object, Context::default());
        }
    }
});
