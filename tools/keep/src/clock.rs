//! Points in time as RFC 3339 text, UTC, as logs and the files of a container have them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the present moment, with nanoseconds.
pub(crate) fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format(since.as_secs(), since.subsec_nanos())
}

fn format(seconds: u64, nanoseconds: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that a leap day is the last one of its year.
    let (era, day_of_era) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// Parses a moment: RFC 3339 in UTC with any part of the time left out, seconds since 1970, or a span such as `10m`
/// before now. Returns its text as [`now`] has it, so that the two compare as text.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    if let Ok(span) = cli::duration(text) {
        let then = SystemTime::now().checked_sub(span).unwrap_or(UNIX_EPOCH);
        let since = then.duration_since(UNIX_EPOCH).unwrap_or_default();
        return Ok(format(since.as_secs(), since.subsec_nanos()));
    }
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(format(seconds, 0));
    }
    let bare = text.trim_end_matches('Z');
    let template = "0000-00-00T00:00:00.000000000";
    let fits = bare.len() >= 10
        && bare.len() <= template.len()
        && bare.bytes().zip(template.bytes()).all(
            |(byte, like)| {
                if like == b'0' { byte.is_ascii_digit() } else { byte == like }
            },
        );
    if !fits {
        return Err("not a time (2026-01-31T10:00:00Z), seconds since 1970, or a span such as 10m".to_owned());
    }
    Ok(format!("{bare}{}Z", &template[bare.len()..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_text_that_compares() {
        for (text, want) in [
            ("0", Ok("1970-01-01T00:00:00.000000000Z")),
            ("951782400", Ok("2000-02-29T00:00:00.000000000Z")),
            ("2026-01-31T10:00:00Z", Ok("2026-01-31T10:00:00.000000000Z")),
            ("2026-01-31", Ok("2026-01-31T00:00:00.000000000Z")),
            ("yesterday", Err(())),
            ("2026-1-31", Err(())),
        ] {
            assert_eq!(moment(text).as_deref().map_err(|_| ()), want, "{text}");
        }
        assert!(moment("10m").unwrap() < now());
    }
}
