//! AWS Application Load Balancers. Source: "Access logs for your Application Load Balancer" and its troubleshooting page.

use super::Context;
use super::field::split_request;
use crate::record::{Hop, Line, Signal};
use crate::time;

/// The fields that are used, by their place.
const CLIENT: usize = 3;
const TARGET: usize = 4;
const REQUEST_TIME: usize = 5;
const TARGET_TIME: usize = 6;
const ANSWER_TIME: usize = 7;
const STATUS: usize = 8;
const TARGET_STATUS: usize = 9;
const REQUEST: usize = 12;
const GROUP: usize = 16;
const TRACE: usize = 17;
const CREATED: usize = 21;
const USED: usize = 22;

/// The next field: in quotes with escapes, or up to a space.
fn next<'a>(line: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = line.get(*at..)?;
    if rest.first() == Some(&b'"') {
        let mut end = 1;
        loop {
            end += memchr::memchr2(b'"', b'\\', rest.get(end..)?)?;
            if rest[end] == b'"' {
                *at += end + 2;
                return Some(&rest[1..end]);
            }
            end += 2;
        }
    }
    let end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
    *at += end + 1;
    Some(&rest[..end])
}

fn signal(status: u16, target: &[u8], times: [Option<i64>; 3], took: Option<i64>) -> (Signal, &'static str) {
    match (status, target, times) {
        (460, _, _) => (Signal::ClientLeft, "460: the client closed the connection"),
        (463 | 561 | 0, _, _) => (Signal::Policy, "refused by the load balancer itself"),
        (500.., b"-", _) if status == 503 => (Signal::NoServer, "503 -: no target registered"),
        (500.., b"-", [_, None, _])
            if status == 504 && took.is_some_and(|took| (9_500_000..11_000_000).contains(&took)) =>
        {
            (Signal::ConnectTimeout, "504 -: not connected within 10 s")
        }
        (500.., b"-", _) if status == 504 => (Signal::Timeout, "504 -: no answer in time"),
        (500.., b"-", [Some(_), Some(_), _]) if status == 502 => {
            (Signal::ClosedBeforeAnswer, "502 -: dispatched, then closed by the target")
        }
        (500.., b"-", _) => {
            (Signal::Failed, "502 - with times -1: refused, or closed by the target; the log does not tell which")
        }
        (500.., target, _) if target == status.to_string().as_bytes() => (Signal::AppError, "sent by the target"),
        (500.., _, _) => (Signal::Failed, "the target's answer was malformed or broke off"),
        _ => (Signal::Answered, ""),
    }
}

/// Reads a line.
pub fn read(line: &[u8], context: Context) -> Option<Line<'_>> {
    let kind = line.get(..memchr::memchr(b' ', line)?)?;
    if !matches!(kind, b"http" | b"https" | b"h2" | b"grpcs" | b"ws" | b"wss") {
        return None;
    }
    let mut fields = [&b""[..]; USED];
    let (mut at, mut count) = (0, 0);
    while count < USED
        && let Some(field) = next(line, &mut at)
    {
        fields[count] = field;
        count += 1;
    }
    if count <= REQUEST {
        return None;
    }
    let end = time::rfc3339(fields[1], 0)?;
    let times = [REQUEST_TIME, TARGET_TIME, ANSWER_TIME].map(|place| time::decimal(fields[place]));
    let status = std::str::from_utf8(fields[STATUS]).ok()?.parse().ok()?;
    let created = time::rfc3339(fields[CREATED], 0);
    let sum = times.iter().flatten().sum::<i64>();
    let took = created.map(|created| end - created).or((sum > 0).then_some(sum));
    let (signal, detail) = signal(status, fields[TARGET_STATUS], times, took);
    let (method, target) = split_request(fields[REQUEST]);
    let trace = fields[TRACE];
    let _ = context;
    Some(Line::Hop(Hop {
        end: Some(end),
        took,
        server_took: times[1],
        status,
        signal,
        backend: fields[TARGET],
        service: fields[GROUP],
        method,
        target,
        id: trace.strip_prefix(b"Root=").unwrap_or(trace),
        client: fields[CLIENT],
        detail: detail.as_bytes(),
        ..Hop::EMPTY
    }))
}
