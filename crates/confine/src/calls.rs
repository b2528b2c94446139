//! System calls: a seccomp filter that refuses, with EPERM, what a tool has no use for. What is not named is allowed: the
//! tools link a C library and others' crates, whose next version may need another call to read a clock.

use std::collections::BTreeMap;
use std::fmt;

use libc::c_long;
use seccomp::{Comparison, Leaf, Program, Test, errno};

/// The groups of system calls that a tool needs; the filter refuses the others, and what no tool ever needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each stands for a group of its own")]
pub struct Calls {
    /// To execute programs.
    pub execute: bool,
    /// To make sockets.
    pub sockets: bool,
    /// To be a server: to listen and accept.
    pub serve: bool,
    /// To mount and unmount.
    pub mount: bool,
    /// To make and to join namespaces.
    pub namespaces: bool,
}

const EXECUTE: [c_long; 2] = [libc::SYS_execve, libc::SYS_execveat];
const SOCKETS: [c_long; 2] = [libc::SYS_socket, libc::SYS_connect];
const SERVE: [c_long; 3] = [libc::SYS_listen, libc::SYS_accept, libc::SYS_accept4];
const MOUNT: [c_long; 10] = [
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
];
const NAMESPACES: [c_long; 2] = [libc::SYS_unshare, libc::SYS_setns];

/// Other processes, keys, ways around the other refusals, and what of the machine falls to `CAP_SYS_ADMIN`. What needs a
/// capability that no tool keeps is not among them: a filter's length is what taking it costs.
const NEVER: [c_long; 22] = [
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_open_by_handle_at,
    libc::SYS_io_uring_setup,
    libc::SYS_userfaultfd,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_fanotify_init,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_syslog,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// All `CLONE_NEW` flags.
const NEW_NAMESPACES: u64 = 0x7e02_0080;

impl Calls {
    /// Returns the groups that are not needed: what each is called, and its calls.
    fn given_up(self) -> impl Iterator<Item = (&'static str, &'static [c_long])> {
        let groups: [(bool, &str, &[c_long]); 6] = [
            (self.execute, "executing", &EXECUTE),
            (self.sockets, "sockets", &SOCKETS),
            (self.serve, "listening", &SERVE),
            (self.mount, "mounting", &MOUNT),
            (self.namespaces, "namespaces", &NAMESPACES),
            (false, "tracing", &NEVER),
        ];
        groups.into_iter().filter(|(needed, ..)| !needed).map(|(_, name, calls)| (name, calls))
    }

    fn refused(self) -> Vec<u32> {
        self.given_up().flat_map(|(_, calls)| calls).filter_map(|call| u32::try_from(*call).ok()).collect()
    }

    /// Returns the filter that refuses what is not needed.
    pub(crate) fn program(self) -> anyhow::Result<Vec<u8>> {
        let leaf = |verdict| Leaf { rules: Vec::new(), action: Some(verdict) };
        let mut leaves: BTreeMap<u32, Leaf> =
            self.refused().into_iter().map(|call| (call, leaf(errno(libc::EPERM)))).collect();
        if !self.namespaces {
            let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
            // The flags of clone3 are in memory, which a filter does not see: the C library then takes clone.
            leaves.insert(number(libc::SYS_clone3), leaf(errno(libc::ENOSYS)));
            let none = Test { argument: 0, comparison: Comparison::Masked(NEW_NAMESPACES), value: 0, negated: false };
            let by_flags = Leaf { rules: vec![(vec![none], seccomp::ALLOW)], action: Some(errno(libc::EPERM)) };
            leaves.insert(number(libc::SYS_clone), by_flags);
        }
        Program::compile(&[(ARCHITECTURE, 0, leaves)], seccomp::ALLOW, None, errno(libc::ENOSYS)).bytes()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given_up().map(|(name, _)| name).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use seccomp::ALLOW;

    use super::*;
    use crate::machine::answer;

    fn verdict(program: &[u8], architecture: u32, number: u32, first: u64) -> u32 {
        answer(program, architecture, number, [first, 0, 0, 0, 0, 0]).unwrap()
    }

    #[test]
    fn what_is_not_needed_is_refused() {
        let nothing = Calls::default().program().unwrap();
        let all = Calls { execute: true, sockets: true, serve: true, mount: true, namespaces: true }.program().unwrap();
        let number = |call: c_long| u32::try_from(call).unwrap();
        let (eperm, enosys) = (errno(libc::EPERM), errno(libc::ENOSYS));
        for (call, first, without, with) in [
            (libc::SYS_read, 0, ALLOW, ALLOW),
            (libc::SYS_execve, 0, eperm, ALLOW),
            (libc::SYS_socket, 0, eperm, ALLOW),
            (libc::SYS_accept4, 0, eperm, ALLOW),
            (libc::SYS_move_mount, 0, eperm, ALLOW),
            (libc::SYS_setns, 0, eperm, ALLOW),
            (libc::SYS_clone, 0x003d_0f00, ALLOW, ALLOW),
            (libc::SYS_clone, 0x1000_0011, eperm, ALLOW),
            (libc::SYS_clone3, 0, enosys, ALLOW),
            (libc::SYS_ptrace, 0, eperm, eperm),
            (libc::SYS_io_uring_setup, 0, eperm, eperm),
        ] {
            assert_eq!(verdict(&nothing, ARCHITECTURE, number(call), first), without, "{call}");
            assert_eq!(verdict(&all, ARCHITECTURE, number(call), first), with, "{call}");
        }
        // There are no other numberings, and -1 is what a tracer makes of a call that it refuses.
        for (architecture, call) in [(ARCHITECTURE, 0x4000_0000), (ARCHITECTURE ^ 1, 0), (ARCHITECTURE, u32::MAX)] {
            assert_eq!(verdict(&all, architecture, call, 0), enosys);
        }
    }

    #[test]
    fn every_call_gets_its_own_verdict() {
        let calls = Calls { mount: true, ..Calls::default() };
        let (program, refused) = (calls.program().unwrap(), calls.refused());
        let special = [libc::SYS_clone, libc::SYS_clone3].map(|call| u32::try_from(call).unwrap());
        for number in (0..1000).filter(|number| !special.contains(number)) {
            let want = if refused.contains(&number) { errno(libc::EPERM) } else { ALLOW };
            assert_eq!(verdict(&program, ARCHITECTURE, number, 0), want, "{number}");
        }
    }

    #[test]
    fn what_is_given_up_is_said() {
        let calls = Calls { sockets: true, ..Calls::default() };
        assert_eq!(calls.to_string(), "executing, listening, mounting, namespaces, tracing");
    }
}
