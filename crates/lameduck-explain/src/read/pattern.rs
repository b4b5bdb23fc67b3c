//! A line format given as text: nginx's `log_format`, Envoy's format string. Compiled once into literals and fields.

use super::field::{Field, Fields};

/// A value, and the text that ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Value {
    /// What it is; none: of no interest.
    field: Option<Field>,
    /// Empty: it ends with the line.
    until: Box<[u8]>,
}

/// A compiled format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    head: Box<[u8]>,
    values: Vec<Value>,
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
        let format = format.trim_end_matches(['\n', '\r']);
        let mut head = Vec::new();
        let mut values: Vec<(Option<Field>, &str, Vec<u8>)> = Vec::new();
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
                values.last_mut().map_or(&mut head, |(_, _, until)| until).extend_from_slice(&rest.as_bytes()[..end]);
                rest = &rest[end..];
                continue;
            };
            if let Some((_, last, until)) = values.last()
                && until.is_empty()
            {
                return Err(PatternError::Touching { first: (*last).to_owned(), second: name.to_owned() });
            }
            values.push((field, name, Vec::new()));
            rest = after;
        }
        if !values.iter().any(|(field, ..)| *field == Some(Field::Status)) {
            return Err(PatternError::NoStatus(format.to_owned()));
        }
        let value = |(field, _, until): (_, _, Vec<u8>)| Value { field, until: until.into() };
        Ok(Pattern { head: head.into(), values: values.into_iter().map(value).collect() })
    }

    /// Reads a line; what stands behind the format is left alone.
    #[inline]
    pub fn read<'a>(&self, line: &'a [u8], fields: &mut Fields<'a>) -> bool {
        if !begins(line, &self.head) {
            return false;
        }
        let mut at = self.head.len();
        for value in &self.values {
            let Some(end) = value.end(line, at) else { return false };
            if let Some(field) = value.field {
                fields.set(field, &line[at..end]);
            }
            at = end + value.until.len();
        }
        true
    }
}

/// `starts_with` for texts so short that calling for a comparison costs more than comparing.
#[inline]
fn begins(line: &[u8], text: &[u8]) -> bool {
    line.len() >= text.len() && line.iter().zip(text).all(|(a, b)| a == b)
}

/// Where `byte` next stands. Most values are shorter than what it takes to set up a wide search: eight bytes at a time do.
#[inline]
fn next(line: &[u8], from: usize, byte: u8) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const TOPS: u64 = u64::from_ne_bytes([0x80; 8]);
    let mut at = from;
    for word in line.get(from..)?.as_chunks::<8>().0.iter().take(3) {
        // Zero where the byte is; a borrow marks the first zero's top bit, and may mark wrongly only what comes after it.
        let apart = u64::from_le_bytes(*word) ^ (ONES * u64::from(byte));
        let found = apart.wrapping_sub(ONES) & !apart & TOPS;
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Some(at + memchr::memchr(byte, &line[at..])?)
}

impl Value {
    /// Where it ends that begins at `from`: not behind a backslash, and in a list of nginx's not between its entries.
    #[inline]
    fn end(&self, line: &[u8], from: usize) -> Option<usize> {
        let Some((first, more)) = self.until.split_first() else { return Some(line.len()) };
        let mut at = next(line, from, *first)?;
        let list = *first == b' ' && self.field.is_some_and(Field::is_list);
        loop {
            let escaped = *first == b'"' && at > from && line[at - 1] == b'\\';
            if !escaped && (more.is_empty() || begins(&line[at + 1..], more)) && !(list && between(line, from, at)) {
                return Some(at);
            }
            at = next(line, at + 1, *first)?;
        }
    }
}

/// Whether the space at `at` is one between the entries of a list: `a, b : c`.
#[inline]
fn between(line: &[u8], from: usize, at: usize) -> bool {
    at > from && line[at - 1] == b',' || begins(&line[at..], b" : ") || line[from..at].ends_with(b" :")
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
    fn the_end_of_a_format_ends_with_the_line() {
        check("$status\n", "502", &[(Field::Status, "502")]);
        check("$status 100%", "502 100%", &[(Field::Status, "502")]);
    }

    #[test]
    fn a_format_that_can_not_be_read_is_refused() {
        assert!(matches!(Pattern::parse("$status$request"), Err(PatternError::Touching { .. })));
        assert!(matches!(Pattern::parse("$request"), Err(PatternError::NoStatus(_))));
    }

    proptest! {
        #[test]
        fn finds_the_first(line in "[ab, \\x01\\x80]{0,60}", from in 0usize..70, byte in "[ab, \\x01]") {
            let (line, byte) = (line.as_bytes(), byte.as_bytes()[0]);
            let expect = line.get(from..).and_then(|rest| rest.iter().position(|b| *b == byte)).map(|at| from + at);
            prop_assert_eq!(next(line, from, byte), expect);
        }

        #[test]
        fn never_panics(format in ".{0,40}", line in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(pattern) = Pattern::parse(&format!("$status {format}")) {
                pattern.read(&line, &mut Fields::default());
            }
        }
    }
}
