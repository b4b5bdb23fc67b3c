//! Reading speed of `lameduck explain`, with two readers, beside `wc -l`, `grep`, `jq` and tshark on the same files in the same run, and the memory of
//! a long stream.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::{Row, median};
use crate::built::{self, target};

/// The size of each log.
const BYTES: u64 = 512 << 20;
/// The size of the stream whose memory is measured.
const STREAM: u64 = 10 << 30;
/// Rounds, interleaved.
const ROUNDS: usize = 5;
/// Exchanges in the capture.
const EXCHANGES: u32 = 60_000;

/// Runs the benchmark.
pub fn explain() -> anyhow::Result<Vec<Row>> {
    let lameduck = built::release(&["--package", "lameduck"], "lameduck")?;
    let folder = target().join("bench-explain");
    fs::create_dir_all(&folder)?;
    let (json, text, capture) = (folder.join("lb.jsonl"), folder.join("access.log"), folder.join("capture.pcap"));
    log(&json, BYTES, json_line)?;
    log(&text, BYTES, text_line)?;
    pcap(&capture)?;
    let mut rows = Vec::new();
    let own = |path: &Path| {
        [
            lameduck.as_os_str().to_owned(),
            "explain".into(),
            "--threads=2".into(),
            "--format=json".into(),
            path.as_os_str().to_owned(),
        ]
    };
    let sh =
        |script: &str, path: &Path| ["sh".into(), "-c".into(), script.into(), "sh".into(), path.as_os_str().to_owned()];
    for (name, path, goal, second) in [
        ("JSON log, MB/s", &json, 500.0, ("jq", "jq -c 'select(.httpRequest.status>=500)' \"$1\"")),
        // With /dev/null for its output grep stops at the first line that it finds.
        ("text log, MB/s", &text, 800.0, ("grep", "LC_ALL=C grep '\" 50[0-9] ' \"$1\" | cat")),
    ] {
        // jq is so slow that a part of the file has to do.
        let part = folder.join("part");
        let part = if second.0 == "jq" { log(&part, BYTES / 16, json_line).map(|()| part)? } else { path.clone() };
        let (mut ours, mut wc, mut peer) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(speed(&own(path), path)?);
            wc.push(speed(&sh("wc -l \"$1\"", path), path)?);
            peer.push(speed(&sh(second.1, &part), &part)?);
        }
        let ours = median(&mut ours);
        let words = format!("at least {goal:.0} MB/s on two cores");
        rows.push(Row {
            metric: name.into(),
            ours,
            peer: "wc -l".into(),
            theirs: median(&mut wc),
            goal: words.clone(),
            met: ours >= goal,
        });
        rows.push(Row {
            metric: name.into(),
            ours,
            peer: second.0.into(),
            theirs: median(&mut peer),
            goal: words,
            met: ours >= goal,
        });
    }
    let fields = "tshark -r \"$1\" -T fields -e frame.number -e tcp.stream -e tcp.flags -e tcp.seq -e tcp.ack -e http.request.uri -e http.response.code";
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(speed(&own(&capture), &capture)?);
        theirs.push(speed(&sh(fields, &capture), &capture)?);
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    rows.push(Row {
        metric: "capture, MB/s".into(),
        ours,
        peer: "tshark".into(),
        theirs,
        goal: "at least 10 times tshark".into(),
        met: ours >= 10.0 * theirs,
    });
    let lost = folder.join("lost.jsonl");
    log(&lost, BYTES, lost_line)?;
    for (metric, path, bytes) in
        [("memory at 10 GiB, MB", &json, STREAM), ("memory where every line is a loss, MB", &lost, BYTES)]
    {
        let most = memory(&lameduck, path, bytes)?;
        rows.push(Row {
            metric: metric.into(),
            ours: most,
            peer: "the goal".into(),
            theirs: 300.0,
            goal: "at most 300 MB".into(),
            met: most <= 300.0,
        });
    }
    Ok(rows)
}

/// MB of the file a second.
fn speed(command: &[std::ffi::OsString], path: &Path) -> anyhow::Result<f64> {
    let began = Instant::now();
    let status = Command::new(&command[0]).args(&command[1..]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let took = began.elapsed().as_secs_f64();
    ensure!(status.with_context(|| command[0].display().to_string())?.success(), "{command:?} failed");
    Ok(fs::metadata(path)?.len() as f64 / 1e6 / took)
}

fn log(path: &Path, bytes: u64, line: fn(u64, &mut String)) -> anyhow::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut text, mut written, mut n) = (String::new(), 0, 0);
    while written < bytes {
        text.clear();
        line(n, &mut text);
        file.write_all(text.as_bytes())?;
        written += text.len() as u64;
        n += 1;
    }
    Ok(file.flush()?)
}

/// One in a thousand is lost.
fn status(n: u64) -> (u16, &'static str) {
    if n.is_multiple_of(1000) {
        (502, "backend_connection_closed_before_data_sent_to_client")
    } else {
        (200, "response_sent_by_backend")
    }
}

fn json_line(n: u64, out: &mut String) {
    google(n, status(n), out);
}

/// Lost, and no two at one server.
fn lost_line(n: u64, out: &mut String) {
    google(n, status(0), out);
    *out = out.replace("\"10.8.1.", &format!("\"10.{}.{}.", n >> 8 & 0xff, n & 0xff));
}

fn google(n: u64, (status, details): (u16, &str), out: &mut String) {
    use std::fmt::Write;
    let second = n / 40;
    let _ = writeln!(
        out,
        "{{\"httpRequest\":{{\"latency\":\"0.{:06}s\",\"remoteIp\":\"192.0.2.{}\",\"requestMethod\":\"GET\",\"requestSize\":\"412\",\
         \"requestUrl\":\"https://shop.example.com/api/v1/orders/{n}?page=2\",\"responseSize\":\"1834\",\"serverIp\":\"10.8.1.{}\",\"status\":{status},\
         \"userAgent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"}},\"insertId\":\"1f9{n:x}\",\"jsonPayload\":{{\"@type\":\
         \"type.googleapis.com/google.cloud.loadbalancing.type.LoadBalancerLogEntry\",\"statusDetails\":\"{details}\"}},\
         \"logName\":\"projects/shop/logs/requests\",\"receiveTimestamp\":\"2026-11-20T{:02}:{:02}:{:02}.9Z\",\"resource\":{{\"labels\":{{\
         \"backend_service_name\":\"k8s1-shop-web-80\",\"forwarding_rule_name\":\"k8s2-fr\",\"project_id\":\"shop\",\"zone\":\"global\"}},\
         \"type\":\"http_load_balancer\"}},\"severity\":\"INFO\",\"spanId\":\"8c1f\",\"timestamp\":\"2026-11-20T{0:02}:{1:02}:{2:02}.{3:06}Z\",\
         \"trace\":\"projects/shop/traces/{n:032x}\"}}",
        second / 3600 % 24,
        second / 60 % 60,
        second % 60,
        n % 1_000_000,
        n % 200,
        n % 40
    );
}

fn text_line(n: u64, out: &mut String) {
    use std::fmt::Write;
    let ((status, _), second) = (status(n), n / 60);
    let _ = writeln!(
        out,
        "192.0.2.{} - - [20/Nov/2026:{:02}:{:02}:{:02} +0000] \"GET /api/v1/orders/{n} HTTP/1.1\" {status} 1834 \"https://shop.example.com/\" \
         \"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)\" 412 0.0{} [shop-web-80] [] 10.8.1.{}:8080 {} 0.0{} {status} {n:032x}",
        n % 200,
        second / 3600 % 24,
        second / 60 % 60,
        second % 60,
        n % 90 + 10,
        n % 40,
        if status == 502 { 0 } else { 1834 },
        n % 90 + 10
    );
}

/// Kept-alive connections with exchanges on them, as Ethernet frames.
fn pcap(path: &Path) -> anyhow::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&[0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0])?;
    let request = b"GET /api/v1/orders HTTP/1.1\r\nHost: shop.example.com\r\nX-Request-Id: 0123456789abcdef\r\n\r\n";
    let answer = [&b"HTTP/1.1 200 OK\r\nContent-Length: 1200\r\nServer: x\r\n\r\n"[..], &[b'a'; 1200]].concat();
    for n in 0..EXCHANGES {
        let (port, turn) = (20_000 + (n % 500) as u16, n / 500);
        let (client, server) = (1 + turn * request.len() as u32, 1 + turn * answer.len() as u32);
        frame(&mut file, n, (port, 80), (client, server), request)?;
        frame(&mut file, n, (80, port), (server, client + request.len() as u32), &answer)?;
        frame(&mut file, n, (port, 80), (client + request.len() as u32, server + answer.len() as u32), b"")?;
    }
    Ok(file.flush()?)
}

fn frame(file: &mut impl Write, n: u32, ports: (u16, u16), numbers: (u32, u32), payload: &[u8]) -> std::io::Result<()> {
    let len = (54 + payload.len()) as u32;
    let second = 1_795_132_800 + n / 1000;
    for word in [second, n % 1000 * 1000, len, len] {
        file.write_all(&word.to_le_bytes())?;
    }
    let (from, to) = if ports.1 == 80 { (1, 2) } else { (2, 1) };
    file.write_all(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 8, 0])?;
    let total = (40 + payload.len()) as u16;
    file.write_all(&[0x45, 0])?;
    file.write_all(&total.to_be_bytes())?;
    file.write_all(&[0, 0, 0x40, 0, 64, 6, 0, 0, 10, 8, 0, from, 10, 8, 0, to])?;
    file.write_all(&ports.0.to_be_bytes())?;
    file.write_all(&ports.1.to_be_bytes())?;
    file.write_all(&numbers.0.to_be_bytes())?;
    file.write_all(&numbers.1.to_be_bytes())?;
    file.write_all(&[0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0])?;
    file.write_all(payload)
}

/// The most memory, in MB, that so many bytes of a log on standard input take.
fn memory(lameduck: &Path, log: &Path, bytes: u64) -> anyhow::Result<f64> {
    let mut child = Command::new(lameduck)
        .args(["explain", "--threads=2", "--format=json", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut stdin = child.stdin.take().context("a pipe")?;
    let content = fs::read(log)?;
    let feeder = std::thread::spawn(move || {
        let mut sent = 0;
        while sent < bytes && stdin.write_all(&content).is_ok() {
            sent += content.len() as u64;
        }
        sent
    });
    let most = peak(&mut child)?;
    ensure!(feeder.join().is_ok_and(|sent| sent >= bytes), "the stream was not read to its end");
    Ok(most)
}

fn peak(child: &mut Child) -> anyhow::Result<f64> {
    let mut most = 0.0f64;
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.trim().parse::<f64>().ok());
        most = most.max(kib.unwrap_or(0.0) * 1024.0 / 1e6);
        if let Some(status) = child.try_wait()? {
            ensure!(status.success(), "explain ended with {status}");
            return Ok(most);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
