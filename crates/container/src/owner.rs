//! Whose a thing is that the kernel or a file holds for a container: a token in an interface's alias, in the comment of a
//! firewall's element, in a note, in a record and in the annotations of config.json. The container's id stands beside it.
//!
//! Names are given again, owners never. `ns del web` of a guard that was slow finds the port of the next `web` with
//! another owner, and leaves it.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::directories::hash;
use crate::id::random;
use crate::{ContainerId, Directories};

/// The annotation of config.json that has the owner's token.
pub const OWNER: &str = "org.drayage.owner";

/// The owner of what a container has: the root that it stands below, and its claim on its id there. A later container of
/// the same id has another claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Owner {
    root: u32,
    claim: u32,
}

impl Owner {
    /// Makes an owner that nobody was before.
    ///
    /// 32 random bits beside the root's mark: of two containers of one name, one pair in four thousand million has
    /// the same.
    pub fn new(directories: &Directories) -> io::Result<Self> {
        let claim = u32::try_from(random()? >> 32).unwrap_or_default();
        Ok(Self { claim: claim.max(1), ..Self::of_root(directories) })
    }

    /// Returns the owner that is the same for the same id, where nothing is made but a description.
    pub fn of_name(directories: &Directories, id: &ContainerId) -> Self {
        Self { claim: hash(id.as_bytes()).max(1), ..Self::of_root(directories) }
    }

    /// Returns the owner of what a stage makes that no stage before has told of an owner: the root alone.
    pub fn of_root(directories: &Directories) -> Self {
        Self { root: directories.mark(), claim: 0 }
    }

    /// Tells whether it is more than a root: that one container has it.
    pub fn is_one_containers(self) -> bool {
        self.claim != 0
    }

    /// Tells whether both stand below one root.
    pub fn shares_root(self, other: Self) -> bool {
        self.root == other.root
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{:08x}", self.root, self.claim)
    }
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| {
            let plain = digits.len() == 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            u32::from_str_radix(digits, 16).ok().filter(|_| plain)
        };
        let numbers = text.split_once('-').and_then(|(root, claim)| number(root).zip(number(claim)));
        let refused =
            || format!("{:?} is not an owner: two numbers of eight hexadecimal digits", text.get(..40).unwrap_or(text));
        numbers.map(|(root, claim)| Self { root, claim }).ok_or_else(refused)
    }
}

impl TryFrom<String> for Owner {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.to_string()
    }
}

/// Whose things a verb acts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// What exactly this owner has.
    Exactly(Owner),
    /// What is owned below this root, or has no owner that is known.
    Below(u32),
}

impl Ownership {
    /// Returns what a verb acts on: with an owner that has been named, or without one.
    pub fn of(named: Option<Owner>, directories: &Directories) -> Self {
        named.map_or_else(|| Self::Below(directories.mark()), Self::Exactly)
    }

    /// Tells whether the verb acts on what `owner` has; `None` has no owner that is known.
    ///
    /// Without a named owner, things of unknown owners count as ours: older versions wrote none.
    pub fn covers(self, owner: Option<Owner>) -> bool {
        match self {
            Self::Exactly(named) => owner == Some(named),
            Self::Below(root) => owner.is_none_or(|owner| owner.root == root),
        }
    }

    /// Tells whether an owner has been named.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::Exactly(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_written() {
        let owner = Owner { root: 0x1a, claim: 7 };
        assert_eq!(owner.to_string(), "0000001a-00000007");
        assert_eq!(owner.to_string().parse(), Ok(owner));
        for text in ["", "1a-7", "0000001a-0000000g", "0000001a", "+000001a-00000007", "0000001a-00000007 x"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
    }

    #[test]
    fn nobody_acts_on_what_another_root_has() {
        let (own, later, other) =
            (Owner { root: 1, claim: 1 }, Owner { root: 1, claim: 2 }, Owner { root: 2, claim: 1 });
        for (ownership, want) in
            [(Ownership::Exactly(own), [true, false, false, false]), (Ownership::Below(1), [true, true, false, true])]
        {
            assert_eq!([Some(own), Some(later), Some(other), None].map(|owner| ownership.covers(owner)), want);
        }
    }
}
