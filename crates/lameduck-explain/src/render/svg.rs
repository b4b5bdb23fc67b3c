//! The charts. Each is drawn in user units and scales with the page; colours are the page's classes.

use std::fmt::Write as _;

use lameduck_core::Cause;
use lameduck_core::words::{Escaped, count};

use crate::record::EventKind;
use crate::report::{Bin, Explanation, PodReport};
use crate::spikes::Spike;
use crate::time::{SECOND, parts};

/// The width of a chart.
const WIDTH: f64 = 1180.0;
const LEFT: f64 = 54.0;

/// A round number at or above `most / steps`: 1, 2 or 5 times a power of ten.
fn step(most: f64, steps: f64) -> f64 {
    let rough = (most / steps).max(f64::MIN_POSITIVE);
    let power = 10f64.powf(rough.log10().floor());
    let round = [1.0, 2.0, 5.0, 10.0].into_iter().find(|n| n * power >= rough).unwrap_or(10.0);
    (round * power).max(1.0)
}

/// `18:00`, or `11-21` at midnight of long spans.
fn clock(second: i64, long: bool) -> String {
    let (_, month, day, hour, minute, _) = parts(second * SECOND);
    if long && hour == 0 && minute == 0 { format!("{month:02}-{day:02}") } else { format!("{hour:02}:{minute:02}") }
}

fn clock_to_second(second: i64) -> String {
    let (_, _, _, hour, minute, second) = parts(second * SECOND);
    format!("{hour:02}:{minute:02}:{second:02}")
}

/// Losses over time, by cause, with the spikes' events as flags.
pub fn over_time(out: &mut String, e: &Explanation) {
    let (height, top, bottom) = (330.0, 54.0, 296.0);
    let sums: Vec<u64> = e.bins.iter().map(|bin| bin.causes.values().sum()).collect();
    let most = sums.iter().copied().max().unwrap_or(0).max(1) as f64;
    let every = step(most, 4.0);
    let scale = (bottom - top) / (every * (most / every).ceil());
    let wide = (WIDTH - LEFT - 4.0) / e.bins.len().max(1) as f64;
    let _ = write!(
        out,
        "<div class=scroll><svg viewBox=\"0 0 {WIDTH} {height}\" role=img aria-label=\"lost requests over time\" style=\"min-width:760px\">"
    );
    let mut line = 0.0;
    while line <= most + every * 0.999 {
        let y = bottom - line * scale;
        let _ = write!(
            out,
            "<line class=grid x1={LEFT} x2={WIDTH} y1={y:.1} y2={y:.1} /><text class=end x={:.1} y={:.1}>{}</text>",
            LEFT - 8.0,
            y + 4.0,
            count(line as u64)
        );
        line += every;
    }
    flags(out, e, wide, (top, bottom));
    for (place, bin) in e.bins.iter().enumerate() {
        column(out, bin, LEFT + place as f64 * wide, wide, bottom, scale);
    }
    ticks(out, &e.bins, e.bin_s, wide, bottom);
    out.push_str("</svg></div>");
    legend(out, e);
}

fn column(out: &mut String, bin: &Bin, x: f64, wide: f64, bottom: f64, scale: f64) {
    let mut y = bottom;
    // The largest cause at the bottom, in the order of the whole list, so that colours stay in place.
    for (cause, n) in &bin.causes {
        let high = *n as f64 * scale;
        y -= high;
        let _ = write!(
            out,
            "<rect class={} x={x:.2} y={y:.2} width={:.2} height={high:.2}><title>{} {}: {}</title></rect>",
            cause.id(),
            (wide - 0.6).max(0.6),
            clock_to_second(bin.start_s),
            cause.id(),
            count(*n)
        );
    }
}

fn ticks(out: &mut String, bins: &[Bin], step_s: i64, wide: f64, bottom: f64) {
    let span = bins.len() as i64 * step_s;
    let every = [10, 30, 60, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400, 604_800];
    let every = every.into_iter().find(|step| span / step <= 14).unwrap_or(2_592_000);
    let Some(first) = bins.first() else { return };
    let mut second = first.start_s.div_euclid(every) * every;
    while second <= first.start_s + span {
        // The last one would be cut by the edge.
        if second >= first.start_s && second * 50 < first.start_s * 50 + span * 49 {
            let x = LEFT + (second - first.start_s) as f64 / step_s as f64 * wide;
            let _ = write!(
                out,
                "<line class=axis x1={x:.1} x2={x:.1} y1={bottom} y2={:.1} /><text class=mid x={x:.1} y={:.1}>{}</text>",
                bottom + 5.0,
                bottom + 19.0,
                clock(second, span > 172_800)
            );
        }
        second += every;
    }
}

/// The largest spikes, named by what happened then.
fn flags(out: &mut String, e: &Explanation, wide: f64, (top, bottom): (f64, f64)) {
    let Some(first) = e.bins.first() else { return };
    let mut shown: Vec<&Spike> = e.spikes.iter().filter(|spike| !spike.events.is_empty()).take(8).collect();
    shown.sort_by_key(|spike| spike.start_s);
    let mut free = [0.0; 3];
    for spike in shown {
        // What concerns more than one pod says most; then the pod that the losses were at.
        let whole = |kind| matches!(kind, EventKind::ScaledDown | EventKind::ScaledUp | EventKind::NodeGone);
        let first_of = spike.events.iter().find(|event| whole(event.kind));
        let Some(event) =
            first_of.or_else(|| spike.events.iter().find(|event| event.same_pod)).or(spike.events.first())
        else {
            continue;
        };
        let x = LEFT + (spike.start_s - first.start_s) as f64 / e.bin_s as f64 * wide;
        let words = format!("{} {}", event.subject.rsplit('/').next().unwrap_or(""), event.kind.words());
        let words: String = words.chars().take(36).collect();
        // Bold letters of 12 px are seldom wider.
        let length = words.chars().count() as f64 * 7.2;
        let right = x + length + 8.0 > WIDTH;
        let (from, to) = if right { (x - length - 3.0, x) } else { (x, x + length + 3.0) };
        let Some(row) = (0..3).find(|row| free[*row] <= from) else { continue };
        free[row] = to + 8.0;
        let y = 12.0 + row as f64 * 14.0;
        let _ = write!(
            out,
            "<line class=flag x1={x:.1} x2={x:.1} y1={:.1} y2={bottom} /><text class=\"strong{}\" x={:.1} y={y}>{}<title>{}</title></text>",
            (y + 3.0).min(top),
            if right { " end" } else { "" },
            if right { x - 3.0 } else { x + 3.0 },
            Escaped(&words),
            Escaped(&event.words)
        );
    }
}

/// The causes that are there.
pub fn legend(out: &mut String, e: &Explanation) {
    out.push_str("<div class=legend>");
    for cause in &e.causes {
        let _ = write!(out, "<span><i class=\"dot {0}\"></i>{0}</span>", cause.cause.id());
    }
    out.push_str("</div>");
}

/// The shares of the causes as one bar.
pub fn shares(out: &mut String, e: &Explanation) {
    out.push_str("<div class=share>");
    for cause in &e.causes {
        let _ = write!(
            out,
            "<i class={} style=\"flex:{:.5}\" title=\"{} {}\"></i>",
            cause.cause.id(),
            cause.share.max(0.004),
            cause.cause.id(),
            count(cause.requests)
        );
    }
    out.push_str("</div>");
}

/// Losses by hour of the day.
pub fn hours(out: &mut String, e: &Explanation) {
    let (width, height, bottom) = (560.0, 190.0, 164.0);
    let most = e.hours.iter().copied().max().unwrap_or(0).max(1) as f64;
    let wide = width / 24.0;
    let _ =
        write!(out, "<svg viewBox=\"0 0 {width} {height}\" role=img aria-label=\"lost requests by hour of the day\">");
    for (hour, n) in e.hours.iter().enumerate() {
        let high = *n as f64 / most * (bottom - 22.0);
        let x = hour as f64 * wide;
        let _ = write!(
            out,
            "<rect class=bar rx=2 x={:.1} y={:.1} width={:.1} height={high:.1}><title>{hour:02} h: {}</title></rect>",
            x + 1.5,
            bottom - high,
            wide - 3.0,
            count(*n)
        );
        if hour % 3 == 0 {
            let _ = write!(out, "<text class=mid x={:.1} y={:.1}>{hour:02}</text>", x + wide / 2.0, bottom + 17.0);
        }
        if *n as f64 >= most {
            let _ = write!(
                out,
                "<text class=\"mid strong\" x={:.1} y={:.1}>{}</text>",
                (x + wide / 2.0).clamp(20.0, width - 20.0),
                bottom - high - 6.0,
                count(*n)
            );
        }
    }
    out.push_str("</svg>");
}

/// One pod's two lanes: what its process did, and what was still sent to it.
pub fn lanes(out: &mut String, pod: &PodReport) {
    let stop =
        ["is being stopped", "says it stops"].iter().filter_map(|name| pod.moments.get(name)).copied().reduce(f64::min);
    let ended = ["ended", "ran out of grace"].iter().filter_map(|name| pod.moments.get(name)).copied().reduce(f64::max);
    let losses = pod.losses.iter().map(|(at, _)| *at);
    let marks: Vec<f64> = stop.into_iter().chain(ended).chain(losses).collect();
    let (Some(first), Some(last)) = (marks.iter().copied().reduce(f64::min), marks.iter().copied().reduce(f64::max))
    else {
        return;
    };
    // Around its end, where it has one; else all of its losses.
    let (from, to) = match stop {
        Some(stop) => (stop - 10.0, ended.unwrap_or(last).max(last).clamp(stop + 15.0, stop + 300.0) + 5.0),
        None => (first - 5.0, last.max(first + 10.0) + 5.0),
    };
    let begin = pod.moments.get("was started").copied().unwrap_or(from);
    let place = |at: f64| 150.0 + ((at - from) / (to - from)).clamp(0.0, 1.0) * (WIDTH - 170.0);
    let _ = write!(
        out,
        "<div class=scroll><svg viewBox=\"0 0 {WIDTH} 96\" role=img aria-label=\"two lanes of {0}\" style=\"min-width:760px\"><text class=big x=0 y=14>{0}</text><text class=end x=1170 y=14>{1} lost</text>",
        Escaped(&pod.name),
        count(pod.lost)
    );
    out.push_str("<text class=end x=140 y=41>process</text><text class=end x=140 y=67>routing</text>");
    let mut bar = |class: &str, a: f64, b: f64, y: f64| {
        let (a, b) = (place(a), place(b));
        let _ = write!(
            out,
            "<rect class=\"lane {class}\" rx=3 x={a:.1} y={y} width={:.1} height=14></rect>",
            (b - a).max(1.0)
        );
    };
    bar("", begin.max(from), stop.or(ended).unwrap_or(to), 30.0);
    if let Some(stop) = stop {
        bar("stopping", stop, ended.unwrap_or(to), 30.0);
    }
    let sent = pod.losses.iter().map(|(at, _)| *at).fold(pod.last_answer_s.map_or(from, |at| at as f64), f64::max);
    bar("routed", from, sent.clamp(from, to), 56.0);
    for (at, cause) in pod.losses.iter().filter(|(at, _)| (from..=to).contains(at)) {
        let _ = write!(
            out,
            "<rect class={} x={:.1} y=50 width=2 height=26><title>{}</title></rect>",
            cause.id(),
            place(*at) - 1.0,
            cause.id()
        );
    }
    for (name, at) in &pod.moments {
        if (from..=to).contains(at) {
            let x = place(*at);
            let class = if *name == "ran out of grace" { "kill" } else { "term" };
            let _ = write!(
                out,
                "<line class={class} x1={x:.1} x2={x:.1} y1=26 y2=48><title>{name} {}</title></line>",
                clock_to_second(*at as i64)
            );
        }
    }
    for (anchor, at) in [("start", from), ("mid", f64::midpoint(from, to)), ("end", to)] {
        let _ = write!(out, "<text class={anchor} x={:.1} y=92>{}</text>", place(at), clock_to_second(at as i64));
    }
    out.push_str("</svg></div>");
}

/// All causes have a colour.
pub const fn class(cause: Cause) -> &'static str {
    cause.id()
}
