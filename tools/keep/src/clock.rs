//! Points in time as RFC 3339 text, UTC, as logs and the files of a container have them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use humantime::{format_rfc3339_nanos, parse_rfc3339};

/// Returns the present moment, with nanoseconds.
pub(crate) fn now() -> String {
    text(SystemTime::now())
}

/// Writes a moment, 1970 for all before, with all nine digits of the nanoseconds, so that two of them compare as text.
pub(crate) fn text(time: SystemTime) -> String {
    format_rfc3339_nanos(time.max(UNIX_EPOCH)).to_string()
}

/// Parses a moment: RFC 3339 in UTC with any part of the time left out, seconds since 1970, or a span such as `10m`
/// before now. Returns its text as [`now`] has it, so that the two compare as text.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    let since_1970 = || Some(UNIX_EPOCH + Duration::from_secs(text.parse::<u32>().ok()?.into()));
    let ago = || Some(SystemTime::now().checked_sub(cli::duration(text).ok()?).unwrap_or(UNIX_EPOCH));
    let said = || {
        let bare = text.trim_end_matches('Z');
        let rest = "0000-00-00T00:00:00.000000000Z".get(bare.len().max("0000-00-00".len())..)?;
        parse_rfc3339(&format!("{bare}{rest}")).ok()
    };
    let wrong = || "not a time (2026-01-31T10:00:00Z), seconds since 1970, or a span such as 10m".to_owned();
    since_1970().or_else(ago).or_else(said).map(self::text).ok_or_else(wrong)
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
            ("2026-01-31T10:00", Ok("2026-01-31T10:00:00.000000000Z")),
            ("2026-01-31T10:00:00.5", Ok("2026-01-31T10:00:00.500000000Z")),
            ("2026-01-31T10:00:00+02:00", Err(())),
            ("2026-02-30", Err(())),
            ("yesterday", Err(())),
            ("2026-1-31", Err(())),
        ] {
            assert_eq!(moment(text).as_deref().map_err(|_| ()), want, "{text}");
        }
        assert!(moment("10m").unwrap() < now());
    }
}
