//! Google Cloud's Application Load Balancers: `LogEntry` as JSON lines, as an array, and as `BigQuery` exports it (where the keys are
//! in lower case). Source: "Global external Application Load Balancer logging", `statusDetails` messages.

use super::field::{Field, Fields};
use super::{Context, json_fields};
use crate::record::{Hop, Line, Signal};
use crate::time;

fn key(outer: &[u8], key: &[u8]) -> Option<Field> {
    let is = |name: &str| key.eq_ignore_ascii_case(name.as_bytes());
    match (key.len(), key.first()?.to_ascii_lowercase()) {
        (9, b't') if outer.is_empty() && is("timestamp") => Some(Field::Start),
        (5, b't') if outer.is_empty() && is("trace") => Some(Field::Trace),
        (4, b't') if outer.eq_ignore_ascii_case(b"resource") && is("type") => Some(Field::Kind),
        (20, b'b') if is("backend_service_name") => Some(Field::Service),
        (13, b's') if is("statusDetails") => Some(Field::Detail),
        (26, b'e') if is("errorBackendStatusDetails") => Some(Field::Reason),
        (6, b's') if is("status") && outer.eq_ignore_ascii_case(b"httpRequest") => Some(Field::Status),
        (7, b'l') if is("latency") => Some(Field::Took),
        (8, b's') if is("serverIp") => Some(Field::Upstream),
        (8, b'r') if is("remoteIp") && outer.eq_ignore_ascii_case(b"httpRequest") => Some(Field::Client),
        (10, b'r') if is("requestUrl") => Some(Field::Target),
        (13, b'r') if is("requestMethod") => Some(Field::Method),
        _ => None,
    }
}

/// What a `statusDetails` says. The number beside it is 502 or 503 for the same thing, so it does not count.
fn signal(details: &[u8], status: u16) -> Signal {
    match details {
        b"response_sent_by_backend" | b"response_from_cache" | b"" if status >= 500 => {
            if details.is_empty() {
                Signal::Failed
            } else {
                Signal::AppError
            }
        }
        b"response_sent_by_backend" | b"response_from_cache" | b"" | b"websocket_closed" => Signal::Answered,
        b"backend_connection_closed_before_data_sent_to_client" => Signal::ClosedBeforeAnswer,
        b"backend_connection_closed_after_partial_response_sent" => Signal::CutMidAnswer,
        b"failed_to_connect_to_backend" => Signal::ConnectFailed,
        b"failed_to_pick_backend" => Signal::NoServer,
        b"backend_timeout" => Signal::Timeout,
        b"backend_early_response_with_non_error_status"
        | b"aborted_request_due_to_backend_early_response"
        | b"backend_interim_response_not_supported"
        | b"backend_response_headers_too_long"
        | b"error_uncompressing_gzipped_body"
        | b"websocket_handshake_failed" => Signal::AppError,
        b"client_disconnected_before_any_response"
        | b"client_disconnected_after_partial_response"
        | b"client_timed_out"
        | b"client_cert_invalid" => Signal::ClientLeft,
        b"denied_by_security_policy"
        | b"throttled_by_security_policy"
        | b"banned_by_security_policy"
        | b"handled_by_identity_aware_proxy"
        | b"direct_response"
        | b"fault_filter_abort"
        | b"failed_to_negotiate_alpn"
        | b"request_loop_detected"
        | b"serverless_neg_routing_failed"
        | b"config_not_found" => Signal::Policy,
        _ if status >= 500 => Signal::Failed,
        _ => Signal::Answered,
    }
}

/// Reads an entry.
pub fn read(line: &[u8], context: Context) -> Option<Line<'_>> {
    let fields = json_fields(line, key)?;
    let (details, status) = (fields.get(Field::Detail), fields.status(Field::Status)?);
    if fields.get(Field::Kind) != b"http_load_balancer" && details.is_empty() {
        return None;
    }
    let start = time::rfc3339(fields.get(Field::Start), 0)?;
    let latency = fields.get(Field::Took);
    let took = time::decimal(latency.strip_suffix(b"s").unwrap_or(latency));
    let inner = fields.get(Field::Reason);
    let mut hop = Hop {
        // The log's time is the start of the request.
        end: Some(start + took.unwrap_or(0)),
        took,
        server_took: took,
        status,
        signal: signal(if inner.is_empty() { details } else { inner }, status),
        backend: fields.get(Field::Upstream),
        service: fields.get(Field::Service),
        method: fields.get(Field::Method),
        target: fields.get(Field::Target),
        id: trace_id(&fields),
        client: fields.get(Field::Client),
        detail: details,
        ..Hop::EMPTY
    };
    if hop.detail.is_empty() {
        hop.detail = b"no statusDetails";
    }
    let _ = context;
    Some(Line::Hop(hop))
}

/// `projects/P/traces/TRACE`
fn trace_id<'a>(fields: &Fields<'a>) -> &'a [u8] {
    let trace = fields.get(Field::Trace);
    memchr::memrchr(b'/', trace).map_or(trace, |slash| &trace[slash + 1..])
}
