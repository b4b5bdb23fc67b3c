//! Objects as a text that `lameduck check` reads, and the way back from a line of it to an object and a field.

use serde_json::Value;

/// The text of objects, and where each begins.
#[derive(Debug, Default)]
pub struct Text {
    /// A document each.
    pub text: String,
    /// The line of each object's first bracket, from 1.
    starts: Vec<u32>,
}

/// Writes a value with one key or item a line. Given a line it also says what stands there.
struct Writer<'o> {
    out: Option<&'o mut String>,
    line: u32,
    path: Vec<String>,
    wanted: u32,
    found: Option<String>,
}

impl Writer<'_> {
    fn put(&mut self, text: &str) {
        if let Some(out) = &mut self.out {
            out.push_str(text);
        }
    }

    fn end(&mut self) {
        self.put("\n");
        self.line += 1;
        if self.line == self.wanted {
            self.found = Some(self.path.concat());
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                self.put("{");
                for (n, (key, inner)) in fields.iter().enumerate() {
                    self.put(if n > 0 { "," } else { "" });
                    self.path.push(step(key, self.path.is_empty()));
                    self.end();
                    self.put(&format!("{}: ", Value::from(key.as_str())));
                    self.value(inner);
                    self.path.pop();
                }
                self.end();
                self.put("}");
            }
            Value::Array(items) if !items.is_empty() => {
                self.put("[");
                for (n, inner) in items.iter().enumerate() {
                    self.put(if n > 0 { "," } else { "" });
                    // As events have it: `spec.containers{web}`.
                    let name = inner["name"].as_str().map_or_else(|| format!("[{n}]"), |name| format!("{{{name}}}"));
                    self.path.push(name);
                    self.end();
                    self.value(inner);
                    self.path.pop();
                }
                self.end();
                self.put("]");
            }
            value => self.put(&value.to_string()),
        }
    }
}

/// A key as part of a path; one with dots in it stands in brackets.
fn step(key: &str, first: bool) -> String {
    match (key.contains(['.', '/']), first) {
        (true, _) => format!("[{key}]"),
        (false, true) => key.to_owned(),
        (false, false) => format!(".{key}"),
    }
}

impl Text {
    /// The text of these.
    pub fn of(objects: &[Value]) -> Text {
        let mut all = Text::default();
        let mut line = 0;
        for object in objects {
            all.text.push_str("---\n");
            line += 2;
            all.starts.push(line);
            let mut writer = Writer { out: Some(&mut all.text), line, path: Vec::new(), wanted: 0, found: None };
            writer.value(object);
            line = writer.line;
            all.text.push('\n');
        }
        all
    }

    /// The number of the object that stands at a line, and the field there.
    pub fn at(&self, objects: &[Value], line: u32) -> Option<(usize, String)> {
        let n = self.starts.partition_point(|start| *start <= line).checked_sub(1)?;
        let mut writer = Writer { out: None, line: self.starts[n], path: Vec::new(), wanted: line, found: None };
        writer.value(objects.get(n)?);
        Some((n, writer.found.unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_leads_back_to_its_field() {
        let objects = [
            json!({"kind": "A", "metadata": {"name": "a", "annotations": {"x.dev/y": "---\nz"}}}),
            json!({"kind": "B", "metadata": {"namespace": "n", "name": "b"}, "spec": {
                "containers": [{"name": "web", "args": ["x", "y"], "env": []}], "none": {}}}),
        ];
        let text = Text::of(&objects);
        let read = lameduck_check::yaml_values(&text.text).unwrap();
        assert_eq!(read, objects, "it is what it was");
        let check = |needle: &str, place: &str, field: &str| {
            let line = text.text.lines().position(|line| line.contains(needle)).unwrap() as u32 + 1;
            let (n, found) = text.at(&objects, line).unwrap();
            assert_eq!((super::super::place(&objects[n]).as_str(), found.as_str()), (place, field), "{needle}");
        };
        check("\"A\"", "A/a", "kind");
        check("x.dev", "A/a", "metadata.annotations[x.dev/y]");
        check("\"y\"", "n/B/b", "spec.containers{web}.args[1]");
        check("env", "n/B/b", "spec.containers{web}.env");
        check("containers", "n/B/b", "spec.containers");
        check("none", "n/B/b", "spec.none");
    }
}
