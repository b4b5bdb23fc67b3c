//! Proxies written in Go: Traefik, Caddy, GitLab's Workhorse. They name errors as Go's library does.
//! Sources: Traefik's access log page; Caddy's `reverseproxy`; Workhorse's `badgateway`.

use super::field::Field;
use super::words::{go_error, has};
use super::{Context, json_fields};
use crate::record::{Hop, Line, Signal};
use crate::time;

fn traefik_key(_: &[u8], key: &[u8]) -> Option<Field> {
    Some(match key {
        b"StartUTC" => Field::Start,
        b"StartLocal" | b"time" => Field::End,
        b"Duration" => Field::Took,
        b"OriginDuration" => Field::ServerTook,
        b"OriginStatus" => Field::UpstreamStatus,
        b"DownstreamStatus" => Field::Status,
        b"OriginContentSize" => Field::UpstreamBytes,
        b"ServiceName" => Field::Service,
        b"ServiceAddr" => Field::Upstream,
        b"RequestMethod" => Field::Method,
        b"RequestPath" => Field::Target,
        b"ClientHost" => Field::Client,
        b"request_X-Request-Id" => Field::Id,
        b"TraceId" => Field::Trace,
        b"RetryAttempts" => Field::Retries,
        _ => return None,
    })
}

fn nanoseconds(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse::<i64>().ok().map(|nanos| nanos / 1000)
}

/// The length of Go's own `Bad Gateway` and its kin: then the error is Traefik's, whatever `OriginStatus` says.
fn own_body(status: u16, bytes: &[u8]) -> bool {
    matches!((status, bytes), (502, b"11") | (504, b"15") | (503, b"19") | (499, b"21"))
}

/// Traefik's JSON.
pub fn traefik(line: &[u8], context: Context) -> Option<Line<'_>> {
    let fields = json_fields(line, traefik_key)?;
    let status = fields.status(Field::Status)?;
    let took = nanoseconds(fields.get(Field::Took));
    let start = time::rfc3339(fields.get(Field::Start), 0);
    let end =
        start.map(|start| start + took.unwrap_or(0)).or_else(|| time::rfc3339(fields.get(Field::End), context.zone));
    let origin = fields.status(Field::UpstreamStatus).unwrap_or(0);
    let own = origin == 0 || own_body(status, fields.get(Field::UpstreamBytes));
    let (signal, detail): (_, &[u8]) = match status {
        499 => (Signal::ClientLeft, b"499"),
        ..500 => (Signal::Answered, b""),
        503 if fields.get(Field::Upstream).is_empty() => (Signal::NoServer, b"no available server"),
        504 if own => (Signal::Timeout, b"504 by Traefik"),
        _ if own => (Signal::Failed, b"Traefik's own error; its debug log tells which"),
        _ if origin >= 500 => (Signal::AppError, b"OriginStatus"),
        _ => (Signal::Failed, b"Traefik's own error"),
    };
    let id = if fields.get(Field::Id).is_empty() { fields.get(Field::Trace) } else { fields.get(Field::Id) };
    let retries = fields.status(Field::Retries).unwrap_or(0);
    Some(Line::Hop(Hop {
        end,
        took,
        server_took: nanoseconds(fields.get(Field::ServerTook)),
        status,
        signal,
        backend: fields.get(Field::Upstream),
        service: fields.get(Field::Service),
        method: fields.get(Field::Method),
        target: fields.get(Field::Target),
        id,
        client: fields.get(Field::Client),
        detail,
        attempts: retries + 1,
        ..Hop::EMPTY
    }))
}

/// Traefik's common log format: `IP - USER [ts] "REQUEST" status len "referer" "ua" count "router" "server URL" Nms`.
pub fn traefik_text(line: &[u8], context: Context) -> Option<Line<'_>> {
    let body = line.strip_suffix(b"ms")?;
    let number = memchr::memrchr(b' ', body)?;
    let took = std::str::from_utf8(&body[number + 1..]).ok()?.parse::<i64>().ok()?.checked_mul(1000)?;
    let quoted = body[..number].strip_suffix(b"\"")?;
    let url = &quoted[memchr::memrchr(b'"', quoted)? + 1..];
    let Line::Hop(hop) = super::nginx::combined(line, context)? else { return None };
    let backend = memchr::memmem::find(url, b"://").map_or(url, |at| &url[at + 3..]);
    let (signal, detail): (_, &[u8]) = match hop.status {
        499 => (Signal::ClientLeft, b"499"),
        ..500 => (Signal::Answered, b""),
        503 if matches!(backend, b"" | b"-") => (Signal::NoServer, b"no available server"),
        504 => (Signal::Timeout, b"504"),
        _ => (Signal::Failed, b"the text format does not tell Traefik's own errors from the server's"),
    };
    Some(Line::Hop(Hop { took: Some(took), server_took: Some(took), backend, signal, detail, ..hop }))
}

fn caddy_key(outer: &[u8], key: &[u8]) -> Option<Field> {
    Some(match (outer, key) {
        (b"", b"ts") => Field::End,
        (b"", b"logger") => Field::Logger,
        (b"", b"msg") => Field::Message,
        (b"", b"level") => Field::Level,
        (b"", b"duration") => Field::Took,
        (b"", b"status") => Field::Status,
        (b"request", b"method") => Field::Method,
        (b"request", b"uri") => Field::Target,
        (b"request", b"host") => Field::Service,
        (b"request", b"remote_ip") => Field::Client,
        (b"X-Request-Id", b"") => Field::Id,
        _ => return None,
    })
}

/// The address in Go's `dial tcp ADDRESS: ...`, or `read tcp HERE->ADDRESS: ...`.
fn dialled(message: &[u8]) -> &[u8] {
    for lead in ["->", "dial tcp ", "dial unix "] {
        if let Some(at) = memchr::memmem::find(message, lead.as_bytes()) {
            let rest = &message[at + lead.len()..];
            return &rest[..memchr::memmem::find(rest, b": ").unwrap_or(rest.len())];
        }
    }
    b""
}

/// Caddy's JSON, access and error, also behind another program's prefix.
pub fn caddy(line: &[u8], context: Context) -> Option<Line<'_>> {
    let line = &line[memchr::memchr(b'{', line)?..];
    let fields = json_fields(line, caddy_key)?;
    let logger = fields.get(Field::Logger);
    if !logger.starts_with(b"http.") {
        return None;
    }
    let end = time::any(fields.get(Field::End), context.zone)?;
    let message = fields.get(Field::Message);
    let Some(status) = fields.status(Field::Status) else { return Some(Line::Nothing) };
    let error = logger.starts_with(b"http.log.error");
    let (method, target, client) = (fields.get(Field::Method), fields.get(Field::Target), fields.get(Field::Client));
    if error {
        // The access line of the same request follows; this says why.
        let (signal, backend) = (go_error(message), dialled(message));
        return Some(Line::Note(crate::record::Note {
            at: end,
            signal,
            backend,
            client,
            method,
            target,
            detail: message,
        }));
    }
    logger.starts_with(b"http.log.access").then_some(())?;
    let signal = match status {
        ..500 => Signal::Answered,
        504 => Signal::Timeout,
        _ => Signal::Failed,
    };
    let took = time::decimal(fields.get(Field::Took));
    Some(Line::Hop(Hop {
        end: Some(end),
        took,
        server_took: took,
        status,
        signal,
        service: fields.get(Field::Service),
        method,
        target,
        id: fields.get(Field::Id),
        client,
        detail: b"the error log tells why",
        ..Hop::EMPTY
    }))
}

fn workhorse_key(_: &[u8], key: &[u8]) -> Option<Field> {
    Some(match key {
        b"time" => Field::End,
        b"correlation_id" | b"request_id" => Field::Id,
        b"duration_ms" => Field::Took,
        b"error" => Field::Detail,
        b"method" => Field::Method,
        b"uri" => Field::Target,
        b"status" => Field::Status,
        b"remote_ip" => Field::Client,
        b"msg" => Field::Message,
        b"level" => Field::Level,
        _ => return None,
    })
}

/// GitLab Workhorse's JSON: an error line for what failed, an access line for all.
pub fn workhorse(line: &[u8], context: Context) -> Option<Line<'_>> {
    let fields = json_fields(line, workhorse_key)?;
    if fields.get(Field::Id).is_empty() || fields.get(Field::End).is_empty() || fields.get(Field::Took).is_empty() {
        return None;
    }
    let end = time::any(fields.get(Field::End), context.zone)?;
    let (error, took) = (fields.get(Field::Detail), time::decimal(fields.get(Field::Took)).map(|took| took / 1000));
    let status = fields.status(Field::Status);
    if status.is_none() && error.is_empty() {
        return Some(Line::Nothing);
    }
    let gateway = has(error, "badgateway");
    let signal = match status {
        _ if gateway => go_error(error),
        Some(500..) => Signal::Failed,
        Some(_) => Signal::Answered,
        None => return Some(Line::Nothing),
    };
    Some(Line::Hop(Hop {
        end: Some(end),
        took,
        server_took: took,
        status: status.unwrap_or(502),
        signal,
        backend: dialled(error),
        service: b"workhorse",
        method: fields.get(Field::Method),
        target: fields.get(Field::Target),
        id: fields.get(Field::Id),
        client: fields.get(Field::Client),
        detail: error,
        // Workhorse proxies to the Puma of its own pod.
        same_pod: true,
        ..Hop::EMPTY
    }))
}
