//! Variables in Dockerfiles: `$X`, `${X}`, `${X:-default}`, `${X:+other}`, `${X#prefix}`, `${X%suffix}`, `${X/a/b}`.

/// The variables in force, the last of a name counting.
pub type Vars = Vec<(String, String)>;

pub fn get<'v>(vars: &'v Vars, name: &str) -> Option<&'v str> {
    vars.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

/// Expands what is known; what is not stays as written, so that nobody takes it for empty.
pub fn expand(text: &str, vars: &Vars) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if rest.as_bytes()[at] == b'\\' {
            let c = after.chars().next();
            if c != Some('$') {
                out.push('\\');
            }
            out.extend(c);
            rest = &after[c.map_or(0, char::len_utf8)..];
            continue;
        }
        if let Some((inner, left)) = after.strip_prefix('{').and_then(|inner| braced(inner)) {
            match operation(inner, vars) {
                Some(value) => out.push_str(&value),
                None => out.push_str(&rest[at..rest.len() - left.len()]),
            }
            rest = left;
            continue;
        }
        let end = after.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(after.len());
        match get(vars, &after[..end]) {
            Some(value) if end > 0 => out.push_str(value),
            Some(_) | None => {
                out.push('$');
                out.push_str(&after[..end]);
            }
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    out
}

/// What stands before the brace that closes, and what follows it.
fn braced(inner: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&inner[..at], &inner[at + 1..]));
        }
    }
    None
}

fn operation(inner: &str, vars: &Vars) -> Option<String> {
    let end = inner.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(inner.len());
    let (name, operation) = inner.split_at(end);
    let value = get(vars, name);
    let set = value.is_some_and(|value| !value.is_empty());
    if operation.is_empty() {
        return value.map(str::to_owned);
    }
    if let Some(default) = operation.strip_prefix(":-").or_else(|| operation.strip_prefix('-')) {
        return Some(if set { value.unwrap_or_default().to_owned() } else { expand(default, vars) });
    }
    if let Some(other) = operation.strip_prefix(":+").or_else(|| operation.strip_prefix('+')) {
        return Some(if set { expand(other, vars) } else { String::new() });
    }
    let value = value?;
    let cut = |prefix: &str| operation.strip_prefix(prefix).filter(|pattern| !pattern.contains(['*', '?', '[']));
    if let Some(prefix) = cut("##").or_else(|| cut("#")) {
        return Some(value.strip_prefix(prefix).unwrap_or(value).to_owned());
    }
    if let Some(suffix) = cut("%%").or_else(|| cut("%")) {
        return Some(value.strip_suffix(suffix).unwrap_or(value).to_owned());
    }
    if let Some((from, to)) = operation.strip_prefix("//").and_then(|rest| rest.split_once('/')) {
        return Some(value.replace(from, to));
    }
    if let Some((from, to)) = operation.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        return Some(value.replacen(from, to, 1));
    }
    None
}
