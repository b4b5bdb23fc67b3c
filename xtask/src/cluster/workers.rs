//! The load of `kubectl lameduck drill --workers`: pods of a real Job, directed through a real API server and real kubelets.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use lameduck_drill::servers::Server;
use serde_json::Value;

use super::deployment::{self, By, Mode};
use super::{Kubectl, STATE, hour, incident};
use crate::built;

const NAME: &str = "worked";
const WORKERS: u64 = 2;
const REPLICAS: usize = 2;

/// Two workers, one deletion, a Deployment that loses nothing and one that does.
pub fn send_the_load(kubectl: &Kubectl) -> anyhow::Result<()> {
    incident::import(&hour::of_dockerfile()?.write(&Path::new(STATE).join("images"))?)?;
    let server = Server::from_id("gunicorn").context("gunicorn")?;
    for mode in [Mode::Observe, Mode::Plain] {
        deployment::begin(kubectl, &deployment::manifest(&server, mode, By::Command, NAME, REPLICAS), NAME)?;
        let drilled = drilled();
        deployment::end(kubectl, NAME)?;
        let (status, result) = drilled?;
        let lost = result["lost"].as_u64().context("lost")?;
        let sent: Vec<u64> = result["workers"]
            .as_array()
            .context("workers")?
            .iter()
            .filter_map(|worker| worker["sent"].as_u64())
            .collect();
        println!("{}: {lost} of {} lost, sent by workers: {sent:?}", mode.id(), result["sent"]);
        ensure!(sent.len() as u64 == WORKERS && sent.iter().all(|sent| *sent > 100), "{sent:?}");
        ensure!(sent.iter().sum::<u64>() == result["sent"].as_u64().context("sent")?, "the books of workers add up");
        ensure!(status == Some(i32::from(lost > 0)), "{status:?}: {}", result["because"]);
        ensure!(
            result["unknown"] == 0 && result["replicas"].as_array().is_some_and(|all| all.len() > REPLICAS),
            "{result}"
        );
        // Routing is late, so that the plain one has to lose some, and to the cured one it does not matter.
        ensure!((mode == Mode::Plain) == (lost > 0), "{}: {lost} lost: {}", mode.id(), result["causes"]);
        let left = kubectl.get(&["jobs"])?;
        ensure!(left["items"].as_array().is_some_and(Vec::is_empty), "a Job is left: {left}");
    }
    Ok(())
}

fn drilled() -> anyhow::Result<(Option<i32>, Value)> {
    let mut command = Command::new(built::debug()?);
    command.args(["kubectl", "drill", &format!("deployment/{NAME}"), "--event", "delete", "--lag", "2s"]);
    command.args([
        "--workers",
        &WORKERS.to_string(),
        "--rate",
        "100",
        "--quiet",
        "--json",
        "-",
        "--namespace",
        "default",
    ]);
    command.args(["--kubeconfig", &format!("{STATE}/kubeconfig")]).stderr(Stdio::inherit());
    let output = command.output().context("lameduck kubectl drill")?;
    let result = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{}: {}", output.status, String::from_utf8_lossy(&output.stdout)))?;
    Ok((output.status.code(), result))
}
