//! Options: one table a verb gives the parser, the help, the environment variables and the documentation.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::time::Duration;

use lameduck_core::duration;
use lexopt::Arg;

/// One option.
#[derive(Debug, Clone, Copy)]
pub struct Flag {
    /// Its name, without the dashes.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// What its value is called; `None`: it takes none.
    pub value: Option<&'static str>,
    /// Whether it may be given more than once.
    pub many: bool,
    /// What it does, in a sentence or two.
    pub help: &'static str,
}

impl Flag {
    /// A switch.
    pub const fn switch(long: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, value: None, many: false, help }
    }

    /// An option with a value.
    pub const fn value(long: &'static str, value: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, value: Some(value), many: false, help }
    }

    /// The same with a letter.
    #[must_use]
    pub const fn letter(self, short: char) -> Flag {
        Flag { short: Some(short), ..self }
    }

    /// An option with a value, which may be given more than once.
    pub const fn list(long: &'static str, value: &'static str, help: &'static str) -> Flag {
        Flag { long, short: None, value: Some(value), many: true, help }
    }

    /// Its environment variable: `--pre-stop` is `LAMEDUCK_PRE_STOP`.
    pub fn variable(&self) -> String {
        format!("LAMEDUCK_{}", self.long.to_ascii_uppercase().replace('-', "_"))
    }
}

/// Tables one after another, as one.
///
/// # Panics
///
/// Where `N` is not the sum of their lengths: as a constant it then does not compile.
pub const fn joined<const N: usize>(tables: &[&[Flag]]) -> [Flag; N] {
    let mut all = [Flag::switch("", ""); N];
    let (mut table, mut at) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            all[at] = tables[table][row];
            at += 1;
            row += 1;
        }
        table += 1;
    }
    assert!(at == N);
    all
}

/// One verb.
#[derive(Debug, Clone, Copy)]
pub struct Verb {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// What follows the options.
    pub operands: &'static str,
    /// Its options.
    pub flags: &'static [Flag],
    /// Whether each option also has an environment variable.
    pub from_env: bool,
    /// What else its help says.
    pub about: &'static str,
    /// The exit status of a command line that can not be understood.
    pub usage_status: u8,
}

/// Why a verb did not run.
#[derive(Debug)]
pub enum Failure {
    /// Help was asked for.
    Help(String),
    /// Something is wrong.
    Error {
        /// What was read, where, what was expected, what to do.
        message: String,
        /// The exit status.
        status: u8,
    },
}

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Option(&'static str),
    Variable(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Option(long) => write!(f, "--{long}"),
            Source::Variable(name) => f.write_str(name),
        }
    }
}

/// What was given.
#[derive(Debug)]
pub struct Given {
    verb: &'static Verb,
    values: BTreeMap<&'static str, Vec<(Source, OsString)>>,
    /// What follows the options.
    pub operands: Vec<OsString>,
}

/// Puts options before operands, for verbs whose operands are paths: options may then follow them.
pub fn options_first(args: &[OsString], flags: &[Flag]) -> Vec<OsString> {
    let (mut options, mut operands) = (Vec::new(), Vec::new());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let text = arg.to_string_lossy();
        let name = text.strip_prefix("--").unwrap_or_default();
        if text == "--" {
            operands.extend(rest.by_ref().cloned());
        } else if text.starts_with('-') && text != "-" {
            options.push(arg.clone());
            let is_letter = |flag: &Flag| flag.short.is_some_and(|short| text == format!("-{short}"));
            if flags.iter().any(|flag| (flag.long == name || is_letter(flag)) && flag.value.is_some()) {
                options.extend(rest.next().cloned());
            }
        } else {
            operands.push(arg.clone());
        }
    }
    options.push("--".into());
    options.extend(operands);
    options
}

/// Reads a command line and the environment. The first operand ends the options: what follows belongs to the command.
pub fn parse(
    verb: &'static Verb,
    args: &[OsString],
    env: &impl Fn(&str) -> Option<OsString>,
) -> Result<Given, Failure> {
    let mut given = Given { verb, values: BTreeMap::new(), operands: Vec::new() };
    let mut parser = lexopt::Parser::from_args(args.iter().cloned());
    while let Some(arg) = parser.next().map_err(|error| given.usage(error.to_string()))? {
        let flag = match &arg {
            Arg::Long("help") | Arg::Short('h') => return Err(Failure::Help(help(verb))),
            Arg::Long(name) => verb.flags.iter().find(|flag| flag.long == *name),
            Arg::Short(letter) => verb.flags.iter().find(|flag| flag.short == Some(*letter)),
            Arg::Value(_) => None,
        };
        let flag = match (flag, arg) {
            (Some(flag), _) => flag,
            (None, Arg::Value(word)) => {
                given.operands.push(word);
                let rest = parser.raw_args().map_err(|error| given.usage(error.to_string()))?;
                given.operands.extend(rest);
                break;
            }
            (None, Arg::Long(name)) => {
                let near = nearest(name, verb.flags.iter().map(|flag| flag.long));
                let near = near.map(|near| format!("; did you mean --{near}?")).unwrap_or_default();
                return Err(given.usage(format!("--{name} is no option of lameduck {}{near}", verb.name)));
            }
            (None, Arg::Short(letter)) => {
                return Err(given.usage(format!("-{letter} is no option of lameduck {}", verb.name)));
            }
        };
        let value = match flag.value {
            Some(_) => parser.value().map_err(|error| given.usage(error.to_string()))?,
            None => OsString::from("true"),
        };
        let values = given.values.entry(flag.long).or_default();
        if !flag.many {
            // The last one counts, so that a wrapper's option can be overridden.
            values.clear();
        }
        values.push((Source::Option(flag.long), value));
    }
    if verb.from_env {
        given.read_env(env);
    }
    Ok(given)
}

impl Given {
    fn read_env(&mut self, env: &impl Fn(&str) -> Option<OsString>) {
        for flag in self.verb.flags.iter().filter(|flag| !self.values.contains_key(flag.long)).collect::<Vec<_>>() {
            let name = flag.variable();
            let Some(value) = env(&name).filter(|value| !value.is_empty() && !is_service_link(value)) else { continue };
            let values = match value.to_str() {
                Some(text) if flag.many => text.lines().map(OsString::from).collect(),
                Some(_) | None => vec![value],
            };
            let source = Source::Variable(name);
            self.values.insert(flag.long, values.into_iter().map(|value| (source.clone(), value)).collect());
        }
    }

    /// A complaint about the command line.
    pub fn usage(&self, message: impl std::fmt::Display) -> Failure {
        let message = format!("{message}\nSee lameduck {} --help.", self.verb.name);
        Failure::Error { message, status: self.verb.usage_status }
    }

    fn all(&self, long: &str) -> &[(Source, OsString)] {
        debug_assert!(self.verb.flags.iter().any(|flag| flag.long == long), "{long} is in no table");
        self.values.get(long).map_or(&[], Vec::as_slice)
    }

    /// The option or variable by which an option was given, if it was.
    pub fn source(&self, long: &str) -> Option<String> {
        self.all(long).first().map(|(source, _)| source.to_string())
    }

    /// Every value of an option, read by `read`; `expected` says what was wanted where that fails.
    pub fn list<T>(&self, long: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, Failure> {
        self.all(long)
            .iter()
            .map(|(source, value)| {
                let text = value.to_str();
                text.and_then(&read).ok_or_else(|| {
                    self.usage(format!("{source}: read {:?}, expected {expected}", value.to_string_lossy()))
                })
            })
            .collect()
    }

    /// The value of an option, if it was given.
    pub fn one<T>(&self, long: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Failure> {
        Ok(self.list(long, expected, read)?.pop())
    }

    /// A duration.
    pub fn duration(&self, long: &str) -> Result<Option<Duration>, Failure> {
        self.one(long, "seconds, or a number with ms, s, m or h, as in 30, 500ms, 1m30s", |text| {
            duration::parse(text).ok()
        })
    }

    /// A text.
    pub fn text(&self, long: &str) -> Result<Option<String>, Failure> {
        self.one(long, "text in UTF-8", |text| Some(text.to_owned()))
    }

    /// A path or another value that need not be UTF-8.
    pub fn raw(&self, long: &str) -> Option<&OsStr> {
        self.all(long).last().map(|(_, value)| value.as_os_str())
    }

    /// Whether a switch is on. By the environment it can also be off.
    pub fn switch(&self, long: &str) -> Result<bool, Failure> {
        let on = self.one(long, "true or false", |text| match text.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Some(true),
            "0" | "false" | "no" | "off" => Some(false),
            _ => None,
        })?;
        Ok(on.unwrap_or(false))
    }
}

/// Kubernetes gives every container `NAME_PORT=tcp://ADDRESS:PORT` for every service, and a service may be called
/// `lameduck` (`enableServiceLinks`, Kubernetes API, `PodSpec`).
fn is_service_link(value: &OsStr) -> bool {
    value.to_str().is_some_and(|text| ["tcp://", "udp://", "sctp://"].iter().any(|scheme| text.starts_with(scheme)))
}

/// The help of a verb.
pub fn help(verb: &Verb) -> String {
    const WIDTH: usize = 100;
    const COLUMN: usize = 30;
    let mut out = format!("{}\n\nUsage: lameduck {}", verb.summary, verb.name);
    if !verb.flags.is_empty() {
        out.push_str(" [OPTIONS]");
    }
    if !verb.operands.is_empty() {
        let _ = write!(out, " {}", verb.operands);
    }
    out.push_str("\n\n");
    if !verb.flags.is_empty() {
        out.push_str("Options:\n");
    }
    for flag in verb.flags {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let value = flag.value.map(|value| format!(" {value}")).unwrap_or_default();
        let head = format!("  {short}--{}{value}", flag.long);
        let _ = write!(out, "{head:COLUMN$}");
        let mut at = if head.len() < COLUMN {
            COLUMN
        } else {
            let _ = write!(out, "\n{:COLUMN$}", "");
            COLUMN
        };
        for word in flag.help.split_whitespace() {
            if at + 1 + word.len() > WIDTH {
                let _ = write!(out, "\n{:COLUMN$}", "");
                at = COLUMN;
            } else if at > COLUMN {
                out.push(' ');
                at += 1;
            }
            out.push_str(word);
            at += word.len();
        }
        out.push('\n');
    }
    if verb.from_env {
        out.push_str(
            "\nEach option also has a variable: --pre-stop is LAMEDUCK_PRE_STOP. Options win over variables.\n",
        );
    }
    if !verb.about.is_empty() {
        let _ = write!(out, "\n{}", verb.about);
    }
    out
}

/// The name that was most likely meant, if one is near enough.
pub fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    names
        .map(|name| (distance(given, name), name))
        .min()
        .filter(|(far, name)| *far <= 1 + name.len() / 4)
        .map(|(_, name)| name)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let here = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], here);
        }
    }
    row[b.len()]
}
