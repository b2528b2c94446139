//! Capabilities (`capabilities(7)`): docker's default set and the changes to it.

use std::str::FromStr;

use rustix::thread::CapabilitySet;

/// The fourteen that docker gives to every container.
#[rustfmt::skip]
const DEFAULT: [&str; 14] = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
];

/// Returns a capability by its name, which may lack `CAP_`, in any case.
pub(crate) fn named(text: &str) -> Result<CapabilitySet, String> {
    let upper = text.to_ascii_uppercase();
    let known = CapabilitySet::from_name(upper.strip_prefix("CAP_").unwrap_or(&upper));
    known.ok_or_else(|| format!("`{text}` is not a capability"))
}

/// Returns the names of a set as config.json has them, in the order of the kernel's numbers.
pub(crate) fn names(set: CapabilitySet) -> Vec<String> {
    set.iter_names().map(|(name, _)| format!("CAP_{name}")).collect()
}

/// One capability, or all: what `--cap-add` and `--cap-drop` take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    All,
    One(CapabilitySet),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = text.eq_ignore_ascii_case("ALL") || text.eq_ignore_ascii_case("CAP_ALL");
        if all { Ok(Self::All) } else { named(text).map(Self::One) }
    }
}

/// Returns the container's set. `held` is the set that this process could hand on (`CapBnd` in `/proc/self/status`):
/// "all" cannot mean more, and a runtime fails on what it cannot give.
pub(crate) fn choose(add: &[Choice], drop: &[Choice], privileged: bool, held: CapabilitySet) -> CapabilitySet {
    let one = |choice: &Choice| if let Choice::One(capability) = choice { Some(*capability) } else { None };
    let by_name = |choices: &[Choice]| choices.iter().filter_map(one).collect::<CapabilitySet>();
    if privileged {
        return held;
    }
    let set = match (add.contains(&Choice::All), drop.contains(&Choice::All)) {
        (true, _) => held,
        (false, true) => CapabilitySet::empty(),
        (false, false) => DEFAULT.into_iter().filter_map(CapabilitySet::from_name).collect(),
    };
    // As docker has it: what is added stays, even when all are dropped, and what is dropped by name goes even of all.
    set.difference(by_name(drop)).union(by_name(add))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(add: &[&str], drop: &[&str]) -> Vec<String> {
        let parse = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Choice>>();
        names(choose(&parse(add), &parse(drop), false, CapabilitySet::all()))
    }

    #[test]
    fn the_default_set_is_dockers() {
        let mut want = DEFAULT.map(|name| format!("CAP_{name}"));
        let mut default = chosen(&[], &[]);
        want.sort();
        default.sort();
        assert_eq!(default, want);
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
        let (one, two) = (CapabilitySet::CHOWN, CapabilitySet::CHOWN | CapabilitySet::DAC_OVERRIDE);
        assert_eq!(choose(&[], &[], true, two), two);
        assert_eq!(choose(&[Choice::All], &[], false, one), one);
    }

    #[test]
    fn names_are_known_names() {
        assert!("CAP_EVERYTHING".parse::<Choice>().is_err());
        assert_eq!(named("sys_admin"), Ok(CapabilitySet::SYS_ADMIN));
    }
}
