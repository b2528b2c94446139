//! Spans of time on a command line.

use std::time::Duration;

/// Parses `1h30m`, `90s`, `100ms`: Go's durations, as docker takes them.
///
/// Units are `h`, `m`, `s`, `ms`, `us` and `ns`; a number without one is refused but for 0, since Go's
/// `time.ParseDuration` takes none. Never negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    span(text).ok_or_else(|| "not a duration such as 1m30s".to_owned())
}

fn span(text: &str) -> Option<Duration> {
    // The one that needs no unit.
    let text = if text == "0" { "0s" } else { text };
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += number
            * match &rest[..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_go_s() {
        for (text, want) in [
            ("1h30m", Some(5_400_000)),
            ("1.5s", Some(1500)),
            ("100ms", Some(100)),
            ("0", Some(0)),
            ("10", None),
            ("", None),
            ("5 s", None),
        ] {
            assert_eq!(span(text).map(|span| span.as_millis()), want, "{text}");
        }
    }
}
