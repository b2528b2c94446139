//! Capabilities (`capabilities(7)`): docker's default set and the changes to it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use rustix::thread::CapabilitySet;

/// The fourteen that docker gives to every container.
#[rustfmt::skip]
const DEFAULT: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
];

/// One capability, by the kernel's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Capability(u32);

impl Capability {
    pub(crate) const SYS_ADMIN: Self = Self(21);
}

impl FromStr for Capability {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let known = CapabilitySet::from_name(name).map(|one| Self(one.bits().trailing_zeros()));
        known.ok_or_else(|| format!("`{text}` is not a capability"))
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = CapabilitySet::from_bits_retain(1 << self.0);
        write!(f, "CAP_{}", one.iter_names().next().map_or("?", |(name, _)| name))
    }
}

/// One capability, or all: what `--cap-add` and `--cap-drop` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    One(Capability),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = text.eq_ignore_ascii_case("ALL") || text.eq_ignore_ascii_case("CAP_ALL");
        if all { Ok(Self::All) } else { text.parse().map(Self::One) }
    }
}

/// Returns the container's set. `held` is the set that this process could hand on (`CapBnd` in `/proc/self/status`):
/// "all" cannot mean more, and a runtime fails on what it cannot give.
pub(crate) fn choose(add: &[Choice], drop: &[Choice], privileged: bool, held: u64) -> BTreeSet<Capability> {
    let one = |choice: &Choice| if let Choice::One(capability) = choice { Some(*capability) } else { None };
    let known = CapabilitySet::from_bits_truncate(held).iter_names();
    let all = || known.map(|(_, one)| Capability(one.bits().trailing_zeros()));
    let mut set: BTreeSet<Capability> = if privileged || add.contains(&Choice::All) {
        all().collect()
    } else if drop.contains(&Choice::All) {
        BTreeSet::new()
    } else {
        DEFAULT.iter().filter_map(|name| name.parse().ok()).collect()
    };
    if privileged {
        return set;
    }
    // As docker has it: what is added stays, even when all are dropped, and what is dropped by name goes even of all.
    let dropped: Vec<Capability> = drop.iter().filter_map(one).collect();
    set.retain(|capability| !dropped.contains(capability));
    set.extend(add.iter().filter_map(one));
    set
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(add: &[&str], drop: &[&str]) -> Vec<String> {
        let parse = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Choice>>();
        choose(&parse(add), &parse(drop), false, (1 << 41) - 1).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_default_set_is_dockers() {
        let mut want: Vec<Capability> = DEFAULT.iter().map(|name| name.parse().unwrap()).collect();
        want.sort();
        assert_eq!(chosen(&[], &[]), want.iter().map(ToString::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn additions_and_removals_combine_as_with_docker() {
        assert_eq!(chosen(&["net_admin"], &["ALL"]), ["CAP_NET_ADMIN"]);
        assert_eq!(chosen(&["CAP_SYS_TIME", "kill"], &["all"]), ["CAP_KILL", "CAP_SYS_TIME"]);
        assert_eq!(chosen(&["ALL"], &[]).len(), 41);
        assert_eq!(chosen(&["ALL"], &["CAP_SYS_ADMIN"]).len(), 40);
        assert_eq!(chosen(&["SYS_PTRACE"], &["MKNOD"]).len(), 14);
        assert!(!chosen(&[], &["mknod"]).contains(&"CAP_MKNOD".to_owned()));
    }

    #[test]
    fn all_is_what_we_can_hand_on() {
        assert_eq!(choose(&[], &[], true, 0b11).len(), 2);
        assert_eq!(choose(&[Choice::All], &[], false, 1).len(), 1);
    }

    #[test]
    fn names_are_known_names() {
        assert!("CAP_EVERYTHING".parse::<Choice>().is_err());
        assert_eq!("sys_admin".parse(), Ok(Capability::SYS_ADMIN));
    }
}
