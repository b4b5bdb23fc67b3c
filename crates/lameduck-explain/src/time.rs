//! Times as logs write them, as microseconds since 1970.

/// Microseconds since 1970-01-01T00:00:00Z.
pub type Micros = i64;

/// One second.
pub const SECOND: Micros = 1_000_000;

/// Days since 1970 of a date of the proleptic Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Exactly these digits.
fn digits(text: &[u8]) -> Option<i64> {
    let mut n = 0i64;
    for byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n = n * 10 + i64::from(digit);
    }
    Some(n)
}

fn at(text: &[u8], from: usize, len: usize) -> Option<i64> {
    text.get(from..from + len).and_then(digits)
}

fn civil(date: (i64, i64, i64), clock: (i64, i64, i64)) -> Option<Micros> {
    let ((year, month, day), (hour, minute, second)) = (date, clock);
    let real = (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61;
    // 9999 is the last year of four digits.
    (real && year < 10_000).then(|| (days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second) * SECOND)
}

/// `hh:mm:ss`.
fn clock(text: &[u8], from: usize) -> Option<(i64, i64, i64)> {
    (text.get(from + 2) == Some(&b':') && text.get(from + 5) == Some(&b':')).then_some(())?;
    Some((at(text, from, 2)?, at(text, from + 3, 2)?, at(text, from + 6, 2)?))
}

/// The fraction of a second after `.` or `,` at `from`: its microseconds, and where it ends.
fn fraction(text: &[u8], from: usize) -> (Micros, usize) {
    if !matches!(text.get(from), Some(b'.' | b',')) {
        return (0, from);
    }
    let (mut micros, mut unit, mut end) = (0, 100_000, from + 1);
    while let Some(byte @ b'0'..=b'9') = text.get(end) {
        micros += i64::from(byte - b'0') * unit;
        unit /= 10;
        end += 1;
    }
    (micros, end)
}

/// The offset from UTC at `from`, in microseconds: `Z`, `+hh:mm` or `+hhmm`.
fn offset(text: &[u8], from: usize) -> Option<Micros> {
    let sign = match text.get(from)? {
        b'Z' | b'z' => return Some(0),
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let minutes = if text.get(from + 3) == Some(&b':') { from + 4 } else { from + 3 };
    Some(sign * (at(text, from + 1, 2)? * 3600 + at(text, minutes, 2)? * 60) * SECOND)
}

/// RFC 3339, also with a space for the `T`; one without an offset is in `zone`.
pub fn rfc3339(text: &[u8], zone: Micros) -> Option<Micros> {
    let dashes = text.get(4) == Some(&b'-') && text.get(7) == Some(&b'-');
    if !dashes || !matches!(text.get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let whole = civil((at(text, 0, 4)?, at(text, 5, 2)?, at(text, 8, 2)?), clock(text, 11)?)?;
    let (micros, end) = fraction(text, 19);
    let end =
        if text.get(end) == Some(&b' ') && matches!(text.get(end + 1), Some(b'+' | b'-')) { end + 1 } else { end };
    Some(whole + micros - offset(text, end).unwrap_or(zone))
}

fn month(name: &[u8]) -> Option<i64> {
    const NAMES: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    NAMES.as_chunks::<3>().0.iter().position(|known| known == name).map(|place| place as i64 + 1)
}

/// `10/Oct/2000:13:55:36 -0700`, as in the common log format, and HAProxy's `06/Feb/2009:12:14:14.655`.
pub fn common(text: &[u8], zone: Micros) -> Option<Micros> {
    if text.get(2) != Some(&b'/') || text.get(6) != Some(&b'/') || text.get(11) != Some(&b':') {
        return None;
    }
    let date = (at(text, 7, 4)?, month(text.get(3..6)?)?, at(text, 0, 2)?);
    let whole = civil(date, clock(text, 12)?)?;
    let (micros, end) = fraction(text, 20);
    let away = if text.get(end) == Some(&b' ') { offset(text, end + 1)? } else { zone };
    Some(whole + micros - away)
}

/// `2026/11/21 18:10:40`, as in nginx's error log and Go's.
pub fn slashed(text: &[u8], zone: Micros) -> Option<Micros> {
    if text.get(4) != Some(&b'/') || text.get(7) != Some(&b'/') || text.get(10) != Some(&b' ') {
        return None;
    }
    let whole = civil((at(text, 0, 4)?, at(text, 5, 2)?, at(text, 8, 2)?), clock(text, 11)?)?;
    Some(whole + fraction(text, 19).0 - zone)
}

/// Seconds as a decimal: `1732212640.123`, `0.004`, in microseconds. No sign, no exponent.
pub fn decimal(text: &[u8]) -> Option<Micros> {
    let point = memchr::memchr(b'.', text).unwrap_or(text.len());
    if point == 0 || point > 12 {
        return None;
    }
    let (micros, end) = fraction(text, point);
    (end == text.len()).then_some(digits(&text[..point])? * SECOND + micros)
}

/// Seconds since 1970 with at least nine digits before the point.
pub fn epoch(text: &[u8]) -> Option<Micros> {
    decimal(text).filter(|micros| *micros > 100_000_000 * SECOND)
}

/// Any time that says its date by itself.
pub fn any(text: &[u8], zone: Micros) -> Option<Micros> {
    let text = text.trim_ascii();
    rfc3339(text, zone).or_else(|| common(text, zone)).or_else(|| slashed(text, zone)).or_else(|| epoch(text))
}

/// The civil date and time of a moment, UTC: year, month, day, hour, minute, second.
pub fn parts(micros: Micros) -> (i64, u8, u8, u8, u8, u8) {
    let seconds = micros.div_euclid(SECOND);
    let (day, rest) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let era = day.div_euclid(146_097);
    let of_era = day.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let date = (of_year - (153 * shifted + 2) / 5 + 1) as u8;
    let year = year + era * 400 + i64::from(month <= 2);
    (year, month as u8, date, (rest / 3600) as u8, (rest / 60 % 60) as u8, (rest % 60) as u8)
}

/// RFC 3339 in UTC, to the millisecond.
pub fn show(micros: Micros) -> String {
    let (year, month, day, hour, minute, second) = parts(micros);
    let millis = micros.rem_euclid(SECOND) / 1000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// A span as people say it: `4 ms`, `5.0 s`, `75 s`, `2 min`, `930 h`.
pub fn span(micros: Micros) -> String {
    let seconds = micros as f64 / 1e6;
    match micros.abs() {
        0..1_000 => format!("{micros} µs"),
        1_000..1_000_000 => format!("{:.0} ms", seconds * 1e3),
        1_000_000..10_000_000 => format!("{seconds:.1} s"),
        10_000_000..300_000_000 => format!("{seconds:.0} s"),
        300_000_000..36_000_000_000 => format!("{:.0} min", seconds / 60.0),
        _ => format!("{:.0} h", seconds / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Micros, SECOND, common, epoch, rfc3339, show, slashed};

    #[test]
    fn reads_what_logs_write() {
        let check = |read: Option<Micros>, expect: &str| assert_eq!(read.map(show).as_deref(), Some(expect));
        check(rfc3339(b"2019-06-06T10:11:12.123456789Z", 0), "2019-06-06T10:11:12.123Z");
        check(rfc3339(b"2026-05-26 19:49:12 +0200", 0), "2026-05-26T17:49:12.000Z");
        check(rfc3339(b"2026-05-26T19:49:12", -3600 * SECOND), "2026-05-26T20:49:12.000Z");
        check(common(b"10/Oct/2000:13:55:36 -0700", 0), "2000-10-10T20:55:36.000Z");
        check(common(b"06/Feb/2009:12:14:14.655", 0), "2009-02-06T12:14:14.655Z");
        check(slashed(b"2026/11/21 18:10:40", 0), "2026-11-21T18:10:40.000Z");
        check(epoch(b"1732212640.25"), "2024-11-21T18:10:40.250Z");
        for bad in ["2026-13-01T00:00:00Z", "2026-11-21T25:00:00Z", "yesterday", "", "2026-11-21"] {
            assert_eq!(super::any(bad.as_bytes(), 0), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn shown_times_read_back(millis in 0i64..253_402_300_799_000) {
            prop_assert_eq!(rfc3339(show(millis * 1000).as_bytes(), 0), Some(millis * 1000));
        }

        #[test]
        fn never_panics(text in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = super::any(&text, 0);
        }
    }
}
