//! Resource limits by name: getrlimit(2).

use anyhow::Context;

/// By number.
const NAMES: &str =
    "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME";

/// Returns the number of the limit of that name.
pub(crate) fn resource(name: &str) -> anyhow::Result<u64> {
    let known = name.strip_prefix("RLIMIT_").and_then(|name| NAMES.split(' ').position(|known| known == name));
    Ok(known.with_context(|| format!("invalid rlimit type {name:?}"))? as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_have_the_kernel_s_numbers() {
        for (name, want) in [
            ("RLIMIT_CPU", Some(libc::RLIMIT_CPU)),
            ("RLIMIT_NOFILE", Some(libc::RLIMIT_NOFILE)),
            ("RLIMIT_AS", Some(libc::RLIMIT_AS)),
            ("RLIMIT_MSGQUEUE", Some(libc::RLIMIT_MSGQUEUE)),
            ("RLIMIT_RTTIME", Some(libc::RLIMIT_RTTIME)),
            ("NOFILE", None),
            ("RLIMIT_", None),
        ] {
            assert_eq!(resource(name).ok(), want.map(u64::from), "{name}");
        }
    }
}
