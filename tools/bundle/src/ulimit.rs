//! Resource limits of the process: `--ulimit NAME=SOFT[:HARD]`.

use std::str::FromStr;

use serde_json::{Value, json};

#[rustfmt::skip]
const NAMES: [&str; 16] = [
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss",
    "rtprio", "rttime", "sigpending", "stack",
];

/// One limit. The largest number means none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ulimit {
    name: String,
    soft: u64,
    hard: u64,
}

impl Ulimit {
    /// Returns the entry of `process.rlimits`.
    pub(crate) fn to_json(&self) -> Value {
        json!({"type": format!("RLIMIT_{}", self.name.to_ascii_uppercase()), "hard": self.hard, "soft": self.soft})
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

impl FromStr for Ulimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let invalid = || format!("`{text}` is not NAME=SOFT[:HARD]");
        let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
        if !NAMES.contains(&name) {
            return Err(format!("`{name}` is not a limit: {}", NAMES.join(", ")));
        }
        let limit = |text: &str| if text == "-1" { Some(u64::MAX) } else { text.parse().ok() };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = limit(soft).zip(limit(hard)).ok_or_else(invalid)?;
        if soft > hard {
            return Err(format!("`{text}`: the soft limit is above the hard one"));
        }
        Ok(Self { name: name.to_owned(), soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("nofile=1024:2048", Some(("RLIMIT_NOFILE", 1024, 2048))),
            ("nproc=64", Some(("RLIMIT_NPROC", 64, 64))),
            ("core=0", Some(("RLIMIT_CORE", 0, 0))),
            ("memlock=-1:-1", Some(("RLIMIT_MEMLOCK", u64::MAX, u64::MAX))),
            ("stack=1:-1", Some(("RLIMIT_STACK", 1, u64::MAX))),
            ("stack=-1:1", None),
            ("nofile", None),
            ("wat=1", None),
            ("nofile=x", None),
        ] {
            let want = want.map(|(kind, soft, hard)| json!({"type": kind, "hard": hard, "soft": soft}));
            assert_eq!(text.parse::<Ulimit>().ok().map(|limit| limit.to_json()), want, "{text}");
        }
    }
}
