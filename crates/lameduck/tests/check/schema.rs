//! As much of JSON Schema draft 7 as the schema of SARIF uses.

use serde_json::Value;

/// What is wrong, by path.
pub fn validate(schema: &Value, value: &Value) -> Vec<String> {
    let mut complaints = Vec::new();
    node(schema, schema, value, "$", &mut complaints);
    complaints
}

fn node(root: &Value, schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap_or_else(|| panic!("no {reference}"));
        return node(root, target, value, path, out);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("type {other}"),
    };
    if !types.is_empty() && !types.iter().any(|kind| is(kind)) {
        out.push(format!("{path}: {value} is no {types:?}"));
        return;
    }
    if let Some(all) = schema["enum"].as_array().filter(|all| !all.contains(value)) {
        out.push(format!("{path}: {value} is none of {all:?}"));
    }
    if let Some(least) = schema["minimum"].as_f64().filter(|least| value.as_f64().is_some_and(|n| n < *least)) {
        out.push(format!("{path}: {value} is below {least}"));
    }
    for key in ["anyOf", "oneOf"] {
        if let Some(all) = schema[key].as_array() {
            let fits = all.iter().filter(|one| {
                let mut own = Vec::new();
                node(root, one, value, path, &mut own);
                own.is_empty()
            });
            if fits.count() == 0 {
                out.push(format!("{path}: fits none of {key}"));
            }
        }
    }
    if let Some(fields) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                out.push(format!("{path}: no {name}"));
            }
        }
        for (name, field) in fields {
            let inner = format!("{path}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Bool(false)) => out.push(format!("{inner} is not allowed")),
                (Value::Null, Value::Object(_)) => node(root, &schema["additionalProperties"], field, &inner, out),
                (Value::Null, _) => {}
                (property, _) => node(root, property, field, &inner, out),
            }
        }
    }
    if let Some(items) = value.as_array() {
        if schema["minItems"].as_u64().is_some_and(|least| (items.len() as u64) < least) {
            out.push(format!("{path}: too few"));
        }
        if schema["uniqueItems"] == true && (1..items.len()).any(|n| items[..n].contains(&items[n])) {
            out.push(format!("{path}: twice the same"));
        }
        if schema["items"].is_object() {
            for (n, item) in items.iter().enumerate() {
                node(root, &schema["items"], item, &format!("{path}[{n}]"), out);
            }
        }
    }
}
