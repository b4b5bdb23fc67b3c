//! Conditions whose value can be told from what is known: the arguments, and variables that a file sets.

use super::ast::{AndOr, Joint, Kind, List, Pipeline, Word};

/// What is known about the world in which a script runs.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// `$1`, `$2` ...; `None`: not known.
    pub args: Option<Vec<String>>,
    pub vars: Vec<(String, String)>,
}

impl Known {
    /// A word with every expansion replaced, if each is known.
    pub fn expand(&self, word: &Word) -> Option<String> {
        if word.literal { Some(word.text.clone()) } else { self.expand_text(&word.text) }
    }

    fn expand_text(&self, text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(dollar) = rest.find(['$', '`']) {
            out.push_str(&rest[..dollar]);
            let after = rest[dollar..].strip_prefix('$')?;
            let (value, left) = if let Some(inner) = after.strip_prefix('{') {
                let end = inner.find('}')?;
                (self.braced(&inner[..end])?, &inner[end + 1..])
            } else {
                let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
                let end = if after.starts_with(|c: char| c.is_ascii_digit()) { 1 } else { end };
                if let Some(left) = after.strip_prefix('#') {
                    (self.args.as_ref()?.len().to_string(), left)
                } else {
                    (self.variable(&after[..end])?, &after[end..])
                }
            };
            out.push_str(&value);
            rest = left;
        }
        out.push_str(rest);
        Some(out)
    }

    fn variable(&self, name: &str) -> Option<String> {
        if let Ok(n) = name.parse::<usize>() {
            let args = self.args.as_ref()?;
            return (n > 0).then(|| args.get(n - 1).cloned().unwrap_or_default());
        }
        self.vars.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    /// The forms that entrypoint scripts test their first argument with.
    fn braced(&self, inner: &str) -> Option<String> {
        let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
        let (name, operation) = inner.split_at(end);
        let value = self.variable(name);
        if operation.is_empty() {
            return value;
        }
        if let Some(default) = operation.strip_prefix(":-") {
            return match value {
                Some(value) if !value.is_empty() => Some(value),
                Some(_) => self.expand_text(default),
                None => None,
            };
        }
        let value = value?;
        if let Some(prefix) = operation.strip_prefix('#').filter(|prefix| !prefix.contains(['*', '?', '[', '#'])) {
            return Some(value.strip_prefix(prefix).unwrap_or(&value).to_owned());
        }
        if operation == ":0:1" {
            return Some(value.chars().take(1).collect());
        }
        None
    }

    /// Whether a condition holds.
    pub fn holds(&self, condition: &List) -> Option<bool> {
        let last = condition.items.last()?;
        if condition.items.len() != 1 || last.background { None } else { self.and_or(&last.and_or) }
    }

    fn and_or(&self, and_or: &AndOr) -> Option<bool> {
        let mut value = self.pipeline(&and_or.first);
        for (joint, next) in &and_or.rest {
            value = match (joint, value) {
                (Joint::And, Some(false)) => Some(false),
                (Joint::Or, Some(true)) => Some(true),
                (Joint::And, Some(true)) | (Joint::Or, Some(false)) => self.pipeline(next),
                (Joint::And, None) if self.pipeline(next) == Some(false) => Some(false),
                (Joint::Or, None) if self.pipeline(next) == Some(true) => Some(true),
                (Joint::And | Joint::Or, None) => None,
            };
        }
        value
    }

    fn pipeline(&self, pipeline: &Pipeline) -> Option<bool> {
        let [command] = pipeline.commands.as_slice() else { return None };
        let Kind::Simple(simple) = &command.kind else { return None };
        let words: Option<Vec<String>> = simple.words.iter().map(|word| self.expand(word)).collect();
        let words = words?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let value = match words.as_slice() {
            ["true" | ":"] => Some(true),
            ["false"] => Some(false),
            ["test", test @ ..] | ["[", test @ .., "]"] => evaluate(test),
            _ => None,
        }?;
        Some(value != pipeline.negated)
    }
}

fn evaluate(test: &[&str]) -> Option<bool> {
    match test {
        ["!", rest @ ..] => evaluate(rest).map(|value| !value),
        ["-n", text] | [text] => Some(!text.is_empty()),
        ["-z", text] => Some(text.is_empty()),
        [a, "=" | "==", b] => Some(a == b),
        [a, "!=", b] => Some(a != b),
        [a, "-eq", b] => Some(a.parse::<i64>().ok()? == b.parse::<i64>().ok()?),
        [a, "-gt", b] => Some(a.parse::<i64>().ok()? > b.parse::<i64>().ok()?),
        [a, "-lt", b] => Some(a.parse::<i64>().ok()? < b.parse::<i64>().ok()?),
        [a, "-ne", b] => Some(a.parse::<i64>().ok()? != b.parse::<i64>().ok()?),
        // `a -o b`: false only if both are, true if either is known to be.
        _ => {
            let at = test.iter().position(|word| *word == "-o" || *word == "-a")?;
            let (left, right) = (evaluate(&test[..at]), evaluate(&test[at + 1..]));
            let absorbing = test[at] == "-o";
            match (left, right) {
                (Some(value), _) | (_, Some(value)) if value == absorbing => Some(absorbing),
                (Some(left), Some(right)) => Some(if absorbing { left || right } else { left && right }),
                _ => None,
            }
        }
    }
}
