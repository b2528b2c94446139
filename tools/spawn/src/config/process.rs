//! `process` of config.json, and the file that `exec --process` reads (runtime-spec, config.md, "Process").

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Process {
    pub terminal: bool,
    /// In characters. Without a terminal it means nothing.
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub apparmor_profile: String,
    pub selinux_label: String,
    /// From -1000 to 1000; to lower it needs `CAP_SYS_RESOURCE`: `proc_pid_oom_score_adj(5)`.
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    pub io_priority: Option<IoPriority>,
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<CpuAffinity>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ConsoleSize {
    pub height: u16,
    pub width: u16,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct User {
    pub uid: u32,
    pub gid: u32,
    /// A decimal number in the file. Without it the umask is 0022, whatever the caller has.
    pub umask: Option<u32>,
    /// The supplementary groups, all of them: none of the caller's stay.
    pub additional_gids: Vec<u32>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    /// In the units of getrlimit(2); 2^64 - 1 is no limit, which the kernel calls `RLIM64_INFINITY`.
    pub hard: u64,
    pub soft: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Scheduler {
    pub policy: String,
    pub nice: i32,
    pub priority: u32,
    pub flags: Vec<String>,
    /// This and the two below are of `SCHED_DEADLINE` alone, in nanoseconds: sched(7).
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct IoPriority {
    pub class: String,
    /// 0, the most urgent, to 7; without a meaning for `IOPRIO_CLASS_IDLE`.
    pub priority: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CpuAffinity {
    /// The processors until the program is in its cgroup, as a list such as `0-3,7`.
    pub initial: String,
    /// Those of the program itself.
    #[serde(rename = "final")]
    pub last: String,
}
