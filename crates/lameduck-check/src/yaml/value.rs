//! YAML as JSON values, for those who read settings and not manifests.

use saphyr_parser::ScalarStyle;
use serde_json::Value as Json;

use super::{Node, Value};
use crate::span::{FileId, Lines};

/// How many values a text may become: aliases can make much of little.
const MOST: usize = 1_000_000;

/// The documents of a text, as JSON values.
///
/// # Errors
///
/// What is wrong, with its line.
pub fn values(text: &str) -> Result<Vec<Json>, String> {
    let lines = Lines::new(FileId::default(), text);
    let mut left = MOST;
    let mut all = Vec::new();
    for (start, document) in super::split(text) {
        let read = super::read(&lines, start, document).map_err(|bad| format!("line {}: {}", bad.line, bad.why))?;
        if let Some(read) = read {
            all.push(value(read.root(), &mut left).ok_or("its aliases make more of it than can be read")?);
        }
    }
    Ok(all)
}

fn value(node: Node<'_>, left: &mut usize) -> Option<Json> {
    *left = left.checked_sub(1)?;
    Some(match &node.item().value {
        Value::Scalar { text, style } if *style == ScalarStyle::Plain => plain(text),
        Value::Scalar { text, .. } => Json::from(text.as_str()),
        Value::Seq(_) => Json::Array(node.items().into_iter().map(|item| value(item, left)).collect::<Option<_>>()?),
        Value::Map { .. } => {
            let pairs = node.pairs().into_iter();
            let pairs =
                pairs.map(|(key, inner)| Some((key.text().unwrap_or_default().to_owned(), value(inner, left)?)));
            Json::Object(pairs.collect::<Option<_>>()?)
        }
    })
}

/// As YAML 1.2's core schema has it, as far as settings need it.
fn plain(text: &str) -> Json {
    match text {
        "" | "~" | "null" => Json::Null,
        "true" => Json::Bool(true),
        "false" => Json::Bool(false),
        text => text.parse::<i64>().map_or_else(|_| Json::from(text), Json::from),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::values;

    #[test]
    fn settings_as_people_write_them() {
        let check = |text: &str, expect: Json| assert_eq!(values(text).unwrap(), [expect], "{text}");
        check("a: 1\nb: [true, ~, \"7\"]\n", json!({"a": 1, "b": [true, null, "7"]}));
        check("{\"a\": {\"b\": \"c\"}}", json!({"a": {"b": "c"}}));
        check("a: &x {b: 1}\nc: *x\n", json!({"a": {"b": 1}, "c": {"b": 1}}));
        check("a: |\n  -----BEGIN\n  x\n", json!({"a": "-----BEGIN\nx\n"}));
        assert_eq!(values("# nothing\n").unwrap(), [] as [Json; 0]);
        assert!(values("a: [").unwrap_err().contains("line"));
    }

    #[test]
    fn what_grows_by_itself_is_refused() {
        let mut text = String::from("a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
        for n in 1..9 {
            let one = format!("*a{}", n - 1);
            text = format!("{text}a{n}: &a{n} [{}]\n", vec![one; 10].join(","));
        }
        assert!(values(&text).is_err());
    }
}
