//! Which program a script ends up as, and whether the shell stays its parent. The rules are those that were measured: see
//! `tests/data/shell-exec.tsv`.

use std::collections::BTreeMap;

use super::ast::{Command, Item, Kind, List, Pipeline, Script, Simple, Word};
use super::condition::Known;
use super::parse;
use crate::span::Span;

/// The shells that matter. Which one `sh` is, the base image decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Dash,
    Busybox,
}

impl Shell {
    pub const ALL: [Shell; 3] = [Shell::Bash, Shell::Dash, Shell::Busybox];
}

/// How the script came to the shell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `sh -c 'script'`
    Command,
    /// `sh script`, or by its `#!` line.
    File,
}

/// Why the shell stays the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stays {
    /// Nothing but `exec` would have replaced it.
    NotExeced,
    /// Every member of a pipeline is a child, also after `exec`.
    Pipeline,
    /// A redirection, braces, a condition or a function stand in the way of the shell's own optimisation.
    Compound,
    /// A trap needs the shell.
    Trap,
    /// Something comes after it.
    NotLast,
}

/// How the program relates to the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    /// It takes the shell's place.
    Exec,
    /// The shell waits for it.
    Child(Stays),
    /// The shell does something else meanwhile.
    Background {
        /// How many `wait`s follow it.
        waits: usize,
        /// Another command keeps the shell busy after it.
        busy: bool,
    },
}

/// What the shell does on TERM.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "each is something it may do beside the others")]
pub struct Trap {
    pub action: String,
    /// It sends a signal to somebody.
    pub kills: bool,
    /// It waits for somebody.
    pub waits: bool,
    /// It tells somebody by a command instead of a signal, which ends when that is done: `passenger stop`.
    pub stops: bool,
    /// The seconds it sleeps, as far as they are written down.
    pub sleeps: f64,
    /// Those of them that it sleeps before it tells anybody.
    pub before: f64,
    /// An empty action: the signal is ignored, by children too.
    pub ignores: bool,
    pub span: Span,
}

/// What a script does in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The command line, without `exec` and assignments.
    pub words: Vec<Word>,
    pub how: How,
    /// Where the command is, `exec` included.
    pub span: Span,
    /// The whole statement, for an edit that has to change it.
    pub statement: Span,
    pub trap: Option<Trap>,
    /// Other programs left in the background before it.
    pub helpers: Vec<Span>,
}

/// The answer for one shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    Program(Program),
    /// It can not be told; why.
    Unknown(String),
}

#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each stands for a construct that a command is inside of")]
struct Context {
    pipeline: bool,
    background: bool,
    /// A redirection, braces, `if`, `case`.
    compound: bool,
    subshell: bool,
    function: bool,
    negated: bool,
    looped: bool,
    /// The arm of a condition that can not be told, by number.
    arm: Option<(usize, usize)>,
    tail: bool,
}

struct Candidate<'s> {
    simple: &'s Simple,
    /// Words to skip: `exec`, `command`.
    skip: usize,
    explicit: bool,
    context: Context,
    statement: Span,
    rank: u8,
    waits: usize,
    busy: bool,
}

struct Walk<'s> {
    known: Known,
    functions: BTreeMap<&'s str, &'s Command>,
    found: Vec<Candidate<'s>>,
    traps: Vec<Trap>,
    any_trap: bool,
    branches: usize,
    calls: usize,
    /// What follows can not be reached.
    ended: bool,
}

/// Finds the program a script ends up as. `server` says whether a command line is a server or starts one.
pub fn analyse(script: &Script, shell: Shell, form: Form, known: &Known, server: &dyn Fn(&[&str]) -> bool) -> Verdict {
    let mut walk = Walk {
        known: known.clone(),
        functions: BTreeMap::new(),
        found: Vec::new(),
        traps: Vec::new(),
        any_trap: false,
        branches: 0,
        calls: 0,
        ended: false,
    };
    walk.list(&script.list, Context { tail: true, ..Context::default() }, server);
    let candidates = walk.found.iter().enumerate().filter(|(_, candidate)| candidate.rank > 0);
    let Some(best) = candidates.max_by_key(|(n, candidate)| (candidate.rank, *n)).map(|(n, _)| n) else {
        return Verdict::Unknown("it starts no program".to_owned());
    };
    let how = |candidate: &Candidate<'_>| how(candidate, &walk, script, shell, form);
    let chosen = &walk.found[best];
    let mine = how(chosen);
    let name = |candidate: &Candidate<'_>| candidate.simple.words.get(candidate.skip).map(|word| word.text.clone());
    if let Some((branch, arm)) = chosen.context.arm {
        let other = walk.found.iter().find(|other| {
            other.context.arm.is_some_and(|(b, a)| b == branch && a != arm)
                && name(other) == name(chosen)
                && std::mem::discriminant(&how(other)) != std::mem::discriminant(&mine)
        });
        if other.is_some() {
            return Verdict::Unknown("a condition decides whether it is exec'd, and its value is not known".to_owned());
        }
    }
    let helpers = walk.found[..best].iter().filter(|c| c.context.background && c.rank > 1).map(|c| c.simple.span);
    Verdict::Program(Program {
        words: chosen.simple.words[chosen.skip..].to_vec(),
        how: mine,
        span: chosen.simple.span,
        statement: chosen.statement,
        trap: walk.traps.last().cloned(),
        helpers: helpers.collect(),
    })
}

fn how(candidate: &Candidate<'_>, walk: &Walk<'_>, script: &Script, shell: Shell, form: Form) -> How {
    let context = candidate.context;
    if context.background {
        return How::Background { waits: candidate.waits, busy: candidate.busy };
    }
    if context.pipeline {
        return How::Child(Stays::Pipeline);
    }
    // dash can not even read `>(...)`, so nothing is exec'd.
    let readable = shell != Shell::Dash || !script.process_substitution;
    if candidate.explicit && !context.subshell && readable {
        return How::Exec;
    }
    if !context.tail {
        return How::Child(Stays::NotLast);
    }
    if form == Form::File {
        return How::Child(Stays::NotExeced);
    }
    let plain = !(context.function || context.negated || context.looped);
    match shell {
        Shell::Dash => How::Child(Stays::NotExeced),
        Shell::Bash | Shell::Busybox if walk.any_trap => How::Child(Stays::Trap),
        Shell::Bash if plain && !context.compound && !context.subshell => How::Exec,
        Shell::Busybox if plain && !script.newline_at_end => How::Exec,
        Shell::Bash | Shell::Busybox => How::Child(Stays::Compound),
    }
}

impl<'s> Walk<'s> {
    fn list(&mut self, list: &'s List, context: Context, server: &dyn Fn(&[&str]) -> bool) {
        let last = list.items.len().saturating_sub(1);
        for (n, item) in list.items.iter().enumerate() {
            if self.ended {
                return;
            }
            self.item(item, Context { tail: context.tail && n == last, ..context }, server);
        }
    }

    fn item(&mut self, item: &'s Item, context: Context, server: &dyn Fn(&[&str]) -> bool) {
        let background = context.background || item.background;
        let last = item.and_or.rest.len();
        let pipelines =
            std::iter::once(&item.and_or.first).chain(item.and_or.rest.iter().map(|(_, pipeline)| pipeline));
        for (n, pipeline) in pipelines.enumerate() {
            // `check || exit 1`: what only runs when something fails does not end the script.
            let only_if = n > 0;
            let before = self.ended;
            let here = Context { background, tail: context.tail && n == last, ..context };
            self.pipeline(pipeline, here, item.span, server);
            if only_if && !before && !self.and_or_is_certain(item, n) {
                self.ended = false;
            }
        }
    }

    /// Whether everything before the n-th part is known to lead to it. `a && exec b` is taken to: setup succeeds.
    #[expect(clippy::unused_self, reason = "it reads as a question to the walk")]
    fn and_or_is_certain(&self, item: &Item, n: usize) -> bool {
        item.and_or.rest[..n].iter().all(|(joint, _)| *joint == super::ast::Joint::And)
    }

    fn pipeline(
        &mut self,
        pipeline: &'s Pipeline,
        context: Context,
        statement: Span,
        server: &dyn Fn(&[&str]) -> bool,
    ) {
        let many = pipeline.commands.len() > 1;
        for command in &pipeline.commands {
            let here =
                Context { pipeline: context.pipeline || many, negated: context.negated || pipeline.negated, ..context };
            self.command(command, here, statement, server);
        }
    }

    fn command(&mut self, command: &'s Command, context: Context, statement: Span, server: &dyn Fn(&[&str]) -> bool) {
        let compound = Context { compound: true, ..context };
        match &command.kind {
            Kind::Simple(simple) => self.simple(simple, context, statement, server),
            Kind::Group(list) => self.list(list, compound, server),
            Kind::Subshell(list) => {
                let before = self.ended;
                self.list(list, Context { subshell: true, ..compound }, server);
                self.ended = before;
            }
            Kind::If(arms, otherwise) => self.branches(arms, otherwise.as_ref(), compound, server),
            Kind::While(condition, body) => {
                let before = self.ended;
                let looped = Context { looped: true, tail: false, ..compound };
                self.list(condition, looped, server);
                self.list(body, looped, server);
                self.ended = before;
            }
            Kind::For(body) => {
                let before = self.ended;
                self.list(body, Context { looped: true, tail: false, ..compound }, server);
                self.ended = before;
            }
            Kind::Case(subject, arms) => {
                let value = self.known.expand(subject);
                let chosen = value.and_then(|value| {
                    arms.iter().find(|(patterns, _)| patterns.iter().any(|pattern| matches(&pattern.text, &value)))
                });
                if let Some((_, body)) = chosen {
                    return self.list(body, compound, server);
                }
                self.either(arms.iter().map(|(_, body)| body).collect(), compound, false, server);
            }
            Kind::Function(name, body) => {
                self.functions.insert(name, body);
            }
            Kind::Test => {}
        }
    }

    fn branches(
        &mut self,
        arms: &'s [(List, List)],
        otherwise: Option<&'s List>,
        context: Context,
        server: &dyn Fn(&[&str]) -> bool,
    ) {
        let mut open = Vec::new();
        for (condition, body) in arms {
            // Functions and traps may hide in a condition; programs do not.
            match self.known.holds(condition) {
                Some(true) if open.is_empty() => return self.list(body, context, server),
                Some(true) => {
                    open.push(body);
                    return self.either(open, context, true, server);
                }
                Some(false) => {}
                None => open.push(body),
            }
        }
        match otherwise {
            Some(body) if open.is_empty() => self.list(body, context, server),
            Some(body) => {
                open.push(body);
                self.either(open, context, true, server);
            }
            None => self.either(open, context, false, server),
        }
    }

    /// Arms of which it can not be told which is taken.
    fn either(&mut self, arms: Vec<&'s List>, context: Context, complete: bool, server: &dyn Fn(&[&str]) -> bool) {
        self.branches += 1;
        let branch = self.branches;
        let known = self.known.clone();
        let (mut all_end, any) = (complete, !arms.is_empty());
        for (n, arm) in arms.into_iter().enumerate() {
            self.ended = false;
            self.known.clone_from(&known);
            self.list(arm, Context { arm: context.arm.or(Some((branch, n))), ..context }, server);
            all_end &= self.ended;
        }
        self.known = known;
        self.ended = any && all_end;
    }

    fn simple(&mut self, simple: &'s Simple, context: Context, statement: Span, server: &dyn Fn(&[&str]) -> bool) {
        let words: Vec<&str> = simple.words.iter().map(|word| word.text.as_str()).collect();
        for assign in &simple.assigns {
            if let Some((name, value)) = assign.text.split_once('=').filter(|_| words.is_empty() && assign.literal) {
                self.known.vars.push((name.to_owned(), value.to_owned()));
            } else if let Some((name, _)) = assign.text.split_once('=').filter(|_| words.is_empty()) {
                self.known.vars.retain(|(known, _)| known != name);
            }
        }
        let Some(first) = words.first() else { return };
        if let Some(body) = self.functions.get(first).copied() {
            self.calls += 1;
            if self.calls < 64 {
                let args = self.known.args.clone();
                if !(words.len() == 2 && words[1] == "$@") {
                    self.known.args = simple.words[1..].iter().map(|word| self.known.expand(word)).collect();
                }
                self.command(body, Context { function: true, ..context }, statement, server);
                self.known.args = args;
            }
            return;
        }
        match *first {
            "trap" => return self.trap(simple, &words),
            "wait" => {
                let more = if context.looped { 2 } else { 1 };
                self.found.iter_mut().filter(|c| c.context.background).for_each(|c| c.waits += more);
                return;
            }
            "exit" | "return" if !context.background && !context.pipeline => {
                self.ended |= *first == "exit" && !context.subshell;
                return;
            }
            "set" => return self.set(simple, &words, context),
            "shift" => {
                if let Some(args) = self.known.args.as_mut().filter(|args| !args.is_empty()) {
                    args.remove(0);
                }
                return;
            }
            _ => {}
        }
        let explicit = *first == "exec";
        let mut skip = usize::from(explicit || matches!(*first, "command" | "builtin"));
        if explicit {
            while words.get(skip).is_some_and(|word| word.starts_with('-')) {
                skip += if words[skip] == "-a" { 2 } else { 1 };
            }
        }
        // `exec 2>&1` only redirects.
        let Some(rest) = words.get(skip..).filter(|rest| !rest.is_empty()) else { return };
        let rank = rank(rest, explicit, context, server);
        let ends = explicit && !context.subshell && !context.pipeline && !context.background;
        if rank > 0 && !context.background {
            self.found.iter_mut().filter(|c| c.context.background && c.waits == 0).for_each(|c| c.busy = true);
        }
        let context = Context { compound: context.compound || !simple.redirects.is_empty(), ..context };
        self.found.push(Candidate { simple, skip, explicit, context, statement, rank, waits: 0, busy: false });
        self.ended |= ends;
    }

    /// `set -- program "$@"`.
    fn set(&mut self, simple: &'s Simple, words: &[&str], context: Context) {
        let Some(at) = words.iter().position(|word| *word == "--") else { return };
        let mut args = Vec::new();
        for word in &simple.words[at + 1..] {
            if word.text == "$@" {
                match &self.known.args {
                    Some(known) => args.extend(known.iter().cloned()),
                    None => return,
                }
            } else if let Some(text) = self.known.expand(word) {
                args.push(text);
            } else {
                self.known.args = None;
                return;
            }
        }
        if context.arm.is_none() {
            self.known.args = Some(args);
        }
    }

    fn trap(&mut self, simple: &'s Simple, words: &[&str]) {
        let mut rest = &words[1..];
        if rest.first() == Some(&"--") {
            rest = &rest[1..];
        }
        let [action, signals @ ..] = rest else { return };
        if *action == "-" || action.starts_with("-l") || action.starts_with("-p") {
            return;
        }
        self.any_trap = true;
        let term = |signal: &&str| matches!(signal.to_ascii_uppercase().as_str(), "TERM" | "SIGTERM" | "15");
        if !signals.iter().any(term) {
            return;
        }
        let parsed = parse::parse(action).unwrap_or_default();
        let mut trap = Trap {
            action: (*action).to_owned(),
            kills: false,
            waits: false,
            stops: false,
            sleeps: 0.0,
            before: 0.0,
            ignores: action.is_empty(),
            span: simple.span,
        };
        self.read_action(&parsed.list, &mut trap, 0);
        self.traps.push(trap);
    }

    /// What an action does, into the functions it calls.
    fn read_action(&self, list: &List, trap: &mut Trap, depth: usize) {
        let mut all = Vec::new();
        simples(list, &mut all);
        for simple in all {
            let words: Vec<&str> = simple.words.iter().map(|word| word.text.as_str()).collect();
            match words.as_slice() {
                ["kill", "-0", ..] | [] => {}
                ["kill" | "pkill" | "killall", ..] => trap.kills = true,
                ["wait", ..] => trap.waits = true,
                ["sleep", time] => {
                    let time = seconds(time).unwrap_or_default();
                    trap.sleeps += time;
                    trap.before += if trap.kills { 0.0 } else { time };
                }
                // `nginx -s quit`, `passenger stop`: told by another way than a signal.
                [_, rest @ ..] if rest.iter().any(|word| matches!(*word, "stop" | "quit" | "shutdown" | "drain")) => {
                    trap.kills = true;
                    trap.stops = true;
                }
                [name, ..] => {
                    if let Some(Command { kind: Kind::Group(body) | Kind::Subshell(body), .. }) =
                        self.functions.get(name)
                        && depth < 8
                    {
                        self.read_action(body, trap, depth + 1);
                    }
                }
            }
        }
    }
}

/// A sleep's argument, with the suffixes of coreutils.
pub fn seconds(time: &str) -> Option<f64> {
    let (number, scale) = match time.as_bytes().last()? {
        b's' => (&time[..time.len() - 1], 1.0),
        b'm' => (&time[..time.len() - 1], 60.0),
        b'h' => (&time[..time.len() - 1], 3600.0),
        b'd' => (&time[..time.len() - 1], 86_400.0),
        _ => (time, 1.0),
    };
    number.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0).map(|n| n * scale)
}

/// Every simple command of a list, in order.
pub fn simples<'s>(list: &'s List, into: &mut Vec<&'s Simple>) {
    for item in &list.items {
        for pipeline in std::iter::once(&item.and_or.first).chain(item.and_or.rest.iter().map(|(_, p)| p)) {
            for command in &pipeline.commands {
                simples_of(command, into);
            }
        }
    }
}

fn simples_of<'s>(command: &'s Command, into: &mut Vec<&'s Simple>) {
    match &command.kind {
        Kind::Simple(simple) => into.push(simple),
        Kind::Group(list) | Kind::Subshell(list) | Kind::For(list) => simples(list, into),
        Kind::If(arms, otherwise) => {
            for (condition, body) in arms {
                simples(condition, into);
                simples(body, into);
            }
            if let Some(list) = otherwise {
                simples(list, into);
            }
        }
        Kind::While(condition, body) => {
            simples(condition, into);
            simples(body, into);
        }
        Kind::Case(_, arms) => arms.iter().for_each(|(_, body)| simples(body, into)),
        Kind::Function(_, body) => simples_of(body, into),
        Kind::Test => {}
    }
}

/// How likely a command is the one the script is there for. 0: it never is.
fn rank(words: &[&str], explicit: bool, context: Context, server: &dyn Fn(&[&str]) -> bool) -> u8 {
    let name = words[0].rsplit('/').next().unwrap_or_default();
    if explicit {
        return if context.arm.is_some() && !context.tail { 2 } else { 6 };
    }
    if SHORT.contains(&name) {
        return 0;
    }
    match name {
        "sleep" | "tail" => 1,
        "$@" | "$*" => 5,
        _ if server(words) => 4,
        _ => 3,
    }
}

/// Builtins and tools that end by themselves.
const SHORT: &[&str] = &[
    ".", ":", "[", "alias", "apk", "apt-get", "awk", "base64", "basename", "break", "cat", "cd", "chgrp", "chmod",
    "chown", "continue", "cp", "curl", "cut", "date", "declare", "dirname", "dnf", "du", "echo", "envsubst", "eval",
    "export", "false", "find", "getent", "getopts", "grep", "hash", "head", "hostname", "id", "install", "jq", "kill",
    "let", "ln", "local", "ls", "mkdir", "mkfifo", "mktemp", "mount", "mv", "nproc", "openssl", "pgrep", "pkill",
    "popd", "printf", "ps", "pushd", "pwd", "read", "readlink", "readonly", "realpath", "return", "rm", "rmdir", "sed",
    "set", "shopt", "sort", "source", "stat", "sysctl", "tar", "tee", "test", "touch", "tr", "true", "type", "typeset",
    "ulimit", "umask", "uname", "uniq", "unset", "unzip", "wc", "wget", "which", "whoami", "xargs",
];

/// A `case` pattern: `*` and alternatives of plain text are enough for entrypoints.
fn matches(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((before, after)) => {
            value.len() >= before.len() + after.len() && value.starts_with(before) && value.ends_with(after)
        }
    }
}
