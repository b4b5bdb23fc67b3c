//! Node.js sources, as far as the names of a server's settings go. No program is run and none is understood: a setting
//! that is computed is not known.

use crate::launch::Opened;
use crate::span::{At, Lines, Mapped, Sp, Span};

/// What the sources of an app say.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and any of them can hold")]
pub struct NodeFacts {
    /// `server.keepAliveTimeout`, in seconds.
    pub keep_alive: Option<Sp<f64>>,
    pub headers_timeout: Option<Sp<f64>>,
    /// `socket.setTimeout` in a connection listener.
    pub socket_timeout: Option<Sp<f64>>,
    /// TERM has a handler.
    pub handles_term: bool,
    /// `server.close()` or a framework's own.
    pub closes: bool,
    pub close_at: Option<At>,
    /// A handler for TERM that only exits: where it does.
    pub exits_at: Option<At>,
    /// It is the whole body of an arrow function.
    pub exits_as_arrow: bool,
    /// Idle connections are closed on a timer, or responses say `Connection: close`.
    pub sheds: bool,
    pub fastify: bool,
    /// The statement that makes the server, and the variable it is kept in.
    pub server: Option<(At, String)>,
    /// The byte after that statement, and its indentation.
    pub after_server: Option<(At, u32)>,
    /// Every local file it loads could be read.
    pub complete: bool,
    pub files: usize,
}

/// Libraries that install a handler for TERM.
const HANDLERS: &[&str] = &[
    "@godaddy/terminus",
    "http-graceful-shutdown",
    "close-with-grace",
    "http-terminator",
    "lightship",
    "stoppable",
    "fastify-cli",
    "@nestjs/core",
    "death",
    "exit-hook",
    "async-exit-hook",
    "next",
];

/// The most files followed from an entry.
const FILES: usize = 200;

/// Reads an app from its entry on, along what it loads by relative paths.
pub fn read(entry: &str, open: &dyn Fn(&str) -> Opened) -> Option<NodeFacts> {
    let mut facts = NodeFacts { complete: true, ..NodeFacts::default() };
    let mut queue = vec![entry.to_owned()];
    let mut seen = Vec::new();
    while let Some(path) = queue.pop() {
        if seen.contains(&path) || seen.len() >= FILES {
            continue;
        }
        seen.push(path.clone());
        let candidates = ["", ".js", ".mjs", ".cjs", ".ts", "/index.js", "/index.ts"];
        let found = candidates.iter().find_map(|suffix| match open(&format!("{path}{suffix}")) {
            Opened::Text { text, .. } => Some(text),
            Opened::Missing => None,
        });
        let Some(text) = found else {
            facts.complete = false;
            continue;
        };
        facts.files += 1;
        scan(&text, &mut facts);
        let folder = path.rsplit_once('/').map_or(".", |(folder, _)| folder);
        for local in loads(&text.text).into_iter().filter(|name| name.starts_with('.')) {
            if !local.to_lowercase().ends_with(".json") {
                queue.push(crate::docker::image::join(folder, &local).trim_start_matches('/').to_owned());
                if path.starts_with('/') {
                    let last = queue.pop().unwrap_or_default();
                    queue.push(format!("/{last}"));
                }
            }
        }
    }
    (facts.files > 0).then_some(facts)
}

/// The names in `require('...')`, `from '...'` and `import '...'`.
fn loads(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for key in ["require(", "from ", "import ", "import("] {
        for (at, _) in text.match_indices(key) {
            let rest = text[at + key.len()..].trim_start();
            let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"' | '`')) else { continue };
            if let Some(name) = rest[1..].split(quote).next() {
                out.push(name.to_owned());
            }
        }
    }
    out
}

fn scan(text: &Mapped, facts: &mut NodeFacts) {
    let source = &text.text;
    let lines = Lines::new(text.file, source);
    let code = without_comments(source);
    let number = |name: &str, key: &str| -> Option<Sp<f64>> {
        code.match_indices(name).find_map(|(at, _)| {
            let rest = &code[at + name.len()..];
            let value = rest.trim_start().strip_prefix(key)?;
            let end = value.find([';', ',', '\n', '}', ')']).unwrap_or(value.len());
            let ms = product(value[..end].trim())?;
            let start =
                code[..at].rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$'))).map_or(0, |n| n + 1);
            let span = Span::new(start, at + name.len() + (rest.len() - value.len()) + end);
            Some(Sp { value: ms / 1000.0, at: lines.at(span) })
        })
    };
    let assigned = |name: &str| number(name, "=").or_else(|| number(name, ":"));
    facts.keep_alive = facts.keep_alive.take().or_else(|| assigned("keepAliveTimeout"));
    facts.headers_timeout = facts.headers_timeout.take().or_else(|| assigned("headersTimeout"));
    if code.contains("'connection'") || code.contains("\"connection\"") {
        facts.socket_timeout = facts.socket_timeout.take().or_else(|| number("socket.setTimeout", "("));
    }
    let names = loads(&code);
    facts.handles_term |= code.contains("SIGTERM") || names.iter().any(|name| HANDLERS.contains(&name.as_str()));
    facts.fastify |= names.iter().any(|name| name == "fastify");
    if let Some(at) = code.find(".close(").filter(|_| code.contains("SIGTERM")) {
        facts.closes = true;
        let start =
            code[..at].rfind(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.' | '$'))).map_or(0, |n| n + 1);
        facts.close_at.get_or_insert(lines.at(Span::new(start, at + 6)));
    }
    if let Some(term) = code.find("SIGTERM").filter(|_| !code.contains(".close(") && !code.contains(".shutdown(")) {
        let exit = code[term..].find("process.exit(").map(|at| term + at);
        if let Some((at, end)) = exit.and_then(|at| Some((at, at + code[at..].find(')')? + 1))) {
            facts.exits_as_arrow = code[..at].trim_end().ends_with("=>");
            facts.exits_at.get_or_insert(lines.at(Span::new(at, end)));
        }
    }
    facts.sheds |= code.contains("closeIdleConnections") || code.contains("closeAllConnections");
    facts.sheds |= code.contains("'Connection', 'close'") || code.contains("\"Connection\", \"close\"");
    if facts.server.is_none() {
        server(&code, &lines, facts);
    }
}

/// `const NAME = ....createServer(...)` or `....listen(...)`.
fn server(code: &str, lines: &Lines<'_>, facts: &mut NodeFacts) {
    let made = code.find(".createServer(").or_else(|| code.find("createServer(")).or_else(|| {
        code.match_indices(".listen(").map(|(at, _)| at).find(|at| {
            let line = &code[code[..*at].rfind('\n').map_or(0, |n| n + 1)..*at];
            line.contains('=')
        })
    });
    let Some(at) = made else { return };
    let start = code[..at].rfind('\n').map_or(0, |n| n + 1);
    let line = &code[start..at];
    let Some((left, _)) = line.split_once('=') else { return };
    let name = left.trim().rsplit(' ').next().unwrap_or_default().to_owned();
    let open = at + code[at..].find('(').unwrap_or_default();
    let (mut depth, mut end) = (0i32, open);
    for (n, c) in code[open..].char_indices() {
        match c {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            end = open + n + 1;
            break;
        }
    }
    // Calls may go on: `http.createServer(app).listen(80)` gives the server all the same.
    let rest = &code[end..];
    let stop = rest.find([';', '\n']).unwrap_or(rest.len());
    let semicolon = rest[stop..].starts_with(';');
    let end = end + stop + usize::from(semicolon);
    let indent = line.len() - line.trim_start().len();
    let begin = start + indent;
    facts.server = Some((lines.at(Span::new(begin, end)), name));
    facts.after_server = Some((lines.at(Span::new(end, end)), indent as u32));
}

/// The same text with comments blanked out, byte for byte.
fn without_comments(text: &str) -> String {
    let mut out = text.as_bytes().to_vec();
    let (mut at, mut quote) = (0, None);
    while at < out.len() {
        match (quote, out[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (None, byte @ (b'\'' | b'"' | b'`')) => quote = Some(byte),
            (None, b'/') if out.get(at + 1) == Some(&b'/') => {
                while at < out.len() && out[at] != b'\n' {
                    out[at] = b' ';
                    at += 1;
                }
            }
            (None, b'/') if out.get(at + 1) == Some(&b'*') => {
                while at < out.len() && !(out[at] == b'*' && out.get(at + 1) == Some(&b'/')) {
                    if out[at] != b'\n' {
                        out[at] = b' ';
                    }
                    at += 1;
                }
                out[at..].iter_mut().take(2).for_each(|byte| *byte = b' ');
            }
            // An apostrophe in a regular expression does not quote beyond its line.
            (Some(b'\'' | b'"'), b'\n') => quote = None,
            _ => {}
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// `65_000`, `65 * 1000`, `620e3`: a product of plain numbers.
pub fn product(text: &str) -> Option<f64> {
    text.split('*')
        .map(|factor| factor.trim().trim_matches(['(', ')']).replace('_', ""))
        .map(|factor| {
            let plain = factor.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'-'));
            factor.parse::<f64>().ok().filter(|n| plain && n.is_finite())
        })
        .product()
}
