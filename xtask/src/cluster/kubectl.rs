//! kubectl, as people use it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::STATE;

/// How to ask the cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    config: PathBuf,
    namespace: String,
}

impl Kubectl {
    /// For the cluster of this machine.
    pub fn new() -> anyhow::Result<Kubectl> {
        let state = Path::new(STATE);
        let (program, config) = (state.join("bin/kubectl"), state.join("kubeconfig"));
        let kubectl = Kubectl { program, config, namespace: "default".into() };
        ensure!(kubectl.config.exists(), "no cluster is up: cargo xtask cluster up");
        Ok(kubectl)
    }

    /// The same, for what is in another namespace.
    pub fn within(self, namespace: &str) -> Kubectl {
        Kubectl { namespace: namespace.to_owned(), ..self }
    }

    /// How a person does it.
    pub fn how(&self) -> String {
        format!(
            "export KUBECONFIG={}  # kubectl of the same version: {}",
            self.config.display(),
            self.program.display()
        )
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.config).args(["--namespace", &self.namespace]);
        command.args(args).stdin(Stdio::null());
        command
    }

    /// Runs it to its end; its output.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let output = self.command(args).output().context("kubectl")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {}: {}", args.join(" "), said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The same, as JSON.
    pub fn get(&self, args: &[&str]) -> anyhow::Result<Value> {
        let text = self.run(&[&["get"], args, &["-o", "json"]].concat())?;
        serde_json::from_str(&text).with_context(|| format!("kubectl get {}", args.join(" ")))
    }

    /// Makes what a manifest says.
    pub fn apply(&self, manifest: &Value) -> anyhow::Result<()> {
        use std::io::Write as _;
        let mut command = self.command(&["apply", "--filename", "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().context("kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(manifest.to_string().as_bytes()).context("kubectl apply")?;
        }
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Starts one that goes on, and whose output is read as it comes.
    pub fn follow(&self, args: &[&str]) -> anyhow::Result<Child> {
        self.command(args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().context("kubectl")
    }
}
