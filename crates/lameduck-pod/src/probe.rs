//! Readiness probes, as the kubelet makes them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::container;
use crate::spec::{Check, Probe};

/// Asks once; an error says what was met.
pub(crate) async fn ask(probe: &Probe, address: Ipv4Addr, pid: i32) -> Result<(), String> {
    let asked = async {
        match &probe.check {
            Check::Http { port, path } => http(SocketAddr::from((address, *port)), path).await,
            Check::Exec { command } => match container::inside(pid, command).status().await {
                Ok(status) if status.success() => Ok(()),
                Ok(status) => Err(format!("{} ended with {status}", command.join(" "))),
                Err(error) => Err(format!("{}: {error}", command.join(" "))),
            },
        }
    };
    let timeout = probe.timeout().max(Duration::from_millis(10));
    tokio::time::timeout(timeout, asked).await.unwrap_or_else(|_| Err("no answer in time".into()))
}

async fn http(address: SocketAddr, path: &str) -> Result<(), String> {
    let said = |error: std::io::Error| format!("Get \"http://{address}{path}\": {error}");
    let mut stream = TcpStream::connect(address).await.map_err(said)?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.31\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(said)?;
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.map_err(said)?;
    match std::str::from_utf8(&head).ok().and_then(|head| head.rsplit(' ').next()?.parse::<u16>().ok()) {
        Some(200..400) => Ok(()),
        Some(status) => Err(format!("HTTP probe failed with statuscode: {status}")),
        None => Err("no HTTP answer".into()),
    }
}
