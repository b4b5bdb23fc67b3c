//! The incidents: real stories, run again on their real components, first as they were and then cured.
//!
//! An incident is data (what it needs, its files) and one function that plays it on a [`Stage`]: each step of it is one of lameduck's
//! verbs, called as a library. What a step showed is written into [`Told`], from which the JSON and the page are made.

mod disk;
mod gitlab;
mod gke;
mod ingress;
pub mod node;
mod page;
mod passenger;
mod stage;
mod taskcluster;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lameduck_core::Cause;
use lameduck_drill::{DrillResult, render};
use serde_json::{Value, json};

pub use page::page;
pub use stage::{Broken, Setting, Stage, Variant};

/// The schema of the JSON.
pub const SCHEMA: &str = "lameduck.incident/1";

/// A program that has to be there.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Its name.
    pub program: &'static str,
    /// Debian's package that has it.
    pub package: &'static str,
}

/// A file of an incident, as it stands in `incidents/NAME`.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Its path below that folder.
    pub path: &'static str,
    /// Its text.
    pub text: &'static str,
}

/// Embeds files of `incidents/NAME`.
macro_rules! files {
    ($name:literal: $($path:literal),+ $(,)?) => {
        &[$($crate::incident::Embedded {
            path: $path,
            text: include_str!(concat!("../../../../incidents/", $name, "/", $path)),
        }),+]
    };
}
pub(crate) use files;

/// An incident.
pub struct Incident {
    /// Its name.
    pub name: &'static str,
    /// What it is, in one line.
    pub title: &'static str,
    /// The story, in a paragraph.
    pub story: &'static str,
    /// Where it was told.
    pub source: &'static str,
    /// The causes that it has to show.
    pub causes: &'static [Cause],
    /// What it needs, besides namespaces.
    pub needs: &'static [Need],
    /// What is not real, in sentences.
    pub simulated: &'static [&'static str],
    /// Its files.
    pub files: &'static [Embedded],
    /// How long it takes, short and whole, about.
    pub takes: (&'static str, &'static str),
    /// Plays it.
    pub play: fn(&mut Stage) -> Result<(), Broken>,
}

/// All of them.
pub const ALL: &[&Incident] = &[&gitlab::INCIDENT, &passenger::INCIDENT, &taskcluster::INCIDENT, &gke::INCIDENT];

/// One comparison of the story with this run.
#[derive(Debug, Clone)]
pub struct Fact {
    /// Of what.
    pub what: String,
    /// What the story says.
    pub story: String,
    /// What this run showed.
    pub here: String,
}

/// What has to hold for an incident to pass, and whether it does.
#[derive(Debug, Clone)]
pub struct Expectation {
    /// In words, with the figures.
    pub what: String,
    /// Whether it does.
    pub holds: bool,
}

/// What a run of an incident showed.
#[derive(Debug, Default)]
pub struct Told {
    /// The drills, by the id of their variant, in the order run: `plain`, `cured` and others.
    pub drills: Vec<(String, String, DrillResult)>,
    /// The findings of `check`.
    pub check: Vec<Value>,
    /// The explanations, by the id of the variant.
    pub explain: Vec<Value>,
    /// The story beside this run.
    pub facts: Vec<Fact>,
    /// What has to hold.
    pub expectations: Vec<Expectation>,
    /// What was skipped, and why.
    pub skipped: Vec<String>,
    /// Texts to show: title and text.
    pub shown: Vec<(String, String)>,
    /// How long the story slept, on the clock of this run.
    pub story_sleep_s: Option<f64>,
}

impl Told {
    /// A drill.
    pub fn drill(&self, id: &str) -> Option<&DrillResult> {
        self.drills.iter().find(|(known, ..)| known == id).map(|(.., result)| result)
    }

    /// Whether everything held, and there was something to hold.
    pub fn passed(&self) -> bool {
        !self.expectations.is_empty() && self.expectations.iter().all(|expectation| expectation.holds)
    }

    /// For the JSON.
    pub fn json(&self, incident: &Incident, short: bool) -> Value {
        let drill = |result: &DrillResult| serde_json::from_str::<Value>(&render::json(result)).unwrap_or(Value::Null);
        let others = self.drills.iter().filter(|(id, ..)| id != "plain" && id != "cured");
        let others: serde_json::Map<String, Value> =
            others.map(|(id, _, result)| (id.clone(), drill(result))).collect();
        let facts = self.facts.iter().map(|fact| json!({"what": fact.what, "story": fact.story, "here": fact.here}));
        let expectations = self.expectations.iter().map(|one| json!({"what": one.what, "holds": one.holds}));
        json!({
            "name": incident.name,
            "short": short,
            "plain": self.drill("plain").map(drill),
            "cured": self.drill("cured").map(drill),
            "variants": others,
            "check": self.check,
            "explain": self.explain,
            "facts": facts.collect::<Vec<_>>(),
            "expectations": expectations.collect::<Vec<_>>(),
            "story_sleep_s": self.story_sleep_s,
            "simulated": incident.simulated,
            "skipped": self.skipped,
            "passed": self.passed(),
        })
    }
}

/// The first program that is not in `path`, in words.
pub fn missing(needs: &[Need], path: &OsStr) -> Option<String> {
    let gone: Vec<_> = needs.iter().filter(|need| which(need.program, path).is_none()).collect();
    (!gone.is_empty()).then(|| {
        let gone: Vec<_> = gone.iter().map(|need| format!("{} (Debian: {})", need.program, need.package)).collect();
        format!("not in PATH: {}", gone.join(", "))
    })
}

/// Where a program is.
pub fn which(program: &str, path: &OsStr) -> Option<std::path::PathBuf> {
    let mut found = std::env::split_paths(path).map(|folder| folder.join(program));
    found.find(|file| file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0))
}

/// Writes an incident's files below a folder; scripts can be executed.
pub fn write_files(incident: &Incident, folder: &Path) -> Result<(), Broken> {
    incident.files.iter().try_for_each(|file| disk::write(&folder.join(file.path), file.text))
}
