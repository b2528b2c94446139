//! Capabilities by name: capabilities(7).

use std::sync::OnceLock;

use rustix::thread::CapabilitySet;

use crate::config::Capabilities;

/// Lists the names, by number.
pub(crate) fn names() -> impl Iterator<Item = String> {
    CapabilitySet::all().iter_names().map(|(name, _)| format!("CAP_{name}"))
}

/// The five sets, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
    pub ambient: u64,
}

/// Turns names into bits; those that nobody here can have are left out.
pub(crate) fn sets(capabilities: Option<&Capabilities>) -> Sets {
    let Some(given) = capabilities else { return Sets::default() };
    // A process can hand on no capability that it has not: capset(2) would refuse all five sets for one bit too many,
    // where runc leaves the bit out.
    let all = rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits());
    let bits = |names: &[String]| names.iter().filter_map(|name| bit(name)).fold(0, |bits, bit| bits | bit) & all;
    Sets {
        bounding: bits(&given.bounding),
        effective: bits(&given.effective),
        permitted: bits(&given.permitted),
        inheritable: bits(&given.inheritable),
        ambient: bits(&given.ambient),
    }
}

/// Warns of names that mean nothing here (runtime-spec, config.md, "capabilities": not an error).
pub(crate) fn warn_of_unknown(capabilities: &Capabilities) {
    let present = present();
    let known = |name: &String| bit(name).is_some_and(|bit| present.contains(&bit.trailing_zeros().into()));
    let sets = [&capabilities.bounding, &capabilities.effective, &capabilities.permitted];
    let mut unknown: Vec<&str> =
        sets.iter().flat_map(|set| set.iter()).filter(|name| !known(name)).map(String::as_str).collect();
    unknown.sort_unstable();
    unknown.dedup();
    if !unknown.is_empty() {
        log::warn!("ignoring unknown or unavailable capabilities: {unknown:?}");
    }
    for name in capabilities.ambient.iter().filter(|name| known(name) && !capabilities.inheritable.contains(name)) {
        log::warn!("can't raise ambient capability {name}: it is not inheritable");
    }
}

/// Returns a capability of that name as its bit.
fn bit(name: &str) -> Option<u64> {
    CapabilitySet::from_name(name.strip_prefix("CAP_")?).map(|capability| capability.bits())
}

/// Lists the capabilities of this system's kernel, asked once.
pub(crate) fn present() -> std::ops::Range<u64> {
    static PRESENT: OnceLock<u64> = OnceLock::new();
    0..*PRESENT.get_or_init(count)
}

fn count() -> u64 {
    let known = |number: &u64| {
        rustix::thread::capability_is_in_bounding_set(CapabilitySet::from_bits_retain(1 << number)).is_ok()
    };
    let newest = CapabilitySet::all().iter_names().count() as u64;
    // Each look costs a prctl(2), and a kernel is mostly as new as the list: one look at the newest name it has saves
    // forty.
    let numbers = if known(&(newest - 1)) { newest..64 } else { 0..newest };
    let end = numbers.end;
    numbers.into_iter().find(|number| !known(number)).unwrap_or(end)
}
