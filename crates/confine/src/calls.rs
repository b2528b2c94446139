//! System calls: a seccomp filter that refuses, with EPERM, what a tool has no use for. What is not named is allowed: the
//! tools link a C library and others' crates, whose next version may need another call to read a clock.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use libc::c_long;
use sys::confinement::{Instruction, filter};

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
const NEW_NAMESPACES: u32 = 0x7e02_0080;
/// The bit of calls by x32's numbers.
const X32: u32 = 0x4000_0000;

// linux/bpf_common.h, linux/seccomp.h.
const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const RETURN: u16 = 0x06;
const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const FIRST_ARGUMENT_AT: u32 = 16;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERROR: u32 = 0x0005_0000;

impl Calls {
    /// Refuses them from here on.
    pub(crate) fn restrict(self) -> io::Result<()> {
        filter(&self.program())
    }

    fn refused(self) -> Vec<u32> {
        let groups: [(bool, &[c_long]); 6] = [
            (self.execute, &EXECUTE),
            (self.sockets, &SOCKETS),
            (self.serve, &SERVE),
            (self.mount, &MOUNT),
            (self.namespaces, &NAMESPACES),
            (false, &NEVER),
        ];
        let refused = groups.iter().filter(|(needed, _)| !needed).flat_map(|(_, calls)| *calls);
        refused.filter_map(|call| u32::try_from(*call).ok()).collect()
    }

    /// The program finds a call's verdict by bisection: the kernel runs it for every call there is when it takes it, in order
    /// to know for which of them it need not be run again.
    fn program(self) -> Vec<Instruction> {
        let (eperm, enosys) = (ERROR | libc::EPERM.unsigned_abs(), ERROR | libc::ENOSYS.unsigned_abs());
        let mut verdicts: BTreeMap<u32, Vec<Instruction>> =
            self.refused().into_iter().map(|call| (call, vec![give(eperm)])).collect();
        if !self.namespaces {
            let number = |call: c_long| u32::try_from(call).unwrap_or(u32::MAX);
            // The flags of clone3 are in memory, which a filter does not see: the C library then takes clone.
            verdicts.insert(number(libc::SYS_clone3), vec![give(enosys)]);
            let by_flags = vec![load(FIRST_ARGUMENT_AT), jump(ANY_BIT, NEW_NAMESPACES, 0, 1), give(eperm), give(ALLOW)];
            verdicts.insert(number(libc::SYS_clone), by_flags);
        }
        let mut program = vec![load(ARCHITECTURE_AT), jump(EQUAL, ARCHITECTURE, 1, 0), give(KILL), load(NUMBER_AT)];
        program.extend(bisect(&ranges(verdicts, vec![give(enosys)])));
        program
    }
}

/// What begins at a number and goes on until the next one.
type Range = (u32, Vec<Instruction>);

/// Returns the verdicts for all numbers in order: neighbours with the same are one range. `beyond` is that on x32's calls.
fn ranges(verdicts: BTreeMap<u32, Vec<Instruction>>, beyond: Vec<Instruction>) -> Vec<Range> {
    let mut ranges: Vec<Range> = vec![(0, vec![give(ALLOW)])];
    for (call, verdict) in verdicts {
        if ranges.last().is_some_and(|(begin, _)| *begin == call) {
            // The allowed range that would begin here is empty.
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, before)| *before != verdict) {
            ranges.push((call, verdict));
        }
        ranges.push((call + 1, vec![give(ALLOW)]));
    }
    ranges.push((X32, beyond));
    ranges
}

fn bisect(ranges: &[Range]) -> Vec<Instruction> {
    let (lower, upper) = ranges.split_at(ranges.len() / 2);
    let Some((begin, verdict)) = upper.first() else { return Vec::new() };
    if lower.is_empty() {
        return verdict.clone();
    }
    let lower = bisect(lower);
    let skip = u8::try_from(lower.len()).unwrap_or(u8::MAX);
    [vec![jump(AT_LEAST, *begin, skip, 0)], lower, bisect(upper)].concat()
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups = [
            (self.execute, "executing"),
            (self.sockets, "sockets"),
            (self.serve, "listening"),
            (self.mount, "mounting"),
            (self.namespaces, "namespaces"),
        ];
        let given_up = groups.iter().filter(|(needed, _)| !needed).map(|(_, name)| *name);
        f.write_str(&given_up.chain(["tracing"]).collect::<Vec<_>>().join(", "))
    }
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, yes: 0, no: 0, operand: offset }
}

fn jump(code: u16, operand: u32, yes: u8, no: u8) -> Instruction {
    Instruction { code, yes, no, operand }
}

fn give(verdict: u32) -> Instruction {
    jump(RETURN, verdict, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn verdict(program: &[Instruction], architecture: u32, number: u32, first: u32) -> u32 {
        let (mut at, mut held) = (0, 0);
        loop {
            let one = program[at];
            let skip = |holds: bool| usize::from(if holds { one.yes } else { one.no });
            at += 1 + match one.code {
                LOAD => {
                    held = match one.operand {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        _ => first,
                    };
                    0
                }
                EQUAL => skip(held == one.operand),
                AT_LEAST => skip(held >= one.operand),
                ANY_BIT => skip(held & one.operand != 0),
                _ => return one.operand,
            };
        }
    }

    #[test]
    fn what_is_not_needed_is_refused() {
        let nothing = Calls::default().program();
        let all = Calls { execute: true, sockets: true, serve: true, mount: true, namespaces: true }.program();
        let number = |call: c_long| u32::try_from(call).unwrap();
        let (eperm, enosys) = (ERROR + 1, ERROR + 38);
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
        for program in [&nothing, &all] {
            // What a jump can leave out has a limit.
            assert!(program.len() < 255);
        }
        assert_eq!(verdict(&all, ARCHITECTURE, X32 | number(libc::SYS_read), 0), enosys);
        assert_eq!(verdict(&all, ARCHITECTURE ^ 1, number(libc::SYS_read), 0), KILL);
    }

    #[test]
    fn every_call_gets_its_own_verdict() {
        let calls = Calls { mount: true, ..Calls::default() };
        let (program, refused) = (calls.program(), calls.refused());
        let special = [libc::SYS_clone, libc::SYS_clone3].map(|call| u32::try_from(call).unwrap());
        for number in (0..1000).chain([X32 - 1]).filter(|number| !special.contains(number)) {
            let want = if refused.contains(&number) { ERROR + 1 } else { ALLOW };
            assert_eq!(verdict(&program, ARCHITECTURE, number, 0), want, "{number}");
        }
    }

    #[test]
    fn what_is_given_up_is_said() {
        let calls = Calls { sockets: true, ..Calls::default() };
        assert_eq!(calls.to_string(), "executing, listening, mounting, namespaces, tracing");
    }
}
