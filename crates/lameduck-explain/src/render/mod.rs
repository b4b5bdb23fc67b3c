//! The explanation as text, JSON and a page.

pub mod html;
pub mod svg;
mod text;

pub use html::html;
pub use text::text;

use lameduck_core::words::count;

use crate::report::{Cost, Explanation};

/// As JSON, `lameduck.explain/1`.
pub fn json(explanation: &Explanation) -> String {
    serde_json::to_string_pretty(explanation).unwrap_or_default()
}

/// 0 to 1 as a percentage: `95.2 %`, `0.04 %`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    match percent {
        p if p == 0.0 || p >= 99.995 => format!("{p:.0} %"),
        p if p >= 99.9 => format!("{p:.2} %"),
        p if p >= 1.0 => format!("{p:.1} %"),
        p => format!("{p:.2} %"),
    }
}

/// A share of a budget: `97.2 %`, `300 times`.
pub(crate) fn spent(share: f64) -> String {
    if share < 10.0 { percent(share) } else { format!("{} times", count(share.round() as u64)) }
}

/// A number of hours or of seconds for people.
pub(crate) fn hours(hours: f64) -> String {
    if hours >= 10.0 {
        format!("{} h", count(hours.round() as u64))
    } else if hours >= 1.0 {
        format!("{hours:.1} h")
    } else if hours * 60.0 >= 1.0 {
        format!("{:.0} min", hours * 60.0)
    } else if hours * 3600.0 >= 1.0 {
        format!("{:.1} s", hours * 3600.0)
    } else {
        format!("{:.0} ms", hours * 3.6e6)
    }
}

/// What it comes to in a day, where it was more than one.
pub(crate) fn a_day(cost: &Cost) -> String {
    if cost.hours_a_day < cost.hours * 0.99 { format!("; {} a day", hours(cost.hours_a_day)) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!([count(7), count(1234), count(1_234_567)], ["7", "1,234", "1,234,567"]);
        assert_eq!(
            [percent(0.0), percent(0.9534), percent(0.0004), percent(1.0)],
            ["0 %", "95.3 %", "0.04 %", "100 %"]
        );
        assert_eq!([hours(937.4), hours(1.25), hours(0.001), hours(0.000_001)], ["937 h", "1.2 h", "3.6 s", "4 ms"]);
    }
}
