//! One container: a process that is PID 1 of its own namespace, below files of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::spec::Container;
use crate::tree;

/// Puts what an image adds beside the machine's own files (below `/usr`: over them), and goes there; then becomes the command. Runs as PID 1 of the
/// container, so whatever it becomes is PID 1.
pub const ROOT_SCRIPT: &str = r#"
set -e
image=$1 workdir=$2
shift 2
root=$(mktemp -d)
mount -t tmpfs lameduck-root "$root"
for entry in /*; do
  name=${entry#/}
  case $name in proc) continue ;; esac
  if [ "$name" = usr ] && [ -n "$image" ] && [ -d "$image/usr" ]; then
    mkdir "$root/usr"
    mount -t overlay lameduck-usr -o "lowerdir=$image/usr:/usr" "$root/usr"
    continue
  fi
  if [ -n "$image" ] && [ -e "$image/$name" ]; then continue; fi
  if [ -L "$entry" ]; then
    cp -P "$entry" "$root/$name"
  elif [ -d "$entry" ]; then
    mkdir "$root/$name"
    mount --rbind "$entry" "$root/$name"
  fi
done
mkdir "$root/proc"
mount -t proc proc "$root/proc"
if [ -n "$image" ]; then
  for entry in "$image"/*; do
    if [ "${entry##*/}" != usr ]; then cp -R "$entry" "$root"; fi
  done
fi
rmdir "$root/tmp/${root##*/}" 2>/dev/null || true
exec chroot "$root" /bin/sh -c 'cd "$0" && exec "$@"' "$workdir" "$@"
"#;

/// The words that start a command as PID 1 of a pid namespace of its own, with its own mounts. It ends with whoever started it.
pub fn in_namespaces(image: Option<&Path>, workdir: &str, command: &[String]) -> Vec<String> {
    let image = image.map_or(String::new(), |path| path.display().to_string());
    let wrap = ["setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--"];
    let inside = ["/bin/sh", "-c", ROOT_SCRIPT, "container", &image, workdir];
    wrap.into_iter().chain(inside).map(str::to_owned).chain(command.iter().cloned()).collect()
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) child: Child,
    /// PID 1, by its number here.
    pub(crate) pid: i32,
}

/// Starts a container.
pub(crate) async fn start(container: &Container) -> std::io::Result<Running> {
    let workdir = container.workdir.as_deref().unwrap_or("/");
    let words = in_namespaces(container.image.as_deref(), workdir, &container.command);
    let mut command = Command::new(&words[0]);
    // `PORT` is what whoever holds the pod was told, not what the container is.
    command.args(&words[1..]).env_remove("PORT").envs(&container.env).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let outer = child.id().map_or(0, |pid| pid as i32);
    loop {
        if let Some(pid) = tree::children(outer).first() {
            return Ok(Running { child, pid: *pid });
        }
        if child.try_wait()?.is_some() {
            return Ok(Running { child, pid: 0 });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A command inside a running container, as `kubectl exec`, hooks and exec probes have it.
pub(crate) fn inside(pid: i32, command: &[String]) -> Command {
    let mut enter = Command::new("nsenter");
    enter.args(["--target", &pid.to_string(), "--mount", "--pid", "--root", "--wd", "--"]).args(command);
    enter.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    enter
}

/// A signal to PID 1, from outside its namespace: what it has no handler for, the kernel drops, but for KILL.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // Whoever is gone already needs none.
        let _ = kill_process(pid, signal);
    }
}
