//! One container: what it runs, and with which options.

use std::collections::BTreeMap;
use std::time::Duration;

use lameduck_core::duration;
use serde_json::{Value, json};

use super::{FOLDER, PROGRAM, Settings, VOLUME};
use crate::annotation::{PREFIX, Said};
use crate::image::Config;
use crate::patch::{Draft, Misshapen};

/// What a pod has where it does not say (Kubernetes API, `PodSpec.terminationGracePeriodSeconds`).
const DEFAULT_GRACE: u64 = 30;

/// A container, and what is said about it.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub pod: &'a Value,
    pub name: &'a str,
    pub container: &'a Value,
    pub said: &'a Said,
    pub namespace: &'a Said,
    pub settings: &'a Settings,
}

/// What is to be changed.
#[derive(Debug)]
pub struct Change {
    command: Vec<String>,
    /// The image's CMD, where a `command` would drop it.
    args: Option<Vec<String>>,
    env: Vec<(String, String)>,
}

impl Change {
    pub fn apply(self, draft: &mut Draft, pointer: &str) -> Result<(), Misshapen> {
        draft.set(pointer, "command", json!(self.command))?;
        if let Some(args) = self.args {
            draft.set(pointer, "args", json!(args))?;
        }
        for (name, value) in self.env {
            draft.put(pointer, "env", json!({"name": name, "value": value}), false)?;
        }
        let mount = json!({"name": VOLUME, "mountPath": FOLDER, "readOnly": true});
        draft.put(pointer, "volumeMounts", mount, false)
    }
}

/// Whether a webhook was here before.
pub fn is_ours(container: &Value) -> bool {
    first_word(container) == Some(PROGRAM)
}

/// Whether lameduck is there already, ours or the image's own.
pub fn runs_lameduck(container: &Value) -> bool {
    first_word(container).is_some_and(is_lameduck)
}

fn is_lameduck(word: &str) -> bool {
    word.rsplit('/').next() == Some("lameduck")
}

fn first_word(container: &Value) -> Option<&str> {
    container.get("command")?.get(0)?.as_str()
}

/// Whether our volume is mounted where we mount it.
pub fn mounts_ours(container: &Value) -> bool {
    mounts(container).any(|mount| {
        let text = |key: &str| mount.get(key).and_then(Value::as_str);
        text("name") == Some(VOLUME) && text("mountPath") == Some(FOLDER)
    })
}

fn mounts(container: &Value) -> impl Iterator<Item = &Value> {
    container.get("volumeMounts").and_then(Value::as_array).into_iter().flatten()
}

/// What is to be changed, or why nothing is.
pub fn change(
    about: &About<'_>,
    image: Option<&Result<Config, String>>,
    warnings: &mut Vec<String>,
) -> Result<Change, String> {
    let taken = |mount: &Value| mount.get("mountPath").and_then(Value::as_str).is_some_and(|path| within(path, FOLDER));
    if mounts(about.container).any(taken) {
        return Err(format!("it mounts something at {FOLDER}, where the program would be: mount that elsewhere"));
    }
    let config = image.and_then(|known| known.as_ref().ok());
    let (command, args) = command(about.container, image)?;
    if command.first().is_some_and(|word| is_lameduck(word)) {
        return Err(format!("its image runs {:?} already", command[0]));
    }
    let mut notes = Vec::new();
    let env = environment(about, config, &mut notes)?;
    warnings.extend(notes.into_iter().map(|note| format!("container {:?}: {note}", about.name)));
    let command = [PROGRAM, "run", "--"].into_iter().map(str::to_owned).chain(command).collect();
    Ok(Change { command, args, env })
}

fn within(path: &str, folder: &str) -> bool {
    let path = path.trim_end_matches('/');
    path == folder || path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
}

type Words = Vec<String>;

/// The words to put behind ours, and the arguments where the image's would be lost.
fn command(container: &Value, image: Option<&Result<Config, String>>) -> Result<(Words, Option<Words>), String> {
    let command = words(container, "command")?;
    let args = words(container, "args")?;
    if !command.is_empty() {
        return Ok((command, None));
    }
    let Some(Ok(config)) = image else {
        let why = image.and_then(|known| known.as_ref().err()).map_or("it was not asked for", String::as_str);
        return Err(format!(
            "it names no command, and its image's own is not known: {why}. Add command: [...] with the image's ENTRYPOINT \
             (and args: [...] with its CMD)"
        ));
    };
    let entrypoint: Words = config.entrypoint.iter().map(|word| literal(word)).collect();
    let cmd: Words = config.cmd.iter().map(|word| literal(word)).collect();
    if entrypoint.is_empty() && args.is_empty() && cmd.is_empty() {
        return Err("neither it nor its image names a command: add command: [...]".to_owned());
    }
    Ok((entrypoint, (args.is_empty() && !cmd.is_empty()).then_some(cmd)))
}

fn words(container: &Value, key: &str) -> Result<Words, String> {
    let complaint = || format!("{key} is no list of texts");
    match container.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => {
            list.iter().map(|word| word.as_str().map(str::to_owned).ok_or_else(complaint)).collect()
        }
        Some(_) => Err(complaint()),
    }
}

/// Kubernetes expands `$(NAME)` in a container's command, and not in an image's; `$$(` stands for `$(`.
fn literal(word: &str) -> String {
    word.replace("$(", "$$(")
}

/// The variables to add. What the container sets itself stays.
fn environment(
    about: &About<'_>,
    image: Option<&Config>,
    notes: &mut Vec<String>,
) -> Result<Vec<(String, String)>, String> {
    let mut options = options(about);
    if !options.contains_key("grace") {
        options.insert("grace".to_owned(), duration::show(grace(about, notes)));
    }
    let stop_signal = about.container.pointer("/lifecycle/stopSignal").and_then(Value::as_str);
    let stop_signal = stop_signal.or_else(|| image.and_then(|image| image.stop_signal.as_deref()));
    if let Some(signal) = stop_signal.filter(|signal| !matches!(*signal, "SIGTERM" | "TERM" | "15")) {
        // The kubelet sends this one instead of TERM.
        options.entry("drain-on".to_owned()).or_insert_with(|| format!("TERM\n{signal}"));
    }
    let own: BTreeMap<&str, Option<&str>> = set_by_itself(about.container);
    let mut whole: BTreeMap<String, String> = BTreeMap::new();
    let mut added = Vec::new();
    for (option, value) in options {
        let variable = format!("LAMEDUCK_{}", option.to_ascii_uppercase().replace('-', "_"));
        if !own.contains_key(variable.as_str()) {
            whole.insert(variable.clone(), value.clone());
            added.push((variable, value));
        }
    }
    let literal = own.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())));
    whole.extend(literal.filter(|(name, _)| name.starts_with("LAMEDUCK_")));
    (about.settings.accept)(&whole).map_err(|why| format!("lameduck run would refuse its options: {why}"))?;
    Ok(added)
}

/// The variables that a container sets, with their values where these stand there.
fn set_by_itself(container: &Value) -> BTreeMap<&str, Option<&str>> {
    let env = container.get("env").and_then(Value::as_array);
    env.into_iter()
        .flatten()
        .filter_map(|one| Some((one.get("name")?.as_str()?, one.get("value").and_then(Value::as_str))))
        .collect()
}

/// The options for this container: the webhook's, then the namespace's, the pod's, and those for it alone.
fn options(about: &About<'_>) -> BTreeMap<String, String> {
    let mut options = about.settings.defaults.clone();
    let suffix = format!(".{}", about.name);
    for said in [about.namespace, about.said] {
        for own in [false, true] {
            for (name, value) in said.iter() {
                let option = if own { name.strip_suffix(&suffix) } else { Some(name) };
                if let Some(option) = option.filter(|option| about.settings.options.contains(option)) {
                    options.insert(option.to_owned(), value.to_owned());
                }
            }
        }
    }
    options
}

/// From TERM to KILL: the pod's grace period less what the preStop hook uses up before TERM.
fn grace(about: &About<'_>, notes: &mut Vec<String>) -> Duration {
    let grace = about.pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64);
    let grace = Duration::from_secs(grace.unwrap_or(DEFAULT_GRACE));
    let Some(hook) = about.container.pointer("/lifecycle/preStop").filter(|hook| !hook.is_null()) else { return grace };
    if let Some(sleep) = hook_sleep(hook) {
        notes.push(format!(
            "its preStop hook sleeps {} of a grace period of {} before lameduck learns of the end: it can go",
            duration::show(sleep),
            duration::show(grace),
        ));
        return grace.saturating_sub(sleep).max(Duration::from_secs(1));
    }
    if !asks_lameduck(hook) {
        notes.push(format!(
            "how long its preStop hook takes is not known, and comes off the grace period of {}: say what is left \
             for lameduck with {PREFIX}grace",
            duration::show(grace),
        ));
    }
    grace
}

/// A hook that asks lameduck, whose grace then counts from the request.
fn asks_lameduck(hook: &Value) -> bool {
    let words = hook.pointer("/exec/command").and_then(Value::as_array);
    let mut words = words.into_iter().flatten().filter_map(Value::as_str);
    words.next().is_some_and(is_lameduck) && words.next() == Some("drain")
}

/// For how long a hook sleeps, if that is all it does.
fn hook_sleep(hook: &Value) -> Option<Duration> {
    if let Some(seconds) = hook.pointer("/sleep/seconds") {
        return seconds.as_u64().map(Duration::from_secs);
    }
    let words: Vec<&str> = hook.pointer("/exec/command")?.as_array()?.iter().filter_map(Value::as_str).collect();
    let text = match words.as_slice() {
        [sleep, seconds] if sleep.rsplit('/').next() == Some("sleep") => (*seconds).to_owned(),
        [shell, "-c", script] if shell.rsplit('/').next().is_some_and(|shell| shell.ends_with("sh")) => {
            let mut words = script.split_whitespace();
            let sleep = words.next().filter(|word| word.rsplit('/').next() == Some("sleep")).and(words.next())?;
            words.next().is_none().then(|| sleep.to_owned())?
        }
        _ => return None,
    };
    duration::parse(&text).ok()
}
