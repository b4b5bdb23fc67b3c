//! lameduck's own: the front's access log (`lameduck.access/1`) and the drain report (`lameduck.drain/1`), bare or as the
//! log line that ends a pod.

use lameduck_core::report::{DrainReport, Origin};
use lameduck_core::timeline::Moment;

use super::field::Field;
use super::{Context, json_fields};
use crate::record::{Event, EventKind, Hop, Line, Signal};
use crate::time::{self, Micros};

fn key(_: &[u8], key: &[u8]) -> Option<Field> {
    Some(match key {
        b"schema" => Field::Schema,
        b"time" => Field::Start,
        b"id" => Field::Id,
        b"client" => Field::Client,
        b"method" => Field::Method,
        b"target" => Field::Target,
        b"status" => Field::Status,
        b"ended" => Field::Detail,
        b"took_s" => Field::Took,
        b"app_s" => Field::ServerTook,
        b"retries" => Field::Retries,
        b"probe" => Field::Flags,
        _ => return None,
    })
}

/// A line of the front's access log.
pub fn access(line: &[u8], context: Context) -> Option<Line<'_>> {
    let fields = json_fields(line, key)?;
    if fields.get(Field::Schema) != b"lameduck.access/1" {
        return None;
    }
    let _ = context;
    let ended = fields.get(Field::Detail);
    let status = fields.status(Field::Status).unwrap_or(0);
    let signal = match ended {
        b"answered" if status >= 500 => Signal::AppError,
        b"answered" => Signal::Answered,
        b"refused" => Signal::Policy,
        b"shed" => Signal::Overload,
        b"bad-gateway" => Signal::Failed,
        b"gateway-timeout" => Signal::Timeout,
        b"cut-by-app" | b"cut-at-deadline" => Signal::CutMidAnswer,
        b"client-gone" => Signal::ClientLeft,
        _ => return None,
    };
    if fields.get(Field::Flags) == b"true" {
        return Some(Line::Nothing);
    }
    let start = time::epoch(fields.get(Field::Start))?;
    let took = time::decimal(fields.get(Field::Took));
    Some(Line::Hop(Hop {
        end: Some(start + took.unwrap_or(0)),
        took,
        server_took: time::decimal(fields.get(Field::ServerTook)),
        status,
        signal,
        method: fields.get(Field::Method),
        target: fields.get(Field::Target),
        id: fields.get(Field::Id),
        client: fields.get(Field::Client),
        detail: ended,
        attempts: fields.status(Field::Retries).unwrap_or(0) + 1,
        same_pod: true,
        ..Hop::EMPTY
    }))
}

/// A drain report. It has no date: the stamp before it (`kubectl logs --timestamps`, `--log-format json`) is when it was written.
pub fn drain(line: &[u8], context: Context) -> Option<Line<'_>> {
    let at = memchr::memmem::find(line, b"lameduck.drain/1")?;
    let open = memchr::memrchr(b'{', &line[..at])?;
    let mut reports = serde_json::Deserializer::from_slice(&line[open..]).into_iter::<DrainReport>();
    let report = reports.next()?.ok()?;
    let Some(written) = stamp(&line[..open], context.zone) else { return Some(Line::Nothing) };
    let began = written - micros(report.took);
    let mut events = Vec::new();
    for entry in report.timeline.entries() {
        let kind = match entry.moment {
            Moment::TermReceived | Moment::Deleted => EventKind::Stopping,
            Moment::AppSignalled => EventKind::AppStopping,
            Moment::Killed => EventKind::GraceExceeded,
            Moment::Exited if report.origin == Origin::AppExit => EventKind::Crashed,
            Moment::Exited => EventKind::Ended,
            Moment::Started
            | Moment::Ready
            | Moment::DrainRequested
            | Moment::LameDuckBegan
            | Moment::Quiet
            | Moment::DrainingBegan
            | Moment::StoppedAccepting
            | Moment::EndpointRemoved
            | Moment::LastNewConnection
            | Moment::LastRequest => continue,
        };
        let words = format!("drain report: {:?}", entry.moment);
        events.push(Event { at: began + micros(entry.at), kind, subject: String::new(), words });
    }
    Some(Line::Events(events))
}

fn micros(duration: std::time::Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX / 4)
}

/// The first time in a line's head.
pub(super) fn stamp(head: &[u8], zone: Micros) -> Option<Micros> {
    (0..head.len().min(64)).find_map(|from| time::rfc3339(&head[from..], zone))
}
