//! HAProxy's HTTP log. Source: its manual, 8.2.3 (fields), 8.4 (timers), 8.5 (termination states).

use super::Context;
use super::field::split_request;
use crate::record::{Hop, Line, Signal};
use crate::time;

/// What the first two letters of the termination state say.
fn signal(state: &[u8], status: u16, server: &[u8], connected: bool) -> Signal {
    match (state.first(), state.get(1)) {
        (Some(b'C' | b'c'), _) => Signal::ClientLeft,
        (Some(b'S'), Some(b'C')) if server == b"<NOSRV>" => Signal::NoServer,
        (Some(b'S'), Some(b'C')) => Signal::Refused,
        (Some(b's'), Some(b'C')) => Signal::ConnectTimeout,
        (Some(b'S'), Some(b'H')) => Signal::ClosedBeforeAnswer,
        (Some(b's'), Some(b'H' | b'D')) => Signal::Timeout,
        (Some(b's' | b'S'), Some(b'Q')) | (Some(b'R'), _) | (Some(b'P'), Some(b'C')) => Signal::Overload,
        (Some(b'S'), Some(b'D')) | (Some(b'D'), _) => Signal::CutMidAnswer,
        (Some(b'P'), Some(b'H')) if status >= 500 => Signal::AppError,
        (Some(b'P' | b'L'), _) if server == b"<NOSRV>" && status >= 500 => Signal::NoServer,
        (Some(b'L' | b'P'), _) => Signal::Policy,
        _ if status >= 500 && connected => Signal::AppError,
        _ if status >= 500 => Signal::Failed,
        _ => Signal::Answered,
    }
}

/// The place of `[dd/Mon/yyyy:`.
fn stamp(line: &[u8]) -> Option<usize> {
    memchr::memchr_iter(b'[', line).take(8).find(|at| {
        line.get(at + 3) == Some(&b'/') && line.get(at + 7) == Some(&b'/') && line.get(at + 25) == Some(&b']')
    })
}

/// Reads a line, with or without syslog's prefix.
pub fn read(line: &[u8], context: Context) -> Option<Line<'_>> {
    let open = stamp(line)?;
    let start = time::common(line.get(open + 1..open + 25)?, context.zone)?;
    let client = line[..open].trim_ascii_end();
    let client = &client[memchr::memrchr(b' ', client).map_or(0, |space| space + 1)..];
    let rest = line.get(open + 27..)?;
    let mut words = [&b""[..]; 8];
    let mut from = 0;
    for word in &mut words {
        let end = from + memchr::memchr(b' ', rest.get(from..)?)?;
        *word = &rest[from..end];
        from = end + 1;
    }
    let [_, route, phases, status, _, _, _, state] = words;
    (state.len() == 4).then_some(())?;
    let slash = memchr::memchr(b'/', route)?;
    let (service, server) = (&route[..slash], &route[slash + 1..]);
    let mut times = [None; 5];
    let mut parts = phases.split(|byte| *byte == b'/');
    for time in &mut times {
        let part = parts.next()?;
        // Milliseconds; -1 is a phase that was never reached, a plus one that still went on.
        let text = std::str::from_utf8(part.strip_prefix(b"+").unwrap_or(part)).ok()?;
        *time = text.parse::<i64>().ok().filter(|n| *n >= 0).map(|n| n.saturating_mul(1000));
    }
    let status: u16 = std::str::from_utf8(status).ok()?.parse().unwrap_or(0);
    let quote = memchr::memchr(b'"', &rest[from..]).map_or(rest.len(), |at| from + at + 1);
    let request = &rest[quote..memchr::memrchr(b'"', rest).filter(|end| *end >= quote).unwrap_or(rest.len())];
    let (method, target) = split_request(request);
    // `%si:%sp` behind the request, where the format has it: an address is the pod's, a name is HAProxy's own.
    let behind = rest[memchr::memrchr(b'"', rest).map_or(rest.len(), |end| end + 1)..].trim_ascii();
    let behind = behind.split(|byte| *byte == b' ').next().unwrap_or_default();
    let is_address =
        behind.contains(&b':') && behind.iter().all(|byte| byte.is_ascii_hexdigit() || b".:[]".contains(byte));
    let address = if is_address && !behind.ends_with(b":0") { behind } else { server };
    let [_, _, connect, answer, total] = times;
    // Connecting and waiting: how long the server had it, or the whole where it never answered.
    let waited = match (connect, answer, total) {
        (Some(connect), Some(answer), _) => Some(connect + answer),
        (_, None, total) => total,
        (None, Some(answer), _) => Some(answer),
    };
    Some(Line::Hop(Hop {
        end: total.map(|total| start + total),
        took: total,
        server_took: waited,
        status,
        signal: signal(state, status, server, answer.is_some()),
        backend: address,
        service,
        method,
        target,
        client,
        detail: state,
        ..Hop::EMPTY
    }))
}
