//! JSON Patch (RFC 6902), as far as a webhook needs it: the pod is changed, and each change is written down.

use serde::Serialize;
use serde_json::{Map, Value};

/// One operation. `add` also replaces: RFC 6902, section 4.1, for members of an object.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Operation {
    /// Always `add`.
    pub op: &'static str,
    /// Where, as a JSON Pointer (RFC 6901).
    pub path: String,
    /// What.
    pub value: Value,
}

/// An object that is being changed, and how it came to be what it is.
#[derive(Debug)]
pub struct Draft {
    object: Value,
    operations: Vec<Operation>,
}

/// Something on the way is not of the shape that it has to have: nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} is neither absent nor {expected}")]
pub struct Misshapen {
    /// Where, as a JSON Pointer.
    pub path: String,
    /// `an object` or `a list`.
    pub expected: &'static str,
}

impl Draft {
    /// A draft that is still the original.
    pub fn new(object: Value) -> Draft {
        Draft { object, operations: Vec::new() }
    }

    /// The object as it is now.
    pub fn object(&self) -> &Value {
        &self.object
    }

    /// The object and what made it.
    pub fn done(self) -> (Value, Vec<Operation>) {
        (self.object, self.operations)
    }

    /// Sets the member `key` of the object at `parent`, which is made where it is absent.
    pub fn set(&mut self, parent: &str, key: &str, value: Value) -> Result<(), Misshapen> {
        self.make(parent)?;
        let path = format!("{parent}/{}", escaped(key));
        let into = self.object.pointer_mut(parent).and_then(Value::as_object_mut);
        let into = into.ok_or_else(|| Misshapen { path: parent.to_owned(), expected: "an object" })?;
        if into.get(key) != Some(&value) {
            into.insert(key.to_owned(), value.clone());
            self.operations.push(Operation { op: "add", path, value });
        }
        Ok(())
    }

    /// Adds to the list `key` of the object at `parent`, at its end or before its first; it is made where it is absent.
    pub fn put(&mut self, parent: &str, key: &str, value: Value, first: bool) -> Result<(), Misshapen> {
        let path = format!("{parent}/{}", escaped(key));
        match self.object.pointer_mut(&path) {
            None | Some(Value::Null) => self.set(parent, key, Value::Array(vec![value])),
            Some(Value::Array(list)) => {
                list.insert(if first { 0 } else { list.len() }, value.clone());
                let path = format!("{path}/{}", if first { '0' } else { '-' });
                self.operations.push(Operation { op: "add", path, value });
                Ok(())
            }
            Some(_) => Err(Misshapen { path, expected: "a list" }),
        }
    }

    /// Makes an empty object where there is none. What is above it has to exist.
    fn make(&mut self, path: &str) -> Result<(), Misshapen> {
        let misshapen = || Misshapen { path: path.to_owned(), expected: "an object" };
        match self.object.pointer(path) {
            Some(Value::Object(_)) => return Ok(()),
            None | Some(Value::Null) => {}
            Some(_) => return Err(misshapen()),
        }
        let (above, key) = path.rsplit_once('/').ok_or_else(misshapen)?;
        let above = self.object.pointer_mut(above).and_then(Value::as_object_mut).ok_or_else(misshapen)?;
        above.insert(key.to_owned(), Value::Object(Map::new()));
        self.operations.push(Operation { op: "add", path: path.to_owned(), value: Value::Object(Map::new()) });
        Ok(())
    }
}

/// A member's name within a JSON Pointer: RFC 6901, section 3.
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
