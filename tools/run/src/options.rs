//! docker run's command line. Nothing but this module and `main` sees an argument vector.

mod passed;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser};
use container::ContainerId;

use crate::request::{BundleOptions, KeepOptions, NetworkOption, RunRequest, StandardStream};

/// Run a container from an image
#[derive(Parser)]
#[command(name = "run", version, disable_help_flag = true, after_help = include_str!("examples.txt"))]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) request: RunRequest,
    /// Print help
    #[arg(long, action = ArgAction::HelpShort)]
    help: Option<bool>,
}

cli::options! {
    RunRequest {
        /// Remove the container when it ends
        #[arg(long)] rm: bool,
        /// Run it in the background, and print its id
        #[arg(short, long)] detach: bool,
        /// Give it this standard input
        #[arg(short, long)] interactive: bool,
        /// The container's id and host name [default: 12 random hexadecimal digits]
        #[arg(long, value_name = "ID")] name: Option<ContainerId>,
        /// Publish a port on the host
        #[arg(short = 'p', long, value_name = "[IP:][PORT:]PORT[/PROTOCOL]")] publish: Vec<String>,
        /// Publish every port that the image exposes, on random ports of the host
        #[arg(short = 'P', long)] publish_all: bool,
        /// Start it at the first connection to a socket from systemd; each socket serves the -p for its port
        #[arg(long, requires = "publish")] socket_activate: bool,
        /// Whether an ordinary user runs it.
        #[arg(skip)] rootless: bool,
        /// Those sockets.
        #[arg(skip)] sockets: Vec<u32>,
        /// The socket of a service manager that wants to be told.
        #[arg(skip)] notify_socket: Option<OsString>,
        /// Network: bridge, none, host, container:ID, or a name, whose bridge is made if it is missing; repeat it for more:
        /// NAME[:ip=ADDRESS,mac=MAC,alias=NAME,interface_name=NAME,gw-priority=NUMBER]
        #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
        network: Vec<NetworkOption>,
        /// Network of a named bridge; repeat it for IPv6 [default: the bridge's, or a free one]
        #[arg(long, value_name = "CIDR")] subnet: Vec<String>,
        /// The bridge's address in a network [default: the network's first]
        #[arg(long, value_name = "ADDRESS")] gateway: Vec<String>,
        /// The container's address on the bridge
        #[arg(long, value_name = "ADDRESS")] ip: Option<String>,
        /// The container's IPv6 address on the bridge
        #[arg(long, value_name = "ADDRESS")] ip6: Option<String>,
        /// The hardware address of the container's interface
        #[arg(long, value_name = "MAC")] mac_address: Option<String>,
        /// Another name by which the other containers on the bridge find it
        #[arg(long, visible_alias = "net-alias", value_name = "NAME")] network_alias: Vec<String>,
        /// If another firewall drops forwarded packets: warn, insert rules that accept the container's, off
        #[arg(long, value_name = "HOW", value_parser = ["warn", "insert", "off"])] forward: Option<String>,
        /// OCI runtime instead of spawn, by name or path: runc, crun or another with runc's command line; only in the foreground
        #[arg(long, value_name = "PROGRAM")] runtime: Option<PathBuf>,
        /// When to fetch the image
        #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
        pull: String,
        /// The image's platform: OS/ARCH[/VARIANT]
        #[arg(long, value_name = "PLATFORM")] platform: Option<String>,
        /// Show no progress on stderr
        #[arg(short, long)] quiet: bool,
        /// Write the container's id to this file, which must not exist
        #[arg(long, value_name = "FILE")] cidfile: Option<PathBuf>,
        /// First remove an existing container of this name
        #[arg(long, requires = "name")] replace: bool,
        /// Kill it after this many seconds
        #[arg(long, value_name = "SECONDS")] timeout: Option<u64>,
        /// Pass N more descriptors after stderr on
        #[arg(long, value_name = "N", default_value_t = 0)] preserve_fds: u32,
        /// Show only these of stdin, stdout and stderr
        #[arg(short = 'a', long, value_name = "STREAM", conflicts_with = "detach")] attach: Vec<StandardStream>,
        /// Pass signals on to the container
        #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        sig_proxy: bool,
        /// Keys that detach from it and leave it in the background: ctrl-p,ctrl-q
        #[arg(long, value_name = "KEYS")] detach_keys: Option<String>,
        #[command(flatten)] keep: KeepOptions,
        /// Take IMAGE as the path of a root file system
        #[arg(long)] rootfs: bool,
        /// Print the shell pipeline that does the same, and do nothing
        #[arg(long)] print: bool,
        /// Check the command lines of all stages, print them and the commands that undo them, and do nothing
        #[arg(long, conflicts_with = "print")] dry_run: bool,
        /// Use this directory instead of --root, and keep everything in it: image, layers, bundle, the stages' records, the
        /// script that does the same, and a trace
        #[arg(long = "keep", value_name = "DIR", conflicts_with = "root")] folder: Option<PathBuf>,
        /// Write a trace of every program to a file for Chrome's and Perfetto's viewers
        #[arg(long, value_name = "FILE")] trace: Option<PathBuf>,
        /// Execute a command as root of the namespaces in which an ordinary user's containers are made, for hand-typed stages
        #[arg(long, conflicts_with_all = ["print", "dry_run", "gc"])] unshare: bool,
        /// Undo the remains of killed runs, print their containers' ids, and run nothing
        #[arg(long, conflicts_with = "image_and_command")] gc: bool,
        #[command(flatten)] bundle: BundleOptions,
        #[command(flatten)] roots: cli::Roots,
        /// The image, and the command that replaces its own
        #[arg(value_name = "IMAGE [COMMAND [ARG…]]", required_unless_present = "gc", trailing_var_arg = true, allow_hyphen_values = true)]
        image_and_command: Vec<OsString>,
    }

    KeepOptions {
        /// Start it again when it ends: no, on-failure[:ATTEMPTS], always or unless-stopped
        #[arg(long, value_name = "POLICY", value_parser = restart)] restart: Option<String>,
        /// Destination of its output: file, json-file, k8s-file, journald or none
        #[arg(long, value_name = "DRIVER")] log_driver: Option<String>,
        /// Option of the log: format=plain|cri|json, max-size=SIZE, max-file=NUMBER
        #[arg(long, value_name = "KEY=VALUE")] log_opt: Vec<String>,
        /// Tell the service manager (`$NOTIFY_SOCKET`) that it is ready: conmon (when it has started), healthy, or container
        /// (which gets the socket)
        #[arg(long, value_name = "WHO", value_parser = ["container", "conmon", "healthy", "ignore"])]
        sdnotify: Option<String>,
    }
}

cli::values! {
    StandardStream {
        Stdin = "stdin" "Its input",
        Stdout = "stdout" "Its output",
        Stderr = "stderr" "Its messages",
    }
}

/// Looks at a restart policy before anything is done; what it means is `keep`'s matter.
fn restart(text: &str) -> Result<String, String> {
    let attempts = text.strip_prefix("on-failure:").map(|count| count.parse::<u32>().is_ok());
    if attempts.unwrap_or(["no", "on-failure", "always", "unless-stopped"].contains(&text)) {
        return Ok(text.to_owned());
    }
    Err("not one of no, on-failure[:ATTEMPTS], always, unless-stopped".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_end_at_the_image() {
        let RunArgs { request: options, .. } =
            RunArgs::parse_from(["run", "-it", "--rm", "-e", "A=-b", "debian", "sh", "-c", "--rm", "-p"]);
        assert_eq!(options.image().unwrap(), "debian");
        assert_eq!(options.command(), ["sh", "-c", "--rm", "-p"]);
        assert!(options.rm && options.interactive && options.publish.is_empty());
        assert_eq!(options.bundle.0, ["--tty", "--env=A=-b"]);
    }

    #[test]
    fn what_docker_has_and_we_have_not_is_refused_by_name() {
        let RunArgs { request: options, .. } = RunArgs::parse_from(["run", "--rm", "--link", "db", "nginx"]);
        assert!(options.image().unwrap_err().0.starts_with("no option --link: containers on one bridge"));
        let RunArgs { request: options, .. } = RunArgs::parse_from(["run", "--lnk=db", "nginx"]);
        assert_eq!(options.image().unwrap_err().0, "no option --lnk: see run --help");
    }

    #[test]
    fn the_command_line_is_consistent() {
        <RunArgs as clap::CommandFactory>::command().debug_assert();
    }
}
