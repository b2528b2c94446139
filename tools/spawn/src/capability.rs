//! Capabilities by name: capabilities(7).

use std::sync::OnceLock;

use crate::config::Capabilities;

/// By number.
pub(crate) const NAMES: &str = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID \
    CAP_SETPCAP CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW \
    CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT \
    CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD \
    CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG \
    CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE";

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
    // Nobody can hand on what he has not.
    let all = rustix::thread::capabilities(None).map_or(0, |sets| sets.permitted.bits());
    let bits = |names: &[String]| {
        names.iter().filter_map(|name| number(name)).fold(0, |bits, number| bits | 1 << number) & all
    };
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
    let known = |name: &String| number(name).is_some_and(|number| present.contains(&number));
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

/// Returns the number of a capability.
pub(crate) fn number(name: &str) -> Option<u64> {
    NAMES.split(' ').position(|known| known == name).map(|number| number as u64)
}

/// Lists the capabilities of this system's kernel, asked once.
pub(crate) fn present() -> std::ops::Range<u64> {
    static PRESENT: OnceLock<u64> = OnceLock::new();
    0..*PRESENT.get_or_init(count)
}

fn count() -> u64 {
    let known = |number: &u64| {
        let one = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
        rustix::thread::capability_is_in_bounding_set(one).is_ok()
    };
    let newest = NAMES.split(' ').count() as u64;
    // Kernels are mostly as new as the list.
    let last = if known(&(newest - 1)) {
        (newest..64).find(|number| !known(number))
    } else {
        (0..newest).find(|number| !known(number))
    };
    last.unwrap_or(newest)
}
