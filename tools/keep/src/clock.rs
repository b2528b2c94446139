//! Points in time as RFC 3339 text, UTC, as logs and the files of a container have them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the present moment, with nanoseconds.
pub(crate) fn now() -> String {
    calendar::rfc3339_nanoseconds(calendar::now())
}

/// Parses a moment: RFC 3339 in UTC with any part of the time left out, seconds since 1970, or a span such as `10m`
/// before now. Returns its text as [`now`] has it, so that the two compare as text.
pub(crate) fn moment(text: &str) -> Result<String, String> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(calendar::rfc3339_nanoseconds((seconds.into(), 0)));
    }
    if let Ok(span) = cli::duration(text) {
        let then = SystemTime::now().checked_sub(span).unwrap_or(UNIX_EPOCH);
        return Ok(calendar::rfc3339_nanoseconds(calendar::since_1970(then)));
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
