//! Images without a registry: layers made of files of this machine, in an archive that containerd imports.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use lameduck_drill::servers::Server;
use serde_json::json;

use super::{programs, run};
use crate::{packages, slim};

/// What holds a pod's namespaces.
pub const PAUSE: &str = "lameduck.test/pause:1";
/// The static program alone, as the webhook has it copied into pods.
pub const OURS: &str = "lameduck.test/lameduck:1";
/// Where the static program is, in every image.
pub const LAMEDUCK: &str = "/usr/local/bin/lameduck";
/// Where a server's own files are.
pub const APP: &str = "/app";
/// The servers that there is an image of, by the ids of the drill's own table, where this machine has them.
pub const SERVERS: [&str; 5] = ["node", "node-close", "gunicorn", "go", "nginx"];
/// Files of packages that no server needs to run.
const LEFT_OUT: [&str; 5] = ["/usr/share/doc", "/usr/share/man", "/usr/share/locale", "/usr/share/lintian", "/var"];

/// Where one file of an image comes from.
#[derive(Debug, Clone)]
pub enum Source {
    File(PathBuf),
    Text(String),
}

/// An image.
#[derive(Debug, Clone)]
pub struct Image {
    name: String,
    entrypoint: Vec<String>,
    /// Who it runs as, where that is not root.
    user: &'static str,
    /// Programs with the libraries that they are linked to.
    programs: Vec<PathBuf>,
    /// Debian packages with what they depend on.
    packages: Vec<&'static str>,
    /// Further files.
    files: Vec<(String, Source)>,
}

/// The images that the cluster begins with.
pub fn stock() -> anyhow::Result<Vec<Image>> {
    let slim = slim::slim()?;
    let of_ours = |name: &str, entrypoint: &[&str]| Image {
        name: name.to_owned(),
        entrypoint: entrypoint.iter().map(|word| (*word).to_owned()).collect(),
        // As in deploy/Dockerfile: its init container may not be root.
        user: "65532:65532",
        programs: Vec::new(),
        packages: Vec::new(),
        // At the root it is where the webhook's init container looks for it.
        files: [LAMEDUCK, "/lameduck"].map(|place| (place.to_owned(), Source::File(slim.clone()))).into(),
    };
    // What lameduck itself puts where an app is missing: it waits until it is told to stop.
    let mut images = vec![of_ours(PAUSE, &[LAMEDUCK, "hold-place"]), of_ours(OURS, &[LAMEDUCK])];
    for server in SERVERS.into_iter().filter_map(Server::from_id) {
        if let Some(missing) = server.needs.iter().find(|program| packages::find(program).is_none()) {
            eprintln!("no image of {}: {missing} is missing", server.id);
            continue;
        }
        images.push(Image::of_server(&server, &slim)?);
    }
    Ok(images)
}

impl Image {
    /// The name of a server's image.
    pub fn name_of(server: &Server) -> String {
        format!("lameduck.test/{}:1", server.id)
    }

    /// A server's files, what it runs on, and the static program.
    fn of_server(server: &Server, slim: &Path) -> anyhow::Result<Image> {
        let mut image = Image {
            name: Image::name_of(server),
            entrypoint: Vec::new(),
            user: "",
            programs: vec![PathBuf::from("/bin/sh")],
            packages: Vec::new(),
            files: vec![(LAMEDUCK.to_owned(), Source::File(slim.to_owned()))],
        };
        // In a pod it is reached from outside.
        let outside = |content: &str| content.replace("127.0.0.1", "0.0.0.0");
        for (name, content) in server.files {
            image.files.push((format!("{APP}/{name}"), Source::Text(outside(content))));
        }
        for program in server.needs {
            match *program {
                "gunicorn" => image.packages.push("gunicorn"),
                // Its script uses tools.
                "nginx" => image.packages.extend(["nginx", "coreutils", "sed"]),
                "go" => image.files.push((format!("{APP}/service"), Source::File(go_build(server)?))),
                program => image.programs.push(packages::find(program).context("just found")?),
            }
        }
        Ok(image)
    }

    /// The command of a container of it.
    pub fn command_of(server: &Server) -> Vec<String> {
        let words = server.command(Path::new(APP));
        words.iter().map(|word| word.to_string_lossy().replace("127.0.0.1", "0.0.0.0")).collect()
    }

    /// One of programs, packages and files that somebody else chose, without an entrypoint.
    pub fn of(name: &str, programs: Vec<PathBuf>, packages: &[&'static str], files: Vec<(String, Source)>) -> Image {
        let (name, packages) = (name.to_owned(), packages.to_vec());
        Image { name, entrypoint: Vec::new(), user: "", programs, packages, files }
    }

    /// The same, for somebody else than root.
    pub fn run_by(self, user: &'static str) -> Image {
        Image { user, ..self }
    }

    /// Writes the archive into `folder`; gives where it is.
    pub fn write(&self, folder: &Path) -> anyhow::Result<PathBuf> {
        let short: String = self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let stage = folder.join(&short);
        let root = stage.join("root");
        fs::create_dir_all(&root)?;
        let mut paths = BTreeSet::new();
        for program in &self.programs {
            paths.extend(linked(program)?);
        }
        paths.extend(of_packages(&self.packages)?);
        for link in ["bin", "sbin", "lib", "lib64"] {
            std::os::unix::fs::symlink(format!("usr/{link}"), root.join(link))?;
            fs::create_dir_all(root.join("usr").join(link))?;
        }
        for folder in ["tmp", "etc", "run", "proc", "sys", "dev"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
        fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")?;
        fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
        for (inside, source) in &self.files {
            let place = root.join(inside.trim_start_matches('/'));
            fs::create_dir_all(place.parent().context("a file's folder")?)?;
            match source {
                Source::File(path) => fs::copy(path, &place).map(|_| ()),
                Source::Text(text) => fs::write(&place, text),
            }
            .with_context(|| place.display().to_string())?;
        }
        let layer = stage.join("layer.tar");
        tar(&layer, &root, &paths)?;
        let digest = run("sha256sum", &[&layer.display().to_string()])?;
        let digest = digest.split(' ').next().unwrap_or_default();
        let config = json!({
            "architecture": architecture(), "os": "linux",
            "config": { "Entrypoint": self.entrypoint, "User": self.user, "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
        });
        fs::write(stage.join("config.json"), config.to_string())?;
        let manifest = json!([{ "Config": "config.json", "RepoTags": [self.name], "Layers": ["layer.tar"] }]);
        fs::write(stage.join("manifest.json"), manifest.to_string())?;
        let (half, stage_name) = (folder.join(format!("{short}.half")), stage.display().to_string());
        let archive = half.display().to_string();
        run(
            "tar",
            &["--create", "--file", &archive, "--directory", &stage_name, "manifest.json", "config.json", "layer.tar"],
        )?;
        fs::remove_dir_all(&stage)?;
        let whole = folder.join(format!("{short}.tar"));
        fs::rename(&half, &whole)?;
        Ok(whole)
    }
}

/// Imports archives into the containerd of the node that this process is in.
pub fn import(archives: &[&PathBuf]) -> anyhow::Result<()> {
    for archive in archives {
        run("ctr", &["--namespace", "k8s.io", "images", "import", &archive.display().to_string()])?;
    }
    Ok(())
}

/// Builds a server of Go for any image, in the cache; returns the program.
fn go_build(server: &Server) -> anyhow::Result<PathBuf> {
    let folder = programs::cache()?.join(format!("server-{}", server.id));
    fs::create_dir_all(&folder)?;
    for (name, content) in server.files {
        fs::write(folder.join(name), content.replace("127.0.0.1", "0.0.0.0"))?;
    }
    let words = server.build_command(&folder).context("nothing to build")?;
    let status = Command::new(&words[0]).args(&words[1..]).env("CGO_ENABLED", "0").current_dir(&folder).status();
    ensure!(status.context("go build")?.success(), "go build of {} failed", server.id);
    Ok(folder.join("service"))
}

const fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// One layer: what lies in `root`, and files of this machine at their own places.
fn tar(layer: &Path, root: &Path, paths: &BTreeSet<PathBuf>) -> anyhow::Result<()> {
    let mut tar = Command::new("tar");
    tar.args(["--create", "--owner=0", "--group=0", "--numeric-owner", "--mtime=@0", "--sort=name", "--file"])
        .arg(layer);
    tar.arg("--directory").arg(root).arg(".");
    tar.args(["--directory", "/", "--no-recursion", "--null", "--files-from=-"]).stdin(Stdio::piped());
    let mut child = tar.stdout(Stdio::null()).spawn().context("tar")?;
    if let Some(mut stdin) = child.stdin.take() {
        for path in paths {
            stdin.write_all(path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes())?;
            stdin.write_all(b"\0")?;
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "tar of {}: {status}", layer.display());
    Ok(())
}

/// A path whose folders are no links: `/lib/x` is `/usr/lib/x` in an image.
fn placed(path: &Path) -> Option<PathBuf> {
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

/// A program and its libraries, each with the names that lead to it.
fn linked(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let text = run("ldd", &[&program.display().to_string()])?;
    let libraries = text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    let mut found = Vec::new();
    for path in std::iter::once(program.to_owned()).chain(libraries) {
        found.extend(placed(&path));
        found.extend(path.canonicalize().ok());
    }
    Ok(found)
}

/// The files of installed packages and of all that they depend on.
fn of_packages(names: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let (mut known, mut files) = (BTreeSet::new(), Vec::new());
    let mut open: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    while let Some(name) = open.pop() {
        if !known.insert(name.clone()) {
            continue;
        }
        let listed = match run("dpkg-query", &["--listfiles", &name]) {
            Ok(listed) => listed,
            Err(error) if names.contains(&name.as_str()) => return Err(error),
            // What is not installed is a virtual package, or one of several that would do.
            Err(_) => continue,
        };
        let wanted = |path: &&str| path.starts_with('/') && !LEFT_OUT.iter().any(|folder| path.starts_with(folder));
        let paths = listed.lines().filter(wanted).map(Path::new);
        files.extend(paths.filter(|path| path.symlink_metadata().is_ok_and(|meta| !meta.is_dir())).filter_map(placed));
        let depends = run("dpkg-query", &["--show", "--showformat", "${Pre-Depends}, ${Depends}", &name])?;
        open.extend(named(&depends));
    }
    Ok(files)
}

/// The packages that a `Depends` field names, of alternatives all.
fn named(field: &str) -> Vec<String> {
    let one = |text: &str| text.trim().split([' ', ':', '(']).next().map(str::to_owned);
    field.split([',', '|']).filter_map(one).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Image, SERVERS, named};
    use lameduck_drill::servers::Server;

    #[test]
    fn what_a_package_depends_on() {
        let check = |field: &str, expect: &[&str]| assert_eq!(named(field), expect, "{field}");
        check(", python3-gunicorn (= 20.1.0-6), python3:any", &["python3-gunicorn", "python3"]);
        check("libc6 (>= 2.36), debconf (>= 0.5) | debconf-2.0", &["libc6", "debconf", "debconf-2.0"]);
        check(", ", &[]);
    }

    #[test]
    fn a_server_in_a_pod_listens_to_outside() {
        for server in SERVERS.map(|id| Server::from_id(id).unwrap()) {
            let command = Image::command_of(&server).join(" ");
            assert!(!command.contains("127.0.0.1") && command.contains("/app"), "{command}");
        }
    }
}
