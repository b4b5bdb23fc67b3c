//! Who a container is: a name by which neighbours speak of it, and the pod it belongs to.
//!
//! All containers of a pod have the same hostname, so that is no name. The kubelet mounts a file of its own into each container
//! for the termination message: `…/pods/UID/containers/NAME/ID` (`pkg/kubelet/kubelet_getters.go`, `getPodContainerDir`;
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`, `makeMounts`), and `/proc/self/mountinfo` shows it.

/// The longest name: as Kubernetes has it for a container (RFC 1123, a label).
pub const LONGEST_NAME: usize = 63;

/// Whether neighbours can be told this name.
pub fn is_name(text: &str) -> bool {
    let fits = (1..=LONGEST_NAME).contains(&text.len());
    fits && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// What the kubelet's mounts say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Identity {
    /// The pod's UID.
    pub pod: Option<String>,
    /// The container's name.
    pub container: Option<String>,
}

impl Identity {
    /// Reads `/proc/self/mountinfo` (proc(5)): the fourth field is the path within the file system that was mounted, the fifth
    /// where. Other mounts of the kubelet's folder are some other pod's business.
    pub fn of_mounts(mountinfo: &str) -> Identity {
        let mut found = Identity::default();
        for line in mountinfo.lines() {
            let mut fields = line.split(' ');
            let (Some(root), Some(place)) = (fields.nth(3), fields.next()) else { continue };
            let Some((_, below)) = root.split_once("/pods/") else { continue };
            match *below.split('/').collect::<Vec<_>>() {
                [pod, "etc-hosts"] if place == "/etc/hosts" && is_name(pod) => found.pod = Some(pod.to_owned()),
                [pod, "containers", name, id] if is_file_of_the_kubelet(id) && is_name(pod) && is_name(name) => {
                    found.pod = Some(pod.to_owned());
                    found.container = Some(name.to_owned());
                }
                _ => {}
            }
        }
        found
    }
}

/// Eight hexadecimal digits (`makeUID` in `pkg/kubelet/kuberuntime/helpers.go`).
fn is_file_of_the_kubelet(id: &str) -> bool {
    id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A name from the command's first word: its last part, and of that what a name may have.
pub fn name_of_command(word: &str) -> String {
    let base = word.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name: String =
        base.chars().map(|c| if c.is_ascii() && is_name(c.encode_utf8(&mut [0; 4])) { c } else { '-' }).collect();
    let name: String = name.chars().take(LONGEST_NAME).collect();
    if name.is_empty() { "app".to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
1201 1100 0:512 / / rw,relatime master:300 - overlay overlay rw,lowerdir=/x
1210 1201 8:1 /var/lib/kubelet/pods/7f3c2a10-0c55-4f0e-9a41-0d5f8b1c2d3e/etc-hosts /etc/hosts rw,relatime - ext4 /dev/sda1 rw
1211 1201 8:1 /var/lib/kubelet/pods/7f3c2a10-0c55-4f0e-9a41-0d5f8b1c2d3e/containers/workhorse/5a0e1f2b /dev/termination-log rw - ext4 /dev/sda1 rw
1212 1201 0:480 / /run/secrets/kubernetes.io/serviceaccount ro - tmpfs tmpfs ro
1213 1201 8:1 /var/lib/kubelet/pods/11111111-0c55-4f0e-9a41-0d5f8b1c2d3e/volumes/kubernetes.io~empty-dir/x /mnt rw - ext4 /dev/sda1 rw
";

    #[test]
    fn the_kubelets_mounts_name_pod_and_container() {
        let found = Identity::of_mounts(MOUNTS);
        assert_eq!(found.pod.as_deref(), Some("7f3c2a10-0c55-4f0e-9a41-0d5f8b1c2d3e"));
        assert_eq!(found.container.as_deref(), Some("workhorse"));
        // Its folder on a file system of its own.
        let own = MOUNTS.replace("/var/lib/kubelet/pods", "/kubelet/pods");
        assert_eq!(Identity::of_mounts(&own), found);
        assert_eq!(Identity::of_mounts("1 2 0:1 / / rw - ext4 /dev/sda rw\n"), Identity::default());
        assert_eq!(Identity::of_mounts("garbage\n\n \0 x /pods/ y"), Identity::default());
    }

    #[test]
    fn names() {
        let check = |word: &str, expect: &str| assert_eq!(name_of_command(word), expect, "{word}");
        check("/usr/sbin/nginx", "nginx");
        check("puma", "puma");
        check("./bin/my server", "my-server");
        check("/", "app");
        check("", "app");
        assert!(is_name(&name_of_command(&"x".repeat(200))));
        assert!(is_name(&name_of_command("é/ü")));
        for bad in ["", "a/b", "a b", "a,b", "a=b", "é", "a\n"] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
