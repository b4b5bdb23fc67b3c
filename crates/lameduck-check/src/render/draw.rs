//! The two lanes, drawn in text.

use lameduck_core::{Lane, Moment};

use crate::report::WorkloadShown;

const WIDTH: usize = 64;

/// The scale of a drawing: seconds from end to end.
pub fn span(workload: &WorkloadShown) -> f64 {
    let last = workload.timeline.iter().map(|entry| entry.until_s.unwrap_or(entry.at_s)).fold(1.0, f64::max);
    let windows =
        workload.loss_windows.iter().map(|window| window.start_s + window.length_max_s.unwrap_or(window.length_s));
    windows.fold(last, f64::max)
}

/// When a moment happens, at the earliest and the latest.
pub fn at(workload: &WorkloadShown, moment: Moment) -> Option<(f64, Option<f64>)> {
    workload.timeline.iter().find(|entry| entry.moment == moment).map(|entry| (entry.at_s, entry.until_s))
}

/// Both lanes and the losses: `=` serves or sends, `-` perhaps, `!` is lost for certain, `?` perhaps.
pub fn lanes(workload: &WorkloadShown) -> Vec<String> {
    let whole = span(workload);
    let column = |at: f64| ((at / whole) * (WIDTH as f64 - 1.0)).round() as usize;
    let lane = |sure: f64, perhaps: f64, marks: &[(f64, char)]| {
        let mut line = vec![' '; WIDTH];
        line[..=column(perhaps.min(whole))].iter_mut().for_each(|c| *c = '-');
        line[..=column(sure.min(whole))].iter_mut().for_each(|c| *c = '=');
        for (at, mark) in marks {
            line[column(at.min(whole))] = *mark;
        }
        line.into_iter().collect::<String>()
    };
    let mut out = Vec::new();
    let exit = at(workload, Moment::Exited).map_or(whole, |(_, until)| until.unwrap_or(whole));
    let (sure, perhaps) =
        at(workload, Moment::StoppedAccepting).map_or((0.0, exit), |(from, until)| (from, until.unwrap_or(exit)));
    let mut marks = Vec::new();
    marks.extend(at(workload, Moment::TermReceived).map(|(at, _)| (at, 'T')));
    marks.extend(at(workload, Moment::Killed).map(|(at, _)| (at, 'K')));
    out.push(format!("    serves  |{}|", lane(sure, perhaps, &marks)));
    if let Some((from, until)) = at(workload, Moment::EndpointRemoved) {
        out.push(format!("    routed  |{}|", lane(from, until.unwrap_or(whole), &[])));
    }
    if !workload.loss_windows.is_empty() {
        let mut line = vec![' '; WIDTH];
        for window in &workload.loss_windows {
            let (from, sure) = (column(window.start_s), column(window.start_s + window.length_s));
            let most = column((window.start_s + window.length_max_s.unwrap_or(whole)).min(whole));
            line[from..=most].iter_mut().filter(|c| **c == ' ').for_each(|c| *c = '?');
            line[from..=sure.min(WIDTH - 1)].iter_mut().for_each(|c| *c = '!');
        }
        out.push(format!("    lost    |{}|", line.into_iter().collect::<String>()));
    }
    out.push(format!("             0 s{:>1$}", format!("{whole} s"), WIDTH - 3));
    out
}

/// The moments of a lane, in words.
pub fn words(workload: &WorkloadShown, lane: Lane) -> String {
    let moments = workload.timeline.iter().filter(|entry| entry.lane == lane);
    let shown = moments.map(|entry| {
        let name = serde_json::to_value(entry.moment).ok().and_then(|value| value.as_str().map(str::to_owned));
        format!("{} {}", name.unwrap_or_default(), when(entry.at_s, entry.until_s))
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// `5 s`, `1 to 3 s`, `from 1 s on`.
pub fn when(from: f64, until: Option<f64>) -> String {
    match until {
        Some(until) if (until - from).abs() < 1e-9 => format!("{from} s"),
        Some(until) => format!("{from} to {until} s"),
        None => format!("from {from} s on"),
    }
}
