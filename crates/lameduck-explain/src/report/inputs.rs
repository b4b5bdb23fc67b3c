//! What was read, and how the clocks of inputs differ.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::books::{Books, InputBook};
use crate::join::Joined;
use crate::read;
use crate::time::{Micros, show};

/// One input.
#[derive(Debug, Clone, Serialize)]
pub struct InputReport {
    /// Its name.
    pub name: String,
    /// Its formats, with their lines.
    pub formats: BTreeMap<&'static str, u64>,
    /// Lines, objects or frames.
    pub lines: u64,
    /// Those that no format knows.
    pub unparsed: u64,
    /// Some of them.
    pub samples: Vec<Sample>,
    /// Requests.
    pub requests: u64,
    /// The first time in it.
    pub first: Option<String>,
    /// The last.
    pub last: Option<String>,
}

/// An unparsed line.
#[derive(Debug, Clone, Serialize)]
pub struct Sample {
    /// Its number.
    pub line: u64,
    /// Its beginning.
    pub text: String,
}

/// How two clocks differ.
#[derive(Debug, Clone, Serialize)]
pub struct Offset {
    /// One input.
    pub input: String,
    /// The other.
    pub other: String,
    /// How far the other is ahead, seconds.
    pub ahead_s: f64,
    /// From how many requests.
    pub requests: u64,
}

pub(super) fn inputs(books: &Books, names: &[String]) -> Vec<InputReport> {
    let report = |(name, book): (&String, &InputBook)| InputReport {
        name: name.clone(),
        formats: book
            .formats
            .iter()
            .enumerate()
            .filter(|(_, lines)| **lines > 0)
            .map(|(format, lines)| (read::name(format), *lines))
            .collect(),
        lines: book.lines,
        unparsed: book.unparsed,
        samples: book.samples.iter().map(|(line, text)| Sample { line: *line, text: text.clone() }).collect(),
        requests: book.requests,
        first: book.span.map(|(first, _)| show(first)),
        last: book.span.map(|(_, last)| show(last)),
    };
    names.iter().zip(&books.inputs).map(report).collect()
}

pub(super) fn offsets(joined: &Joined, names: &[String]) -> Vec<Offset> {
    let name = |input: u16| names.get(usize::from(input)).cloned().unwrap_or_default();
    let offset = |(input, other, ahead, requests): &(u16, u16, Micros, u64)| Offset {
        input: name(*input),
        other: name(*other),
        ahead_s: *ahead as f64 / 1e6,
        requests: *requests,
    };
    joined.offsets.iter().map(offset).collect()
}
