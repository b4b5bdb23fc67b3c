//! Envoy, Istio and those built on them: the default text formats, JSON, and any format string given. Source: Envoy's
//! access log usage (response flags) and response code details, which are not stable between versions and so matched by their parts.

use std::sync::LazyLock;

use super::field::{Field, Fields};
use super::pattern::Pattern;
use super::words::{any, has};
use super::{Context, json_fields};
use crate::record::{Hop, Line, Signal};
use crate::time;

const HEAD: &str =
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %RESPONSE_FLAGS% ";
const TAIL: &str = "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \
                    \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"";

static PLAIN: LazyLock<Pattern> =
    LazyLock::new(|| Pattern::parse(&format!("{HEAD}{TAIL}")).expect("our own format; a test compiles it"));
static ISTIO: LazyLock<Pattern> = LazyLock::new(|| {
    let details = "%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" ";
    let more = " %UPSTREAM_CLUSTER% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ";
    Pattern::parse(&format!("{HEAD}{details}{TAIL}{more}")).expect("our own format; a test compiles it")
});

/// How connecting failed.
fn connect(text: &[u8]) -> Signal {
    if any(text, &["refused", "_111"]) {
        Signal::Refused
    } else if any(text, &["unreachable", "No_route", "_113", "_101"]) {
        Signal::Unroutable
    } else if has(text, "timeout") {
        Signal::ConnectTimeout
    } else {
        Signal::ConnectFailed
    }
}

/// What flags and details say. They come in any order, and the status alone says nothing: a cut answer is a 200.
fn signal(status: u16, flags: &[u8], detail: &[u8], reason: &[u8]) -> Signal {
    if has(detail, "upstream_reset_after_response_started") {
        return Signal::CutMidAnswer;
    }
    let flag = |wanted: &[u8]| flags.split(|byte| *byte == b',').any(|flag| flag == wanted);
    let one_of = |wanted: &[&[u8]]| wanted.iter().any(|name| flag(name));
    if flag(b"DC") || has(detail, "downstream_remote_disconnect") {
        Signal::ClientLeft
    } else if flag(b"UF") {
        let said = connect(detail);
        if said == Signal::ConnectFailed { connect(reason) } else { said }
    } else if flag(b"UH") {
        if has(reason, "refused") { Signal::Refused } else { Signal::NoServer }
    } else if one_of(&[b"UC", b"UR", b"UPE"]) && (100..500).contains(&status) {
        // The head had been sent on, with its status.
        Signal::CutMidAnswer
    } else if one_of(&[b"UC", b"UR"]) {
        Signal::ClosedBeforeAnswer
    } else if one_of(&[b"UT", b"SI", b"UMSDR"]) || status >= 500 && has(detail, "timeout") {
        Signal::Timeout
    } else if one_of(&[b"UO", b"RL", b"OM"]) {
        Signal::Overload
    } else if one_of(&[b"NR", b"NC", b"DI", b"FI", b"UAEX", b"IH", b"RLSE", b"DPE", b"LH"]) {
        Signal::Policy
    } else if status >= 500 {
        if one_of(&[b"LR", b"DT", b"DF"]) { Signal::Failed } else { Signal::AppError }
    } else {
        Signal::Answered
    }
}

/// What the fields say.
pub fn interpret<'a>(fields: &Fields<'a>, context: Context) -> Option<Hop<'a>> {
    let status = fields.status(Field::Status)?;
    let start = time::any(fields.get(Field::Start), context.zone)?;
    // Milliseconds.
    let took = time::decimal(fields.get(Field::Took)).map(|took| took / 1000);
    let (flags, detail) = (fields.get(Field::Flags), fields.get(Field::Detail));
    let (method, target) = fields.request();
    let (backend, service) = (fields.get(Field::Upstream), fields.get(Field::Service));
    let signal = signal(status, flags, detail, fields.get(Field::Reason));
    Some(Hop {
        end: Some(start + took.unwrap_or(0)),
        took,
        server_took: took,
        status,
        signal,
        backend: backend.strip_prefix(b"tcp://").unwrap_or(backend),
        service,
        method,
        target,
        id: fields.get(Field::Id),
        client: fields.get(Field::Client),
        detail: if detail.is_empty() { flags } else { detail },
        attempts: if has(flags, "URX") { 2 } else { 1 },
        same_pod: service.starts_with(b"inbound|"),
        closes: false,
    })
}

/// Reads the default formats.
pub fn text(line: &[u8], context: Context) -> Option<Line<'_>> {
    (line.first() == Some(&b'[')).then_some(())?;
    let mut fields = Fields::default();
    if !ISTIO.read(line, &mut fields) {
        fields = Fields::default();
        PLAIN.read(line, &mut fields).then_some(())?;
    }
    interpret(&fields, context).map(Line::Hop)
}

fn key(key: &[u8]) -> Option<Field> {
    Some(match key {
        b"start_time" => Field::Start,
        b"method" => Field::Method,
        b"path" | b"x_envoy_origin_path" | b"x-envoy-origin-path" => Field::Target,
        b"response_code" => Field::Status,
        b"response_flags" => Field::Flags,
        b"response_code_details" => Field::Detail,
        b"upstream_transport_failure_reason" => Field::Reason,
        b"duration" => Field::Took,
        b"request_id" | b"x_request_id" | b"x-request-id" => Field::Id,
        b"upstream_host" => Field::Upstream,
        b"upstream_cluster" => Field::Service,
        b"downstream_remote_address" => Field::Client,
        _ => return None,
    })
}

/// Reads JSON, with numbers or with texts for them.
pub fn json(line: &[u8], context: Context) -> Option<Line<'_>> {
    let fields = json_fields(line, |_, name| key(name))?;
    interpret(&fields, context).map(Line::Hop)
}
