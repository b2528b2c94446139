//! Signals by name or number: signal(7).

use anyhow::Context;
use rustix::process::Signal;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

/// Parses `9`, `KILL`, `sigkill`.
pub(crate) fn parse(word: &str) -> anyhow::Result<Signal> {
    let upper = word.to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let name = if name == "IOT" {
        "ABRT"
    } else if name == "POLL" {
        "IO"
    } else {
        name
    };
    let number = word
        .parse()
        .ok()
        .or_else(|| NAMES.iter().position(|known| *known == name).and_then(|at| i32::try_from(at + 1).ok()));
    number.and_then(Signal::from_named_raw).with_context(|| format!("unknown signal {word:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_signals() {
        for (word, want) in
            [("9", Some(9)), ("KILL", Some(9)), ("sigterm", Some(15)), ("SIGPWR", Some(30)), ("x", None), ("999", None)]
        {
            assert_eq!(parse(word).ok().map(Signal::as_raw), want, "{word}");
        }
    }
}
