//! Names of capabilities (`capabilities(7)`), by their bits.

const NAMES: &str = "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable \
    net_bind_service net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot \
    sys_ptrace sys_pacct sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease \
    audit_write audit_control setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read \
    perfmon bpf checkpoint_restore";

/// Returns the names of a set that /proc writes as a hexadecimal number; one that we do not know is its number.
pub(super) fn names(set: &str) -> Vec<String> {
    let bits = u64::from_str_radix(set, 16).unwrap_or_default();
    let name = |bit: usize| NAMES.split(' ').nth(bit).map_or_else(|| bit.to_string(), str::to_owned);
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
