//! The work: which requests are sent, in which proportion.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use lameduck_core::duration;
use serde::{Deserialize, Serialize};

use crate::rng::Rng;

/// The longest body that a template may ask for, in bytes.
pub const LONGEST_BODY: usize = 64 << 20;

/// The longest message of a WebSocket session, in bytes.
pub const LONGEST_MESSAGE: usize = 64 << 10;
/// How long a WebSocket session lives where the template does not say.
pub const DEFAULT_LIFE: Duration = Duration::from_secs(2);
/// How often it sends a message where the template does not say.
pub const DEFAULT_PACE: Duration = Duration::from_millis(200);
/// The longest that a session may live.
pub const LONGEST_LIFE: Duration = Duration::from_mins(1);

/// In which protocol a request is made, and how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Kind {
    /// HTTP/1.1, a request and its answer.
    #[default]
    Http1,
    /// The same with `Expect: 100-continue`: the body is held back until the server asks for it.
    Expect,
    /// HTTP/2 without TLS, by prior knowledge: a stream beside others on one connection.
    H2,
    /// A WebSocket session by HTTP/1.1 Upgrade: messages that must come back, then a close.
    WebSocket {
        /// How long messages are sent.
        life: Duration,
        /// The time from one message to the next.
        pace: Duration,
    },
}

impl Kind {
    /// Its name, without its figures.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Http1 => "http1",
            Kind::Expect => "expect",
            Kind::H2 => "h2",
            Kind::WebSocket { .. } => "websocket",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Kind::Http1 | Kind::Expect | Kind::H2 => Ok(()),
            Kind::WebSocket { life, pace } => write!(f, "={}/{}", duration::show(*life), duration::show(*pace)),
        }
    }
}

impl From<Kind> for String {
    fn from(kind: Kind) -> String {
        kind.to_string()
    }
}

impl TryFrom<String> for Kind {
    type Error = String;

    fn try_from(word: String) -> Result<Kind, String> {
        word.parse()
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(word: &str) -> Result<Kind, String> {
        let (name, figures) = word.split_once('=').map_or((word, None), |(name, figures)| (name, Some(figures)));
        match (name, figures) {
            ("http1", None) => Ok(Kind::Http1),
            ("expect", None) => Ok(Kind::Expect),
            ("h2", None) => Ok(Kind::H2),
            ("websocket", None) => Ok(Kind::WebSocket { life: DEFAULT_LIFE, pace: DEFAULT_PACE }),
            ("websocket", Some(figures)) => {
                let time = |text: &str| duration::parse(text).map_err(|error| error.to_string());
                let (life, pace) = match figures.split_once('/') {
                    Some((life, pace)) => (time(life)?, time(pace)?),
                    None => (time(figures)?, DEFAULT_PACE),
                };
                if pace < Duration::from_millis(1) {
                    return Err("a WebSocket's pace is at least 1ms".into());
                }
                if life > LONGEST_LIFE {
                    return Err("a WebSocket's life is at most 60s".into());
                }
                Ok(Kind::WebSocket { life, pace })
            }
            ("http1" | "expect" | "h2", Some(_)) => Err(format!("{name} takes no figures")),
            _ => Err(format!("no kind {name:?} (http1, expect, h2, websocket)")),
        }
    }
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// The method, upper case.
    pub method: String,
    /// Path and query, from `/`.
    pub path: String,
    /// Its share of the mix, relative to the other weights.
    pub weight: u32,
    /// Length of the body sent, in bytes; 0 sends none. Of a WebSocket, the least length of a message.
    pub body_bytes: usize,
    /// The protocol.
    #[serde(default)]
    pub kind: Kind,
}

/// Why a line is not a template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{line:?}: {wrong}; expected METHOD PATH [WEIGHT] [BODY-BYTES] [KIND], as in `POST /orders 2 1024` or `GET /chat 1 websocket=3s`"
)]
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

impl FromStr for Template {
    type Err = NotATemplate;

    fn from_str(line: &str) -> Result<Template, NotATemplate> {
        let wrong = |wrong: &str| NotATemplate { line: line.to_owned(), wrong: wrong.to_owned() };
        let mut words: Vec<&str> = line.split_whitespace().collect();
        // The kind comes last, and is the only word that may stand after the path and is no number.
        let last = words.len().checked_sub(1).filter(|at| *at >= 2);
        let kind = match last.map(|at| words[at]) {
            Some(word) if word.starts_with(|c: char| c.is_ascii_alphabetic()) => {
                words.pop();
                word.parse().map_err(|why: String| wrong(&why))?
            }
            Some(_) | None => Kind::Http1,
        };
        let mut words = words.into_iter();
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
            return Err(wrong("more than four words and a kind"));
        }
        let method = method.to_ascii_uppercase();
        if method == "CONNECT" {
            return Err(wrong("CONNECT opens a tunnel, not a request"));
        }
        match kind {
            Kind::WebSocket { .. } if method != "GET" => return Err(wrong("a WebSocket begins with GET")),
            Kind::WebSocket { .. } if body_bytes > LONGEST_MESSAGE => {
                return Err(wrong("a WebSocket's messages have at most 64 KiB"));
            }
            Kind::Expect if body_bytes == 0 => return Err(wrong("expect needs a body")),
            Kind::Http1 | Kind::Expect | Kind::H2 | Kind::WebSocket { .. } => {}
        }
        Ok(Template { method, path: path.to_owned(), weight: weight as u32, body_bytes, kind })
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)?;
        if self.body_bytes > 0 {
            write!(f, " ({} bytes)", self.body_bytes)?;
        }
        if self.kind == Kind::Http1 { Ok(()) } else { write!(f, " [{}]", self.kind) }
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
    let template = |method: &str, weight| Template {
        method: method.into(),
        path: "/".into(),
        weight,
        body_bytes: 0,
        kind: Kind::Http1,
    };
    vec![template("GET", 9), template("HEAD", 1)]
}

/// Draws one template of a mix that is not empty, by weight; of those that fit, if any does.
pub(crate) fn draw(mix: &[Template], rng: &mut Rng, fits: impl Fn(&Template) -> bool) -> usize {
    let any = mix.iter().any(&fits);
    let weight = |template: &Template| if !any || fits(template) { u64::from(template.weight) } else { 0 };
    let mut left = rng.below(mix.iter().map(weight).sum::<u64>() as usize) as u64;
    for (n, template) in mix.iter().enumerate() {
        if left < weight(template) {
            return n;
        }
        left -= weight(template);
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
        check("GET / x", "no kind \"x\" (http1, expect, h2, websocket)");
        check("GET / 1x", "the weight is not a number");
        check("GET / h2 1", "the weight is not a number");
        check("GET / h2=1", "h2 takes no figures");
        check("POST / 1 websocket", "begins with GET");
        check("GET / 1 websocket=2h", "at most 60s");
        check("GET / 1 websocket=2s/0s", "at least 1ms");
        check("POST / 1 expect", "expect needs a body");
        check("GET / 1 99999999999", "at most 64 MiB");
        check("GET / 1 2 3", "more than four words");
        check("G\u{7f}T /", "letters only");
        check("CONNECT /", "tunnel");
    }

    #[test]
    fn the_kind_comes_last() {
        let check = |line: &str, weight: u32, body_bytes: usize, kind: Kind| {
            let template: Template = line.parse().unwrap();
            assert_eq!((template.weight, template.body_bytes, template.kind), (weight, body_bytes, kind), "{line}");
        };
        let (life, pace) = (Duration::from_secs(3), Duration::from_millis(50));
        check("GET /", 1, 0, Kind::Http1);
        check("GET / h2", 1, 0, Kind::H2);
        check("POST / 2 h2", 2, 0, Kind::H2);
        check("POST / 2 100 expect", 2, 100, Kind::Expect);
        check("GET /chat 2 websocket=3s/50ms", 2, 0, Kind::WebSocket { life, pace });
        check("GET /chat 2 10 websocket=3s", 2, 10, Kind::WebSocket { life, pace: DEFAULT_PACE });
    }

    #[test]
    fn draws_by_weight() {
        let mix = parse_request_file("GET /a 3\nGET /b 1").unwrap();
        let mut rng = Rng::new(3);
        let first = (0..40_000).filter(|_| draw(&mix, &mut rng, |_| true) == 0).count();
        assert!((29_500..30_500).contains(&first), "{first}");
        assert!((0..100).all(|_| draw(&mix, &mut rng, |template| template.path == "/b") == 1));
        let neither = (0..100).filter(|_| draw(&mix, &mut rng, |_| false) == 0).count();
        assert!((50..100).contains(&neither), "where none fits, all do: {neither}");
    }

    proptest! {
        #[test]
        fn never_panics_and_what_is_read_can_be_sent(text in ".{0,60}") {
            for template in parse_request_file(&text).unwrap_or_default() {
                prop_assert!(template.path.starts_with('/') && !template.path.contains(['\r', '\n', ' ']));
                prop_assert!(template.weight > 0);
            }
        }

        #[test]
        fn kinds_round_trip(which in 0usize..4, life in 0u64..60_000, pace in 1u64..10_000) {
            let (life, pace) = (Duration::from_millis(life), Duration::from_millis(pace));
            let kind = [Kind::Http1, Kind::Expect, Kind::H2, Kind::WebSocket { life, pace }][which];
            prop_assert_eq!(kind.to_string().parse(), Ok(kind));
            let line = format!("GET / 3 7 {kind}");
            prop_assert_eq!(line.parse::<Template>().unwrap().kind, kind);
        }
    }
}
