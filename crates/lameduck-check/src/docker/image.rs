//! The image that a Dockerfile makes, as far as its end depends on it.

use super::base::{self, Sh};
use super::expand::{Vars, expand};
use super::parse::{Dockerfile, Instruction, Keyword, words};
use crate::launch::Command;
use crate::span::{At, Lines, Mapped, Sp};

/// A file that comes into the image.
#[derive(Debug, Clone)]
pub struct Copied {
    pub sources: Vec<String>,
    pub target: String,
    /// The text itself, where a here-document brings it.
    pub heredoc: Option<Mapped>,
    /// It comes out of another stage or image.
    pub from: Option<String>,
}

/// CMD or ENTRYPOINT.
#[derive(Debug, Clone)]
pub struct Form {
    pub array: Option<Vec<Mapped>>,
    pub text: Mapped,
    pub at: At,
}

#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The image of the last FROM that is no stage, with what is known put in.
    pub base: String,
    pub from: At,
    pub sh: Sh,
    pub shell: Option<Vec<String>>,
    pub entrypoint: Option<Form>,
    pub cmd: Option<Form>,
    /// The command that the base image brings.
    pub inherited: Vec<&'static str>,
    /// The ENTRYPOINT that it brings, where that is the app's own interpreter and CMD are its arguments.
    pub interpreter: &'static [&'static str],
    pub stop_signal: Option<Sp<String>>,
    /// STOPSIGNAL as the base image has it.
    pub inherited_signal: Option<&'static str>,
    pub vars: Vars,
    pub workdir: String,
    pub copies: Vec<Copied>,
    pub node: Option<(u32, Option<u32>)>,
    /// Where the last stage's own CMD or ENTRYPOINT stands, or its last instruction: for what a fix adds.
    pub end: At,
    /// The text of its RUN instructions, for what they install.
    pub runs: Vec<String>,
    pub onbuild: Vec<Instruction>,
}

/// The image of the last stage. `None` where there is no FROM.
pub fn build(file: &Dockerfile, lines: &Lines<'_>) -> Option<Image> {
    let mut globals: Vars = predefined();
    let mut stages: Vec<(String, Image)> = Vec::new();
    for instruction in &file.instructions {
        let Some((_, image)) =
            stages.last_mut().filter(|_| instruction.keyword != Keyword::From || instruction.onbuild)
        else {
            match instruction.keyword {
                Keyword::Arg => args(instruction, &mut globals, &Vec::new()),
                Keyword::From => stages.push(from(instruction, lines, &globals, &stages)),
                // Nothing but ARG may stand in front of the first FROM.
                Keyword::Add
                | Keyword::Cmd
                | Keyword::Copy
                | Keyword::Entrypoint
                | Keyword::Env
                | Keyword::Expose
                | Keyword::Healthcheck
                | Keyword::Label
                | Keyword::Maintainer
                | Keyword::Onbuild
                | Keyword::Run
                | Keyword::Shell
                | Keyword::Stopsignal
                | Keyword::User
                | Keyword::Volume
                | Keyword::Workdir => {}
            }
            continue;
        };
        if instruction.onbuild {
            image.onbuild.push(instruction.clone());
        } else if instruction.keyword == Keyword::Arg {
            // A global argument comes into the stage by its name alone.
            args(instruction, &mut image.vars, &globals);
        } else {
            apply(image, instruction, lines);
        }
    }
    stages.pop().map(|(_, image)| image)
}

/// <https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope>, on the commonest platform.
fn predefined() -> Vars {
    let known = [("TARGETPLATFORM", "linux/amd64"), ("TARGETOS", "linux"), ("TARGETARCH", "amd64")];
    let build = [("BUILDPLATFORM", "linux/amd64"), ("BUILDOS", "linux"), ("BUILDARCH", "amd64")];
    known.into_iter().chain(build).map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn args(instruction: &Instruction, vars: &mut Vars, globals: &Vars) {
    for word in words(&instruction.body.text) {
        if let Some((name, value)) = word.split_once('=') {
            let value = expand(value, vars);
            vars.push((name.to_owned(), value));
        } else if let Some(value) = super::expand::get(globals, &word) {
            vars.push((word.clone(), value.to_owned()));
        }
    }
}

fn from(instruction: &Instruction, lines: &Lines<'_>, globals: &Vars, stages: &[(String, Image)]) -> (String, Image) {
    let parts = words(&instruction.body.text);
    let name = expand(parts.first().map_or("", String::as_str), globals);
    let alias = match parts.as_slice() {
        [_, keyword, alias] if keyword.eq_ignore_ascii_case("as") => alias.clone(),
        _ => String::new(),
    };
    let at = lines.at(instruction.span);
    let parent = stages
        .iter()
        .enumerate()
        .rev()
        .find(|(n, (alias, _))| (!alias.is_empty() && alias.eq_ignore_ascii_case(&name)) || name == n.to_string());
    let mut image = if let Some((_, (_, parent))) = parent {
        let mut image = parent.clone();
        for instruction in std::mem::take(&mut image.onbuild) {
            apply(&mut image, &instruction, lines);
        }
        image
    } else {
        let reference = base::reference(&name);
        let official = base::official(&reference);
        Image {
            sh: if name.contains('$') { Sh::Unknown } else { base::sh(&name) },
            node: if reference.name == "node" { node_version(reference.tag) } else { None },
            inherited: official.as_ref().map(|official| official.command.clone()).unwrap_or_default(),
            inherited_signal: official.and_then(|official| official.stop_signal),
            interpreter: base::interpreter(&reference),
            workdir: "/".to_owned(),
            base: name,
            ..Image::default()
        }
    };
    // What a stage inherits counts as inherited again: ENTRYPOINT resets such a CMD.
    if let Some(cmd) = image.cmd.as_mut() {
        cmd.at.file = lines.file();
    }
    image.from = at;
    image.end = at;
    (alias, image)
}

/// `20`, `20.11`, `20.11.1-alpine`.
fn node_version(tag: &str) -> Option<(u32, Option<u32>)> {
    let mut numbers = tag.split('-').next()?.split('.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next().and_then(|minor| minor.parse().ok())))
}

fn apply(image: &mut Image, instruction: &Instruction, lines: &Lines<'_>) {
    let at = lines.at(instruction.span);
    let text = || expand(instruction.body.text.trim(), &image.vars);
    match instruction.keyword {
        Keyword::Entrypoint => {
            let inherited = image.cmd.as_ref().is_some_and(|cmd| cmd.at.span.start < image.from.span.start);
            if inherited {
                image.cmd = None;
            }
            image.inherited.clear();
            image.interpreter = &[];
            image.entrypoint = form(instruction, at);
            image.end = at;
        }
        Keyword::Cmd => {
            image.inherited.clear();
            image.cmd = form(instruction, at);
            image.end = at;
        }
        Keyword::Shell => {
            if let Some(array) = &instruction.array {
                image.shell = Some(array.iter().map(|word| word.text.clone()).collect());
            }
        }
        Keyword::Stopsignal => image.stop_signal = Some(Sp { value: text(), at }),
        Keyword::Env => env(image, &instruction.body.text),
        Keyword::Workdir => {
            let dir = text();
            let dir = dir.trim_matches(['"', '\'']);
            image.workdir = join(&image.workdir, dir);
        }
        Keyword::Copy | Keyword::Add => copy(image, instruction),
        Keyword::Run => {
            let body = &instruction.body.text;
            // Whoever changes what sh is, changes what can be told from the base image's name.
            if body.contains("/bin/sh") && (body.contains("ln ") || body.contains("mv "))
                || body.contains("reconfigure dash")
            {
                image.sh = Sh::Unknown;
            }
            image.runs.push(body.clone());
            image.runs.extend(instruction.heredocs.iter().map(|heredoc| heredoc.text.text.clone()));
        }
        Keyword::Arg
        | Keyword::Expose
        | Keyword::From
        | Keyword::Healthcheck
        | Keyword::Label
        | Keyword::Maintainer
        | Keyword::Onbuild
        | Keyword::User
        | Keyword::Volume => {}
    }
    if image.cmd.is_none() && image.entrypoint.is_none() {
        image.end = at;
    }
}

/// An empty array takes back what was inherited.
fn form(instruction: &Instruction, at: At) -> Option<Form> {
    if instruction.array.as_ref().is_some_and(Vec::is_empty) {
        return None;
    }
    Some(Form { array: instruction.array.clone(), text: instruction.body.clone(), at })
}

fn env(image: &mut Image, body: &str) {
    let parts = words(body);
    let pairs: Vec<(String, String)> = if parts.first().is_some_and(|first| first.contains('=')) {
        parts.iter().filter_map(|part| part.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    } else {
        // The old form: one name, and the rest of the line.
        let (name, value) = body.trim().split_once(char::is_whitespace).unwrap_or((body.trim(), ""));
        vec![(name.to_owned(), value.trim().to_owned())]
    };
    for (name, value) in pairs {
        let value = expand(&value, &image.vars);
        image.vars.push((name, value));
    }
}

fn copy(image: &mut Image, instruction: &Instruction) {
    let mut parts: Vec<String> = match &instruction.array {
        Some(array) => array.iter().map(|word| word.text.clone()).collect(),
        None => words(&instruction.body.text),
    };
    for part in &mut parts {
        *part = expand(part, &image.vars);
    }
    let Some(target) = parts.pop() else { return };
    let from = instruction.flags.iter().find_map(|flag| flag.strip_prefix("--from=")).map(str::to_owned);
    let folder = target.ends_with('/') || parts.len() > 1;
    let target = join(&image.workdir, &target) + if folder && !target.ends_with('/') { "/" } else { "" };
    for heredoc in &instruction.heredocs {
        let name = if folder { format!("{target}{}", heredoc.name) } else { target.clone() };
        let (sources, text) = (Vec::new(), Some(heredoc.text.clone()));
        image.copies.push(Copied { sources, target: name, heredoc: text, from: None });
    }
    let sources: Vec<String> = parts.into_iter().filter(|part| !part.starts_with("<<")).collect();
    if !sources.is_empty() {
        image.copies.push(Copied { sources, target, heredoc: None, from });
    }
}

/// A path as seen from a folder, without `.` and `..`.
pub fn join(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    let slash = if path.ends_with('/') && !parts.is_empty() { "/" } else { "" };
    format!("/{}{slash}", parts.join("/"))
}

/// Where a file of the image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Paths of the build context, the likeliest first.
    Context(Vec<String>),
    Heredoc(Mapped),
    /// It is made by the build, or brought by the base image.
    Elsewhere,
}

impl Image {
    /// Where the file at a path comes from.
    pub fn origin(&self, path: &str) -> Origin {
        let bare = !path.contains('/');
        let absolute = join(&self.workdir, path);
        for copied in self.copies.iter().rev() {
            if let Some(text) = &copied.heredoc {
                if copied.target == absolute {
                    return Origin::Heredoc(text.clone());
                }
                continue;
            }
            let mut found = Vec::new();
            for source in &copied.sources {
                let source = source.trim_start_matches("./").trim_start_matches('/').trim_end_matches('/');
                let last = source.rsplit('/').next().unwrap_or_default();
                if absolute == copied.target {
                    found.push(source.to_owned());
                }
                let folder = copied.target.trim_end_matches('/');
                if let Some(below) = absolute.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')) {
                    if last == below || (last.contains('*') && !below.contains('/')) {
                        let parent = source.strip_suffix(last).unwrap_or_default();
                        found.push(format!("{parent}{below}"));
                    }
                    let whole = source.is_empty() || source == ".";
                    found.push(if whole { below.to_owned() } else { format!("{source}/{below}") });
                }
            }
            // Out of another stage it is most often the same file, copied there before; the caller looks whether it exists.
            if !found.is_empty() {
                if copied.from.is_some() {
                    found.extend([absolute.trim_start_matches('/').to_owned()]);
                }
                return Origin::Context(found);
            }
        }
        // A command without a path is looked up in PATH, where scripts are put too.
        if bare {
            for folder in ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin"] {
                let there = format!("{folder}/{path}");
                let found = self.origin(&there);
                if found != Origin::Elsewhere {
                    return found;
                }
            }
        }
        Origin::Elsewhere
    }

    /// The command line that a container of this image runs.
    pub fn command(&self) -> Command {
        let shell = || {
            let default = || vec!["/bin/sh".to_owned(), "-c".to_owned()];
            self.shell.clone().unwrap_or_else(default).iter().map(|word| Mapped::word(word)).collect::<Vec<_>>()
        };
        let mut out = Command::default();
        let add = |out: &mut Command, form: &Form| {
            if let Some(array) = &form.array {
                out.words.extend(array.iter().cloned());
            } else {
                out.words.extend(shell());
                out.words.push(form.text.clone());
                out.shell_form = true;
            }
        };
        match (&self.entrypoint, &self.cmd) {
            (Some(entrypoint), cmd) => {
                add(&mut out, entrypoint);
                out.at = entrypoint.at;
                // In shell form nothing reads the arguments.
                if let (Some(_), Some(cmd)) = (&entrypoint.array, cmd) {
                    add(&mut out, cmd);
                    if out.shell_form {
                        out.at = cmd.at;
                    }
                }
            }
            (None, Some(cmd)) => {
                out.words.extend(self.interpreter.iter().map(|word| Mapped::word(word)));
                add(&mut out, cmd);
                out.at = cmd.at;
            }
            (None, None) => {
                let words = self.interpreter.iter().chain(&self.inherited);
                out.words = words.map(|word| Mapped::word(word)).collect();
                out.at = self.from;
            }
        }
        out
    }

    /// The words of an instruction for an array form, where it has one.
    pub fn stop_signal(&self) -> Option<(&str, Option<At>)> {
        match (&self.stop_signal, self.inherited_signal) {
            (Some(own), _) => Some((own.value.as_str(), Some(own.at))),
            (None, Some(inherited)) => Some((inherited, None)),
            (None, None) => None,
        }
    }
}
