//! `lameduck demo`: the main job on an embedded default.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lameduck_drill::demo::{self, APPS, App};
use lameduck_drill::naive;

use super::drill::{Live, Outputs, own_program, set_up};
use super::flag::{self, Failure, Flag, Verb};
use crate::exit;

/// The verb.
pub const VERB: Verb = Verb {
    name: "demo",
    summary: "Show it: a service rolled under load, plain and under lameduck run.",
    operands: "",
    flags: &[
        Flag::value("app", "NAME", "A real server instead of the built-in one: node, puma, gunicorn or go."),
        Flag::value("json", "FILE", "Write the result as JSON (- is standard output)."),
        Flag::value("junit", "FILE", "Write it as JUnit XML."),
        Flag::value("html", "FILE", "Where the picture goes. Default: lameduck-demo.html."),
        Flag::switch("quiet", "No progress."),
    ],
    from_env: false,
    usage_status: exit::USAGE,
    about: "\
The built-in service exits at once on TERM and closes idle connections after 5 s, as many services do. It takes half a
minute and needs no other program.

Exit status: 0 nothing was lost under lameduck, 1 requests were, 2 usage, 3 inconclusive, 4 could not be set up.
",
};

/// The hidden verb of the built-in service.
pub const SERVICE_VERB: &str = "serve-naive";

/// Runs the demonstration.
pub fn demo(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, args, env)?;
    if let Some(word) = given.operands.first() {
        return Err(given.usage(format!("{} was not expected", word.display())));
    }
    let lameduck = own_program()?;
    let names = APPS.map(|app| app.id).join(", ");
    let folder = Folder::new()?;
    let service = match given.one("app", &format!("one of {names}"), App::from_id)? {
        Some(app) => prepare(&app, &folder.0, env)?,
        None => vec![lameduck.clone().into(), SERVICE_VERB.into()],
    };
    let plan = demo::plan(service, demo::wrap(lameduck.into()));
    let mut live = Live::new(given.switch("quiet")?);
    let result = super::with_sockets(|| lameduck_drill::compare(&plan, 1, |news| live.tell(&news))).map_err(set_up)?;
    live.end();
    Outputs::of(&given).with_html("lameduck-demo.html".into()).write_compare(&result)?;
    Ok(result.exit_code())
}

/// Writes an app's file and builds it where it has to be built.
fn prepare(app: &App, folder: &Path, env: &impl Fn(&str) -> Option<OsString>) -> Result<Vec<OsString>, Failure> {
    let set_up = |message: String| Failure::Error { message, status: exit::SETUP };
    let path = env("PATH").unwrap_or_default();
    for program in app.needs {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(set_up(format!(
                "--app {}: {program} was not found in PATH; install it, or leave --app out",
                app.id
            )));
        }
    }
    let file = folder.join(app.file);
    std::fs::write(&file, app.source).map_err(|error| set_up(format!("{}: {error}", file.display())))?;
    if let Some(build) = app.build_command(folder) {
        let status = Command::new(&build[0]).args(&build[1..]).status();
        if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            return Err(set_up(format!("--app {}: {build:?} failed: {status:?}", app.id)));
        }
    }
    Ok(app.command(folder))
}

/// A folder for an app's files, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, Failure> {
        let path = std::env::temp_dir().join(format!("lameduck-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path)
            .map_err(|error| Failure::Error { message: format!("{}: {error}", path.display()), status: exit::SETUP })?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The built-in service, on the port in `PORT`.
pub fn serve_naive(env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let wrong = |message: String| Failure::Error { message, status: exit::SETUP };
    let port = env("PORT").and_then(|port| port.to_str()?.parse::<u16>().ok());
    let port = port.ok_or_else(|| wrong("expected a port in PORT".into()))?;
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| wrong(format!("port {port}: {error}")))?;
    match naive::serve(listener, Duration::from_secs(5)) {
        Ok(never) => match never {},
        Err(error) => Err(wrong(format!("port {port}: {error}"))),
    }
}
