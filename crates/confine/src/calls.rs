//! System calls: a seccomp filter that refuses, with EPERM, what a tool has no use for. What is not named is allowed: the
//! tools link a C library and others' crates, whose next version may need another call to read a clock.

use std::collections::BTreeMap;
use std::fmt;

use seccomp::{ArgumentComparison, FilterProgram, Leaf, Test, errno};

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

const MOUNT: &str = "mount umount2 move_mount open_tree fsopen fspick fsmount fsconfig mount_setattr pivot_root";

/// Other processes, keys, ways around the other refusals, and what of the machine falls to `CAP_SYS_ADMIN`. What needs a
/// capability that no tool keeps is not among them: a filter's length is what taking it costs.
const NEVER: &str = "ptrace process_vm_readv process_vm_writev process_madvise pidfd_getfd kcmp open_by_handle_at \
    io_uring_setup userfaultfd bpf perf_event_open fanotify_init keyctl add_key request_key swapon swapoff syslog quotactl \
    quotactl_fd sethostname setdomainname";

/// All `CLONE_NEW` flags.
const NEW_NAMESPACES: u64 = 0x7e02_0080;

impl Calls {
    /// Returns the groups that are not needed: what each is called, and its calls.
    fn given_up(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let groups = [
            (self.execute, "executing", "execve execveat"),
            (self.sockets, "sockets", "socket connect"),
            (self.serve, "listening", "listen accept accept4"),
            (self.mount, "mounting", MOUNT),
            (self.namespaces, "namespaces", "unshare setns"),
            (false, "tracing", NEVER),
        ];
        groups.into_iter().filter(|(needed, ..)| !needed).map(|(_, name, calls)| (name, calls))
    }

    fn refused(self) -> Vec<u32> {
        self.given_up().flat_map(|(_, calls)| calls.split(' ')).filter_map(seccomp::number).collect()
    }

    /// Returns the filter that refuses what is not needed.
    pub(crate) fn program(self) -> anyhow::Result<Vec<u8>> {
        let leaf = |verdict| Leaf { rules: Vec::new(), action: Some(verdict) };
        let mut leaves: BTreeMap<u32, Leaf> =
            self.refused().into_iter().map(|call| (call, leaf(errno(libc::EPERM)))).collect();
        if !self.namespaces {
            // docker's profile does the same; glibc falls back to clone(2) on ENOSYS alone, not on EPERM.
            leaves.extend(seccomp::number("clone3").map(|call| (call, leaf(errno(libc::ENOSYS)))));
            let none =
                Test { argument: 0, comparison: ArgumentComparison::Masked(NEW_NAMESPACES), value: 0, negated: false };
            let by_flags = Leaf { rules: vec![(vec![none], seccomp::ALLOW)], action: Some(errno(libc::EPERM)) };
            leaves.extend(seccomp::number("clone").map(|call| (call, by_flags)));
        }
        // Calls by another architecture's entry (`int 0x80`) are all refused: their numbers would be other calls'.
        FilterProgram::compile(&[(seccomp::NATIVE, 0, leaves)], seccomp::ALLOW, None, errno(libc::ENOSYS)).bytes()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.given_up().map(|(name, _)| name).collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use libc::c_long;
    use seccomp::{ALLOW, NATIVE};

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
            assert_eq!(verdict(&nothing, NATIVE, number(call), first), without, "{call}");
            assert_eq!(verdict(&all, NATIVE, number(call), first), with, "{call}");
        }
        // There are no other numberings, and -1 is what a tracer makes of a call that it refuses.
        for (architecture, call) in [(NATIVE, 0x4000_0000), (NATIVE ^ 1, 0), (NATIVE, u32::MAX)] {
            assert_eq!(verdict(&all, architecture, call, 0), enosys);
        }
    }

    #[test]
    fn every_name_has_a_number() {
        let names: Vec<&str> = Calls::default().given_up().flat_map(|(_, calls)| calls.split(' ')).collect();
        assert_eq!(names.len(), Calls::default().refused().len());
        assert_eq!(seccomp::number("ptrace"), u32::try_from(libc::SYS_ptrace).ok());
    }

    #[test]
    fn every_call_gets_its_own_verdict() {
        let calls = Calls { mount: true, ..Calls::default() };
        let (program, refused) = (calls.program().unwrap(), calls.refused());
        let special = [libc::SYS_clone, libc::SYS_clone3].map(|call| u32::try_from(call).unwrap());
        for number in (0..1000).filter(|number| !special.contains(number)) {
            let want = if refused.contains(&number) { errno(libc::EPERM) } else { ALLOW };
            assert_eq!(verdict(&program, NATIVE, number, 0), want, "{number}");
        }
    }

    #[test]
    fn what_is_given_up_is_said() {
        let calls = Calls { sockets: true, ..Calls::default() };
        assert_eq!(calls.to_string(), "executing, listening, mounting, namespaces, tracing");
    }
}
