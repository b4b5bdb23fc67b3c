//! From a user of a kubeconfig to what is shown to the API server: a token, a certificate, or what a program gives.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use super::kubeconfig::{Exec, User};

/// How long a credential plugin may take: a person may have to answer it.
const PATIENCE: Duration = Duration::from_mins(1);
/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(20);

/// What the API server is shown.
#[derive(Clone, Default)]
pub struct Shown {
    /// A bearer token.
    pub token: Option<String>,
    /// A client certificate and its key, PEM.
    pub certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

/// What this user shows.
///
/// # Errors
///
/// What could not be read or run, and what to do.
pub fn shown(user: &User) -> Result<Shown, String> {
    let mut shown = Shown { token: user.token.clone(), certificate: user.certificate.clone() };
    if let Some(path) = &user.token_file {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        shown.token = Some(text.trim().to_owned());
    }
    if let Some(exec) = &user.exec {
        let given = run(exec)?;
        shown.token = given.token.or(shown.token);
        shown.certificate = given.certificate.or(shown.certificate);
    }
    Ok(shown)
}

fn run(exec: &Exec) -> Result<Shown, String> {
    let name = exec.command.display();
    let mut info = json!({
        "apiVersion": exec.version, "kind": "ExecCredential", "spec": {"interactive": exec.interactive},
    });
    if let Some(cluster) = &exec.cluster {
        info["spec"]["cluster"] = cluster.clone();
    }
    let mut command = Command::new(&exec.command);
    command.args(&exec.args).envs(exec.env.iter().cloned()).env("KUBERNETES_EXEC_INFO", info.to_string());
    command.stdout(Stdio::piped()).stdin(if exec.interactive { Stdio::inherit() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|error| {
        let hint = exec.hint.as_deref().unwrap_or("install it, or choose another user in the kubeconfig");
        format!("the credential plugin {name} could not be started: {error}; {hint}")
    })?;
    let mut output = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        output.as_mut().map(|output| output.take(1 << 20).read_to_string(&mut text));
        text
    });
    let mut waited = Duration::ZERO;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if waited < PATIENCE => std::thread::sleep(LOOK),
            Ok(None) | Err(_) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("the credential plugin {name} had not ended after {} s", PATIENCE.as_secs()));
            }
        }
        waited += LOOK;
    };
    if !status.success() {
        return Err(format!("the credential plugin {name} failed: {status}; run it by hand to see why"));
    }
    let text = reader.join().unwrap_or_default();
    read(&text).map_err(|why| format!("the credential plugin {name}: {why}"))
}

/// What a plugin has written.
fn read(text: &str) -> Result<Shown, String> {
    let answer: Value = serde_json::from_str(text).map_err(|error| format!("its answer is not JSON: {error}"))?;
    if answer["kind"] != "ExecCredential" {
        return Err("its answer is no ExecCredential".to_owned());
    }
    let status = &answer["status"];
    let text = |key: &str| status[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let certificate = match (text("clientCertificateData"), text("clientKeyData")) {
        (Some(certificate), Some(key)) => Some((certificate.into_bytes(), key.into_bytes())),
        (None, None) => None,
        _ => return Err("its answer has a certificate without its key, or a key without its certificate".to_owned()),
    };
    let shown = Shown { token: text("token"), certificate };
    if shown.token.is_none() && shown.certificate.is_none() {
        return Err("its answer has neither a token nor a certificate".to_owned());
    }
    Ok(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str) -> Exec {
        let args = vec!["-c".to_owned(), text.to_owned()];
        Exec { command: "sh".into(), args, version: "client.authentication.k8s.io/v1".to_owned(), ..Exec::default() }
    }

    #[test]
    fn a_plugin_is_told_what_it_may_know_and_gives_a_token() {
        let mut exec = script(
            r#"case $KUBERNETES_EXEC_INFO in *'"server":"https://x"'*) ;; *) exit 1 ;; esac
               echo '{"kind":"ExecCredential","status":{"token":"'$WHO'"}}'"#,
        );
        exec.cluster = Some(json!({"server": "https://x"}));
        exec.env = vec![("WHO".to_owned(), "me".to_owned())];
        let user = User { token: Some("old".to_owned()), exec: Some(exec), ..User::default() };
        assert_eq!(shown(&user).unwrap().token.as_deref(), Some("me"));
    }

    #[test]
    fn what_a_plugin_does_wrong_is_said() {
        let check = |exec: Exec, expect: &str| {
            let error = shown(&User { exec: Some(exec), ..User::default() }).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check(script("exit 3"), "exit status: 3");
        check(script("echo no"), "not JSON");
        check(script(r#"echo '{"kind":"ExecCredential","status":{}}'"#), "neither a token nor a certificate");
        let none = Exec { command: "/nowhere/plugin".into(), hint: Some("get it".to_owned()), ..Exec::default() };
        check(none, "get it");
    }
}
