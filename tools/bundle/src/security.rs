//! `--security-opt`: docker's options for what confines the process.

use std::path::PathBuf;
use std::str::FromStr;

/// One option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecurityOption {
    /// The profile of system calls; `None` is unconfined.
    Seccomp(Option<PathBuf>),
    /// An `AppArmor` profile that is loaded.
    AppArmor(String),
    /// Whether set-user-ID programs have no effect.
    NoNewPrivileges(bool),
    /// Masked and read-only paths of /proc and /sys lie open.
    OpenPaths,
    /// No label of `SELinux`.
    NoLabel,
}

impl FromStr for SecurityOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once(['=', ':']) {
            Some((name, value)) => (name, Some(value)),
            None => (text, None),
        };
        match (name, value) {
            ("seccomp", Some("unconfined")) => Ok(Self::Seccomp(None)),
            ("seccomp", Some(path)) if !path.is_empty() => Ok(Self::Seccomp(Some(path.into()))),
            ("apparmor", Some(profile)) if !profile.is_empty() => Ok(Self::AppArmor(profile.to_owned())),
            ("no-new-privileges", None | Some("true")) => Ok(Self::NoNewPrivileges(true)),
            ("no-new-privileges", Some("false")) => Ok(Self::NoNewPrivileges(false)),
            ("systempaths", Some("unconfined")) => Ok(Self::OpenPaths),
            ("label", Some("disable")) => Ok(Self::NoLabel),
            _ => Err(format!("unknown security option `{text}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_as_docker_reads_them() {
        for (text, want) in [
            ("seccomp=unconfined", Some(SecurityOption::Seccomp(None))),
            ("seccomp=p.json", Some(SecurityOption::Seccomp(Some("p.json".into())))),
            ("no-new-privileges", Some(SecurityOption::NoNewPrivileges(true))),
            ("no-new-privileges:false", Some(SecurityOption::NoNewPrivileges(false))),
            ("apparmor=unconfined", Some(SecurityOption::AppArmor("unconfined".to_owned()))),
            ("systempaths=unconfined", Some(SecurityOption::OpenPaths)),
            ("label=disable", Some(SecurityOption::NoLabel)),
            ("seccomp", None),
            ("seccomp=", None),
            ("label=type:x", None),
            ("no-new-privileges=maybe", None),
        ] {
            assert_eq!(text.parse().ok(), want, "{text}");
        }
    }
}
