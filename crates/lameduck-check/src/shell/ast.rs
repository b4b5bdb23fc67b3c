//! A shell script as far as it decides which process is which.

use crate::span::Span;

/// One word, with its quotes taken off. Expansions stay in it as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    pub text: String,
    /// Nothing in it is expanded.
    pub literal: bool,
    /// Part of it was quoted.
    pub quoted: bool,
    /// It is a process substitution, `>(...)` or `<(...)`.
    pub process: bool,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub operator: String,
    pub target: Word,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Simple {
    pub assigns: Vec<Word>,
    pub words: Vec<Word>,
    pub redirects: Vec<Redirect>,
    pub span: Span,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Simple(Simple),
    /// `{ ...; }`
    Group(List),
    /// `( ... )`
    Subshell(List),
    /// Conditions with their bodies, and `else`.
    If(Vec<(List, List)>, Option<List>),
    /// `while`, `until`: condition and body.
    While(List, List),
    /// `for`, `select`.
    For(List),
    /// The subject, and patterns with their bodies.
    Case(Word, Vec<(Vec<Word>, List)>),
    Function(String, Box<Command>),
    /// `[[ ]]` and `(( ))`.
    Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub kind: Kind,
    /// Of a compound command; a simple one has its own.
    pub redirects: Vec<Redirect>,
    pub span: Span,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pipeline {
    pub negated: bool,
    pub commands: Vec<Command>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joint {
    And,
    Or,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AndOr {
    pub first: Pipeline,
    pub rest: Vec<(Joint, Pipeline)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub and_or: AndOr,
    /// Ended by `&`.
    pub background: bool,
    pub span: Span,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Script {
    pub list: List,
    /// The text ended in a newline: busybox does not replace itself then.
    pub newline_at_end: bool,
    /// It uses what only bash and busybox read, such as `>(...)`.
    pub process_substitution: bool,
}
