//! A line format given as text: nginx's `log_format`, Envoy's format string. Compiled once into literals and fields.

use super::field::{Field, Fields};

/// One part.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This text.
    Text(Vec<u8>),
    /// Whatever stands up to the next text.
    Value(Option<Field>),
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    parts: Vec<Part>,
    /// From this part on a line may end.
    optional_from: usize,
}

/// What is wrong with a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Two values with nothing between.
    #[error(
        "{first} and {second} stand side by side: where one ends can not be told. Put a space or a quote between them"
    )]
    Touching {
        /// The first.
        first: String,
        /// The second.
        second: String,
    },
    /// No value that explain uses.
    #[error("nothing in {0:?} that can be used: expected at least a status, as in $status or %RESPONSE_CODE%")]
    NoStatus(String),
}

impl Pattern {
    /// From nginx's `log_format` (`$status`) or Envoy's (`%RESPONSE_CODE%`), told apart by which of them it uses.
    pub fn parse(format: &str) -> Result<Pattern, PatternError> {
        let mut parts = Vec::new();
        let mut last = String::new();
        let mut rest = format;
        while !rest.is_empty() {
            let (name, field, after) = if let Some(body) = rest.strip_prefix('$') {
                let body = body.strip_prefix('{').unwrap_or(body);
                let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
                let after = &body[end..];
                (&body[..end], Field::of_nginx(&body[..end]), after.strip_prefix('}').unwrap_or(after))
            } else if let Some((body, after)) = rest.strip_prefix('%').and_then(|body| body.split_once('%')) {
                (body, Field::of_envoy(body), after)
            } else {
                let end =
                    rest.char_indices().skip(1).find(|(_, c)| matches!(c, '$' | '%')).map_or(rest.len(), |(at, _)| at);
                parts.push(Part::Text(rest[..end].trim_end_matches('\n').as_bytes().to_vec()));
                rest = &rest[end..];
                continue;
            };
            if matches!(parts.last(), Some(Part::Value(_))) {
                return Err(PatternError::Touching { first: last, second: name.to_owned() });
            }
            name.clone_into(&mut last);
            parts.push(Part::Value(field));
            rest = after;
        }
        if !parts.contains(&Part::Value(Some(Field::Status))) {
            return Err(PatternError::NoStatus(format.to_owned()));
        }
        let optional_from = parts.len();
        Ok(Pattern { parts, optional_from })
    }

    /// A line may end before this text, which must be one of the format's.
    #[must_use]
    pub fn optional_after(mut self, values: usize) -> Pattern {
        let mut seen = 0;
        for (place, part) in self.parts.iter().enumerate() {
            if matches!(part, Part::Value(_)) {
                seen += 1;
                if seen == values {
                    self.optional_from = place + 1;
                }
            }
        }
        self
    }

    /// Reads a line; what stands behind the format is left alone.
    pub fn read<'a>(&self, line: &'a [u8], fields: &mut Fields<'a>) -> bool {
        let mut at = 0;
        let mut place = 0;
        while let Some(part) = self.parts.get(place) {
            match part {
                Part::Text(text) => {
                    if !line[at..].starts_with(text) {
                        return place >= self.optional_from && at >= line.len();
                    }
                    at += text.len();
                }
                Part::Value(field) => {
                    let end = match self.parts.get(place + 1) {
                        Some(Part::Text(next)) => {
                            let list = field.is_some_and(Field::is_list);
                            match find(line, at, next, list) {
                                Some(end) => end,
                                None if place + 1 >= self.optional_from => line.len(),
                                None => return false,
                            }
                        }
                        Some(Part::Value(_)) | None => line.len(),
                    };
                    if let Some(field) = field {
                        fields.set(*field, &line[at..end]);
                    }
                    at = end;
                }
            }
            place += 1;
        }
        true
    }
}

/// Where `text` next stands. Not behind a backslash, and in a list of nginx's not between its entries.
#[inline]
fn find(line: &[u8], from: usize, text: &[u8], list: bool) -> Option<usize> {
    let first = text[0];
    // Most values are short, and shorter than what it takes to set up a wide search.
    if text.len() == 1 && !list && first != b'"' {
        let near = line.get(from..)?;
        return match near.iter().take(16).position(|byte| *byte == first) {
            Some(place) => Some(from + place),
            None => Some(from + 16 + memchr::memchr(first, near.get(16..)?)?),
        };
    }
    let mut at = from;
    loop {
        at += memchr::memchr(first, line.get(at..)?)?;
        let whole = text.len() == 1 || line[at..].starts_with(text);
        let escaped = first == b'"' && at > from && line[at - 1] == b'\\';
        let between = list
            && first == b' '
            && (at > from && line[at - 1] == b',' || line[at..].starts_with(b" : ") || line[from..at].ends_with(b" :"));
        if whole && !escaped && !between {
            return Some(at);
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(format: &str, line: &str, expect: &[(Field, &str)]) {
        let pattern = Pattern::parse(format).unwrap();
        let mut fields = Fields::default();
        assert!(pattern.read(line.as_bytes(), &mut fields), "{line}");
        for (field, value) in expect {
            assert_eq!(String::from_utf8_lossy(fields.get(*field)), *value, "{field:?} of {line}");
        }
    }

    #[test]
    fn values_end_where_the_next_text_begins() {
        check(
            "$remote_addr [$time_local] \"$request\" $status",
            "::1 [now] \"GET /a b HTTP/1.1\" 502",
            &[
                (Field::Client, "::1"),
                (Field::End, "now"),
                (Field::Request, "GET /a b HTTP/1.1"),
                (Field::Status, "502"),
            ],
        );
        check(
            "%RESPONSE_CODE% %RESPONSE_FLAGS% \"%UPSTREAM_HOST%\"",
            "503 UF,URX \"10.0.0.4:80\"",
            &[(Field::Flags, "UF,URX"), (Field::Upstream, "10.0.0.4:80")],
        );
    }

    #[test]
    fn a_list_of_attempts_is_one_value() {
        check(
            "$status $upstream_addr $upstream_status $request_id",
            "502 10.0.0.4:80, 10.0.0.5:80 : 10.0.0.9:80 502, 502 : 502 ab",
            &[
                (Field::Upstream, "10.0.0.4:80, 10.0.0.5:80 : 10.0.0.9:80"),
                (Field::UpstreamStatus, "502, 502 : 502"),
                (Field::Id, "ab"),
            ],
        );
    }

    #[test]
    fn a_format_that_can_not_be_read_is_refused() {
        assert!(matches!(Pattern::parse("$status$request"), Err(PatternError::Touching { .. })));
        assert!(matches!(Pattern::parse("$request"), Err(PatternError::NoStatus(_))));
    }

    proptest! {
        #[test]
        fn never_panics(format in ".{0,40}", line in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(pattern) = Pattern::parse(&format!("$status {format}")) {
                pattern.read(&line, &mut Fields::default());
            }
        }
    }
}
