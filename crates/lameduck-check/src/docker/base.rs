//! What is known of a base image by its name.

use crate::shell::exec::Shell;

/// What `/bin/sh` is in an image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sh {
    Is(Shell),
    /// There is no shell.
    Absent,
    #[default]
    Unknown,
}

/// A reference to an image, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference<'r> {
    /// Registry and folders: `gcr.io/distroless`; empty for Docker's own library.
    pub place: &'r str,
    pub name: &'r str,
    pub tag: &'r str,
}

pub fn reference(text: &str) -> Reference<'_> {
    let text = text.split('@').next().unwrap_or_default();
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (text, ""),
    };
    let (place, name) = path.rsplit_once('/').unwrap_or(("", path));
    let library =
        ["docker.io/library", "library", "index.docker.io/library", "public.ecr.aws/docker/library", "docker.io"];
    Reference { place: if library.contains(&place) { "" } else { place }, name, tag }
}

/// An official image: its shell, command and stop signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Official {
    pub sh: Sh,
    /// The command of the image itself. Its entrypoint, where it has one, ends in `exec "$@"`.
    pub command: Vec<&'static str>,
    pub stop_signal: Option<&'static str>,
}

const OFFICIAL: &str = include_str!("../../data/images.tsv");

/// What the catalogue says of an image of Docker's library.
pub fn official(reference: &Reference<'_>) -> Option<Official> {
    if !reference.place.is_empty() {
        return None;
    }
    let rows = OFFICIAL.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    // A row `php:fpm` is meant for tags with `fpm` in them, and stands before the row `php`.
    rows.map(|line| line.split('\t').collect::<Vec<_>>()).find_map(|fields| {
        let [image, family, command, signal, ..] = fields.as_slice() else { return None };
        let (name, tag) = image.split_once(':').unwrap_or((image, ""));
        if name != reference.name || !(tag.is_empty() || reference.tag.contains(tag)) {
            return None;
        }
        let sh = by_tag(reference.tag).unwrap_or_else(|| by_family(family));
        let command = if *command == "-" { Vec::new() } else { command.split(' ').collect() };
        Some(Official { sh, command, stop_signal: (*signal != "-").then_some(*signal) })
    })
}

/// The ENTRYPOINT of images that hold one interpreter and no shell: CMD are its arguments.
/// <https://github.com/GoogleContainerTools/distroless>: `nodejs/`, `python3/`, `java/`.
pub fn interpreter(reference: &Reference<'_>) -> &'static [&'static str] {
    if reference.place != "gcr.io/distroless" {
        return &[];
    }
    match reference.name {
        name if name.starts_with("nodejs") => &["/nodejs/bin/node"],
        name if name.starts_with("python3") => &["/usr/bin/python3"],
        name if name.starts_with("java") && !name.starts_with("java-base") => &["/usr/bin/java", "-jar"],
        _ => &[],
    }
}

/// What `/bin/sh` is in an image of this name.
pub fn sh(text: &str) -> Sh {
    if text == "scratch" {
        return Sh::Absent;
    }
    let reference = reference(text);
    if let Some(official) = official(&reference) {
        return official.sh;
    }
    let whole = format!("{}/{}", reference.place, reference.name);
    if whole.contains("distroless/") || reference.tag.contains("distroless") {
        return if reference.tag.contains("debug") { Sh::Is(Shell::Busybox) } else { Sh::Absent };
    }
    if reference.tag.contains("chiseled") {
        return Sh::Absent;
    }
    if reference.place.starts_with("cgr.dev/chainguard") {
        let shell = reference.tag.contains("dev") || reference.name == "wolfi-base" || reference.name == "busybox";
        return if shell { Sh::Is(Shell::Busybox) } else { Sh::Absent };
    }
    if let Some(sh) = by_tag(reference.tag) {
        return sh;
    }
    if let Some(sh) = by_tag(reference.name) {
        return sh;
    }
    match reference.place {
        "mcr.microsoft.com/dotnet" | "mcr.microsoft.com/dotnet/nightly" => Sh::Is(Shell::Dash),
        place if place.starts_with("registry.access.redhat.com") || place.starts_with("registry.redhat.io") => {
            Sh::Is(Shell::Bash)
        }
        "quay.io/centos" | "quay.io/fedora" | "quay.io/rockylinux" | "public.ecr.aws/amazonlinux" => {
            Sh::Is(Shell::Bash)
        }
        _ => Sh::Unknown,
    }
}

fn by_family(family: &str) -> Sh {
    match family {
        "debian" => Sh::Is(Shell::Dash),
        "alpine" => Sh::Is(Shell::Busybox),
        "redhat" => Sh::Is(Shell::Bash),
        "none" => Sh::Absent,
        _ => Sh::Unknown,
    }
}

/// Tags name the distribution they are built on.
fn by_tag(tag: &str) -> Option<Sh> {
    const DEBIAN: [&str; 15] = [
        "trixie", "bookworm", "bullseye", "buster", "stretch", "debian", "slim", "ubuntu", "noble", "jammy", "focal",
        "bionic", "resolute", "xenial", "sid",
    ];
    const REDHAT: [&str; 10] =
        ["ubi", "centos", "fedora", "oraclelinux", "oracle", "rocky", "almalinux", "al2023", "amazonlinux", "mariner"];
    if tag.contains("alpine") {
        return Some(Sh::Is(Shell::Busybox));
    }
    let parts = || tag.split(['-', '.', '_']);
    if parts().any(|part| DEBIAN.contains(&part)) {
        return Some(Sh::Is(Shell::Dash));
    }
    let redhat = |part: &str| REDHAT.contains(&part.trim_end_matches(|c: char| c.is_ascii_digit()));
    parts().any(redhat).then_some(Sh::Is(Shell::Bash))
}
