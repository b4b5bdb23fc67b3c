//! `kubectl get -o yaml`, as JSON values. Anchors, which kubectl does not write, are refused: they can be made to grow without end.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// The largest document read.
pub const MOST: usize = 64 << 20;
const DEPTH: usize = 100;
/// The most values of one object: what takes two bytes in a text takes fifty in memory.
const VALUES: usize = 500_000;

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct YamlError {
    line: usize,
    what: String,
}

/// A container that is being filled.
enum Open {
    Map(Map<String, Value>, Option<String>),
    List(Vec<Value>),
}

/// The objects of a text, one after the other: documents, and the items of lists; each with its line.
pub fn objects(text: &str, mut found: impl FnMut(u64, Value)) -> Result<(), YamlError> {
    let mut stack: Vec<(Open, u64)> = Vec::new();
    let mut values = 0;
    for next in Parser::new_from_str(text) {
        let (event, span) =
            next.map_err(|error| YamlError { line: error.marker().line(), what: error.info().to_owned() })?;
        let line = span.start.line();
        values += 1;
        if values > VALUES {
            return Err(YamlError { line, what: format!("an object of more than {VALUES} values") });
        }
        let (value, began) = match event {
            Event::Scalar(text, style, _, _) => (scalar(&text, style), line as u64),
            Event::MappingStart(..) => {
                deeper(&mut stack, Open::Map(Map::new(), None), line)?;
                continue;
            }
            Event::SequenceStart(..) => {
                deeper(&mut stack, Open::List(Vec::new()), line)?;
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match stack.pop() {
                Some((Open::Map(map, _), began)) => (Value::Object(map), began),
                Some((Open::List(list), began)) => (Value::Array(list), began),
                None => continue,
            },
            Event::Alias(_) => return Err(YamlError { line, what: "an alias, which kubectl does not write".into() }),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                continue;
            }
        };
        let in_items = match &stack[..] {
            [(Open::Map(_, Some(key)), _), (Open::List(_), _)] => key == "items",
            [(Open::List(_), _)] => true,
            _ => false,
        };
        match stack.last_mut() {
            Some((Open::List(_), _)) if in_items && value.is_object() => {
                values = 0;
                found(began, value);
            }
            Some((Open::List(list), _)) => list.push(value),
            Some((Open::Map(map, key), _)) => match key.take() {
                None => *key = Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned)),
                Some(key) => {
                    map.insert(key, value);
                }
            },
            None => {
                values = 0;
                found(began, value);
            }
        }
    }
    Ok(())
}

fn deeper(stack: &mut Vec<(Open, u64)>, open: Open, line: usize) -> Result<(), YamlError> {
    if stack.len() >= DEPTH {
        return Err(YamlError { line, what: format!("deeper than {DEPTH} levels") });
    }
    stack.push((open, line as u64));
    Ok(())
}

fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::from(text);
    }
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        text => text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_as_kubectl_writes_it() {
        let text = "apiVersion: v1\nitems:\n- kind: Event\n  reason: Killing\n  count: 2\n- kind: Pod\n  metadata:\n    name: \"7\"\nkind: List\n";
        let mut found = Vec::new();
        objects(text, |line, value| found.push((line, value))).unwrap();
        let kinds: Vec<_> = found.iter().map(|(line, value)| (*line, value["kind"].as_str().unwrap_or(""))).collect();
        assert_eq!(kinds, [(3, "Event"), (6, "Pod"), (1, "List")]);
        assert_eq!(found[0].1["count"], 2);
        assert_eq!(found[1].1["metadata"]["name"], "7");
    }

    #[test]
    fn what_grows_by_itself_is_refused() {
        let check = |text: &str| assert!(objects(text, |_, _| {}).is_err(), "{text:.40}");
        check("a: &x [1]\nb: *x\n");
        check(&"[".repeat(500));
        check(&format!("[{}]", "[],".repeat(VALUES)));
    }
}
