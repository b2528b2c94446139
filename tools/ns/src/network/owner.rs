//! Whose a link is: written into its alias, so that the kernel is the state and nothing can go stale.

use std::net::IpAddr;

/// The alias of a bridge that we have made, and so may remove.
pub(crate) const BRIDGE: &str = "drayage";

/// The owner of a bridge's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The container's id.
    pub(crate) id: String,
    /// The addresses that the container has on this bridge.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Owner {
    /// Returns the owner that an alias names.
    pub(crate) fn parse(alias: &str) -> Option<Self> {
        let mut words = alias.split(' ');
        let id = words.next()?.strip_prefix("ctr=")?.to_owned();
        let addresses = words.filter_map(|word| word.strip_prefix("ip=")?.parse().ok()).collect();
        Some(Self { id, addresses })
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ctr={}", self.id)?;
        self.addresses.iter().try_for_each(|address| write!(f, " ip={address}"))
    }
}

/// Returns a number that is the same for the same text on every machine and in every version (FNV-1a, then mixed so that
/// texts that differ in their last letter lie far apart).
pub(crate) fn hash(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// Returns the name of the host's end of a container's link: 15 letters at most, so it cannot be the id.
pub(crate) fn port_name(id: &str) -> String {
    format!("veth{:011x}", hash(id) >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_read_as_it_was_written() {
        for (alias, want) in [
            ("ctr=web ip=10.213.0.5 ip=fd00::5", Some(("web", 2))),
            ("ctr=web", Some(("web", 0))),
            ("uplink to rack 4", None),
            ("", None),
        ] {
            let owner = Owner::parse(alias);
            assert_eq!(owner.as_ref().map(|o| (o.id.as_str(), o.addresses.len())), want);
            assert!(owner.is_none_or(|owner| owner.to_string() == alias));
        }
    }

    #[test]
    fn a_port_name_is_a_link_name() {
        for id in ["web", "", &"x".repeat(200)] {
            assert!(port_name(id).len() <= 15);
        }
        assert_ne!(port_name("a"), port_name("b"));
    }
}
