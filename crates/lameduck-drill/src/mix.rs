//! The work: which requests are sent, in which proportion.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// The longest body that a template may ask for, in bytes.
pub const LONGEST_BODY: usize = 64 << 20;

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The method, upper case.
    pub method: String,
    /// Path and query, from `/`.
    pub path: String,
    /// Its share of the mix, relative to the other weights.
    pub weight: u32,
    /// Length of the body sent, in bytes; 0 sends none.
    pub body_bytes: usize,
}

/// Why a line is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line:?}: {wrong}; expected METHOD PATH [WEIGHT] [BODY-BYTES], as in `POST /orders 2 1024`")]
pub struct NotATemplate {
    line: String,
    wrong: String,
}

/// A line of a request file that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {number}: {source}")]
pub struct NotARequestFile {
    /// The line, from 1.
    pub number: usize,
    /// What is wrong with it.
    pub source: NotATemplate,
}

impl std::str::FromStr for Template {
    type Err = NotATemplate;

    fn from_str(line: &str) -> Result<Template, NotATemplate> {
        let wrong = |wrong: &str| NotATemplate { line: line.to_owned(), wrong: wrong.to_owned() };
        let mut words = line.split_whitespace();
        let method = words.next().ok_or_else(|| wrong("no method"))?;
        if !method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-') {
            return Err(wrong("the method has letters only"));
        }
        let path = words.next().ok_or_else(|| wrong("no path"))?;
        if !path.starts_with('/') || !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(wrong("the path starts with / and has no blanks or controls"));
        }
        let mut number = |name: &str, default: usize| match words.next() {
            None => Ok(default),
            Some(word) => word.parse::<usize>().map_err(|_| wrong(&format!("{name} is not a number"))),
        };
        let weight = number("the weight", 1)?;
        let body_bytes = number("the body's length", 0)?;
        if weight == 0 || weight > 1_000_000 {
            return Err(wrong("the weight is 1 to 1000000"));
        }
        if body_bytes > LONGEST_BODY {
            return Err(wrong("the body is at most 64 MiB"));
        }
        if words.next().is_some() {
            return Err(wrong("more than four words"));
        }
        let method = method.to_ascii_uppercase();
        if method == "CONNECT" {
            return Err(wrong("CONNECT opens a tunnel, not a request"));
        }
        Ok(Template { method, path: path.to_owned(), weight: weight as u32, body_bytes })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if self.body_bytes > 0 { write!(f, " ({} bytes)", self.body_bytes) } else { Ok(()) }
    }
}

/// Reads a request file: one template a line; blank lines and lines that start with `#` are skipped.
pub fn parse_request_file(text: &str) -> Result<Vec<Template>, NotARequestFile> {
    text.lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim()))
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| line.parse().map_err(|source| NotARequestFile { number, source }))
        .collect()
}

/// The default mix: what any service can be asked without a side effect.
pub fn default_mix() -> Vec<Template> {
    let template = |method: &str, weight| Template { method: method.into(), path: "/".into(), weight, body_bytes: 0 };
    vec![template("GET", 9), template("HEAD", 1)]
}

/// Draws one template of a mix that is not empty, by weight.
pub(crate) fn draw(mix: &[Template], rng: &mut Rng) -> usize {
    let total: u64 = mix.iter().map(|template| u64::from(template.weight)).sum();
    let mut left = rng.below(total as usize) as u64;
    for (n, template) in mix.iter().enumerate() {
        if left < u64::from(template.weight) {
            return n;
        }
        left -= u64::from(template.weight);
    }
    mix.len() - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rng::Rng;

    #[test]
    fn reads_a_request_file() {
        let mix = parse_request_file("# shop\nGET /\n\n post /orders 2 1024\nHEAD /a?b=c 3\n").unwrap();
        let short = |t: &Template| (t.method.clone(), t.path.clone(), t.weight, t.body_bytes);
        assert_eq!(
            mix.iter().map(short).collect::<Vec<_>>(),
            [
                ("GET".into(), "/".into(), 1, 0),
                ("POST".into(), "/orders".into(), 2, 1024),
                ("HEAD".into(), "/a?b=c".into(), 3, 0)
            ]
        );
    }

    #[test]
    fn a_bad_line_is_named() {
        let check = |text: &str, expect: &str| {
            let error = parse_request_file(text).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check("GET /\nGET", "line 2: \"GET\": no path");
        check("GET slow", "starts with /");
        check("GET / 0", "weight is 1");
        check("GET / x", "the weight is not a number");
        check("GET / 1 99999999999", "at most 64 MiB");
        check("GET / 1 2 3", "more than four words");
        check("G\u{7f}T /", "letters only");
        check("CONNECT /", "tunnel");
    }

    #[test]
    fn draws_by_weight() {
        let mix = parse_request_file("GET /a 3\nGET /b 1").unwrap();
        let mut rng = Rng::new(3);
        let first = (0..40_000).filter(|_| draw(&mix, &mut rng) == 0).count();
        assert!((29_500..30_500).contains(&first), "{first}");
    }

    proptest! {
        #[test]
        fn never_panics_and_what_is_read_can_be_sent(text in ".{0,60}") {
            for template in parse_request_file(&text).unwrap_or_default() {
                prop_assert!(template.path.starts_with('/') && !template.path.contains(['\r', '\n', ' ']));
                prop_assert!(template.weight > 0);
            }
        }
    }
}
