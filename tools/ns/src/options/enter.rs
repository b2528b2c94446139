//! The command line of `ns enter`, which is that of `nsenter(1)`; the target may be a container or a record too.

mod plain;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser};
use sys::namespace::Kind;

use crate::enter::{self, EnterIdentity, EnterPlace, EnterProgram, EnterRequest, EnterTarget};

/// Run a program in the namespaces of a process or a container
///
/// Without a type it enters all of them. Without -t it reads the target from a record on stdin.
#[derive(Args, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of nsenter")]
#[command(after_help = include_str!("../examples/enter.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct Enter {
    /// Enter all namespaces of the target
    #[arg(short, long)] all: bool,
    /// Process, with its pidfd's inode number if you like, or container
    #[arg(short, long, value_name = "PID[:INODE]|ID")] target: Option<String>,
    /// Enter the mount namespace
    #[arg(short, long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    mount: Option<OsString>,
    /// Enter the UTS namespace (host name)
    #[arg(short, long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    uts: Option<OsString>,
    /// Enter the IPC namespace
    #[arg(short, long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    ipc: Option<OsString>,
    /// Enter the network namespace
    #[arg(short, long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    net: Option<OsString>,
    /// Enter the network namespace of the target's socket
    #[arg(short = 'N', long, value_name = "FD")] net_socket: Option<i32>,
    /// Enter the pid namespace, with the program as a child
    #[arg(short, long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pid: Option<OsString>,
    /// Enter the cgroup namespace
    #[arg(short = 'C', long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    cgroup: Option<OsString>,
    /// Enter the user namespace, as its root
    #[arg(short = 'U', long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    user: Option<OsString>,
    /// Enter the parent of the target's user namespace
    #[arg(long)] user_parent: bool,
    /// Enter the time namespace
    #[arg(short = 'T', long, value_name = "FILE|:NSID", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    time: Option<OsString>,
    /// Become this user, or the target's: follow
    #[arg(short = 'S', long, value_name = "UID", value_parser = identity)] setuid: Option<EnterIdentity>,
    /// Become this group, or the target's: follow
    #[arg(short = 'G', long, value_name = "GID", value_parser = identity)] setgid: Option<EnterIdentity>,
    /// Keep user and group in a user namespace
    #[arg(long)] preserve_credentials: bool,
    /// Keep capabilities though the user changes
    #[arg(long)] keep_caps: bool,
    /// Change the root directory, to the target's by default
    #[arg(short, long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    root: Option<OsString>,
    /// Change the working directory, to the target's by default
    #[arg(short, long, value_name = "DIR", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    wd: Option<OsString>,
    /// Change the working directory after the namespaces are entered
    #[arg(short = 'W', long, value_name = "DIR", conflicts_with = "wd")] wdns: Option<PathBuf>,
    /// Take the target's environment
    #[arg(short, long)] env: bool,
    /// Become the program even in a pid namespace
    #[arg(short = 'F', long)] no_fork: bool,
    /// Join the target's cgroup
    #[arg(short = 'c', long)] join_cgroup: bool,
    /// Take the target's `SELinux` context
    #[arg(short = 'Z', long)] follow_context: bool,
    /// Program and its arguments [default: the user's shell]
    #[arg(value_name = "PROGRAM", trailing_var_arg = true, allow_hyphen_values = true)] program: Vec<OsString>,
}

/// Run a program in the namespaces of a process, with the command line of util-linux's program of this name
#[derive(Parser, Debug)]
#[command(name = "nsenter", version, about)]
pub(crate) struct Nsenter {
    #[command(flatten)]
    pub(crate) enter: Enter,
}

impl Enter {
    /// Refuses an option that is none, which the parser takes for the program's name.
    pub(crate) fn checked(self) -> Result<Self> {
        let odd =
            self.program.first().and_then(|name| name.to_str()).filter(|name| name.len() > 1 && name.starts_with('-'));
        match odd {
            Some(name) if !std::env::args_os().any(|argument| argument == "--") => {
                Err(cli::Usage(format!("unexpected argument '{name}' found (see --help)")).into())
            }
            _ => Ok(self),
        }
    }

    /// Enters; `nsenter` is whether we are called by that name.
    pub(crate) fn run(self, nsenter: bool) -> Result<ExitCode> {
        let mut request = EnterRequest {
            net_socket: self.net_socket,
            user_parent: self.user_parent,
            uid: self.setuid,
            gid: self.setgid,
            preserve_credentials: self.preserve_credentials,
            keep_caps: self.keep_caps,
            root: self.root.map(place),
            directory: self.wd.map(place),
            inner_directory: self.wdns,
            environment: self.env,
            no_fork: self.no_fork,
            join_cgroup: self.join_cgroup,
            follow_context: self.follow_context,
            ..EnterRequest::default()
        };
        for (kind, file) in [
            (Kind::Mount, self.mount),
            (Kind::Uts, self.uts),
            (Kind::Ipc, self.ipc),
            (Kind::Network, self.net),
            (Kind::Pid, self.pid),
            (Kind::Cgroup, self.cgroup),
            (Kind::User, self.user),
            (Kind::Time, self.time),
        ] {
            match file {
                None => {}
                Some(file) if file.is_empty() => request.kinds.push(kind),
                Some(file) => request.files.push((kind, file.into())),
            }
        }
        let chosen = !request.kinds.is_empty() || self.net_socket.is_some() || self.user_parent;
        request.all = self.all || !nsenter && !chosen && request.files.is_empty();
        request.target = match &self.target {
            // nsenter's --root is another thing than ours: here only the environment can choose another place.
            Some(target) => Some(EnterTarget::find(target, || cli::Roots::default().directories().states())?),
            None if !nsenter && (request.all || chosen) => Some(EnterTarget::from_stdin()?),
            None if request.all || chosen => return Err(cli::Usage("no target PID specified".to_owned()).into()),
            None => None,
        };
        enter::enter(&request, EnterProgram { words: self.program, environment: None })
    }
}

fn place(path: OsString) -> EnterPlace {
    if path.is_empty() { EnterPlace::Target } else { EnterPlace::Path(path.into()) }
}

fn identity(text: &str) -> Result<EnterIdentity, String> {
    match text {
        "follow" => Ok(EnterIdentity::Follow),
        id => id.parse().map(EnterIdentity::Is).map_err(|_| "a number or `follow` is expected".to_owned()),
    }
}
