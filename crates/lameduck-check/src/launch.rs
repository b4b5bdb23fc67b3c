//! From a container's command line to its tree of processes: who is PID 1, who is the app, and who stands between.

use crate::shell::ast::Word;
use crate::shell::condition::Known;
use crate::shell::exec::{self, Form, How, Program, Shell, Verdict};
use crate::shell::parse;
use crate::span::{At, FileId, Mapped, Span};

/// A command line whose words know where they stand.
#[derive(Debug, Clone, Default)]
pub struct Command {
    pub words: Vec<Mapped>,
    /// The instruction or field it comes from.
    pub at: At,
    /// Written as one text that a shell has to read.
    pub shell_form: bool,
}

impl Command {
    pub fn argv(&self) -> Vec<&str> {
        self.words.iter().map(|word| word.text.as_str()).collect()
    }
}

/// What stands at a path of the image.
#[derive(Debug, Clone)]
pub enum Opened {
    Text {
        path: String,
        text: Mapped,
    },
    /// It is not among the files, or not text.
    Missing,
}

/// The runners that stay between PID 1 and the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runner {
    /// Passes signals on and waits: npm outside 9.6.7 to 10.3.0.
    Npm,
    /// npm 9.6.7 to 10.3.0 (npm/cli#6547, #6684).
    NpmDeaf,
    /// Passes signals on, does not wait (yarnpkg/yarn#4667).
    Yarn1,
    /// Kills its child after 2 s and tells it nothing.
    Su,
    /// Handles signals in current versions.
    Uv,
    /// What it does is not known for this version.
    Unsure,
}

/// An init: passes signals to its child, ends when the child does, and everybody with it.
#[derive(Debug, Clone)]
pub struct Init {
    pub name: String,
    /// Signals go to the whole process group.
    pub group: bool,
    /// Waits for every descendant: `lameduck run`.
    pub waits: bool,
    /// TERM is not passed on: `--rewrite 15:0`.
    pub swallows: bool,
}

/// Where the text stood that a shell reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// `CMD text`, `ENTRYPOINT text`.
    ShellForm,
    /// `["sh", "-c", "text"]`, in any file.
    Inline,
    Script,
    /// A script of package.json.
    PackageJson,
}

#[derive(Debug, Clone)]
pub struct ShellNode {
    /// As in the process list.
    pub name: String,
    pub place: Place,
    pub program: Program,
    /// The command that is not exec'd.
    pub at: At,
    /// The instruction that names it, where that is elsewhere.
    pub whole: At,
    pub trap_at: Option<At>,
    pub helper_at: Option<At>,
    pub child: Box<Node>,
}

#[derive(Debug, Clone)]
pub enum Node {
    App { argv: Vec<String>, at: At },
    Shell(Box<ShellNode>),
    Init(Init, Box<Node>),
    Runner { runner: Runner, name: String, at: At, child: Option<Box<Node>> },
    Unknown { why: String },
}

/// What becomes of the app when PID 1 gets TERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// TERM reaches it, and its exit ends the container.
    Graceful,
    /// Nobody tells it; SIGKILL at the end of the grace period.
    Ignored,
    /// It is never told and dies at once with its PID 1.
    KilledNow,
    /// It is told, and killed as soon as PID 1 is gone.
    ToldThenKilled,
    Unknown,
}

impl Outcome {
    #[cfg(test)]
    pub const ALL: [Outcome; 5] =
        [Outcome::Graceful, Outcome::Ignored, Outcome::KilledNow, Outcome::ToldThenKilled, Outcome::Unknown];

    pub const fn id(self) -> &'static str {
        match self {
            Outcome::Graceful => "graceful",
            Outcome::Ignored => "ignored",
            Outcome::KilledNow => "killed-now",
            Outcome::ToldThenKilled => "told-then-killed",
            Outcome::Unknown => "unknown",
        }
    }
}

/// The world of one image, as far as it is known.
pub struct Scene<'s> {
    /// What `/bin/sh` is; `None`: not known.
    pub sh: Option<Shell>,
    /// There is a shell at all.
    pub has_shell: bool,
    /// The base, for messages.
    pub base: &'s str,
    /// The version of Node.js in the image: major, minor.
    pub node: Option<(u32, Option<u32>)>,
    pub vars: &'s [(String, String)],
    pub open: &'s dyn Fn(&str) -> Opened,
    /// Finds the line and column of a span.
    pub place: &'s dyn Fn(FileId, Span) -> At,
    pub is_server: &'s dyn Fn(&[&str]) -> bool,
}

/// The processes of a container, and what TERM does to them.
#[derive(Debug, Clone)]
pub struct Launch {
    pub node: Node,
    pub outcome: Outcome,
    /// The command line of PID 1.
    pub pid1: String,
    pub links: Vec<String>,
    /// Why the outcome is not known.
    pub unsure: Option<String>,
}

/// Follows a command line to the app.
pub fn launch(command: &Command, scene: &Scene<'_>) -> Launch {
    if scene.sh.is_some() {
        return launch_with(command, scene, scene.sh);
    }
    let mut tried = Shell::ALL.map(|shell| launch_with(command, scene, Some(shell)));
    if tried.iter().all(|launch| launch.outcome == tried[0].outcome) {
        tried.swap(0, 1); // Debian's answer, for its messages
        let [launch, ..] = tried;
        return launch;
    }
    let why = format!(
        "it depends on what /bin/sh is: dash on Debian and Ubuntu does not exec the last command, busybox on Alpine \
         and bash do; the base image {} is not known",
        scene.base
    );
    let [mut launch, ..] = tried;
    launch.links.push(why.clone());
    Launch { node: Node::Unknown { why: why.clone() }, outcome: Outcome::Unknown, unsure: Some(why), ..launch }
}

fn launch_with(command: &Command, scene: &Scene<'_>, sh: Option<Shell>) -> Launch {
    let mut walk = Follow { scene, sh: sh.unwrap_or(Shell::Dash), links: Vec::new(), whole: command.at };
    let node = walk.follow(command, 0);
    let outcome = outcome(&node, true);
    let pid1 = pid1(&node).unwrap_or_else(|| command.argv().join(" "));
    let unsure = (outcome == Outcome::Unknown).then(|| why_unknown(&node));
    Launch { outcome, pid1, links: walk.links, unsure, node }
}

fn why_unknown(node: &Node) -> String {
    match node {
        Node::Unknown { why } => why.clone(),
        Node::Runner { name, runner: Runner::Unsure, .. } => {
            format!("what this version of {name} does with signals is not known")
        }
        Node::Shell(shell) => match shell.program.how {
            How::Background { waits: 0, .. } => "the shell waits for nothing it has started".to_owned(),
            How::Exec | How::Child(_) | How::Background { .. } => why_unknown(&shell.child),
        },
        Node::Init(_, child) | Node::Runner { child: Some(child), .. } => why_unknown(child),
        Node::Runner { child: None, name, .. } => format!("what {name} starts is not known"),
        Node::App { .. } => "it is not known".to_owned(),
    }
}

/// The process that ends up as PID 1.
fn pid1(node: &Node) -> Option<String> {
    match node {
        Node::App { argv, .. } => Some(argv.join(" ")),
        Node::Shell(shell) if shell.program.how == How::Exec => pid1(&shell.child),
        Node::Shell(shell) => Some(shell.name.clone()),
        Node::Init(init, _) => Some(init.name.clone()),
        Node::Runner { name, .. } => Some(name.clone()),
        Node::Unknown { .. } => None,
    }
}

/// The app, if it is known.
pub fn app(node: &Node) -> Option<(&[String], At)> {
    match node {
        Node::App { argv, at } => Some((argv, *at)),
        Node::Shell(shell) => app(&shell.child),
        Node::Init(_, child) => app(child),
        Node::Runner { child, .. } => child.as_deref().and_then(app),
        Node::Unknown { .. } => None,
    }
}

/// What TERM at the top of this tree does. `pid1`: the top is PID 1, for which the kernel drops signals that have their
/// default action.
pub fn outcome(node: &Node, pid1: bool) -> Outcome {
    match node {
        Node::App { .. } => Outcome::Graceful,
        Node::Unknown { .. } => Outcome::Unknown,
        Node::Shell(shell) => of_shell(shell, pid1, false),
        Node::Init(init, _) if init.swallows => Outcome::Ignored,
        Node::Init(init, child) => match (init.group, child.as_ref()) {
            (true, Node::Shell(shell)) => of_shell(shell, false, true),
            (_, child) => match (outcome(child, false), init.waits) {
                (Outcome::KilledNow, true) => Outcome::Ignored,
                (Outcome::ToldThenKilled, true) => Outcome::Graceful,
                (outcome, _) => outcome,
            },
        },
        Node::Runner { runner, child, .. } => of_runner(*runner, child.as_deref(), pid1),
    }
}

fn of_runner(runner: Runner, child: Option<&Node>, pid1: bool) -> Outcome {
    let below = child.map_or(Outcome::Unknown, |child| outcome(child, false));
    match runner {
        Runner::Npm | Runner::Uv => below,
        Runner::NpmDeaf if pid1 => Outcome::Ignored,
        Runner::NpmDeaf | Runner::Unsure => Outcome::Unknown,
        Runner::Yarn1 => match below {
            Outcome::Graceful => Outcome::ToldThenKilled,
            Outcome::Ignored | Outcome::KilledNow | Outcome::ToldThenKilled | Outcome::Unknown => below,
        },
        Runner::Su => Outcome::KilledNow,
    }
}

/// How the app hears of a stop.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Told {
    /// Seconds after TERM at PID 1: what a trap sleeps first.
    pub after_s: f64,
    /// By a command in a trap, not by a signal.
    pub by_command: bool,
}

/// How the app hears of a stop, by what its shells do.
pub fn told(node: &Node) -> Told {
    told_below(node, false)
}

/// `group`: everybody below got the signal too.
fn told_below(node: &Node, group: bool) -> Told {
    match node {
        Node::Init(init, child) => told_below(child, init.group),
        Node::Runner { child, .. } => child.as_deref().map_or_else(Told::default, |child| told_below(child, false)),
        Node::Shell(shell) => match (&shell.program.how, &shell.program.trap) {
            (How::Exec, _) => told_below(&shell.child, group),
            (How::Background { .. }, Some(trap)) if trap.kills && !trap.ignores && !heard(&shell.child, group) => {
                Told { after_s: trap.before, by_command: trap.stops }
            }
            _ => Told::default(),
        },
        Node::App { .. } | Node::Unknown { .. } => Told::default(),
    }
}

/// Whether a signal to the whole group reaches what is below: an init in between gives its child a session of its own.
fn heard(child: &Node, group: bool) -> bool {
    match child {
        Node::Init(init, _) => group && !init.swallows,
        Node::Shell(shell) if shell.program.how == How::Exec => heard(&shell.child, group),
        Node::Shell(_) | Node::App { .. } | Node::Runner { .. } | Node::Unknown { .. } => group,
    }
}

/// `group`: everybody below got the signal too.
fn of_shell(shell: &ShellNode, pid1: bool, group: bool) -> Outcome {
    let dies = if group { Outcome::ToldThenKilled } else { Outcome::KilledNow };
    let trap = shell.program.trap.as_ref();
    match &shell.program.how {
        How::Exec => match (group, shell.child.as_ref()) {
            (true, Node::Shell(inner)) => of_shell(inner, pid1, true),
            (_, child) => outcome(child, pid1),
        },
        How::Child(_) => match trap {
            // The trap runs when the foreground command has ended.
            Some(trap) if group && !trap.ignores => Outcome::Graceful,
            Some(_) => Outcome::Ignored,
            None if pid1 => Outcome::Ignored,
            None => dies,
        },
        How::Background { waits, busy } => {
            let heard = heard(&shell.child, group);
            let told = heard || trap.is_some_and(|trap| trap.kills);
            match trap {
                None if *waits == 0 && !busy => Outcome::Unknown,
                None if pid1 => Outcome::Ignored,
                Some(trap) if trap.ignores => Outcome::Ignored,
                Some(_) if *busy && *waits == 0 => Outcome::Ignored,
                // The command ends when the app has ended; that the shell goes then cuts nothing.
                Some(trap) if trap.stops && !heard && *waits > 0 => Outcome::Graceful,
                Some(trap) if told && (trap.waits || *waits > 1) => Outcome::Graceful,
                Some(_) if *waits == 0 => Outcome::Unknown,
                None | Some(_) => dies,
            }
        }
    }
}

struct Follow<'s> {
    scene: &'s Scene<'s>,
    sh: Shell,
    links: Vec<String>,
    whole: At,
}

/// The most steps from a command line to the app.
const STEPS: usize = 16;

impl Follow<'_> {
    fn follow(&mut self, command: &Command, depth: usize) -> Node {
        let argv = command.argv();
        let Some(first) = argv.first() else {
            return Node::Unknown { why: "there is no command: neither ENTRYPOINT nor CMD is known".to_owned() };
        };
        if depth > STEPS {
            return Node::Unknown { why: "the command leads in a circle".to_owned() };
        }
        let name = first.rsplit('/').next().unwrap_or_default().to_owned();
        self.links.push(format!("runs {}", argv.join(" ")));
        if first.contains('$') {
            return Node::Unknown { why: format!("{first} is only known when it runs") };
        }
        if let Some(skip) = transparent(&name, &argv) {
            return self.follow(&rest(command, skip), depth + 1);
        }
        match name.as_str() {
            "sh" | "bash" | "dash" | "ash" => return self.shell(command, &name, 1, depth),
            "busybox" if argv.get(1).is_some_and(|applet| matches!(*applet, "sh" | "ash")) => {
                return self.shell(command, "ash", 2, depth);
            }
            "npm" | "yarn" | "yarnpkg" | "pnpm" | "npx" | "bun" | "bunx" => {
                if let Some(node) = self.package_runner(command, &name, depth) {
                    return node;
                }
            }
            "su" | "runuser" => return self.su(command, &name, depth),
            "sudo" => {
                let at = command.at;
                return Node::Runner { runner: Runner::Unsure, name, at, child: None };
            }
            "uv" if argv.get(1) == Some(&"run") => {
                let skip = 2 + argv[2..].iter().take_while(|word| word.starts_with('-')).count();
                let child = Box::new(self.follow(&rest(command, skip), depth + 1));
                return Node::Runner { runner: Runner::Uv, name: "uv".to_owned(), at: command.at, child: Some(child) };
            }
            _ => {}
        }
        if let Some((init, skip)) = init(&name, &argv) {
            let child = self.follow(&rest(command, skip), depth + 1);
            return Node::Init(init, Box::new(child));
        }
        self.file_or_app(command, &name, depth)
    }

    /// A script among the files, or the app itself.
    fn file_or_app(&mut self, command: &Command, name: &str, depth: usize) -> Node {
        let argv = command.argv();
        let opened = if argv[0].contains('/') || name.contains('.') || name.ends_with("entrypoint") {
            (self.scene.open)(argv[0])
        } else {
            Opened::Missing
        };
        let app = Node::App { argv: argv.iter().map(|word| (*word).to_owned()).collect(), at: command.at };
        match opened {
            Opened::Text { path, text } => {
                let Some(line) = text.text.strip_prefix("#!").and_then(|rest| rest.lines().next()) else {
                    // Without `#!` execve fails, and the caller's shell, if any, reads it itself.
                    let script = std::path::Path::new(name).extension().is_some_and(|extension| extension == "sh");
                    let why = || format!("{path} has no #! line");
                    return if script { Node::Unknown { why: why() } } else { app };
                };
                let words: Vec<&str> = line.split_whitespace().collect();
                self.links.push(format!("{} is {path}", argv[0]));
                self.shebang(&words, command, &text, depth)
            }
            Opened::Missing => {
                let script = std::path::Path::new(name)
                    .extension()
                    .is_some_and(|extension| extension == "sh" || extension == "bash");
                if script || name.contains("entrypoint") {
                    return Node::Unknown { why: format!("the script {} is not among the files", argv[0]) };
                }
                app
            }
        }
    }

    fn shebang(&mut self, line: &[&str], command: &Command, script: &Mapped, depth: usize) -> Node {
        let mut line = line;
        if line.first().is_some_and(|first| first.ends_with("/env")) {
            line = &line[1..];
            if line.first() == Some(&"-S") {
                line = &line[1..];
            }
        }
        let name = line.first().and_then(|first| first.rsplit('/').next()).unwrap_or_default();
        match name {
            "sh" | "bash" | "dash" | "ash" => {
                let kind = self.kind(name);
                let args = Some(command.words[1..].to_vec());
                let shown = format!("{} {}", line[0], command.words[0].text);
                let read = Read { text: script, shell: kind, form: Form::File, place: Place::Script };
                self.script(&read, args.as_deref(), shown, command, depth)
            }
            "dumb-init" | "tini" => {
                let Some((init, _)) = init(name, line) else {
                    return Node::Unknown { why: format!("{} is not understood", line.join(" ")) };
                };
                Node::Init(init, Box::new(self.shebang(&line[1..], command, script, depth)))
            }
            _ => {
                let mut argv: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
                argv.extend(command.words.iter().map(|word| word.text.clone()));
                Node::App { argv, at: command.at }
            }
        }
    }

    fn kind(&self, name: &str) -> Shell {
        match name {
            "bash" => Shell::Bash,
            "dash" => Shell::Dash,
            "ash" => Shell::Busybox,
            _ => self.sh,
        }
    }

    /// `sh [OPTIONS] -c TEXT [ARGS]` or `sh [OPTIONS] FILE [ARGS]`.
    fn shell(&mut self, command: &Command, name: &str, skip: usize, depth: usize) -> Node {
        if !self.scene.has_shell {
            return Node::Unknown { why: format!("the base image {} has no shell", self.scene.base) };
        }
        let kind = self.kind(name);
        let mut at = skip;
        let mut inline = false;
        while let Some(word) =
            command.words.get(at).map(|word| word.text.as_str()).filter(|word| word.starts_with(['-', '+']))
        {
            at += 1;
            if word == "--" {
                break;
            }
            inline |= !word.starts_with("--") && word.contains('c');
            if word.ends_with('o') && !word.starts_with("--") {
                at += 1;
            }
        }
        let Some(word) = command.words.get(at) else {
            return Node::App { argv: command.words.iter().map(|word| word.text.clone()).collect(), at: command.at };
        };
        if inline {
            let args: Option<Vec<Mapped>> = Some(command.words.iter().skip(at + 2).cloned().collect());
            let shown = command.argv()[..at].join(" ");
            let place = if command.shell_form { Place::ShellForm } else { Place::Inline };
            let text = word.clone();
            let read = Read { text: &text, shell: kind, form: Form::Command, place };
            return self.script(&read, args.as_deref(), shown, command, depth);
        }
        let path = word.text.clone();
        let opened = (self.scene.open)(&path);
        match opened {
            Opened::Text { path: source, text } => {
                self.links.push(format!("{path} is {source}"));
                let args: Option<Vec<Mapped>> = Some(command.words.iter().skip(at + 1).cloned().collect());
                let read = Read { text: &text, shell: kind, form: Form::File, place: Place::Script };
                self.script(&read, args.as_deref(), command.argv().join(" "), command, depth)
            }
            Opened::Missing => Node::Unknown { why: format!("the script {path} is not among the files") },
        }
    }

    fn script(
        &mut self,
        read: &Read<'_>,
        args: Option<&[Mapped]>,
        shown: String,
        command: &Command,
        depth: usize,
    ) -> Node {
        let script = match parse::parse(&read.text.text) {
            Ok(script) => script,
            Err(error) => {
                let line = read.text.text[..error.offset.min(read.text.text.len())].matches('\n').count() + 1;
                return Node::Unknown { why: format!("the script can not be read at its line {line}: {}", error.why) };
            }
        };
        let known = Known { args: args.map(texts), vars: self.scene.vars.to_vec() };
        let program = match exec::analyse(&script, read.shell, read.form, &known, self.scene.is_server) {
            Verdict::Program(program) => program,
            Verdict::Unknown(why) => return Node::Unknown { why },
        };
        // A text that was put together stands nowhere; its instruction does.
        let place = |span| {
            if read.text.is_placed() { (self.scene.place)(read.text.file, read.text.span(span)) } else { command.at }
        };
        let at = place(program.span);
        let child = Command { words: self.words(&program.words, read, args), at, shell_form: false };
        let child = Box::new(self.follow(&child, depth + 1));
        let trap_at = program.trap.as_ref().map(|trap| place(trap.span));
        let helper_at = program.helpers.first().map(|span| place(*span));
        Node::Shell(Box::new(ShellNode {
            name: shown,
            place: read.place,
            at,
            whole: if command.at == At::default() { self.whole } else { command.at },
            trap_at,
            helper_at,
            program,
            child,
        }))
    }

    /// The words of a command, with `"$@"` and what is known put in.
    fn words(&self, words: &[Word], read: &Read<'_>, args: Option<&[Mapped]>) -> Vec<Mapped> {
        let known = Known { args: args.map(texts), vars: self.scene.vars.to_vec() };
        let mut out = Vec::new();
        for word in words {
            if matches!(word.text.as_str(), "$@" | "$*" | "${@}") {
                match args {
                    Some(args) if !args.is_empty() => out.extend(args.iter().cloned()),
                    _ => out.push(Mapped::word("$@")),
                }
                continue;
            }
            let text = known.expand(word).unwrap_or_else(|| word.text.clone());
            if !read.text.is_placed() {
                out.push(Mapped::word(&text));
                continue;
            }
            let mut mapped = Mapped::of(read.text.file);
            // The text begins after an opening quote.
            let raw = word.span.of(&read.text.text);
            let inner = usize::from(raw.starts_with(['\'', '"']));
            mapped.push(&text, read.text.offset(word.span.start) as usize + inner);
            out.push(mapped);
        }
        out
    }

    fn package_runner(&mut self, command: &Command, name: &str, depth: usize) -> Option<Node> {
        let argv = command.argv();
        let operands: Vec<&str> = argv[1..].iter().filter(|word| !word.starts_with('-')).copied().collect();
        let script = match (name, operands.as_slice()) {
            ("npm" | "pnpm" | "yarn" | "yarnpkg", ["start", ..]) => "start",
            ("npm" | "pnpm" | "yarn" | "yarnpkg" | "bun", ["run" | "run-script", script, ..]) => script,
            ("yarn" | "yarnpkg", [script, ..]) if !matches!(*script, "install" | "node" | "exec") => script,
            ("npx" | "bunx" | "npm" | "pnpm" | "yarn" | "yarnpkg", _) => {
                return Some(Node::Runner {
                    runner: Runner::Unsure,
                    name: name.to_owned(),
                    at: command.at,
                    child: None,
                });
            }
            _ => return None,
        };
        let opened = (self.scene.open)("package.json");
        let (mut child, mut runner) = (None, self.runner(name, None));
        if let Opened::Text { path, text } = opened {
            runner = self.runner(name, package_manager(&text.text).as_deref());
            if let Some(mapped) = package_script(&text, script) {
                self.links.push(format!("the script {script:?} of {path}"));
                let at = (self.scene.place)(mapped.file, mapped.span(Span::new(0, mapped.text.len())));
                let outer = Command { words: Vec::new(), at, shell_form: false };
                let read = Read { text: &mapped, shell: self.sh, form: Form::Command, place: Place::PackageJson };
                child = Some(Box::new(self.script(&read, Some(&[]), "sh -c".to_owned(), &outer, depth)));
            }
        }
        let runner = if child.is_none() && runner == Runner::Npm { Runner::Unsure } else { runner };
        Some(Node::Runner { runner, name: argv[..argv.len().min(3)].join(" "), at: command.at, child })
    }

    fn runner(&self, name: &str, manager: Option<&str>) -> Runner {
        match name {
            "npm" => match self.scene.node {
                // Which npm comes with which Node.js: nodejs.org/dist/index.json.
                Some((18, Some(17..=19)) | (20, Some(3..=11)) | (21, Some(0..=6))) => Runner::NpmDeaf,
                Some((18 | 20 | 21, _)) => Runner::Npm,
                Some((major, _)) if major >= 22 => Runner::Npm,
                Some(_) | None => Runner::Unsure,
            },
            "yarn" | "yarnpkg" => match manager {
                None => Runner::Yarn1,
                Some(manager) if manager.starts_with("yarn@1") => Runner::Yarn1,
                Some(_) => Runner::Unsure,
            },
            _ => Runner::Unsure,
        }
    }

    fn su(&mut self, command: &Command, name: &str, depth: usize) -> Node {
        let at = command.words.iter().position(|word| word.text == "-c" || word.text == "--command");
        let child = at.and_then(|at| command.words.get(at + 1)).map(|text| {
            let words = vec![Mapped::word("sh"), Mapped::word("-c"), text.clone()];
            let inner = Command { words, at: command.at, shell_form: false };
            Box::new(self.follow(&inner, depth + 1))
        });
        Node::Runner { runner: Runner::Su, name: name.to_owned(), at: command.at, child }
    }
}

fn texts(words: &[Mapped]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}

/// A text on its way to a shell.
struct Read<'s> {
    text: &'s Mapped,
    shell: Shell,
    form: Form,
    place: Place,
}

fn rest(command: &Command, skip: usize) -> Command {
    let words = command.words.get(skip..).unwrap_or_default().to_vec();
    Command { words, at: command.at, shell_form: command.shell_form }
}

/// Programs that become the one they start, or pass every signal on and wait: how many words to skip.
fn transparent(name: &str, argv: &[&str]) -> Option<usize> {
    let options = |mut at: usize, with_value: &[&str]| {
        while let Some(word) = argv.get(at).filter(|word| word.starts_with('-')) {
            at += if with_value.contains(word) { 2 } else { 1 };
            if *word == "--" {
                break;
            }
        }
        at
    };
    let at = match name {
        "env" => {
            let mut at = options(1, &["-u", "--unset", "-C", "--chdir"]);
            while argv.get(at).is_some_and(|word| word.contains('=')) {
                at += 1;
            }
            at
        }
        "exec" | "nohup" | "catchsegv" | "ddtrace-run" | "opentelemetry-instrument" => options(1, &[]),
        "nice" | "ionice" | "chrt" | "stdbuf" | "setpriv" | "numactl" | "taskset" => {
            options(1, &["-n", "-c", "-p", "-o", "-e", "-i", "--reuid", "--regid"])
        }
        // The duration stands before the command.
        "timeout" => options(1, &["-s", "-k", "--signal", "--kill-after"]) + 1,
        "gosu" | "su-exec" | "chroot" | "setuidgid" => 2,
        "chpst" => options(1, &["-u", "-U", "-e", "-n", "-l"]),
        "bundle" | "bundler" if argv.get(1) == Some(&"exec") => 2,
        "poetry" | "pipenv" if argv.get(1) == Some(&"run") => 2,
        "newrelic-admin" if argv.get(1) == Some(&"run-program") => 2,
        _ => return None,
    };
    (at < argv.len()).then_some(at)
}

/// The inits, by what their options say.
fn init(name: &str, argv: &[&str]) -> Option<(Init, usize)> {
    let swallows = name == "dumb-init" && swallows(argv);
    let with = |group, waits| Init { name: name.to_owned(), group, waits, swallows };
    let after = |values: &[&str]| {
        let mut n = 1;
        while let Some(word) = argv.get(n).filter(|word| word.starts_with('-')) {
            n += if values.contains(word) { 2 } else { 1 };
            if *word == "--" {
                break;
            }
        }
        n
    };
    let has = |letter: char, long: &str| {
        argv[1..]
            .iter()
            .take_while(|word| word.starts_with('-') && **word != "--")
            .any(|word| *word == long || (!word.starts_with("--") && word.contains(letter)))
    };
    match name {
        "tini" | "tini-static" | "docker-init" => Some((with(has('g', "--group"), false), after(&["-p", "-e"]))),
        "catatonit" => Some((with(has('g', "--group"), false), after(&[]))),
        // dumb-init signals the whole session's group unless told otherwise.
        "dumb-init" => Some((with(!has('c', "--single-child"), false), after(&["-r", "--rewrite"]))),
        "lameduck" if argv.get(1) == Some(&"run") => {
            let command = argv.iter().position(|word| *word == "--").map_or(argv.len(), |at| at + 1);
            Some((with(argv[..command].contains(&"--group"), true), command))
        }
        _ => None,
    }
}

/// Whether dumb-init's options have TERM dropped.
fn swallows(argv: &[&str]) -> bool {
    let mut words = argv[1..].iter().take_while(|word| word.starts_with('-') || word.contains(':'));
    words.any(|word| {
        let pair = word.strip_prefix("--rewrite=").or_else(|| word.strip_prefix("-r")).unwrap_or(word);
        pair == "15:0"
    })
}

/// A script of package.json, with where its text stands.
fn package_script(source: &Mapped, script: &str) -> Option<Mapped> {
    let text = source.text.as_str();
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let value = json.get("scripts")?.get(script)?.as_str()?;
    let quoted = serde_json::to_string(value).ok()?;
    // The name may stand elsewhere too; its own value is what follows it.
    let scripts = text.find("\"scripts\"")?;
    let key = serde_json::to_string(script).ok()?;
    let at = text[scripts..].match_indices(&key).map(|(at, _)| scripts + at + key.len()).find_map(|at| {
        let after = text[at..].trim_start().strip_prefix(':')?.trim_start();
        after.starts_with(&quoted).then(|| text.len() - after.len())
    });
    let mut mapped = Mapped::of(source.file);
    mapped.push(value, at.unwrap_or(scripts) + 1);
    Some(mapped)
}

fn package_manager(text: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    json.get("packageManager")?.as_str().map(str::to_owned)
}
