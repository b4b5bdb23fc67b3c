//! `kubectl lameduck explain`.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lameduck_cluster::plugin::gather::{self, Wanted};
use lameduck_explain::read::{Context, FORMATS};
use lameduck_explain::record::Line;

use super::super::explain as files;
use super::super::flag::{self, Failure, Flag, Verb};
use super::{COMMON, block, reach};
use crate::exit;

/// `lameduck kubectl explain`
pub const VERB: Verb = Verb {
    name: "kubectl explain",
    summary: "Give every lost request of a namespace its cause, from its events, pods, endpoints and logs.",
    operands: "[FILE|FOLDER]...",
    flags: &FLAGS,
    from_env: false,
    about: "\
The losses are in the logs of whoever stands in front: give the ingress controller's namespace by --and, or a load balancer's logs as FILE.
Options may follow files.

Exit status: 0 read, whatever was lost; 2 usage; 3 nothing in the inputs was understood; 4 the cluster could not be asked, or an input or
output failed.
",
    usage_status: exit::USAGE,
};

const FLAGS: [Flag; COMMON.len() + OWN.len() + files::FLAGS.len()] = flag::joined(&[COMMON, OWN, files::FLAGS]);

const OWN: &[Flag] = &[
    Flag::value("since", "TIME", "How far back logs are read. Default: 1h, for which the API server keeps events."),
    Flag::list("and", "NAMESPACE", "Also of this namespace, as of the ingress controller's; may be repeated."),
    Flag::value("keep", "FOLDER", "Keep what was gathered there, for lameduck explain FOLDER. It must not exist."),
];

/// Where the API server keeps events no longer (`kube-apiserver --event-ttl`).
const SINCE: Duration = Duration::from_hours(1);

/// Runs the verb.
pub fn explain(args: &[OsString], env: &impl Fn(&str) -> Option<OsString>) -> Result<u8, Failure> {
    let given = flag::parse(&VERB, &flag::options_first(args, &FLAGS), env)?;
    let since = given.duration("since")?.unwrap_or(SINCE);
    let mut namespaces = given.list("and", "the name of a namespace", |text| Some(text.to_owned()))?;
    let (kube, namespace) = reach(&given, env)?;
    let Some(namespace) = namespace else {
        return Err(given
            .usage("--all-namespaces: pods of one name in two namespaces would be taken for one; name some by --and"));
    };
    namespaces.insert(0, namespace);
    let folder = Folder::make(given.raw("keep").map(Path::new))?;
    let wanted = Wanted { namespaces, since, bare };
    let gathered = block(gather::gather(&kube, &wanted, &folder.path))?;
    eprintln!(
        "gathered {} pods, {} events, {} logs of {} lines",
        gathered.pods, gathered.events, gathered.logs.0, gathered.logs.1
    );
    for note in &gathered.notes {
        eprintln!("{note}");
    }
    let others = given.operands.iter().map(PathBuf::from);
    files::these(&given, std::iter::once(folder.path.clone()).chain(others).collect(), false)
}

/// What a proxy logs has its own time. Everything else, drain reports among it, has the kubelet's.
fn bare(line: &str) -> bool {
    let read = |line| FORMATS.iter().find_map(|format| (format.read)(line, Context::default()));
    matches!(read(line.as_bytes()), Some(Line::Hop(_) | Line::Note(_)))
}

/// A folder that only we may read, and that goes when it was not asked for.
struct Folder {
    path: PathBuf,
    keep: bool,
}

impl Folder {
    fn make(keep: Option<&Path>) -> Result<Folder, Failure> {
        let own = || std::env::temp_dir().join(format!("lameduck-explain-{}", std::process::id()));
        let path = keep.map_or_else(own, Path::to_owned);
        let made = fs::DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| {
            let message =
                format!("{}: {error}; expected a folder that can be made, for what is gathered", path.display());
            Failure::Error { message, status: exit::SETUP }
        })?;
        Ok(Folder { path, keep: keep.is_some() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn access_logs_have_their_own_time() {
        assert!(bare(r#"10.0.0.1 - - [21/Nov/2026:18:00:00 +0000] "GET / HTTP/1.1" 502 157 "-" "curl""#));
        assert!(!bare("Goodbye!") && !bare("lameduck: report {\"schema\":\"lameduck.drain/1\"}"));
    }
}
