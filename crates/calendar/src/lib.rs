//! Points in time as text, in UTC: RFC 3339, as logs and configs have them, and the dates of HTTP.
//!
//! The year is taken to begin in March, so that the day which leap years add is its last, and the months before it have
//! regular lengths; the calendar repeats every 400 years, which are 146,097 days.

#![forbid(unsafe_code)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;
/// From 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;
const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// Returns the present: seconds since 1970 and nanoseconds.
pub fn now() -> (i64, u32) {
    since_1970(SystemTime::now())
}

/// Returns the seconds since 1970 and nanoseconds of a point in time; 1970 for all before.
pub fn since_1970(time: SystemTime) -> (i64, u32) {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or_default(), since.subsec_nanos())
}

/// Writes a point in time, with nanoseconds where there are any: `2026-01-31T10:00:00Z`.
pub fn rfc3339((seconds, nanoseconds): (i64, u32)) -> String {
    let fraction = if nanoseconds == 0 { String::new() } else { format!(".{nanoseconds:09}") };
    format!("{}{fraction}Z", date_and_time(seconds))
}

/// Writes a point in time with all nine digits of the nanoseconds, so that two of them compare as text.
pub fn rfc3339_nanoseconds((seconds, nanoseconds): (i64, u32)) -> String {
    format!("{}.{nanoseconds:09}Z", date_and_time(seconds))
}

fn date_and_time(seconds: i64) -> String {
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// Returns the Gregorian date of a day, counted from 1970.
fn date(day: i64) -> (i64, i64, i64) {
    let day = day + DAYS_BEFORE_1970;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + 400 * era, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
}

/// Returns the day, counted from 1970, of a date of its year or a later one.
fn day(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - DAYS_BEFORE_1970.unsigned_abs()
}

/// Parses a point in time as [`rfc3339`] writes it, as seconds since 1970.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, date) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if !text.ends_with('Z') || year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&date) {
        return None;
    }
    i64::try_from(day(year, month, date) * DAY.unsigned_abs() + hour * 3600 + minute * 60 + second).ok()
}

/// Parses a date of HTTP (RFC 9110, section 5.6.7, its preferred form) as the time since 1970.
pub fn http_date(text: &str) -> Option<Duration> {
    let words: Vec<&str> = text.split_ascii_whitespace().collect();
    let [_, date, month, year, clock, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? as u64 + 1;
    let (date, year): (u64, u64) = (date.parse().ok()?, year.parse().ok()?);
    if !(1..=31).contains(&date) || !(1970..=9999).contains(&year) {
        return None;
    }
    let clock = clock.split(':').map(|part| part.parse().ok()).collect::<Option<Vec<u64>>>()?;
    let [hour, minute, second] = clock.as_slice() else { return None };
    let seconds = hour.min(&24) * 3600 + minute.min(&60) * 60 + second.min(&60);
    Some(Duration::from_secs(day(year, month, date) * DAY.unsigned_abs() + seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_date_does() {
        for (time, want) in [
            ((0, 0), "1970-01-01T00:00:00Z"),
            ((-1, 0), "1969-12-31T23:59:59Z"),
            ((951_782_400, 0), "2000-02-29T00:00:00Z"),
            ((1_709_251_199, 0), "2024-02-29T23:59:59Z"),
            ((1_709_251_200, 5), "2024-03-01T00:00:00.000000005Z"),
            ((4_107_542_399, 0), "2100-02-28T23:59:59Z"),
            ((4_107_542_400, 0), "2100-03-01T00:00:00Z"),
            ((1_735_689_599, 0), "2024-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(time), want);
            assert_eq!(parse_rfc3339(want), (time.0 >= 0).then_some(time.0));
        }
        assert_eq!(rfc3339_nanoseconds((951_782_400, 0)), "2000-02-29T00:00:00.000000000Z");
    }

    #[test]
    fn dates_are_what_date_says() {
        for (text, want) in [
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Tue, 29 Feb 2000 00:00:00 GMT", Some(951_782_400)),
            ("Fri, 01 Mar 2024 00:00:00 GMT", Some(1_709_251_200)),
            ("Tue, 31 Dec 2024 23:59:59 GMT", Some(1_735_689_599)),
            ("Mon, 01 Mar 2100 00:00:00 GMT", Some(4_107_542_400)),
            ("Sun, 06 Nov 0001 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("soon", None),
        ] {
            assert_eq!(http_date(text).map(|time| time.as_secs()), want, "{text}");
        }
    }
}
