//! Where things are: byte ranges of a file, and the lines and columns people know them by.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A range of bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// The byte after the last.
    pub end: u32,
}

impl Span {
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }

    pub fn of(self, text: &str) -> &str {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// A file among the inputs, by number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileId(pub u32);

/// A place in a file. Line and column are kept beside the span because the text is not: a fact outlives the file it was
/// read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct At {
    pub file: FileId,
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
    pub span: Span,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sp<T> {
    pub value: T,
    pub at: At,
}

/// Finds lines by offset.
#[derive(Debug)]
pub struct Lines<'t> {
    text: &'t str,
    file: FileId,
    starts: Cow<'t, [u32]>,
}

/// A text and its lines, for many questions about one file.
#[derive(Debug)]
pub struct Lined {
    text: String,
    file: FileId,
    starts: Vec<u32>,
}

impl Lined {
    pub fn new(file: FileId, text: String) -> Lined {
        let starts = starts(&text);
        Lined { text, file, starts }
    }

    pub fn lines(&self) -> Lines<'_> {
        Lines { text: &self.text, file: self.file, starts: Cow::Borrowed(&self.starts) }
    }
}

fn starts(text: &str) -> Vec<u32> {
    let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(n, _)| n as u32 + 1);
    std::iter::once(0).chain(breaks).collect()
}

impl<'t> Lines<'t> {
    pub fn new(file: FileId, text: &'t str) -> Lines<'t> {
        Lines { text, file, starts: Cow::Owned(starts(text)) }
    }

    pub fn file(&self) -> FileId {
        self.file
    }

    pub fn text(&self) -> &'t str {
        self.text
    }

    /// Where a line (from 1) begins.
    pub fn start_of(&self, line: usize) -> usize {
        self.starts.get(line.saturating_sub(1)).map_or(self.text.len(), |start| *start as usize)
    }

    /// The byte offset of a column in characters (from 0) of a line (from 1).
    pub fn offset(&self, line: usize, column: usize) -> usize {
        let start = self.start_of(line);
        let rest = &self.text[start..];
        rest.char_indices().nth(column).map_or(self.text.len(), |(at, _)| start + at)
    }

    pub fn line_of(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start as usize <= offset).max(1)
    }

    /// The text of a line without its end.
    pub fn line(&self, line: usize) -> &'t str {
        let start = self.start_of(line).min(self.text.len());
        let end = self.starts.get(line).map_or(self.text.len(), |end| *end as usize);
        self.text[start..end].trim_end_matches(['\n', '\r'])
    }

    pub fn at(&self, span: Span) -> At {
        let offset = (span.start as usize).min(self.text.len());
        let line = self.line_of(offset);
        let before = self.text.get(self.start_of(line)..offset).unwrap_or_default();
        At { file: self.file, line: line as u32, column: before.chars().count() as u32 + 1, span }
    }
}

/// A text put together from pieces of a file (continued lines, a quoted scalar), which still knows where each came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mapped {
    pub text: String,
    pub file: FileId,
    /// Offsets into `text`, and where in the file the run that begins there begins. Ascending.
    runs: Vec<(u32, u32)>,
}

impl Mapped {
    /// A text that stands in the file as it is.
    pub fn plain(file: FileId, text: &str, offset: usize) -> Mapped {
        Mapped { text: text.to_owned(), file, runs: vec![(0, offset as u32)] }
    }

    /// A word that stands in no file.
    pub fn word(text: &str) -> Mapped {
        Mapped { text: text.to_owned(), ..Mapped::default() }
    }

    /// An empty text of a file.
    pub fn of(file: FileId) -> Mapped {
        Mapped { file, ..Mapped::default() }
    }

    /// It stands in a file.
    pub fn is_placed(&self) -> bool {
        !self.runs.is_empty()
    }

    pub fn push(&mut self, piece: &str, offset: usize) {
        self.runs.push((self.text.len() as u32, offset as u32));
        self.text.push_str(piece);
    }

    /// Where in the file a byte of the text is.
    pub fn offset(&self, at: u32) -> u32 {
        let run = self.runs.partition_point(|(from, _)| *from <= at);
        match run.checked_sub(1).and_then(|n| self.runs.get(n)) {
            Some((from, file)) => file + (at - from),
            None => self.runs.first().map_or(at, |(_, file)| *file),
        }
    }

    pub fn span(&self, span: Span) -> Span {
        let start = self.offset(span.start);
        let end = if span.end > span.start { self.offset(span.end - 1) + 1 } else { start };
        Span { start, end: end.max(start) }
    }

    /// The part of the text from `start` on.
    pub fn tail(&self, start: usize) -> Mapped {
        let mut runs = vec![(0, self.offset(start as u32))];
        runs.extend(
            self.runs
                .iter()
                .filter(|(from, _)| *from as usize > start)
                .map(|(from, file)| (from - start as u32, *file)),
        );
        Mapped { text: self.text[start..].to_owned(), file: self.file, runs }
    }
}
