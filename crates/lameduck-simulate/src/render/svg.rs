//! The drawings: a staircase of what is lost after each fix, and the hours of the day.

use std::fmt::Write as _;

use lameduck_core::Cause;

use super::count;
use crate::estimate::Step;

const WIDTH: f64 = 1140.0;

/// A round number at or above.
fn round_up(value: f64) -> f64 {
    let scale = 10f64.powf(value.max(1e-9).log10().floor());
    [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|n| n * scale)
        .find(|n| *n >= value)
        .unwrap_or(value)
}

fn grid(out: &mut String, most: f64, left: f64, top: f64, height: f64) {
    for n in 0..=4 {
        let value = most * f64::from(n) / 4.0;
        let y = top + height * (1.0 - f64::from(n) / 4.0);
        let class = if n == 0 { "axis" } else { "grid" };
        let _ = write!(out, "<line class={class} x1={left} x2={WIDTH} y1={y:.1} y2={y:.1} />");
        let _ = write!(out, "<text class=end x={:.0} y={:.1}>{}</text>", left - 8.0, y + 4.0, count(value));
    }
}

/// A bar a step, its causes stacked, and behind it what has fallen away. Where the first step takes nearly all of it, those after
/// it are drawn once more by themselves.
pub fn staircase(out: &mut String, steps: &[Step]) {
    draw(out, steps);
    legend(out, steps.iter().flat_map(|step| step.causes.iter().map(|one| one.cause)));
    if let [first, second, _, ..] = steps
        && second.lost.mean < first.lost.mean / 4.0
    {
        out.push_str("<p class=sub>From the second step on, larger.</p>");
        draw(out, &steps[1..]);
    }
}

fn draw(out: &mut String, steps: &[Step]) {
    const TOP: f64 = 34.0;
    const HEIGHT: f64 = 270.0;
    const LEFT: f64 = 70.0;
    const NAMES: f64 = 46.0;
    let most = round_up(steps.iter().map(|step| step.lost.mean.max(step.lost.high)).fold(1.0, f64::max));
    let slot = (WIDTH - LEFT) / steps.len().max(1) as f64;
    let bar = (slot * 0.62).min(120.0);
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / most);
    let total = TOP + HEIGHT + NAMES;
    let _ =
        write!(out, "<svg viewBox=\"0 0 {WIDTH} {total}\" role=img aria-label=\"lost requests a day after each fix\">");
    grid(out, most, LEFT, TOP, HEIGHT);
    for (n, step) in steps.iter().enumerate() {
        let x = LEFT + slot * n as f64 + (slot - bar) / 2.0;
        let mean = step.lost.mean;
        if let Some(before) = n.checked_sub(1).and_then(|n| steps.get(n)).map(|step| step.lost.mean) {
            // The tread: from the last bar's height, and what this fix takes away.
            let from = x - slot + bar;
            let _ = write!(out, "<line class=tread x1={from:.1} x2={:.1} y1={1:.1} y2={1:.1} />", x + bar, y(before));
            let _ = write!(
                out,
                "<rect class=gone-before x={x:.1} y={:.1} width={bar:.1} height={:.1} />",
                y(before.max(mean)),
                (y(mean) - y(before)).max(0.0)
            );
        }
        let mut base = 0.0;
        for one in &step.causes {
            let (low, high) = (base, base + one.lost.mean);
            let _ = write!(
                out,
                "<rect class={} x={x:.1} y={:.1} width={bar:.1} height={:.1}><title>{}: {}</title></rect>",
                one.cause.id(),
                y(high),
                y(low) - y(high),
                one.cause.id(),
                count(one.lost.mean)
            );
            base = high;
        }
        let middle = x + bar / 2.0;
        if step.lost.high > 0.0 {
            let _ = write!(
                out,
                "<path class=whisker d=\"M{0:.1} {1:.1}V{2:.1}M{3:.1} {1:.1}H{4:.1}M{3:.1} {2:.1}H{4:.1}\" />",
                middle,
                y(step.lost.low),
                y(step.lost.high),
                middle - 5.0,
                middle + 5.0
            );
        }
        let above = y(mean.max(step.lost.high)) - 8.0;
        let _ = write!(out, "<text class=\"mid big\" x={middle:.1} y={above:.1}>{}</text>", count(mean));
        let name = step.fix.unwrap_or(step.what);
        let _ = write!(out, "<text class=\"mid strong\" x={middle:.1} y={:.1}>{name}</text>", TOP + HEIGHT + 20.0);
    }
    out.push_str("</svg>");
}

fn legend(out: &mut String, causes: impl Iterator<Item = Cause>) {
    let met: Vec<Cause> = causes.collect();
    out.push_str("<div class=legend>");
    for cause in Cause::ALL.into_iter().filter(|cause| met.contains(cause)) {
        let _ = write!(out, "<span><i class=\"dot {0}\"></i>{0}</span>", cause.id());
    }
    out.push_str("</div>");
}

/// A bar an hour.
pub fn hours(out: &mut String, hours: &[f64; 24]) {
    const TOP: f64 = 12.0;
    const HEIGHT: f64 = 130.0;
    const LEFT: f64 = 70.0;
    let most = round_up(hours.iter().copied().fold(0.0, f64::max).max(0.01));
    let slot = (WIDTH - LEFT) / 24.0;
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {}\" role=img aria-label=\"lost requests by hour\">",
        TOP + HEIGHT + 22.0
    );
    grid(out, most, LEFT, TOP, HEIGHT);
    for (hour, lost) in hours.iter().enumerate() {
        let x = LEFT + slot * hour as f64 + 2.0;
        let height = HEIGHT * lost / most;
        let _ = write!(
            out,
            "<rect class=bar x={x:.1} y={:.1} width={:.1} height={height:.1} rx=2><title>{hour}:00: {}</title></rect>",
            TOP + HEIGHT - height,
            slot - 4.0,
            count(*lost)
        );
        if hour % 3 == 0 {
            let _ = write!(out, "<text class=mid x={:.1} y={:.1}>{hour}</text>", x + slot / 2.0, TOP + HEIGHT + 17.0);
        }
    }
    out.push_str("</svg>");
}
