//! Names that become parts of paths. A text turns into one of these types where it comes in, or is refused there.
//!
//! The types differ because their rules do, and because a volume's name must not be passed where a container's is
//! meant. None of them allows a slash, or a full stop in front: joined to a directory of ours, it is one name in it.

use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not {rule}")]
pub struct NameError {
    /// The text, cut and quoted.
    text: String,
    /// What it was to be, and the rule for that.
    rule: &'static str,
}

fn refuse(text: &str, rule: &'static str) -> NameError {
    let cut: String = text.chars().take(100).collect();
    NameError { text: format!("{cut:?}{}", if cut.len() < text.len() { "…" } else { "" }), rule }
}

/// Docker's rule for names: `[A-Za-z0-9][A-Za-z0-9_.-]*`.
fn is_plain(text: &str, longest: usize) -> bool {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    text.len() <= longest && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.bytes().all(rest)
}

/// Runc's rule: no name of a directory's own, and nothing that leads out of one.
fn is_runcs(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
    !matches!(text, "" | "." | "..") && text.len() <= 255 && text.bytes().all(allowed)
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $allowed:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $type(String);

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let allowed: fn(&str) -> bool = $allowed;
                if allowed(text) { Ok(Self(text.to_owned())) } else { Err(refuse(text, $rule)) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl Deref for $type {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<std::ffi::OsStr> for $type {
            fn as_ref(&self) -> &std::ffi::OsStr {
                self.0.as_ref()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }
    };
}

name! {
    /// A container's id, which is its name: a part of paths, of a control group's name, and of aliases in the kernel.
    ContainerId,
    |text| is_plain(text, 128),
    "a container's id: letters, digits and _ . - with a letter or digit in front, at most 128"
}

name! {
    /// A volume's name.
    VolumeName,
    |text| text.len() >= 2 && is_plain(text, 200),
    "a volume's name: 2 to 200 letters, digits and _ . - with a letter or digit in front"
}

name! {
    /// A network's name.
    NetworkName,
    |text| is_plain(text, 127),
    "a network's name: letters, digits and _ . - with a letter or digit in front, at most 127"
}

name! {
    /// An id as runc takes it, which is wider than docker's: the callers of an OCI runtime choose it.
    RuntimeId,
    is_runcs,
    "a container's id: letters, digits and _ + . -, at most 255"
}

impl ContainerId {
    /// Returns an id of twelve random hexadecimal digits.
    pub fn random() -> std::io::Result<Self> {
        Ok(Self(format!("{:012x}", random()? >> 16)))
    }

    /// Returns the id that a path's last component is.
    pub fn of_path(path: &std::path::Path) -> Result<Self, NameError> {
        path.file_name().unwrap_or_default().to_string_lossy().parse()
    }
}

impl From<ContainerId> for RuntimeId {
    fn from(id: ContainerId) -> Self {
        Self(id.0)
    }
}

impl From<&ContainerId> for RuntimeId {
    fn from(id: &ContainerId) -> Self {
        Self(id.0.clone())
    }
}

/// Returns a random number.
pub(crate) fn random() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_component() {
        for (text, docker, runc) in [
            ("web", true, true),
            ("a.b_c-9", true, true),
            ("0123456789ab", true, true),
            (&"x".repeat(128), true, true),
            (&"x".repeat(129), false, true),
            (&"x".repeat(256), false, false),
            ("_web", false, true),
            ("a+b", false, true),
            ("-x", false, true),
            (".removed-x", false, true),
            ("", false, false),
            (".", false, false),
            ("..", false, false),
            ("../x", false, false),
            ("a/b", false, false),
            ("/a", false, false),
            ("a b", false, false),
            ("a\n", false, false),
            ("a\0", false, false),
            ("ä", false, false),
        ] {
            assert_eq!(text.parse::<ContainerId>().is_ok(), docker, "{text:?}");
            assert_eq!(text.parse::<RuntimeId>().is_ok(), runc, "{text:?}");
            assert_eq!(serde_json::from_value::<ContainerId>(text.into()).is_ok(), docker, "{text:?}");
        }
        assert!(ContainerId::random().unwrap().parse::<ContainerId>().is_ok());
    }

    #[test]
    fn a_refusal_is_one_short_line() {
        let refusal = format!("a\nb{}", "x".repeat(500)).parse::<VolumeName>().unwrap_err().to_string();
        assert!(refusal.starts_with(r#""a\nbxxx"#) && !refusal.contains('\n') && refusal.len() < 250, "{refusal}");
    }
}
