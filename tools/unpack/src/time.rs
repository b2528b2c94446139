//! Points in time as image configs write them: RFC 3339, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// Returns the present: seconds since 1970 and nanoseconds.
pub(crate) fn now() -> (i64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or_default(), since.subsec_nanos())
}

/// Writes a point in time, with nanoseconds where there are any.
pub(crate) fn rfc3339((seconds, nanoseconds): (i64, u32)) -> String {
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    let fraction = if nanoseconds == 0 { String::new() } else { format!(".{nanoseconds:09}") };
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}{fraction}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Returns the Gregorian date of a day, counted from 1970. The year is taken to begin in March, so that the day which
/// leap years add is its last, and the months before it have a regular length.
fn date(day: i64) -> (i64, i64, i64) {
    // Days since 0000-03-01; the calendar repeats every 400 years.
    let day = day + 719_468;
    let (era, day) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (year + 400 * era, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
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
        }
    }
}
