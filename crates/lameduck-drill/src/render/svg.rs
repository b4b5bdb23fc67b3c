//! The drawings: the two lanes of each replica with the requests on them, and the latency.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use lameduck_core::Cause;
use lameduck_core::timeline::Moment;
use lameduck_core::words::{Escaped, count};

use super::words::seconds;
use crate::result::{DrillResult, Loss, Mark, ReplicaReport, percentile};

/// The drawing's own units; the page scales it.
const WIDTH: f64 = 1120.0;
/// Where time begins, right of the names.
const LEFT: f64 = 158.0;
const RIGHT: f64 = 14.0;
/// The height of a replica's row, and where its parts are in it.
const ROW: f64 = 66.0;
const PROCESS: (f64, f64) = (9.0, 14.0);
const ROUTING: (f64, f64) = (27.0, 8.0);
const REQUESTS: (f64, f64) = (39.0, 18.0);
/// Above the rows: the names of events.
const TOP: f64 = 30.0;
/// Below them: the scale.
const BOTTOM: f64 = 26.0;
/// Answered requests drawn at most in one drawing. Losses are always drawn.
const MOST_ANSWERED: usize = 6000;
/// Losses this close are one shaded window.
const WINDOW_GAP_S: f64 = 0.4;

/// The time that the drawing of a result needs, in seconds: to the last thing that happened, not to the end of a wait.
pub(super) fn span(result: &DrillResult) -> f64 {
    let marks = result.marks.iter().filter(|mark| mark.round == 1).map(|mark| mark.at_s + mark.latency_s);
    let losses = result.losses.iter().chain(&result.unknowns).filter(|loss| loss.round == 1).map(|loss| loss.at_s);
    let replicas = result.replicas.iter().filter(|replica| replica.round == 1);
    let moments = replicas.flat_map(|replica| replica.timeline.entries().iter().map(|entry| entry.at.as_secs_f64()));
    marks.chain(losses).chain(moments).fold(0.1, f64::max) * 1.01
}

#[derive(Clone, Copy)]
struct Scale {
    span: f64,
}

impl Scale {
    fn x(self, at_s: f64) -> f64 {
        LEFT + (at_s / self.span).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    /// A step between ticks that gives about ten of them.
    fn step(self) -> f64 {
        let rough = self.span / 10.0;
        let power = 10f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|step| *step >= rough).unwrap_or(power)
    }

    fn ticks(self) -> impl Iterator<Item = f64> {
        let step = self.step();
        (0..).map(move |n| f64::from(n) * step).take_while(move |at| *at <= self.span)
    }
}

/// Draws the first round: a row for each replica.
pub(super) fn timeline(out: &mut String, result: &DrillResult, span: f64) {
    let scale = Scale { span };
    let replicas: Vec<_> = result.replicas.iter().filter(|replica| replica.round == 1).collect();
    let height = TOP + ROW * replicas.len() as f64 + BOTTOM;
    let _ = write!(
        out,
        "<figure><div class=scroll><svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=img aria-label=\"Both lanes of each replica over time\">\
         <defs><pattern id=hatch width=5 height=5 patternUnits=userSpaceOnUse patternTransform=\"rotate(45)\">\
         <rect width=2 height=5 class=hatch /></pattern></defs>"
    );
    grid(out, scale, height);
    for (n, replica) in replicas.iter().enumerate() {
        let top = TOP + ROW * n as f64;
        let losses: Vec<_> = of_replica(result, &replica.name).collect();
        windows(out, scale, top, &losses);
        lanes(out, scale, top, replica, self::span(result));
        answered(out, scale, top, n, result);
        lost(out, scale, top, &losses);
    }
    events(out, scale, height, result);
    out.push_str("</svg></div>");
    legend(out, result);
    out.push_str("</figure>");
}

fn of_replica<'r>(result: &'r DrillResult, name: &'r str) -> impl Iterator<Item = &'r Loss> {
    result.losses.iter().chain(&result.unknowns).filter(move |loss| loss.round == 1 && loss.replica == name)
}

fn grid(out: &mut String, scale: Scale, height: f64) {
    for at in scale.ticks() {
        let (x, foot) = (scale.x(at), height - BOTTOM);
        let digits = usize::from(scale.step() < 1.0);
        let _ = write!(
            out,
            "<line class=grid x1={x:.1} x2={x:.1} y1={TOP} y2={foot:.1} /><text class=tick x={x:.1} y={:.1}>{at:.digits$} s</text>",
            foot + 17.0
        );
    }
}

fn events(out: &mut String, scale: Scale, height: f64, result: &DrillResult) {
    for event in result.events.iter().filter(|event| event.round == 1) {
        let x = scale.x(event.at_s);
        let name = Escaped(&event.event);
        let _ = write!(
            out,
            "<line class=event x1={x:.1} x2={x:.1} y1={:.1} y2={:.1} /><text class=eventname x={x:.1} y=15>{name}</text>",
            TOP - 10.0,
            height - BOTTOM
        );
    }
}

/// Losses that lie close together, as spans of time.
fn clusters(losses: &[&Loss]) -> Vec<(f64, f64, usize)> {
    let mut times: Vec<f64> = losses.iter().map(|loss| loss.at_s).collect();
    times.sort_unstable_by(f64::total_cmp);
    let mut spans: Vec<(f64, f64, usize)> = Vec::new();
    for at in times {
        match spans.last_mut() {
            Some((_, until, n)) if at - *until <= WINDOW_GAP_S => {
                *until = at;
                *n += 1;
            }
            _ => spans.push((at, at, 1)),
        }
    }
    spans
}

fn windows(out: &mut String, scale: Scale, top: f64, losses: &[&Loss]) {
    for (from, until, n) in clusters(losses) {
        let (x, right) = (scale.x(from) - 2.0, scale.x(until) + 2.0);
        let _ = write!(
            out,
            "<rect class=window x={x:.1} y={:.1} width={:.1} height={:.1} rx=3><title>{} lost in {}</title></rect>",
            top + 4.0,
            right - x,
            ROW - 8.0,
            count(n as u64),
            seconds(until - from)
        );
    }
}

/// One bar of a lane.
struct Bar<'b> {
    class: &'b str,
    from: Option<Duration>,
    until: Option<Duration>,
    title: &'b str,
}

fn lanes(out: &mut String, scale: Scale, top: f64, replica: &ReplicaReport, ended_s: f64) {
    let at = |moment| replica.timeline.at(moment);
    let end = Some(Duration::from_secs_f64(ended_s));
    let (term, exited) = (at(Moment::TermReceived), at(Moment::Exited).or(end));
    let closed = at(Moment::StoppedAccepting).filter(|closed| Some(*closed) < exited);
    let ready = at(Moment::Ready);
    let name = Escaped(&replica.name);
    let note = match (&replica.exit, term.zip(at(Moment::Exited))) {
        (Some(_), Some((term, exited))) => format!("exit +{}", seconds(exited.saturating_sub(term).as_secs_f64())),
        (Some(_), None) => "died by itself".into(),
        (None, _) => format!("{} sent", count(replica.tally.sent)),
    };
    let _ = write!(
        out,
        "<text class=name x=0 y={:.1}>{name}</text><text class=tick2 x=0 y={:.1}>{}</text><text class=lane x={x:.1} y={:.1}>process</text>\
         <text class=lane x={x:.1} y={:.1}>routing</text><text class=lane x={x:.1} y={:.1}>requests</text>",
        top + 20.0,
        top + 36.0,
        Escaped(&note),
        top + PROCESS.0 + 11.0,
        top + ROUTING.0 + 7.5,
        top + REQUESTS.0 + 13.0,
        x = LEFT - 8.0,
    );
    let removed = at(Moment::EndpointRemoved);
    let last_request = at(Moment::LastRequest);
    let pooled_after = last_request.filter(|last| removed.is_some_and(|removed| *last > removed));
    let process = [
        Bar { class: "starting", from: at(Moment::Started), until: ready.or(exited), title: "starting" },
        Bar { class: "serving", from: ready, until: term.or(exited), title: "serving" },
        Bar { class: "stopping", from: term, until: closed.or(exited), title: "told to stop, still accepting" },
        Bar { class: "closing", from: closed, until: exited, title: "no longer accepting" },
    ];
    let routing = [
        Bar { class: "routed", from: ready, until: term.or(removed).or(end), title: "gets requests" },
        Bar {
            class: "lagging",
            from: term,
            until: removed,
            title: "still gets new connections: routing has not heard yet",
        },
        Bar {
            class: "pooled",
            from: removed.filter(|_| pooled_after.is_some()),
            until: pooled_after,
            title: "still used on kept connections",
        },
    ];
    for (bars, (y, height)) in [(&process[..], PROCESS), (&routing[..], ROUTING)] {
        for bar in bars {
            draw(out, scale, top + y, height, bar);
        }
    }
    if let Some(killed) = at(Moment::Killed) {
        let (x, y) = (scale.x(killed.as_secs_f64()), top + PROCESS.0);
        let _ = write!(
            out,
            "<path class=kill d=\"M{:.1} {:.1}l12 12m0 -12l-12 12\"><title>SIGKILL at {}</title></path>",
            x - 6.0,
            y + 1.0,
            seconds(killed.as_secs_f64())
        );
    }
    if let Some(term) = term {
        let x = scale.x(term.as_secs_f64());
        let bar_until = closed.or(exited).map_or(x, |until| scale.x(until.as_secs_f64()));
        // On the bar where it is long enough to carry the word, else on the page.
        let on = if bar_until - x > 34.0 { "onbar" } else { "onpage" };
        let _ = write!(
            out,
            "<line class=term x1={x:.1} x2={x:.1} y1={:.1} y2={:.1} /><text class=\"termname {on}\" x={:.1} y={:.1}>TERM</text>",
            top + 5.0,
            top + ROW - 8.0,
            x + 3.0,
            top + PROCESS.0 + 11.0
        );
    }
}

fn draw(out: &mut String, scale: Scale, y: f64, height: f64, bar: &Bar<'_>) {
    let (Some(from), Some(until)) = (bar.from, bar.until) else { return };
    let (from_s, until_s) = (from.as_secs_f64(), until.as_secs_f64());
    if until <= from {
        return;
    }
    let (x, right) = (scale.x(from_s), scale.x(until_s));
    let rect = |out: &mut String, class: &str| {
        let _ = write!(
            out,
            "<rect class=\"{class}\" x={x:.1} y={y:.1} width={:.1} height={height} rx=2.5><title>{}: {} to {}, {}</title></rect>",
            (right - x).max(1.0),
            bar.title,
            seconds(from_s),
            seconds(until_s),
            seconds(until_s - from_s)
        );
    };
    rect(out, bar.class);
    if matches!(bar.class, "closing" | "lagging") {
        rect(out, "hatched");
    }
}

/// Answered requests: one path for all of a row, thinned evenly where there are too many to see.
fn answered(out: &mut String, scale: Scale, top: f64, replica: usize, result: &DrillResult) {
    let every = result.marks.iter().filter(|mark| mark.round == 1).count().div_ceil(MOST_ANSWERED).max(1);
    let of_row = |mark: &&Mark| mark.round == 1 && mark.replica == replica;
    let (y, height) = (top + REQUESTS.0 + 4.0, REQUESTS.1 - 8.0);
    let mut path = String::new();
    for mark in result.marks.iter().filter(of_row).step_by(every) {
        let _ = write!(path, "M{:.1} {y:.1}v{height}", scale.x(mark.at_s));
    }
    if !path.is_empty() {
        let thinned = if every > 1 { format!(" (one in {every} drawn)") } else { String::new() };
        let _ = write!(out, "<path class=answered d=\"{path}\"><title>answered{thinned}</title></path>");
    }
}

/// Lost requests: none is left out. Those of one cause within one unit of the drawing share a mark that says how many.
fn lost(out: &mut String, scale: Scale, top: f64, losses: &[&Loss]) {
    let mut marks: BTreeMap<(i64, Cause), Vec<&Loss>> = BTreeMap::new();
    for loss in losses {
        marks.entry((scale.x(loss.at_s).round() as i64, loss.cause)).or_default().push(loss);
    }
    for ((x, cause), group) in marks {
        let first = group[0];
        let more = if group.len() > 1 { format!("{} × ", group.len()) } else { String::new() };
        let _ = write!(
            out,
            "<rect class=\"lost {}\" x={:.1} y={:.1} width=2 height={}><title>{more}{} at {:.3} s: {} {}, {}</title></rect>",
            cause.id(),
            x as f64 - 1.0,
            top + REQUESTS.0,
            REQUESTS.1,
            cause.id(),
            first.at_s,
            Escaped(&first.method),
            Escaped(&first.path),
            Escaped(&first.grounds)
        );
    }
}

fn legend(out: &mut String, result: &DrillResult) {
    out.push_str("<figcaption class=legend>");
    for (class, what) in [
        ("starting", "starting"),
        ("serving", "serving"),
        ("stopping", "told to stop, accepting"),
        ("closing", "no longer accepting"),
        ("routed", "routed to"),
        ("lagging", "routed to after TERM (lag)"),
        ("answeredkey", "answered"),
    ] {
        let _ = write!(out, "<span><i class=\"key {class}\"></i>{what}</span>");
    }
    for cause in result.tally.causes.keys() {
        let _ = write!(out, "<span><i class=\"dot {}\"></i>{}</span>", cause.id(), cause.id());
    }
    out.push_str("</figcaption>");
}

/// The latency of answers over time: median and highest of each short span, on a logarithmic scale.
pub(super) fn latency(out: &mut String, result: &DrillResult, span: f64) {
    const HEIGHT: f64 = 92.0;
    const SPANS: usize = 120;
    const LONGEST_GAP: usize = 3;
    let scale = Scale { span };
    let mut buckets: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for mark in result.marks.iter().filter(|mark| mark.round == 1) {
        let bucket = (mark.at_s / span * SPANS as f64) as usize;
        buckets.entry(bucket).or_default().push(mark.latency_s.max(1e-5));
    }
    let all = || result.marks.iter().filter(|mark| mark.round == 1).map(|mark| mark.latency_s.max(1e-5));
    let (Some(low), Some(high)) = (all().min_by(f64::total_cmp), all().max_by(f64::total_cmp)) else { return };
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let y = |latency_s: f64| 8.0 + (1.0 - (latency_s.log10() - low) / (high - low).max(1.0)) * (HEIGHT - 16.0);
    let _ = write!(
        out,
        "<figure><div class=scroll><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=img aria-label=\"Latency over time\">\
         <text class=name x=0 y=22>latency</text>"
    );
    for power in low as i32..=high as i32 {
        let (line, value) = (y(10f64.powi(power)), 10f64.powi(power));
        let label = if value < 1.0 { format!("{} ms", value * 1e3) } else { format!("{value} s") };
        let _ = write!(
            out,
            "<line class=grid x1={LEFT} x2={:.1} y1={line:.1} y2={line:.1} /><text class=lane x={:.1} y={:.1}>{label}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            line + 3.5
        );
    }
    for (class, share) in [("highest", 1.0), ("median", 0.5)] {
        let mut path = String::new();
        let mut before = None;
        for (bucket, latencies) in &mut buckets {
            latencies.sort_unstable_by(f64::total_cmp);
            let at = (*bucket as f64 + 0.5) / SPANS as f64 * span;
            // A line over a time without answers would show what nobody measured.
            let step = if before.is_some_and(|before| bucket - before <= LONGEST_GAP) { 'L' } else { 'M' };
            before = Some(*bucket);
            let _ = write!(path, "{step}{:.1} {:.1}", scale.x(at), y(percentile(latencies, share).unwrap_or(low)));
        }
        let _ = write!(out, "<path class={class} d=\"{path}\"><title>{class} latency</title></path>");
    }
    out.push_str(
        "</svg></div><figcaption class=legend><span><i class=\"key mediankey\"></i>median latency</span>\
         <span><i class=\"key highestkey\"></i>highest, from the intended send time</span></figcaption></figure>",
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_ten_ticks_whatever_the_span() {
        for span in [0.1, 0.9, 3.0, 9.7, 61.0, 3600.0] {
            let ticks = Scale { span }.ticks().count();
            assert!((5..=12).contains(&ticks), "{span}: {ticks}");
        }
    }
}
