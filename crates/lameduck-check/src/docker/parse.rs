//! Dockerfile syntax: <https://docs.docker.com/reference/dockerfile/>.

use crate::span::{FileId, Mapped, Span};

/// Every instruction of the reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    Stopsignal,
    User,
    Volume,
    Workdir,
}

const KEYWORDS: [(&str, Keyword); 18] = [
    ("ADD", Keyword::Add),
    ("ARG", Keyword::Arg),
    ("CMD", Keyword::Cmd),
    ("COPY", Keyword::Copy),
    ("ENTRYPOINT", Keyword::Entrypoint),
    ("ENV", Keyword::Env),
    ("EXPOSE", Keyword::Expose),
    ("FROM", Keyword::From),
    ("HEALTHCHECK", Keyword::Healthcheck),
    ("LABEL", Keyword::Label),
    ("MAINTAINER", Keyword::Maintainer),
    ("ONBUILD", Keyword::Onbuild),
    ("RUN", Keyword::Run),
    ("SHELL", Keyword::Shell),
    ("STOPSIGNAL", Keyword::Stopsignal),
    ("USER", Keyword::User),
    ("VOLUME", Keyword::Volume),
    ("WORKDIR", Keyword::Workdir),
];

#[derive(Debug, Clone)]
pub struct Heredoc {
    pub name: String,
    pub text: Mapped,
}

#[derive(Debug, Clone)]
pub struct Instruction {
    pub keyword: Keyword,
    /// After ONBUILD: what it is to do later.
    pub onbuild: bool,
    pub flags: Vec<String>,
    /// What follows the keyword and its flags, continued lines joined.
    pub body: Mapped,
    /// The body as an array, where it is a valid one.
    pub array: Option<Vec<Mapped>>,
    pub heredocs: Vec<Heredoc>,
    /// From the keyword to the end of the last line.
    pub span: Span,
}

/// A line that can not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    pub line: usize,
    pub why: String,
}

#[derive(Debug, Clone, Default)]
pub struct Dockerfile {
    pub instructions: Vec<Instruction>,
    pub bad: Vec<Bad>,
}

/// A line with its offset and number.
#[derive(Clone, Copy)]
struct Line<'t> {
    text: &'t str,
    offset: usize,
    number: usize,
}

/// Reads a Dockerfile. What can not be read is listed, and the rest is read all the same.
pub fn parse(file: FileId, text: &str) -> Dockerfile {
    let text_start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut lines = Vec::new();
    let mut offset = text_start;
    for (n, line) in text[text_start..].split_inclusive('\n').enumerate() {
        lines.push(Line { text: line.trim_end_matches(['\n', '\r']), offset, number: n + 1 });
        offset += line.len();
    }
    let escape = escape(&lines);
    let mut out = Dockerfile::default();
    let mut at = 0;
    while at < lines.len() {
        let first = lines[at];
        if first.text.trim().is_empty() || first.text.trim_start().starts_with('#') {
            at += 1;
            continue;
        }
        let (joined, end, next) = join(file, &lines, at, escape);
        match instruction(&joined, Span::new(joined.offset(0) as usize, end)) {
            Ok(mut instruction) => {
                at = heredocs(&mut instruction, &lines, next, &mut out.bad);
                out.instructions.push(instruction);
            }
            Err(why) => {
                out.bad.push(Bad { line: first.number, why });
                at = next;
            }
        }
    }
    out
}

/// Parser directives stand before everything else, one a comment.
fn escape(lines: &[Line<'_>]) -> char {
    for line in lines {
        let Some(comment) = line.text.trim().strip_prefix('#') else { break };
        let Some((name, value)) = comment.split_once('=') else { break };
        if name.trim().eq_ignore_ascii_case("escape") {
            return if value.trim() == "`" { '`' } else { '\\' };
        }
        if !name.trim().chars().all(|c| c.is_ascii_alphanumeric()) {
            break;
        }
    }
    '\\'
}

/// The logical line that begins at `at`: its text, where it ends, and the number of the line after it.
fn join(file: FileId, lines: &[Line<'_>], at: usize, escape: char) -> (Mapped, usize, usize) {
    let mut joined = Mapped::of(file);
    let mut next = at;
    let mut end = lines[at].offset;
    while let Some(line) = lines.get(next) {
        next += 1;
        // Comments and empty lines inside a continued instruction are dropped.
        if next - 1 > at && (line.text.trim_start().starts_with('#') || line.text.trim().is_empty()) {
            continue;
        }
        let text = if next - 1 == at { line.text.trim_start() } else { line.text };
        let offset = line.offset + line.text.len() - text.len();
        let trimmed = text.trim_end_matches([' ', '\t']);
        end = line.offset + line.text.trim_end().len();
        if let Some(kept) = trimmed.strip_suffix(escape) {
            joined.push(kept, offset);
        } else {
            joined.push(text, offset);
            break;
        }
    }
    (joined, end, next)
}

fn instruction(joined: &Mapped, span: Span) -> Result<Instruction, String> {
    let (keyword, mut rest) = keyword(joined)?;
    let mut onbuild = false;
    let mut which = keyword;
    if keyword == Keyword::Onbuild {
        onbuild = true;
        (which, rest) = self::keyword(&rest).map_err(|why| format!("ONBUILD: {why}"))?;
    }
    let mut flags = Vec::new();
    while rest.text.starts_with("--") && takes_flags(which) {
        let end = rest.text.find(char::is_whitespace).unwrap_or(rest.text.len());
        flags.push(rest.text[..end].to_owned());
        let blank = rest.text[end..].len() - rest.text[end..].trim_start().len();
        rest = rest.tail(end + blank);
    }
    if rest.text.trim().is_empty() && which != Keyword::Healthcheck {
        return Err(format!("{} has no arguments", name(which)));
    }
    let array = if rest.text.trim_start().starts_with('[') { string_array(&rest) } else { None };
    Ok(Instruction { keyword: which, onbuild, flags, body: rest, array, heredocs: Vec::new(), span })
}

pub fn name(keyword: Keyword) -> &'static str {
    KEYWORDS.iter().find(|(_, known)| *known == keyword).map_or("", |(name, _)| name)
}

fn takes_flags(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::Add | Keyword::Copy | Keyword::From | Keyword::Healthcheck | Keyword::Run)
}

fn keyword(joined: &Mapped) -> Result<(Keyword, Mapped), String> {
    let text = joined.text.trim_start();
    let skipped = joined.text.len() - text.len();
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let word = &text[..end];
    let found = KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
    let Some((_, keyword)) = found else {
        let shown: String = word.chars().take(40).collect();
        return Err(format!("{shown:?} is no instruction of a Dockerfile"));
    };
    let blank = text[end..].len() - text[end..].trim_start().len();
    Ok((*keyword, joined.tail(skipped + end + blank)))
}

/// A JSON array of strings, each with its place. Anything else is `None`, and thereby shell form.
pub fn string_array(body: &Mapped) -> Option<Vec<Mapped>> {
    let text = body.text.trim_end();
    let values: Vec<String> = serde_json::from_str(text).ok()?;
    let mut out = Vec::new();
    let mut at = text.find('[')? + 1;
    for value in values {
        at += text[at..].find('"')?;
        let start = at + 1;
        at = start;
        loop {
            match text.as_bytes().get(at)? {
                b'\\' => at += 2,
                b'"' => break,
                _ => at += 1,
            }
        }
        let mut word = Mapped::of(body.file);
        if text[start..at].contains('\\') {
            word.push(&value, body.offset(start as u32) as usize);
        } else {
            // Unescaped, it may still stand on more than one line.
            word = piece(body, start, at);
        }
        out.push(word);
        at += 1;
    }
    Some(out)
}

/// A part of a mapped text.
pub fn piece(body: &Mapped, start: usize, end: usize) -> Mapped {
    let mut tail = body.tail(start);
    tail.text.truncate(end - start);
    tail
}

/// Takes the here-documents that an instruction announces; gives the line after them.
fn heredocs(instruction: &mut Instruction, lines: &[Line<'_>], next: usize, bad: &mut Vec<Bad>) -> usize {
    let mut at = next;
    if !matches!(instruction.keyword, Keyword::Add | Keyword::Copy | Keyword::Run) {
        return at;
    }
    for (name, strip) in announced(&instruction.body.text) {
        let mut text = Mapped::of(instruction.body.file);
        let began = at;
        loop {
            let Some(line) = lines.get(at) else {
                bad.push(Bad { line: lines[began.saturating_sub(1)].number, why: format!("<<{name} without its end") });
                break;
            };
            at += 1;
            let content = if strip { line.text.trim_start_matches('\t') } else { line.text };
            if content == name {
                break;
            }
            text.push(content, line.offset + line.text.len() - content.len());
            text.push("\n", line.offset + line.text.len());
        }
        instruction.heredocs.push(Heredoc { name, text });
    }
    if at > next {
        instruction.span.end = lines[at - 1].offset as u32 + lines[at - 1].text.len() as u32;
    }
    at
}

/// `<<NAME`, `<<-NAME`, `<<"NAME"`, and not `<<<`. Inside quotes it is text.
fn announced(body: &str) -> Vec<(String, bool)> {
    let bytes = body.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut quote) = (0, None);
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (None, b'"' | b'\'') => quote = Some(bytes[at]),
            (Some(open), byte) if open == byte => quote = None,
            (_, b'\\') => at += 1,
            (None, b'<') if body[at..].starts_with("<<<") => at += 2,
            (None, b'<') if body[at..].starts_with("<<") => {
                let rest = &body[at + 2..];
                let (strip, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
                let name = match rest.chars().next() {
                    Some(open @ ('"' | '\'')) => rest[1..].split(open).next().unwrap_or_default(),
                    _ => rest.split(|c: char| c.is_whitespace() || ";&|<>()\"'".contains(c)).next().unwrap_or_default(),
                };
                let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-' || c == '.');
                if !name.is_empty() && plain && !name.starts_with(|c: char| c.is_ascii_digit()) {
                    found.push((name.to_owned(), strip));
                }
                at += 1;
            }
            _ => {}
        }
        at += 1;
        while at < bytes.len() && !body.is_char_boundary(at) {
            at += 1;
        }
    }
    found
}

/// Words, as COPY and EXPOSE have them: quotes hold blanks together.
pub fn words(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    let (mut word, mut quote, mut began) = (String::new(), None, false);
    for c in text.chars() {
        match (quote, c) {
            (None, '"' | '\'') => {
                quote = Some(c);
                began = true;
            }
            (Some(open), c) if open == c => quote = None,
            (None, c) if c.is_whitespace() => {
                if began || !word.is_empty() {
                    out.push(std::mem::take(&mut word));
                }
                began = false;
            }
            _ => word.push(c),
        }
    }
    if began || !word.is_empty() {
        out.push(word);
    }
    out
}
