//! Signals by name or number: signal(7).

use anyhow::Context;

const NAMES: &str = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN \
    TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS";

/// The first and the last real-time signal that the C library leaves to programs.
const REAL_TIME: (i32, i32) = (34, 64);

/// Parses `9`, `KILL`, `sigkill`, `RTMIN+3`. `0` is no signal: it asks whether there is somebody to get
/// one.
pub(crate) fn parse(word: &str) -> anyhow::Result<i32> {
    let upper = word.to_uppercase();
    let name = match upper.strip_prefix("SIG").unwrap_or(&upper) {
        "IOT" => "ABRT",
        "POLL" => "IO",
        name => name,
    };
    let named = || NAMES.split(' ').zip(1..).find(|(known, _)| *known == name).map(|(_, number)| number);
    let number = word.parse().ok().or_else(named).or_else(|| real_time(name));
    number.filter(|number| (0..=REAL_TIME.1).contains(number)).with_context(|| format!("unknown signal {word:?}"))
}

/// Parses `RTMIN`, `RTMIN+3`, `RTMAX-1`.
fn real_time(name: &str) -> Option<i32> {
    let offset = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i32>().ok() };
    let (first, last) = REAL_TIME;
    let number = match name.strip_prefix("RTMIN") {
        Some(offset_text) => first.checked_add(offset(offset_text)?)?,
        None => last.checked_add(offset(name.strip_prefix("RTMAX")?)?)?,
    };
    (first..=last).contains(&number).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for (word, want) in [
            ("9", Some(9)),
            ("0", Some(0)),
            ("-9", None),
            ("KILL", Some(9)),
            ("sigterm", Some(15)),
            ("SIGPWR", Some(30)),
            ("37", Some(37)),
            ("SIGRTMIN+3", Some(37)),
            ("rtmax", Some(64)),
            ("RTMAX-1", Some(63)),
            ("RTMAX+1", None),
            ("x", None),
            ("999", None),
        ] {
            assert_eq!(parse(word).ok(), want, "{word}");
        }
    }
}
