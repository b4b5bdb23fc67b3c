//! Changes to files that leave every other byte as it was.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::span::{FileId, Span};

/// A replacement of bytes; an empty span inserts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Edit {
    pub file: FileId,
    pub span: Span,
    pub text: String,
}

/// What makes a finding go away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fix {
    /// It changes nothing but what the finding is about.
    pub safe: bool,
    /// What it changes, on the timeline.
    pub what: String,
    pub edits: Vec<Edit>,
}

/// A place among the keys of a block mapping where another key can stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Insert {
    pub file: FileId,
    pub offset: u32,
    pub indent: u32,
    /// After the line of a key, or before a key.
    pub after: bool,
}

impl Insert {
    /// Adds these lines, each indented as the mapping is.
    pub fn lines(self, lines: &[String]) -> Edit {
        let indent = " ".repeat(self.indent as usize);
        let mut text = String::new();
        for line in lines {
            let _ = if self.after { write!(text, "\n{indent}{line}") } else { write!(text, "{line}\n{indent}") };
        }
        Edit { file: self.file, span: Span { start: self.offset, end: self.offset }, text }
    }
}

/// Applies the edits of one file. Those that overlap an earlier one are left out, as a second run will meet them again.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort();
    sorted.dedup();
    let mut out = String::with_capacity(text.len() + 256);
    let mut at = 0;
    for edit in sorted {
        let (start, end) = (edit.span.start as usize, edit.span.end as usize);
        if start < at || end > text.len() || !text.is_char_boundary(start) || !text.is_char_boundary(end) {
            continue;
        }
        out.push_str(&text[at..start]);
        if newline == "\n" {
            out.push_str(&edit.text);
        } else {
            out.push_str(&edit.text.replace('\n', newline));
        }
        at = end;
    }
    out.push_str(&text[at..]);
    out
}

/// The change as a unified diff with three lines of context, as `diff -u` writes it.
pub fn diff(path: &str, before: &str, after: &str) -> String {
    const CONTEXT: usize = 3;
    let old: Vec<&str> = before.split_inclusive('\n').collect();
    let new: Vec<&str> = after.split_inclusive('\n').collect();
    let hunks = changes(&old, &new);
    if hunks.is_empty() {
        return String::new();
    }
    let mut out = format!("--- a/{path}\n+++ b/{path}\n");
    let mut n = 0;
    while n < hunks.len() {
        let mut last = n;
        while last + 1 < hunks.len() && hunks[last + 1].0.start - hunks[last].0.end <= 2 * CONTEXT {
            last += 1;
        }
        let from = hunks[n].0.start.saturating_sub(CONTEXT);
        let to = (hunks[last].0.end + CONTEXT).min(old.len());
        let new_from = hunks[n].1.start - (hunks[n].0.start - from);
        let new_to = hunks[last].1.end + (to - hunks[last].0.end);
        let _ = writeln!(out, "@@ -{},{} +{},{} @@", from + 1, to - from, new_from + 1, new_to - new_from);
        let mut at = from;
        let mut line = |sign: char, text: &str| {
            out.push(sign);
            out.push_str(text);
            if !text.ends_with('\n') {
                out.push_str("\n\\ No newline at end of file\n");
            }
        };
        for (was, is) in &hunks[n..=last] {
            old[at..was.start].iter().for_each(|text| line(' ', text));
            old[was.clone()].iter().for_each(|text| line('-', text));
            new[is.clone()].iter().for_each(|text| line('+', text));
            at = was.end;
        }
        old[at..to].iter().for_each(|text| line(' ', text));
        n = last + 1;
    }
    out
}

type Range = std::ops::Range<usize>;

/// What differs. Fixes are few and small, so a greedy search for the next common line is enough.
fn changes(old: &[&str], new: &[&str]) -> Vec<(Range, Range)> {
    const AHEAD: usize = 200;
    let (mut i, mut j, mut out) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            i += 1;
            j += 1;
            continue;
        }
        let mut found = (old.len(), new.len());
        'search: for total in 1..AHEAD {
            for a in 0..=total {
                let b = total - a;
                if i + a < old.len() && j + b < new.len() && old[i + a] == new[j + b] {
                    found = (i + a, j + b);
                    break 'search;
                }
            }
        }
        out.push((i..found.0, j..found.1));
        (i, j) = found;
    }
    out
}
