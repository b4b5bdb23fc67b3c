//! The report as a table, as JSON and as a page.

mod html;
mod svg;
mod text;

use lameduck_core::words;

use crate::report::Document;

pub use html::html;
pub use text::text;

/// As JSON: `lameduck.simulate/1`.
pub fn json(document: &Document) -> String {
    serde_json::to_string_pretty(document).unwrap_or_default() + "\n"
}

/// A count with its thousands apart; a small one with the digits that say something.
pub(crate) fn count(n: f64) -> String {
    if n == 0.0 {
        return "0".to_owned();
    }
    if n < 0.005 {
        return "< 0.01".to_owned();
    }
    if n < 10.0 {
        let text = format!("{n:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    words::count(n.round() as u64)
}

/// A share, in percent, with two digits that say something.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent == 0.0 || percent >= 10.0 {
        return format!("{percent:.0} %");
    }
    let digits = (1.0 - percent.log10().floor()).clamp(0.0, 8.0) as usize;
    format!("{percent:.digits$} %")
}

/// Names, as many as fit.
pub(crate) fn names(all: &[String]) -> String {
    const SHOWN: usize = 4;
    if all.len() <= SHOWN + 1 {
        return all.join(", ");
    }
    format!("{} and {} more", all[..SHOWN].join(", "), all.len() - SHOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_easy_to_read() {
        let check = |got: String, expect: &str| assert_eq!(got, expect);
        check(count(0.0), "0");
        check(count(0.001), "< 0.01");
        check(count(4.5), "4.5");
        check(count(999.6), "1,000");
        check(count(45_123.4), "45,123");
        check(count(86_400_000_000.0), "86,400,000,000");
        check(percent(0.889), "89 %");
        check(percent(0.0), "0 %");
        check(percent(0.000_31), "0.031 %");
        check(percent(0.052), "5.2 %");
    }
}
