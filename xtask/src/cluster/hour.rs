//! `cargo xtask cluster first-hour`: the commands of docs/first-hour.md on this cluster, in their order, as a newcomer types them.
//!
//! Blocks of `console` hold commands, which begin with `$ ` and go on with `> `, and what they printed. A block of `yaml` whose first line
//! is `# NAME.yaml` is the file of that name. With `--write` the page gets what they print now.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};

use super::image::{Image, Source};
use super::{Kubectl, STATE, incident, programs};
use crate::packages;
use crate::test::root;

/// Whom deploy/Dockerfile has the image run by.
const USER: &str = "65532:65532";
const PAGE: &str = "docs/first-hour.md";

/// The task.
pub fn task(args: &[String]) -> anyhow::Result<ExitCode> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let write = match words.as_slice() {
        [] => false,
        ["--write"] => true,
        _ => bail!("first-hour [--write]"),
    };
    Kubectl::new()?;
    let written = follow(&fs::read_to_string(root().join(PAGE))?)?;
    if write {
        fs::write(root().join(PAGE), written)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// As a test: every command succeeds.
pub fn as_written(_: &Kubectl) -> anyhow::Result<()> {
    follow(&fs::read_to_string(root().join(PAGE))?).map(|_| ())
}

/// A part of the page.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    /// What is for readers only, line by line.
    Text(&'a str),
    /// A file: its name, and what is in it.
    File(&'a str, String),
    /// A command of one or more lines. What it printed is left out.
    Command(String),
}

fn parts(page: &str) -> anyhow::Result<Vec<Part<'_>>> {
    let mut parts = Vec::new();
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        parts.push(Part::Text(line));
        let named = |line: &&str| line.strip_prefix("# ").is_some_and(|name| name.contains(".yaml"));
        if line == "```yaml"
            && let Some(first) = lines.next_if(named)
        {
            parts.push(Part::Text(first));
            let mut inside = Vec::new();
            while let Some(line) = lines.next_if(|line| *line != "```") {
                parts.push(Part::Text(line));
                inside.extend([line, "\n"]);
            }
            parts.push(Part::File(first.trim_start_matches("# "), inside.concat()));
        }
        if line == "```console" {
            while let Some(line) = lines.next_if(|line| *line != "```") {
                if let Some(command) = line.strip_prefix("$ ") {
                    let mut command = command.to_owned();
                    while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
                        command.extend(["\n", &more[2..]]);
                    }
                    parts.push(Part::Command(command));
                }
            }
            ensure!(lines.peek().is_some(), "{PAGE}: a block of console has no end");
        }
    }
    Ok(parts)
}

/// Runs the commands; gives the page with what they printed.
fn follow(page: &str) -> anyhow::Result<String> {
    provide()?;
    let helm = programs::helm()?;
    // kubectl and helm, and the chart where the page has it: in the project's root.
    let path = format!("{STATE}/bin:{}:{}", helm.display(), std::env::var("PATH").unwrap_or_default());
    let files = tempfolder()?;
    std::os::unix::fs::symlink(root().join("deploy"), files.join("deploy"))?;
    let config = files.join("kubeconfig");
    // A copy: the page chooses a namespace in it.
    fs::copy(Path::new(STATE).join("kubeconfig"), &config)?;
    let mut written: Vec<String> = Vec::new();
    for part in parts(page)? {
        match part {
            Part::Text(line) => written.push(line.to_owned()),
            Part::File(name, text) => fs::write(files.join(name), text)?,
            Part::Command(command) => {
                println!("$ {command}");
                let mut shell = Command::new("bash");
                shell.args(["-o", "pipefail", "-c", &format!("exec 2>&1\n{command}")]).current_dir(&files);
                shell.env("PATH", &path).env("KUBECONFIG", &config).env("HOME", &files);
                let output = shell.stdin(Stdio::null()).output().context("bash")?;
                let said = String::from_utf8_lossy(&output.stdout).into_owned();
                print!("{said}");
                ensure!(output.status.success(), "{PAGE}: {command}: {}\n{said}", output.status);
                written.push(format!("$ {}", command.replace('\n', "\n> ")));
                // Tables have spaces at the ends of their lines.
                written.extend(said.lines().map(|line| line.trim_end().to_owned()));
            }
        }
    }
    fs::remove_dir_all(&files)?;
    Ok(written.join("\n") + "\n")
}

fn tempfolder() -> anyhow::Result<PathBuf> {
    let folder = Path::new(STATE).join("first-hour");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// The images that the page names. There is no registry: they have the files of this machine under the names that they have elsewhere.
fn provide() -> anyhow::Result<()> {
    let of = |name: &str, programs: &[&str]| -> anyhow::Result<Image> {
        let found = programs.iter().map(|name| packages::find(name).with_context(|| format!("{name} is missing")));
        Ok(Image::of(name, found.collect::<anyhow::Result<_>>()?, &[], Vec::new()))
    };
    let images = [
        of_dockerfile()?,
        of("docker.io/library/node:20-slim", &["sh", "node"])?,
        of("docker.io/curlimages/curl:8.16.0", &["sh", "curl", "date"])?,
    ];
    for image in images {
        incident::import(&image.write(&Path::new(STATE).join("images"))?)?;
    }
    Ok(())
}

/// What `docker build -f deploy/Dockerfile .` makes, by its own commands: there is no Docker where this runs.
pub fn of_dockerfile() -> anyhow::Result<Image> {
    let text = fs::read_to_string(root().join("deploy/Dockerfile"))?.replace("\\\n", " ");
    let out = Path::new(STATE).join("dockerfile");
    for command in text.lines().filter_map(|line| line.strip_prefix("RUN ")) {
        let command = command.replace("/out/", &format!("{}/", out.display()));
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", &command]).current_dir(root()).env_remove("RUSTFLAGS").stdout(Stdio::null());
        let status = shell.status().context("sh")?;
        ensure!(status.success(), "deploy/Dockerfile: {command}: {status}");
    }
    let values = fs::read_to_string(root().join("deploy/chart/values.yaml"))?;
    let chart = fs::read_to_string(root().join("deploy/chart/Chart.yaml"))?;
    let of = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| line.trim().strip_prefix(key).map(str::trim));
        Ok::<_, anyhow::Error>(value.with_context(|| key.to_owned())?.trim_matches('"').to_owned())
    };
    ensure!(text.contains("\nCOPY --from=build /out /\n"), "deploy/Dockerfile: what is built is not copied");
    let file = |name: &str| (format!("/{name}"), Source::File(out.join(name)));
    let files = vec![
        file("lameduck"),
        file("bin/lameduck"),
        ("/etc/ssl/certs/ca-certificates.crt".to_owned(), Source::File("/etc/ssl/certs/ca-certificates.crt".into())),
    ];
    let name = format!("{}:{}", of(&values, "repository:")?, of(&chart, "appVersion:")?);
    // The manifests have commands of their own. The init container may not be root.
    ensure!(text.contains(&format!("\nUSER {USER}\n")), "deploy/Dockerfile: expected USER {USER}");
    Ok(Image::of(&name, Vec::new(), &[], files).run_by(USER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_files_and_commands() {
        let page = "text\n```yaml\n# a.yaml\nkind: A\n```\n```console\n$ one \\\n> two\nold\n$ three\n```\n```yaml\nx: y\n```\n";
        let parts = parts(page).unwrap();
        let files: Vec<_> = parts.iter().filter(|part| matches!(part, Part::File(..))).collect();
        assert_eq!(files, [&Part::File("a.yaml", "kind: A\n".to_owned())]);
        let commands: Vec<_> = parts.iter().filter(|part| matches!(part, Part::Command(_))).collect();
        assert_eq!(commands, [&Part::Command("one \\\ntwo".to_owned()), &Part::Command("three".to_owned())]);
        let text: Vec<_> = parts.iter().filter(|part| matches!(part, Part::Text(_))).collect();
        assert_eq!(text.len(), page.lines().count() - "one two old three".split(' ').count());
        assert!(super::parts("```console\n$ x\n").is_err());
    }

    #[test]
    fn the_page_has_what_a_newcomer_types() {
        let page = fs::read_to_string(root().join(PAGE)).unwrap();
        let parts = parts(&page).unwrap();
        let commands = parts.iter().filter_map(|part| match part {
            Part::Command(command) => Some(command.as_str()),
            Part::Text(_) | Part::File(..) => None,
        });
        for command in commands {
            assert!(command.split([' ', '=', '(']).any(|word| ["kubectl", "helm"].contains(&word)), "{command}");
        }
    }
}
