//! Durations as people write them: `30s`, `500ms`, `1m30s`, `2h`, or a bare number of seconds (`30`, `0.5`).

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotADuration {
    text: String,
}

impl std::fmt::Display for NotADuration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?} is not a duration: expected seconds or a number with ms, s, m or h, as in 30, 500ms, 1m30s",
            self.text
        )
    }
}

impl std::error::Error for NotADuration {}

/// The longest duration accepted: a year. It keeps every sum of durations far from overflow.
pub const LONGEST: Duration = Duration::from_hours(365 * 24);

/// Reads a duration. A bare number is seconds, as in Kubernetes' `terminationGracePeriodSeconds`.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let error = || NotADuration { text: text.to_owned() };
    let mut rest = text.trim();
    let mut total = 0.0;
    if let Some(seconds) = number(rest) {
        total = seconds;
    } else {
        while !rest.is_empty() {
            let unit_at = rest.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(error)?;
            let count = number(&rest[..unit_at]).ok_or_else(error)?;
            let unit_end = rest[unit_at..].find(|c: char| !c.is_ascii_alphabetic()).map_or(rest.len(), |n| unit_at + n);
            total += count
                * match &rest[unit_at..unit_end] {
                    "ms" => 0.001,
                    "s" => 1.0,
                    "m" => 60.0,
                    "h" => 3600.0,
                    _ => return Err(error()),
                };
            rest = &rest[unit_end..];
        }
    }
    if text.trim().is_empty() || total > LONGEST.as_secs_f64() {
        return Err(error());
    }
    // Nanoseconds by rounding: 0.1 s is 100 ms, not 100.000000001.
    Ok(Duration::from_nanos((total * 1e9).round() as u64))
}

/// A plain decimal: digits with at most one point. `f64`'s own grammar also takes `inf`, `1e9` and signs.
fn number(text: &str) -> Option<f64> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if plain { text.parse().ok() } else { None }
}

/// Writes a duration the way [`parse`] reads it, to the millisecond: `2.5s`, `30s`, `15ms`.
pub fn show(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if duration < Duration::from_secs(1) && !duration.is_zero() {
        format!("{}ms", (seconds * 1e3).round())
    } else {
        format!("{}s", (seconds * 1e3).round() / 1e3)
    }
}

/// Serializes a duration as seconds (a float), the unit of every JSON field whose name ends in `_s`.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Seconds, to the microsecond.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
    }

    /// Reads seconds back; negative or absurd values are refused.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_people_write() {
        let check = |text: &str, millis: u64| assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        check("30", 30_000);
        check("30s", 30_000);
        check("0.5", 500);
        check("500ms", 500);
        check("1m30s", 90_000);
        check("2h", 7_200_000);
        check("1.5s", 1_500);
        check("0", 0);
        for bad in ["", "s", "30x", "-1s", "1e9", "inf", "NaN", "1s2", "1..2", "99999999999h", "1 s"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,20}") {
            let _ = parse(&text);
        }

        #[test]
        fn round_trips(millis in 0u64..100_000_000) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse(&show(duration)), Ok(duration));
        }
    }
}
