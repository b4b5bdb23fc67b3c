//! YAML as a tree whose every node knows its bytes. Bounded: what nests, repeats or refers without end is refused.

pub mod value;

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::span::{At, Lines, Mapped, Span};

/// The largest file that is read. Kubernetes itself takes no object above 1.5 MiB (etcd's request limit).
pub const LARGEST: usize = 32 << 20;
/// How deep collections may nest.
const DEPTH: usize = 100;
/// Nodes a document may have.
const NODES: usize = 2_000_000;
/// Aliases a document may have.
const ALIASES: usize = 10_000;

/// A node of a document, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(u32);

#[derive(Debug, Clone)]
pub enum Value {
    Scalar { text: String, style: ScalarStyle },
    Seq(Vec<Id>),
    Map { pairs: Vec<(Id, Id)>, flow: bool },
}

#[derive(Debug, Clone)]
struct Item {
    value: Value,
    span: Span,
}

/// One document.
#[derive(Debug)]
pub struct Document<'t> {
    items: Vec<Item>,
    root: Id,
    lines: &'t Lines<'t>,
}

/// What can not be read, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bad {
    pub line: usize,
    pub why: String,
}

/// The documents of a text: where each begins and its text. `---` at the start of a line always ends one.
pub fn split(text: &str) -> Vec<(usize, &str)> {
    let mut cuts = Vec::new();
    let mut start = if text.starts_with('\u{feff}') { 3 } else { 0 };
    let mut content = false;
    let mut at = start;
    for line in text[start..].split_inclusive('\n') {
        let bare = line.trim_end();
        let marker = line.starts_with("---") && bare.as_bytes().get(3).is_none_or(|byte| matches!(byte, b' ' | b'\t'));
        if marker && content {
            cuts.push((start, &text[start..at]));
            start = at;
            content = false;
        }
        let trimmed = bare.trim_start();
        let rest = if marker { trimmed[3..].trim() } else { trimmed };
        content |= !(rest.is_empty() || rest.starts_with('#') || line.starts_with('%') || bare == "...");
        at += line.len();
    }
    if content {
        cuts.push((start, &text[start..]));
    }
    cuts
}

/// How many closing brackets at the margin a document may have.
const MARGINAL: usize = 200;

/// Reads the document that begins at `start`. `None`: there is nothing in it.
///
/// A bracket may close in the column of its key: YAML 1.2 forbids it, and the libraries of kubectl and Compose read it.
pub fn read<'t>(lines: &'t Lines<'t>, start: usize, text: &str) -> Result<Option<Document<'t>>, Bad> {
    let mut bad = match read_strictly(lines, start, text, None) {
        Ok(read) => return Ok(read),
        Err(bad) if text.len() <= 1 << 20 => bad,
        Err(bad) => return Err(bad),
    };
    let said = bad.clone();
    // Places are counted by characters then, and not by lines, of which the second reading has fewer.
    let offsets: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    let mut joined = text.to_owned();
    for _ in 0..MARGINAL {
        // The parser counts the lines that were joined no more: the first bracket from there on is meant.
        let from = lines.start_of(bad.line).saturating_sub(start);
        let Some(line_break) = marginal_bracket(&joined, from) else { return Err(said) };
        joined.replace_range(line_break..=line_break, " ");
        if joined.as_bytes().get(line_break.wrapping_sub(1)) == Some(&b'\r') {
            joined.replace_range(line_break - 1..line_break, " ");
        }
        match read_strictly(lines, start, &joined, Some(&offsets)) {
            Ok(read) => return Ok(read),
            Err(next) => bad = next,
        }
    }
    Err(said)
}

/// The line break before the first line from there on that holds nothing but closing brackets.
fn marginal_bracket(text: &str, from: usize) -> Option<usize> {
    let mut at = from.min(text.len());
    for line in text.get(at..)?.split_inclusive('\n') {
        let bare = line.trim();
        let closes = !bare.is_empty() && bare.bytes().all(|byte| matches!(byte, b']' | b'}' | b','));
        let before = at.checked_sub(1).filter(|before| text.as_bytes().get(*before) == Some(&b'\n'));
        if let Some(line_break) = before.filter(|_| closes) {
            let last = text[..line_break].rsplit('\n').next().unwrap_or_default();
            // A comment would swallow the bracket.
            return (!last.contains('#')).then_some(line_break);
        }
        at += line.len();
    }
    None
}

fn read_strictly<'t>(
    lines: &'t Lines<'t>,
    start: usize,
    text: &str,
    offsets: Option<&[usize]>,
) -> Result<Option<Document<'t>>, Bad> {
    let first = lines.line_of(start);
    let mut builder = Builder { items: Vec::new(), open: Vec::new(), anchors: HashMap::new(), aliases: 0, root: None };
    let ascii = text.is_ascii();
    let place = |marker: Marker| {
        if let Some(offsets) = offsets {
            start + offsets.get(marker.index()).copied().unwrap_or(text.len())
        } else if ascii {
            start + marker.index().min(text.len())
        } else {
            lines.offset(first + marker.line() - 1, marker.col())
        }
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| {
            let line = first + error.marker().line().max(1) - 1;
            Bad { line, why: format!("YAML: {}", error.info()) }
        })?;
        let bytes = Span::new(place(span.start), place(span.end));
        let line = first + span.start.line().max(1) - 1;
        let done = matches!(event, Event::StreamEnd);
        builder.take(event, bytes, lines.text()).map_err(|why| Bad { line, why })?;
        if done {
            break;
        }
    }
    Ok(builder.root.map(|root| Document { items: builder.items, root, lines }))
}

/// A collection that is being read: its node, its anchor, and for a mapping the key that waits for its value.
struct Open {
    id: Id,
    anchor: usize,
    key: Option<Id>,
}

struct Builder {
    items: Vec<Item>,
    open: Vec<Open>,
    anchors: HashMap<usize, Id>,
    aliases: usize,
    root: Option<Id>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span, text: &str) -> Result<(), String> {
        match event {
            Event::Scalar(value, style, anchor, _) => {
                let span = exact(span, style, &value, text);
                let id = self.add(Item { value: Value::Scalar { text: value.into_owned(), style }, span })?;
                if anchor > 0 {
                    self.anchors.insert(anchor, id);
                }
                self.attach(id);
            }
            Event::SequenceStart(anchor, _) => {
                let id = self.add(Item { value: Value::Seq(Vec::new()), span })?;
                self.begin(id, anchor)?;
            }
            Event::MappingStart(anchor, _) => {
                let flow = text.as_bytes().get(span.start as usize) == Some(&b'{');
                let id = self.add(Item { value: Value::Map { pairs: Vec::new(), flow }, span })?;
                self.begin(id, anchor)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                self.items[open.id.0 as usize].span.end = span.end;
                if open.anchor > 0 {
                    self.anchors.insert(open.anchor, open.id);
                }
                self.attach(open.id);
            }
            Event::Alias(anchor) => {
                self.aliases += 1;
                if self.aliases > ALIASES {
                    return Err(format!("refused: more than {ALIASES} aliases in one document"));
                }
                // An anchor is entered when its node is complete, so nothing can contain itself.
                let id = *self.anchors.get(&anchor).ok_or("refused: an alias inside of what it refers to")?;
                self.attach(id);
            }
            _ => {}
        }
        Ok(())
    }

    fn add(&mut self, item: Item) -> Result<Id, String> {
        if self.items.len() >= NODES {
            return Err(format!("refused: more than {NODES} nodes in one document"));
        }
        self.items.push(item);
        Ok(Id(self.items.len() as u32 - 1))
    }

    fn begin(&mut self, id: Id, anchor: usize) -> Result<(), String> {
        if self.open.len() >= DEPTH {
            return Err(format!("refused: nested more than {DEPTH} deep"));
        }
        self.open.push(Open { id, anchor, key: None });
        Ok(())
    }

    fn attach(&mut self, id: Id) {
        let Some(open) = self.open.last_mut() else {
            self.root.get_or_insert(id);
            return;
        };
        match &mut self.items[open.id.0 as usize].value {
            Value::Seq(items) => items.push(id),
            Value::Map { pairs, .. } => match open.key.take() {
                None => open.key = Some(id),
                Some(key) => pairs.push((key, id)),
            },
            Value::Scalar { .. } => {}
        }
    }
}

/// The bytes of a scalar itself: parsers let the end run into blanks and comments.
fn exact(span: Span, style: ScalarStyle, value: &str, text: &str) -> Span {
    let start = span.start as usize;
    let rest = text.get(start..).unwrap_or_default();
    match style {
        ScalarStyle::Plain if rest.starts_with(value) => Span::new(start, start + value.len()),
        ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
            let quote = if style == ScalarStyle::SingleQuoted { '\'' } else { '"' };
            let inner = format!("{quote}{value}{quote}");
            if rest.starts_with(&inner) { Span::new(start, start + inner.len()) } else { span }
        }
        ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => span,
    }
}

/// A node of a document.
#[derive(Debug, Clone, Copy)]
pub struct Node<'d> {
    document: &'d Document<'d>,
    id: Id,
}

impl<'t> Document<'t> {
    pub fn root(&'t self) -> Node<'t> {
        Node { document: self, id: self.root }
    }
}

impl<'d> Node<'d> {
    fn item(self) -> &'d Item {
        &self.document.items[self.id.0 as usize]
    }

    fn with(self, id: Id) -> Node<'d> {
        Node { document: self.document, id }
    }

    pub fn span(self) -> Span {
        self.item().span
    }

    pub fn at(self) -> At {
        self.document.lines.at(self.item().span)
    }

    pub fn text(self) -> Option<&'d str> {
        match &self.item().value {
            Value::Scalar { text, .. } => Some(text),
            Value::Seq(_) | Value::Map { .. } => None,
        }
    }

    /// `~`, `null` or nothing at all.
    pub fn is_null(self) -> bool {
        match &self.item().value {
            Value::Scalar { text, style } => *style == ScalarStyle::Plain && matches!(text.as_str(), "" | "~" | "null"),
            Value::Seq(_) | Value::Map { .. } => false,
        }
    }

    pub fn items(self) -> Vec<Node<'d>> {
        match &self.item().value {
            Value::Seq(items) => items.iter().map(|id| self.with(*id)).collect(),
            Value::Scalar { .. } | Value::Map { .. } => Vec::new(),
        }
    }

    pub fn is_map(self) -> bool {
        matches!(self.item().value, Value::Map { .. })
    }

    pub fn is_seq(self) -> bool {
        matches!(self.item().value, Value::Seq(_))
    }

    /// A mapping in braces.
    pub fn is_flow(self) -> bool {
        matches!(self.item().value, Value::Map { flow: true, .. })
    }

    /// Keys and values, as written.
    pub fn pairs(self) -> Vec<(Node<'d>, Node<'d>)> {
        match &self.item().value {
            Value::Map { pairs, .. } => pairs.iter().map(|(key, value)| (self.with(*key), self.with(*value))).collect(),
            Value::Scalar { .. } | Value::Seq(_) => Vec::new(),
        }
    }

    /// The pair of a key, also out of what is merged in by `<<`.
    pub fn pair(self, key: &str) -> Option<(Node<'d>, Node<'d>)> {
        self.pair_within(key, 8)
    }

    fn pair_within(self, key: &str, depth: usize) -> Option<(Node<'d>, Node<'d>)> {
        let Value::Map { pairs, .. } = &self.item().value else { return None };
        let own = pairs.iter().find(|(name, _)| self.with(*name).text() == Some(key));
        if let Some((name, value)) = own {
            return Some((self.with(*name), self.with(*value)));
        }
        let merged = pairs.iter().find(|(name, _)| self.with(*name).text() == Some("<<"))?;
        if depth == 0 {
            return None;
        }
        let merged = self.with(merged.1);
        let sources = if merged.is_seq() { merged.items() } else { vec![merged] };
        sources.into_iter().find_map(|source| source.pair_within(key, depth - 1))
    }

    pub fn get(self, key: &str) -> Option<Node<'d>> {
        self.pair(key).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// A value deeper down.
    pub fn path(self, path: &[&str]) -> Option<Node<'d>> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    pub fn str(self, key: &str) -> Option<&'d str> {
        self.get(key)?.text()
    }

    /// Whole numbers, also with a fraction or in quotes.
    pub fn number(self) -> Option<f64> {
        self.text()?.replace('_', "").parse::<f64>().ok().filter(|n| n.is_finite())
    }

    pub fn bool(self) -> Option<bool> {
        match self.text()? {
            "true" | "True" | "TRUE" => Some(true),
            "false" | "False" | "FALSE" => Some(false),
            _ => None,
        }
    }

    /// The text of a scalar, with where each part of it stands in the file.
    pub fn mapped(self) -> Mapped {
        let Value::Scalar { text, style } = &self.item().value else { return Mapped::of(self.document.lines.file()) };
        let mut mapped = Mapped::of(self.document.lines.file());
        let start = self.item().span.start as usize;
        match style {
            ScalarStyle::Plain if self.item().span.of(self.document.lines.text()) == text => mapped.push(text, start),
            ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => mapped.push(text, start + 1),
            ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => {
                by_lines(&mut mapped, text, start, self.document.lines);
            }
        }
        mapped
    }

    /// The text of a line of the file.
    pub fn lines(self) -> &'d Lines<'d> {
        self.document.lines
    }
}

/// Each line of a block is looked for in the lines of the file, in order.
fn by_lines(mapped: &mut Mapped, text: &str, start: usize, lines: &Lines<'_>) {
    let mut line = lines.line_of(start);
    for piece in text.split_inclusive('\n') {
        let bare: Cow<'_, str> = piece.trim_end_matches('\n').into();
        let mut offset = start;
        if !bare.trim().is_empty() {
            for ahead in line..line + 200 {
                let whole = lines.line(ahead);
                if let Some(at) = whole.find(bare.as_ref()) {
                    offset = lines.start_of(ahead) + at;
                    line = ahead + 1;
                    break;
                }
            }
        }
        mapped.push(piece, offset);
    }
}
