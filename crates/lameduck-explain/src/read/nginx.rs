//! nginx: `combined`, ingress-nginx's `upstreaminfo` in its three shapes, JSON by variable names, and any `log_format` given.
//! Source: `ngx_http_upstream.c` (a failed attempt's status is made up by nginx: 502 or 504), ingress-nginx's log-format page.

use std::sync::LazyLock;

use super::field::{Field, Fields};
use super::pattern::Pattern;
use super::{Context, json_fields};
use crate::record::{Hop, Line, Signal};
use crate::time;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("our own formats; a test compiles each")
}

static COMBINED: LazyLock<Pattern> = LazyLock::new(|| {
    pattern(
        "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"",
    )
});

const UPSTREAM: &str =
    "$body_bytes_sent \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] ";
const TAIL: &str = "$upstream_addr $upstream_response_length $upstream_response_time $upstream_status $req_id";

static INGRESS: LazyLock<[Pattern; 2]> = LazyLock::new(|| {
    let head = "$remote_addr - $remote_user [$time_local] \"$request\" $status ";
    [
        pattern(&format!("{head}{UPSTREAM}[$proxy_alternative_upstream_name] {TAIL}")),
        pattern(&format!("{head}{UPSTREAM}{TAIL}")),
    ]
});

/// ingress-nginx before 0.22 wrote `[$the_real_ip]` for the user.
static INGRESS_OLD: LazyLock<Pattern> = LazyLock::new(|| {
    pattern(&format!(
        "$remote_addr - [$the_real_ip] - $remote_user [$time_local] \"$request\" $status {UPSTREAM}{TAIL}"
    ))
});

/// The last entry of a list of attempts, and how many there are.
fn last(list: &[u8]) -> (&[u8], u16) {
    if memchr::memchr(b' ', list).is_none() {
        return (list, 1);
    }
    let count = memchr::memchr_iter(b',', list).count() + list.windows(3).filter(|part| *part == b" : ").count();
    let from = memchr::memrchr(b' ', list).map_or(0, |space| space + 1);
    (&list[from..], u16::try_from(count + 1).unwrap_or(u16::MAX))
}

/// What the fields say. `ingress` knows that an empty upstream with 503 is a service without endpoints.
#[inline]
pub fn interpret<'a>(fields: &Fields<'a>, context: Context, ingress: bool) -> Option<Hop<'a>> {
    let status = fields.status(Field::Status)?;
    let end = time::any(fields.get(Field::End), context.zone);
    let took = time::decimal(fields.get(Field::Took));
    let (method, target) = fields.request();
    let (backend, attempts) = last(fields.get(Field::Upstream));
    // All lists of a line are of one length.
    let of = |field| if attempts == 1 { fields.get(field) } else { last(fields.get(field)).0 };
    let [theirs, bytes, server_took] = [Field::UpstreamStatus, Field::UpstreamBytes, Field::ServerTook].map(of);
    let (connect, _) = last(fields.get(Field::ConnectTook));
    let has_upstream = !backend.is_empty();
    let (signal, detail): (_, &[u8]) = match (status, theirs) {
        (499, _) => (Signal::ClientLeft, b"499"),
        (..500, _) => (Signal::Answered, b""),
        (503, b"" | b"-") if ingress && !has_upstream => (Signal::NoServer, b"503 without an upstream: no endpoint"),
        (504, b"504") if connect == b"-" => {
            (Signal::ConnectTimeout, b"504, upstream_connect_time -: not connected in time")
        }
        (502, b"502") if connect == b"-" => (Signal::ConnectFailed, b"502, upstream_connect_time -: not connected"),
        (502, b"502") if !connect.is_empty() && (bytes.is_empty() || bytes == b"0") => {
            (Signal::ClosedBeforeAnswer, b"502 with a connection and no byte of an answer")
        }
        (504, b"504") if bytes.is_empty() || bytes == b"0" => {
            (Signal::Timeout, b"upstream_status 504, made up by nginx")
        }
        // A status with nothing behind it is nginx's own; the error log says what it stands for.
        (502, b"502") if bytes.is_empty() || bytes == b"0" => (
            Signal::Failed,
            b"upstream_status 502 with no byte of an answer: refused or closed; the error log tells which",
        ),
        (_, b"" | b"-") => (Signal::Failed, b"no upstream status"),
        (_, _) => (Signal::AppError, b"the upstream's own status"),
    };
    Some(Hop {
        end,
        took,
        server_took: time::decimal(server_took),
        status,
        signal,
        backend,
        service: fields.get(Field::Service),
        method,
        target,
        id: fields.get(Field::Id),
        client: fields.get(Field::Client),
        detail,
        attempts,
        same_pod: backend.starts_with(b"unix:"),
        closes: fields.get(Field::UpstreamConnection).eq_ignore_ascii_case(b"close"),
    })
}

/// Reads `combined`.
pub fn combined(line: &[u8], context: Context) -> Option<Line<'_>> {
    let mut fields = Fields::default();
    COMBINED.read(line, &mut fields).then_some(())?;
    let hop = interpret(&fields, context, false)?;
    hop.end.map(|_| Line::Hop(hop))
}

/// Reads ingress-nginx's format.
pub fn ingress(line: &[u8], context: Context) -> Option<Line<'_>> {
    for pattern in INGRESS.iter().chain([&*INGRESS_OLD]) {
        let mut fields = Fields::default();
        if pattern.read(line, &mut fields) {
            let hop = interpret(&fields, context, true)?;
            return hop.end.map(|_| Line::Hop(hop));
        }
    }
    None
}

/// Reads a line of JSON with nginx's variables as keys.
pub fn json(line: &[u8], context: Context) -> Option<Line<'_>> {
    let fields = json_fields(line, |_, key| Field::of_nginx(std::str::from_utf8(key).ok()?))?;
    if fields.get(Field::Upstream).is_empty() && fields.get(Field::Took).is_empty() {
        return None;
    }
    let hop = interpret(&fields, context, true)?;
    hop.end.map(|_| Line::Hop(hop))
}
