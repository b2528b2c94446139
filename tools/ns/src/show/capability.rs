//! Names of capabilities (`capabilities(7)`), by their bits.

use rustix::thread::CapabilitySet;

/// Returns the names of a set that /proc writes as a hexadecimal number; one that we do not know is its number.
pub(super) fn names(set: &str) -> Vec<String> {
    let bits = u64::from_str_radix(set, 16).unwrap_or_default();
    let name = |bit: u64| {
        let known = CapabilitySet::from_bits_retain(1 << bit).iter_names().next();
        known.map_or_else(|| bit.to_string(), |(name, _)| name.to_lowercase())
    };
    (0..64).filter(|bit| bits >> bit & 1 == 1).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_have_names() {
        assert_eq!(names("0000000000000401"), ["chown", "net_bind_service"]);
        assert_eq!(names("0000030000000000"), ["checkpoint_restore", "41"]);
        assert!(names("").is_empty());
    }
}
