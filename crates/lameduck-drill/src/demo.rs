//! The embedded default of `lameduck demo`: no other program, no flags, under a minute.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use crate::mix::{Kind, Template};
use crate::plan::{Action, Event, Plan};

/// How long the plain and the cured variant of [`plan`] take together at most, for a progress line.
pub const TAKES: Duration = Duration::from_secs(30);

/// Two replicas of a service, rolled one after the other at 200 requests a second behind a load balancer that learns of
/// each end 2 s late. `service` starts one replica; `wrap` is what it is compared with.
///
/// Plain, the losses are certain by arithmetic: each of two exits leaves its endpoint routed for 2 s, and one request
/// in six takes 200 ms, so that some are always in flight.
pub fn plan(service: Vec<OsString>, wrap: Vec<OsString>) -> Plan {
    let template = |method: &str, path: &str, weight, body_bytes| Template {
        method: method.into(),
        path: path.into(),
        weight,
        body_bytes,
        kind: Kind::Http1,
    };
    Plan {
        command: service,
        wrap,
        replicas: 2,
        rate: 200.0,
        duration: Duration::from_secs(9),
        mix: vec![
            template("GET", "/", 9, 0),
            template("GET", "/slow?ms=200", 3, 0),
            template("POST", "/", 4, 512),
            template("HEAD", "/", 1, 0),
        ],
        events: vec![Event { at: Duration::from_secs(1), action: Action::Roll }],
        lag: Duration::from_secs(2),
        grace: Duration::from_secs(15),
        timeout: Duration::from_secs(5),
        ready_timeout: Duration::from_secs(10),
        ..Plan::default()
    }
}

/// The cure: this program as PID 1. It waits for measured quiet, so its bounds can be short here.
pub fn wrap(lameduck: OsString) -> Vec<OsString> {
    let flags = ["run", "--grace", "15s", "--min", "1s", "--quiet", "1s", "--"];
    std::iter::once(lameduck).chain(flags.map(OsString::from)).collect()
}

/// A real server to run the demo on, where it is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct App {
    /// Its id, as in `--app`.
    pub id: &'static str,
    /// The programs that must be installed.
    pub needs: &'static [&'static str],
    /// The name of its one file.
    pub file: &'static str,
    /// What is in it.
    pub source: &'static str,
    /// The command that builds it, if it is built. `{file}` is its file's path, `{dir}` the folder of that.
    build: &'static [&'static str],
    /// The command that starts a replica, the same way.
    start: &'static [&'static str],
}

/// Every app.
pub const APPS: [App; 4] = [
    App {
        id: "node",
        needs: &["node"],
        file: "app.js",
        source: include_str!("demo/app.js"),
        build: &[],
        start: &["node", "{file}"],
    },
    App {
        id: "puma",
        needs: &["puma"],
        file: "config.ru",
        source: include_str!("demo/config.ru"),
        build: &[],
        start: &["puma", "--quiet", "--port", "{port}", "--threads", "16:16", "{file}"],
    },
    App {
        id: "gunicorn",
        needs: &["gunicorn"],
        file: "app.py",
        source: include_str!("demo/app.py"),
        build: &[],
        start: &["gunicorn", "--workers=2", "--threads=8", "--bind=127.0.0.1:{port}", "--chdir={dir}", "app:app"],
    },
    App {
        id: "go",
        needs: &["go"],
        file: "main.go",
        source: include_str!("demo/main.go"),
        build: &["go", "build", "-o", "{dir}/service", "{file}"],
        start: &["{dir}/service"],
    },
];

impl App {
    /// The app with this id.
    pub fn from_id(id: &str) -> Option<App> {
        APPS.into_iter().find(|app| app.id == id)
    }

    /// The command that builds it in `folder`, where its file has been written; `None` where there is nothing to build.
    pub fn build_command(&self, folder: &Path) -> Option<Vec<OsString>> {
        (!self.build.is_empty()).then(|| self.fill(self.build, folder))
    }

    /// The service, for [`plan`].
    pub fn command(&self, folder: &Path) -> Vec<OsString> {
        self.fill(self.start, folder)
    }

    fn fill(&self, words: &[&str], folder: &Path) -> Vec<OsString> {
        let (file, dir) = (folder.join(self.file), folder.to_string_lossy());
        let filled =
            |word: &&str| OsString::from(word.replace("{file}", &file.to_string_lossy()).replace("{dir}", &dir));
        words.iter().map(filled).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_is_sound_and_each_app_starts_on_its_port() {
        let folder = Path::new("/tmp/x");
        for app in APPS {
            assert_eq!(App::from_id(app.id), Some(app));
            let command = app.command(folder);
            let words = command.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ");
            assert!(words.contains("{port}") || app.source.contains("PORT"), "{words}");
            assert!(!words.contains("{file}") && !words.contains("{dir}"), "{words}");
            let plan = plan(command, wrap("lameduck".into()));
            assert_eq!(plan.check(), Ok(()));
            // Both variants, and their start and end, within what is promised.
            assert!(plan.duration * 2 < TAKES);
        }
    }
}
