//! The command line: runc's, and what makes `spawn` a stage of the pipe.

mod limits;

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{ArgMatches, Args, FromArgMatches, Parser, Subcommand};
use container::{Owner, RuntimeId};

use crate::request::{
    CgroupMode, Checkpoint, Common, Create, CriuOptions, Exec, FilterRequest, Format, Global, JournalFormat, Life,
    Restore, Rootless,
};
pub(crate) use limits::Limits;

/// Run containers from OCI bundles
///
/// Without a command it runs the container of the record on stdin or in FILE, or of the bundle DIR, in the foreground.
#[derive(Parser)]
#[command(name = "spawn", version = crate::VERSION, disable_version_flag = true, after_help = include_str!("examples.txt"))]
#[command(subcommand_negates_reqs = true)]
#[rustfmt::skip] // An option a line.
pub(crate) struct SpawnArgs {
    #[command(flatten)] pub(crate) global: Global,
    #[command(flatten)] pub(crate) filter: FilterRequest,
    #[command(subcommand)] pub(crate) command: Option<Command>,
    /// Print version information
    #[arg(long, short = 'v', action = clap::ArgAction::Version)] version: (),
}

type Describe = fn(clap::Command) -> clap::Command;
type Read = fn(&ArgMatches) -> Result<Command, clap::Error>;

/// Declares the commands: name, help, arguments.
macro_rules! commands {
    ($($name:literal $variant:ident $about:literal { $($(#[$of:meta])* $field:ident: $type:ty,)* })*) => {
        pub(crate) enum Command {
            $($variant { $($field: $type),* },)*
        }

        const COMMANDS: &[(&str, &str, Describe, Read)] = &[$({
            #[derive(Args)]
            struct Arguments { $($(#[$of])* $field: $type,)* }

            fn read(matches: &ArgMatches) -> Result<Command, clap::Error> {
                let Arguments { $($field),* } = Arguments::from_arg_matches(matches)?;
                Ok(Command::$variant { $($field),* })
            }
            ($name, $about, Arguments::augment_args, read)
        },)*];
    };
}

commands! {
    "create" Create "Make a container that waits for `start`" { #[command(flatten)] create: Create, }
    "start" Start "Start a created container" { id: RuntimeId, }
    "state" State "Print the State of a container" { id: RuntimeId, }
    "kill" Kill "Send a signal to a container [default: SIGTERM]" {
        id: RuntimeId,
        #[arg(default_value = "SIGTERM")] signal: String,
        /// Signal every process of the container
        #[arg(long, short)] all: bool,
    }
    "delete" Delete "Remove a container" {
        id: RuntimeId,
        /// Kill it if it still runs, and ignore one that does not exist
        #[arg(long, short)] force: bool,
        /// Delete it only if this is its owner, the annotation `org.drayage.owner` of its config.json
        #[arg(long, value_name = "OWNER")] owner: Option<Owner>,
    }
    "run" Run "Make a container and start it" {
        #[command(flatten)] create: Create,
        #[command(flatten)] life: Life,
    }
    "exec" Exec "Execute another process in a container" { #[command(flatten)] exec: Exec, }
    "ps" Ps "List the processes of a container" {
        /// Form of the output
        #[arg(long, short, default_value = "table")] format: Format,
        id: RuntimeId,
        /// Options for ps(1)
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)] options: Vec<String>,
    }
    "list" List "List containers" {
        /// Form of the output
        #[arg(long, short, default_value = "table")] format: Format,
        /// Print ids only
        #[arg(long, short)] quiet: bool,
    }
    "pause" Pause "Pause all processes of a container" { id: RuntimeId, }
    "resume" Resume "Resume a paused container" { id: RuntimeId, }
    "update" Update "Change a container's limits" {
        id: RuntimeId,
        /// File with `linux.resources`, or - for stdin; replaces all other options
        #[arg(long, short, value_name = "FILE")] resources: Option<PathBuf>,
        #[command(flatten)] limits: Limits,
    }
    "events" Events "Print statistics and out-of-memory events" {
        id: RuntimeId,
        /// Seconds between statistics, or a duration such as 100ms
        #[arg(long, default_value = "5s")] interval: String,
        /// Print statistics once
        #[arg(long)] stats: bool,
    }
    "checkpoint" Checkpoint "Write a container's processes to files, by criu" {
        #[command(flatten)] checkpoint: Checkpoint,
    }
    "restore" Restore "Make a container from such files and start it" { #[command(flatten)] restore: Restore, }
    "spec" Spec "Write a default config.json" {
        /// Directory to write to
        #[arg(long, short, default_value = ".")] bundle: PathBuf,
        /// Write a config for an ordinary user
        #[arg(long)] rootless: bool,
    }
    "features" Features "Print the features of this runtime" { }
}

cli::options! {
    Global {
        /// Directory of the containers' states [default: `/run/drayage/spawn`, or below $`DRAYAGE_ROOT`]
        #[arg(long, value_name = "DIR", global = true)] root: Option<PathBuf>,
        /// File to write errors to [default: stderr]
        #[arg(long, value_name = "FILE", global = true)] log: Option<PathBuf>,
        /// Form of the lines in the log
        #[arg(long, value_name = "text|json", default_value = "text", global = true)] log_format: JournalFormat,
        /// Log each step
        #[arg(long, global = true)] debug: bool,
        /// Use cgroups by systemd, over D-Bus
        #[arg(long, global = true)] systemd_cgroup: bool,
        /// Ignore cgroup permission errors
        #[arg(long, value_name = "true|false|auto", default_value = "auto")] rootless: Rootless,
        #[arg(long, value_name = "FILE", hide = true, global = true)] criu: Option<PathBuf>,
    }

    FilterRequest {
        /// Bundle directory, or file with a record [default: the record on stdin]
        #[arg(value_name = "DIR|FILE")] input: Option<PathBuf>,
        /// Leave the container running and print the record
        #[arg(long, short)] detach: bool,
        /// Remove the bundle too when the container has ended; its network and ports are always removed
        #[arg(long, conflicts_with = "detach")] rm: bool,
        /// With --detach: print no record
        #[arg(long, short, requires = "detach")] quiet: bool,
        /// Descriptor to write the State to, and at the end the exit code, as JSON lines
        #[arg(long, value_name = "N")] status_fd: Option<i32>,
        /// The container's id [default: the record's, or the bundle's name]
        #[arg(long, value_name = "ID")] id: Option<RuntimeId>,
        #[command(flatten)] common: Common,
    }

    Common {
        /// Socket that gets the terminal's master
        #[arg(long, value_name = "SOCKET")] console_socket: Option<PathBuf>,
        /// Socket that gets a descriptor of the container's process
        #[arg(long, value_name = "SOCKET")] pidfd_socket: Option<PathBuf>,
        /// File to write the process id to
        #[arg(long, value_name = "FILE")] pid_file: Option<PathBuf>,
        /// Do not use `pivot_root`: for a root file system in a ramdisk
        #[arg(long)] no_pivot: bool,
        /// Keep the caller's session keyring
        #[arg(long)] no_new_keyring: bool,
        /// Pass N more descriptors after stderr on
        #[arg(long, value_name = "N", default_value_t = 0)] preserve_fds: u32,
    }

    Create {
        id: RuntimeId,
        /// Bundle directory
        #[arg(long, short, default_value = ".")] bundle: PathBuf,
        #[command(flatten)] common: Common,
    }

    Life {
        /// Leave the container running
        #[arg(long, short)] detach: bool,
        /// Do not remove the container when it has ended
        #[arg(long)] keep: bool,
        /// Leave orphans of the container to init
        #[arg(long)] no_subreaper: bool,
    }

    Exec {
        /// The container's id, the program and its arguments; options of `exec` stand before the id
        // One operand, or words of an image's health check that begin with - would be options.
        #[arg(value_name = "ID [COMMAND]", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        operands: Vec<String>,
        /// Socket that gets the terminal's master
        #[arg(long, value_name = "SOCKET")] console_socket: Option<PathBuf>,
        /// Socket that gets a descriptor of the process
        #[arg(long, value_name = "SOCKET")] pidfd_socket: Option<PathBuf>,
        /// Working directory
        #[arg(long, short = 'w', visible_alias = "workdir")] cwd: Option<String>,
        /// Environment variable NAME=VALUE, or NAME with the caller's value
        #[arg(long, short)] env: Vec<String>,
        /// File of environment variables, one a line
        #[arg(long, value_name = "FILE")] env_file: Vec<PathBuf>,
        /// Has no effect: the process always has stdin
        #[arg(long, short)] interactive: bool,
        /// Give it a terminal, joined with the caller's
        #[arg(long, short)] tty: bool,
        /// User as NAME or UID, also with :GROUP or :GID
        #[arg(long, short)] user: Option<String>,
        /// Give it all capabilities
        #[arg(long)] privileged: bool,
        /// Additional group
        #[arg(long, short = 'g', value_delimiter = ',')] additional_gids: Vec<u32>,
        /// File that describes the process, as `process` in config.json
        #[arg(long, short)] process: Option<PathBuf>,
        /// Do not wait for it
        #[arg(long, short)] detach: bool,
        /// File to write the process id to
        #[arg(long, value_name = "FILE")] pid_file: Option<PathBuf>,
        /// Label for `SELinux`
        #[arg(long)] process_label: Option<String>,
        /// Profile for `AppArmor`
        #[arg(long)] apparmor: Option<String>,
        /// Forbid new privileges
        #[arg(long)] no_new_privs: bool,
        /// Add a capability
        #[arg(long, short = 'c')] cap: Vec<String>,
        /// Pass N more descriptors after stderr on
        #[arg(long, value_name = "N", default_value_t = 0)] preserve_fds: u32,
        /// Sub-cgroup, as [CONTROLLER,…:]PATH
        #[arg(long)] cgroup: Vec<String>,
        /// Execute in a paused container too
        #[arg(long)] ignore_paused: bool,
    }

    Checkpoint {
        id: RuntimeId,
        #[command(flatten)] criu: CriuOptions,
        /// Images of an earlier `--pre-dump`, relative to the new ones
        #[arg(long, value_name = "DIR")] parent_path: Option<PathBuf>,
        /// Leave the container running
        #[arg(long)] leave_running: bool,
        /// Write only the memory, and leave the container running
        #[arg(long)] pre_dump: bool,
        /// Leave out TCP connections that are not established yet
        #[arg(long)] tcp_skip_in_flight: bool,
        /// Give files without a name a temporary one
        #[arg(long)] link_remap: bool,
        /// Descriptor that gets a byte when pages are served
        #[arg(long, value_name = "N")] status_fd: Option<u32>,
        /// Server that gets the pages
        #[arg(long, value_name = "ADDRESS:PORT")] page_server: Option<String>,
    }

    Restore {
        #[command(flatten)] create: Create,
        #[command(flatten)] criu: CriuOptions,
        /// Security profile to restore with, TYPE:NAME
        #[arg(long, value_name = "PROFILE")] lsm_profile: Option<String>,
        /// Label to mount with
        #[arg(long, value_name = "CONTEXT")] lsm_mount_context: Option<String>,
        #[command(flatten)] life: Life,
    }

    CriuOptions {
        /// Directory of the images
        #[arg(long, value_name = "DIR", default_value = "checkpoint")] image_path: PathBuf,
        /// Directory of criu's logs [default: that of the images]
        #[arg(long, value_name = "DIR")] work_path: Option<PathBuf>,
        /// Allow established TCP connections
        #[arg(long)] tcp_established: bool,
        /// Allow sockets whose other end is outside
        #[arg(long)] ext_unix_sk: bool,
        /// Allow a terminal from outside the container
        #[arg(long)] shell_job: bool,
        /// Allow locked files
        #[arg(long)] file_locks: bool,
        /// Remove duplicate pages from the images
        #[arg(long)] auto_dedup: bool,
        /// Move pages on demand
        #[arg(long)] lazy_pages: bool,
        /// Treatment of the cgroups
        #[arg(long, value_name = "MODE", default_value = "soft")] manage_cgroups_mode: CgroupMode,
        /// Namespace to leave empty
        #[arg(long, value_name = "network", value_parser = ["network"])] empty_ns: Vec<String>,
    }
}

cli::values! {
    JournalFormat { Text = "text", Json = "json", }
    Rootless { True = "true", False = "false", Auto = "auto", }
    Format { Table = "table", Json = "json", }
    CgroupMode { Ignore = "ignore", Soft = "soft", Full = "full", Strict = "strict", }
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
        described.fold(parser, |parser, (name, about, arguments, _)| {
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
        let command = COMMANDS.iter().find(|(known, ..)| *known == name);
        command.map_or_else(|| Err(clap::Error::new(ErrorKind::InvalidSubcommand)), |(.., read)| read(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
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
            let parsed =
                SpawnArgs::try_parse_from([&["spawn", *name], line].concat()).unwrap_or_else(|error| panic!("{error}"));
            assert!(parsed.command.is_some(), "{name}");
        }
    }
}
