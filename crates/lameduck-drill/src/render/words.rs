//! Figures as people read them.

use lameduck_core::words::count;

use crate::result::CompareResult;

/// A share in percent, with the digits that matter.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    let digits = match percent {
        p if p <= 0.0 || p >= 10.0 => 1,
        p if p >= 1.0 => 2,
        p if p >= 0.01 => 3,
        _ => 5,
    };
    format!("{percent:.digits$} %")
}

/// Seconds: in milliseconds where they are few.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.01 => format!("{:.2} ms", s * 1e3),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.2} s"),
    }
}

/// `412 of 4,000 lost → 0 of 4,000`.
pub(crate) fn headline(result: &CompareResult) -> String {
    let (plain, cured) = (&result.plain.tally, &result.cured.tally);
    format!("{} of {} lost → {} of {}", count(plain.lost), count(plain.sent), count(cured.lost), count(cured.sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_well() {
        assert_eq!(
            [0.0, 0.5, 0.0123, 0.00012, 0.000_001].map(percent),
            ["0.0 %", "50.0 %", "1.23 %", "0.012 %", "0.00010 %"]
        );
        assert_eq!([0.0012, 0.25, 12.345].map(seconds), ["1.20 ms", "250 ms", "12.35 s"]);
    }
}
