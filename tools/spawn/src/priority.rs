//! How the container's program is scheduled, where it gets memory and how much of what: words of config.json as the
//! kernel's numbers (`sched_setattr(2)`, `ioprio_set(2)`, `set_mempolicy(2)`, `getrlimit(2)`, `personality(2)`).

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use rustix::thread::CpuSet;

use crate::config::{IoPriority, MemoryPolicy, Personality, Process, Scheduler};

/// Returns a `struct sched_attr`.
pub(crate) fn scheduler(scheduler: &Scheduler) -> anyhow::Result<Vec<u8>> {
    const POLICIES: &str = "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE";
    const FLAGS: &str = "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN SCHED_FLAG_KEEP_POLICY \
        SCHED_FLAG_KEEP_PARAMS SCHED_FLAG_UTIL_CLAMP_MIN SCHED_FLAG_UTIL_CLAMP_MAX";
    // Each name's place in the list is its number in linux/sched.h, and so with the flags' bits. 4, `SCHED_ISO`, is
    // reserved there and was never made: the kernel refuses it.
    let policy = position(POLICIES, &scheduler.policy).context("scheduler policy")?;
    let mut flags = 0_u64;
    for flag in &scheduler.flags {
        flags |= 1 << position(FLAGS, flag).context("scheduler flag")?;
    }
    // `SCHED_ATTR_SIZE_VER1`: the eight bytes at the end are the clamps of utilization. A kernel that knows fewer
    // bytes takes the rest if they are 0, or says E2BIG.
    let head = [56_u32.to_ne_bytes(), policy.to_ne_bytes()].concat();
    let (nice, priority) = (scheduler.nice.to_ne_bytes(), scheduler.priority.to_ne_bytes());
    let times = [scheduler.runtime, scheduler.deadline, scheduler.period, 0].map(u64::to_ne_bytes).concat();
    Ok([&head[..], &flags.to_ne_bytes(), &nice, &priority, &times].concat())
}

/// Returns the value for `ioprio_set`: the class in the upper bits.
pub(crate) fn io(priority: &IoPriority) -> anyhow::Result<u64> {
    const CLASSES: &str = "IOPRIO_CLASS_NONE IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE";
    let class = position(CLASSES, &priority.class).context("ioPriority.class")?;
    ensure!(priority.priority < 8, "ioPriority.priority {} is not within 0–7", priority.priority);
    // `IOPRIO_CLASS_SHIFT`.
    Ok(u64::from(class) << 13 | priority.priority)
}

/// `MPOL_DEFAULT` and those after it, by number.
const MODES: &str = "MPOL_DEFAULT MPOL_PREFERRED MPOL_BIND MPOL_INTERLEAVE MPOL_LOCAL MPOL_PREFERRED_MANY \
    MPOL_WEIGHTED_INTERLEAVE";

/// Returns mode, node mask and the mask's size in bits for `set_mempolicy`.
pub(crate) fn memory_policy(policy: &MemoryPolicy) -> anyhow::Result<(u64, Vec<u64>, u64)> {
    let mut mode = u64::from(position(MODES, &policy.mode).context("invalid memory policy mode")?);
    for flag in &policy.flags {
        mode |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            other => bail!("invalid memory policy flag {other:?}"),
        };
    }
    let nodes = numbers(&policy.nodes).context("invalid memory policy nodes")?;
    let Some(highest) = nodes.iter().max() else { return Ok((mode, Vec::new(), 0)) };
    let (name, count) = (policy.mode.as_str(), nodes.len());
    let takes_nodes = !matches!(name, "MPOL_DEFAULT" | "MPOL_LOCAL");
    ensure!(takes_nodes, "invalid memory policy: {name} mode requires 0 nodes but got {count}");
    // `MAX_NUMNODES` is 1024 at most (`CONFIG_NODES_SHIFT`); the number comes from a file and is the size of what is
    // allocated below.
    ensure!(*highest < 1024, "invalid memory policy nodes: {highest} is too high");
    let mut mask = vec![0_u64; highest / 64 + 1];
    for node in &nodes {
        mask[node / 64] |= 1 << (node % 64);
    }
    // The kernel takes one bit less than it is told (`get_nodes()` in mm/mempolicy.c begins with `--maxnode`), which
    // its man page does not say; libnuma adds the one, too.
    let bits = (mask.len() * 64) as u64 + 1;
    Ok((mode, mask, bits))
}

/// Returns the resource of that name: `getrlimit(2)`.
pub(crate) fn limit(name: &str) -> anyhow::Result<Resource> {
    use Resource::{As, Core, Cpu, Data, Fsize, Locks, Memlock, Msgqueue, Nice, Nofile, Nproc, Rss, Rtprio, Rttime};
    use Resource::{Sigpending, Stack};
    let all = [Cpu, Fsize, Data, Stack, Core, Rss, Nproc, Nofile, Memlock, As, Locks, Sigpending, Msgqueue, Nice];
    let known = |resource: &Resource| format!("RLIMIT_{resource:?}").to_uppercase() == name;
    all.into_iter().chain([Rtprio, Rttime]).find(known).with_context(|| format!("invalid rlimit type {name:?}"))
}

/// Lets a process have the limits that it is going to take, where they are above the caller's: from inside a user namespace
/// it could not. What is refused here is refused there, with the reason.
pub(crate) fn raise_limits(process: &Process, pid: Option<Pid>) -> anyhow::Result<()> {
    for wanted in &process.rlimits {
        let resource = limit(&wanted.kind)?;
        let own = getrlimit(resource);
        if own.maximum.is_some_and(|maximum| maximum < wanted.hard) {
            let _refused = prlimit(pid, resource, Rlimit { maximum: Some(wanted.hard), ..own });
        }
    }
    Ok(())
}

/// Returns the value for `personality`.
pub(crate) fn personality(personality: &Personality) -> anyhow::Result<u64> {
    ensure!(personality.flags.is_empty(), "personality flags are not supported");
    match personality.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => bail!("invalid personality domain {other:?}"),
    }
}

/// Parses a list of processors for `execCPUAffinity`, such as `0-3,7`.
pub(crate) fn cpus(list: &str) -> anyhow::Result<CpuSet> {
    let mut set = CpuSet::new();
    for cpu in numbers(list).with_context(|| format!("CPU list {list:?}"))? {
        ensure!(cpu < CpuSet::MAX_CPU, "CPU {cpu} is too high");
        set.set(cpu);
    }
    Ok(set)
}

fn numbers(list: &str) -> anyhow::Result<Vec<usize>> {
    let mut found = Vec::new();
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high): (usize, usize) = (low.trim().parse()?, high.trim().parse()?);
        // A range is written out: without an end to it, a list of ten letters would fill the memory.
        ensure!(low <= high && high < 65_536, "range {range:?}");
        found.extend(low..=high);
    }
    Ok(found)
}

fn position(names: &str, name: &str) -> anyhow::Result<u32> {
    let found = names.split(' ').position(|known| known == name).with_context(|| format!("{name:?} is not known"))?;
    Ok(u32::try_from(found)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_numbers() {
        let policy = MemoryPolicy {
            mode: "MPOL_BIND".into(),
            nodes: "0-1,65".into(),
            flags: vec!["MPOL_F_STATIC_NODES".into()],
        };
        assert_eq!(memory_policy(&policy).unwrap(), (2 | 1 << 15, vec![3, 2], 129));
        let none = MemoryPolicy { mode: "MPOL_DEFAULT".into(), ..MemoryPolicy::default() };
        assert_eq!(memory_policy(&none).unwrap(), (0, vec![], 0));
        assert_eq!(io(&IoPriority { class: "IOPRIO_CLASS_BE".into(), priority: 4 }).unwrap(), 2 << 13 | 4);
        assert!(io(&IoPriority { class: "x".into(), priority: 4 }).is_err());
        let batch = Scheduler { policy: "SCHED_BATCH".into(), nice: -1, ..Scheduler::default() };
        assert_eq!(scheduler(&batch).unwrap()[4..8], 3_u32.to_ne_bytes());
        assert!(personality(&Personality { domain: "BSD".into(), flags: vec![] }).is_err());
    }

    #[test]
    fn lists_of_numbers_are_ranges() {
        for (list, want) in
            [("", Some(vec![])), ("0-2, 5", Some(vec![0, 1, 2, 5])), ("2-1", None), ("x", None), ("0-99999999", None)]
        {
            assert_eq!(numbers(list).ok(), want, "{list}");
        }
    }

    #[test]
    fn limits_have_the_kernel_s_numbers() {
        for (name, want) in [
            ("RLIMIT_CPU", Some(libc::RLIMIT_CPU)),
            ("RLIMIT_NOFILE", Some(libc::RLIMIT_NOFILE)),
            ("RLIMIT_AS", Some(libc::RLIMIT_AS)),
            ("RLIMIT_MSGQUEUE", Some(libc::RLIMIT_MSGQUEUE)),
            ("RLIMIT_RTTIME", Some(libc::RLIMIT_RTTIME)),
            ("NOFILE", None),
            ("RLIMIT_", None),
        ] {
            assert_eq!(limit(name).ok().map(|resource| resource as u32), want, "{name}");
        }
    }
}
