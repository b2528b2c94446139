//! The command line: runc's, and what makes `spawn` a stage of the pipe.

mod checkpoint;

use std::path::PathBuf;

use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use container::{Owner, RuntimeId};

pub(crate) use checkpoint::{Checkpoint, CriuOptions, Restore};

/// Run containers from OCI bundles
///
/// Without a command it runs the container of the record on stdin or in FILE, or of the bundle DIR, in the foreground.
#[derive(Debug, Parser)]
#[command(name = "spawn", version = crate::VERSION, disable_version_flag = true, after_help = EXAMPLES)]
#[command(subcommand_negates_reqs = true)]
pub(crate) struct SpawnArgs {
    #[command(flatten)]
    pub global: Global,
    #[command(flatten)]
    pub filter: Filter,
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Print version information
    #[arg(long, short = 'v', action = clap::ArgAction::Version)]
    version: (),
}

const EXAMPLES: &str = include_str!("examples.txt");

#[derive(Args, Debug)]
pub(crate) struct Global {
    /// Directory of the containers' states [default: `/run/drayage/spawn`, or below $`DRAYAGE_ROOT`]
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// File to write errors to [default: stderr]
    #[arg(long, value_name = "FILE", global = true)]
    pub log: Option<PathBuf>,
    /// Form of the lines in the log
    #[arg(long, value_name = "text|json", default_value = "text", global = true)]
    pub log_format: LogFormat,
    /// Log each step
    #[arg(long, global = true)]
    pub debug: bool,
    /// Use cgroups by systemd, over D-Bus
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Ignore cgroup permission errors
    #[arg(long, value_name = "true|false|auto", default_value = "auto")]
    pub rootless: Rootless,
    #[arg(long, value_name = "FILE", hide = true, global = true)]
    pub criu: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Rootless {
    True,
    False,
    Auto,
}

/// `spawn` without a command.
#[derive(Args, Debug)]
pub(crate) struct Filter {
    /// Bundle directory, or file with a record [default: the record on stdin]
    #[arg(value_name = "DIR|FILE")]
    pub input: Option<PathBuf>,
    /// Leave the container running and print the record
    #[arg(long, short)]
    pub detach: bool,
    /// Remove the bundle too when the container has ended; its network and ports are always removed
    #[arg(long, conflicts_with = "detach")]
    pub rm: bool,
    /// With --detach: print no record
    #[arg(long, short, requires = "detach")]
    pub quiet: bool,
    /// Descriptor to write the State to, and at the end the exit code, as JSON lines
    #[arg(long, value_name = "N")]
    pub status_fd: Option<i32>,
    /// The container's id [default: the record's, or the bundle's name]
    #[arg(long, value_name = "ID")]
    pub id: Option<RuntimeId>,
    #[command(flatten)]
    pub common: Common,
}

// What `create`, `run` and the filter share: not a doc comment, which would become their help.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Common {
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a descriptor of the container's process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Do not use `pivot_root`: for a root file system in a ramdisk
    #[arg(long)]
    pub no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Pass N more descriptors after stderr on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
}

type Describe = fn(clap::Command) -> clap::Command;

/// Declares the commands: name, help, and what describes their arguments to the parser.
macro_rules! commands {
    ($($name:literal $variant:ident($arguments:ty) $about:literal,)*) => {
        #[derive(Debug)]
        pub(crate) enum Command {
            $($variant($arguments),)*
        }

        const COMMANDS: &[(&str, &str, Describe)] = &[$(($name, $about, <$arguments>::augment_args),)*];

        fn read(name: &str, matches: &ArgMatches) -> Result<Command, clap::Error> {
            match name {
                $($name => Ok(Command::$variant(<$arguments>::from_arg_matches(matches)?)),)*
                _ => Err(clap::Error::new(clap::error::ErrorKind::InvalidSubcommand)),
            }
        }
    };
}

commands! {
    "create" Create(Create) "Make a container that waits for `start`",
    "start" Start(Id) "Start a created container",
    "state" State(Id) "Print the State of a container",
    "kill" Kill(Kill) "Send a signal to a container [default: SIGTERM]",
    "delete" Delete(Delete) "Remove a container",
    "run" Run(Run) "Make a container and start it",
    "exec" Exec(Exec) "Execute another process in a container",
    "ps" Ps(Ps) "List the processes of a container",
    "list" List(List) "List containers",
    "pause" Pause(Id) "Pause all processes of a container",
    "resume" Resume(Id) "Resume a paused container",
    "update" Update(Update) "Change a container's limits",
    "events" Events(Events) "Print statistics and out-of-memory events",
    "checkpoint" Checkpoint(Checkpoint) "Write a container's processes to files, by criu",
    "restore" Restore(Restore) "Make a container from such files and start it",
    "spec" Spec(Spec) "Write a default config.json",
    "features" Features(Nothing) "Print the features of this runtime",
}

impl Subcommand for Command {
    /// Describes the commands whose names are on the command line, or all if none is: all of them take half of the time
    /// that a short command takes.
    fn augment_subcommands(parser: clap::Command) -> clap::Command {
        let words: Vec<_> = std::env::args_os().skip(1).collect();
        let given = |name: &str| words.iter().any(|word| word == name);
        let help = given("--help") || given("-h") || given("help");
        let all = help || !COMMANDS.iter().any(|(name, ..)| given(name));
        let described = COMMANDS.iter().filter(|(name, ..)| all || given(name));
        described.fold(parser, |parser, (name, about, arguments)| {
            parser.subcommand(arguments(clap::Command::new(*name)).about(*about))
        })
    }

    fn augment_subcommands_for_update(parser: clap::Command) -> clap::Command {
        Self::augment_subcommands(parser)
    }

    fn has_subcommand(name: &str) -> bool {
        COMMANDS.iter().any(|(known, ..)| *known == name)
    }
}

impl FromArgMatches for Command {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let (name, matches) = matches.subcommand().unwrap_or(("", matches));
        read(name, matches)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[derive(Args, Debug)]
pub(crate) struct Nothing {}

#[derive(Args, Debug)]
pub(crate) struct Id {
    pub id: RuntimeId,
}

#[derive(Args, Debug)]
pub(crate) struct Delete {
    pub id: RuntimeId,
    /// Kill it if it still runs, and ignore one that does not exist
    #[arg(long, short)]
    pub force: bool,
    /// Delete it only if this is its owner, the annotation `org.drayage.owner` of its config.json
    #[arg(long, value_name = "OWNER")]
    pub owner: Option<Owner>,
}

#[derive(Args, Debug)]
pub(crate) struct Ps {
    /// Form of the output
    #[arg(long, short, default_value = "table")]
    pub format: Format,
    pub id: RuntimeId,
    /// Options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Form of the output
    #[arg(long, short, default_value = "table")]
    pub format: Format,
    /// Print ids only
    #[arg(long, short)]
    pub quiet: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Events {
    pub id: RuntimeId,
    /// Seconds between statistics, or a duration such as 100ms
    #[arg(long, default_value = "5s")]
    pub interval: String,
    /// Print statistics once
    #[arg(long)]
    pub stats: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Spec {
    /// Directory to write to
    #[arg(long, short, default_value = ".")]
    pub bundle: PathBuf,
    /// Write a config for an ordinary user
    #[arg(long)]
    pub rootless: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    pub id: RuntimeId,
    /// Bundle directory
    #[arg(long, short, default_value = ".")]
    pub bundle: PathBuf,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Args, Debug)]
pub(crate) struct Run {
    #[command(flatten)]
    pub create: Create,
    #[command(flatten)]
    pub life: Life,
}

// Not a doc comment, which would become the commands' help.
#[derive(Args, Debug)]
pub(crate) struct Life {
    /// Leave the container running
    #[arg(long, short)]
    pub detach: bool,
    /// Do not remove the container when it has ended
    #[arg(long)]
    pub keep: bool,
    /// Leave orphans of the container to init
    #[arg(long)]
    pub no_subreaper: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Kill {
    pub id: RuntimeId,
    #[arg(default_value = "SIGTERM")]
    pub signal: String,
    /// Signal every process of the container
    #[arg(long, short)]
    pub all: bool,
}

#[derive(Args, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "runc's flags")]
pub(crate) struct Exec {
    /// The container's id, the program and its arguments; options of `exec` stand before the id
    // One operand, or words of an image's health check that begin with - would be options.
    #[arg(value_name = "ID [COMMAND]", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub operands: Vec<String>,
    /// Socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// Socket that gets a descriptor of the process
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Working directory
    #[arg(long, short = 'w', visible_alias = "workdir")]
    pub cwd: Option<String>,
    /// Environment variable NAME=VALUE, or NAME with the caller's value
    #[arg(long, short)]
    pub env: Vec<String>,
    /// File of environment variables, one a line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<PathBuf>,
    /// Has no effect: the process always has stdin
    #[arg(long, short)]
    pub interactive: bool,
    /// Give it a terminal, joined with the caller's
    #[arg(long, short)]
    pub tty: bool,
    /// User as NAME or UID, also with :GROUP or :GID
    #[arg(long, short)]
    pub user: Option<String>,
    /// Give it all capabilities
    #[arg(long)]
    pub privileged: bool,
    /// Additional group
    #[arg(long, short = 'g', value_delimiter = ',')]
    pub additional_gids: Vec<u32>,
    /// File that describes the process, as `process` in config.json
    #[arg(long, short)]
    pub process: Option<PathBuf>,
    /// Do not wait for it
    #[arg(long, short)]
    pub detach: bool,
    /// File to write the process id to
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Label for `SELinux`
    #[arg(long)]
    pub process_label: Option<String>,
    /// Profile for `AppArmor`
    #[arg(long)]
    pub apparmor: Option<String>,
    /// Forbid new privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// Add a capability
    #[arg(long, short = 'c')]
    pub cap: Vec<String>,
    /// Pass N more descriptors after stderr on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Sub-cgroup, as [CONTROLLER,…:]PATH
    #[arg(long)]
    pub cgroup: Vec<String>,
    /// Execute in a paused container too
    #[arg(long)]
    pub ignore_paused: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Update {
    pub id: RuntimeId,
    /// File with `linux.resources`, or - for stdin; replaces all other options
    #[arg(long, short, value_name = "FILE")]
    pub resources: Option<PathBuf>,
    /// Weight of block I/O
    #[arg(long)]
    pub blkio_weight: Option<u16>,
    /// CPU period in microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// CPU time in a period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_quota: Option<i64>,
    /// CPU burst in microseconds
    #[arg(long)]
    pub cpu_burst: Option<u64>,
    /// Relative share of CPU time
    #[arg(long, visible_alias = "cpu-shares")]
    pub cpu_share: Option<u64>,
    /// Realtime period in microseconds
    #[arg(long)]
    pub cpu_rt_period: Option<u64>,
    /// Realtime CPU time in a period in microseconds
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_rt_runtime: Option<i64>,
    /// Schedule it as idle (1), or not (0)
    #[arg(long, allow_negative_numbers = true)]
    pub cpu_idle: Option<i64>,
    /// CPUs to use
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Ignored, because kernels no longer have this limit
    #[arg(long, hide = true)]
    pub kernel_memory: Option<String>,
    /// Kernel memory for TCP
    #[arg(long, hide = true)]
    pub kernel_memory_tcp: Option<String>,
    /// Memory limit in bytes, or with a unit
    #[arg(long, allow_negative_numbers = true)]
    pub memory: Option<String>,
    /// Memory reservation
    #[arg(long, allow_negative_numbers = true)]
    pub memory_reservation: Option<String>,
    /// Memory and swap limit; -1: none
    #[arg(long, allow_negative_numbers = true)]
    pub memory_swap: Option<String>,
    /// Number of processes
    #[arg(long, allow_negative_numbers = true)]
    pub pids_limit: Option<i64>,
    /// Intel RDT: cache schema
    #[arg(long)]
    pub l3_cache_schema: Option<String>,
    /// Intel RDT: memory bandwidth schema
    #[arg(long)]
    pub mem_bw_schema: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn every_command_is_described_and_read() {
        SpawnArgs::command().debug_assert();
        for (name, ..) in COMMANDS {
            let line: &[&str] = if matches!(*name, "list" | "spec" | "features") { &[] } else { &["id"] };
            let parsed = SpawnArgs::try_parse_from([&["spawn", *name], line].concat()).unwrap();
            let command = format!("{:?}", parsed.command.unwrap()).to_lowercase();
            assert!(command.starts_with(name), "{name}: {command}");
        }
    }
}
