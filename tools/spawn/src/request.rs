//! What is asked of `spawn`, whatever the words for it are. The options' help describes the members.

use std::path::PathBuf;

use container::RuntimeId;

/// What all commands have.
pub(crate) struct Global {
    pub(crate) root: Option<PathBuf>,
    pub(crate) log: Option<PathBuf>,
    pub(crate) log_format: JournalFormat,
    pub(crate) debug: bool,
    pub(crate) systemd_cgroup: bool,
    pub(crate) rootless: Rootless,
    pub(crate) criu: Option<PathBuf>,
}

/// `spawn` without a command.
pub(crate) struct FilterRequest {
    pub(crate) input: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) rm: bool,
    pub(crate) quiet: bool,
    pub(crate) status_fd: Option<i32>,
    pub(crate) id: Option<RuntimeId>,
    pub(crate) common: Common,
}

/// What `create`, `run` and `spawn` without a command share.
#[derive(Clone, Debug, Default)]
pub(crate) struct Common {
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) no_pivot: bool,
    pub(crate) no_new_keyring: bool,
    pub(crate) preserve_fds: u32,
}

/// Which container is made, of which bundle.
pub(crate) struct Create {
    pub(crate) id: RuntimeId,
    pub(crate) bundle: PathBuf,
    pub(crate) common: Common,
}

/// How a container is stayed with.
pub(crate) struct Life {
    pub(crate) detach: bool,
    pub(crate) keep: bool,
    pub(crate) no_subreaper: bool,
}

/// Which process is executed in a container, and how.
#[expect(clippy::struct_excessive_bools, reason = "runc's flags")]
pub(crate) struct Exec {
    pub(crate) operands: Vec<String>,
    pub(crate) console_socket: Option<PathBuf>,
    pub(crate) pidfd_socket: Option<PathBuf>,
    pub(crate) cwd: Option<String>,
    pub(crate) env: Vec<String>,
    pub(crate) env_file: Vec<PathBuf>,
    #[expect(dead_code, reason = "it is so without the option")]
    pub(crate) interactive: bool,
    pub(crate) tty: bool,
    pub(crate) user: Option<String>,
    pub(crate) privileged: bool,
    pub(crate) additional_gids: Vec<u32>,
    pub(crate) process: Option<PathBuf>,
    pub(crate) detach: bool,
    pub(crate) pid_file: Option<PathBuf>,
    pub(crate) process_label: Option<String>,
    pub(crate) apparmor: Option<String>,
    pub(crate) no_new_privs: bool,
    pub(crate) cap: Vec<String>,
    pub(crate) preserve_fds: u32,
    pub(crate) cgroup: Vec<String>,
    pub(crate) ignore_paused: bool,
}

/// Which container is written to images, and how.
#[expect(clippy::struct_excessive_bools, reason = "runc's flags")]
pub(crate) struct Checkpoint {
    pub(crate) id: RuntimeId,
    pub(crate) criu: CriuOptions,
    pub(crate) parent_path: Option<PathBuf>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    pub(crate) status_fd: Option<u32>,
    pub(crate) page_server: Option<String>,
}

/// Which container comes back from images, and how.
pub(crate) struct Restore {
    pub(crate) create: Create,
    pub(crate) criu: CriuOptions,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
    pub(crate) life: Life,
}

/// What both say to criu.
#[expect(clippy::struct_excessive_bools, reason = "criu's flags")]
pub(crate) struct CriuOptions {
    pub(crate) image_path: PathBuf,
    pub(crate) work_path: Option<PathBuf>,
    pub(crate) tcp_established: bool,
    pub(crate) ext_unix_sk: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) manage_cgroups_mode: CgroupMode,
    pub(crate) empty_ns: Vec<String>,
}

/// The form of the log's lines.
#[derive(Clone, Copy)]
pub(crate) enum JournalFormat {
    Text,
    Json,
}

/// Whether cgroups that may not be used are no failure.
#[derive(Clone, Copy)]
pub(crate) enum Rootless {
    True,
    False,
    Auto,
}

/// The form of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Table,
    Json,
}

/// `criu_cg_mode`.
#[derive(Clone, Copy)]
pub(crate) enum CgroupMode {
    Ignore = 0,
    Soft = 3,
    Full = 4,
    Strict = 5,
}
