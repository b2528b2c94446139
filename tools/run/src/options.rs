//! docker run's command line: what is typed, and what it means. Nothing below this module sees an argument vector.

mod passed;
mod refused;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, ValueEnum};
use container::{ContainerId, NameError, NetworkName};

use crate::folder;
use passed::BundleOptions;

use crate::activation;

const EXAMPLES: &str = include_str!("examples.txt");

/// Run a container from an image
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker run")]
#[command(name = "run", version, disable_help_flag = true, after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Run it in the background, and print its id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Give it this standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The container's id and host name [default: 12 random hexadecimal digits]
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<ContainerId>,
    /// Publish a port on the host
    #[arg(short = 'p', long, value_name = "[IP:][PORT:]PORT[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Publish every port that the image exposes, on random ports of the host
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Start it at the first connection to a socket from systemd; each socket serves the -p for its port
    #[arg(long, requires = "publish")]
    pub(crate) socket_activate: bool,
    /// Whether an ordinary user runs it.
    #[arg(skip)]
    pub(crate) rootless: bool,
    /// Those sockets.
    #[arg(skip)]
    pub(crate) sockets: Vec<u32>,
    /// The socket of a service manager that wants to be told.
    #[arg(skip)]
    pub(crate) notify_socket: Option<OsString>,
    /// Network: bridge, none, host, container:ID, or a name, whose bridge is made if it is missing; repeat it for more:
    /// NAME[:ip=ADDRESS,mac=MAC,alias=NAME,interface_name=NAME,gw-priority=NUMBER]
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    pub(crate) network: Vec<NetworkOption>,
    /// Network of a named bridge; repeat it for IPv6 [default: the bridge's, or a free one]
    #[arg(long, value_name = "CIDR")]
    pub(crate) subnet: Vec<String>,
    /// The bridge's address in a network [default: the network's first]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) gateway: Vec<String>,
    /// The container's address on the bridge
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// The container's IPv6 address on the bridge
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip6: Option<String>,
    /// The hardware address of the container's interface
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// Another name by which the other containers on the bridge find it
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// If another firewall drops forwarded packets: warn, insert rules that accept the container's, off
    #[arg(long, value_name = "HOW", value_parser = ["warn", "insert", "off"])]
    pub(crate) forward: Option<String>,
    /// OCI runtime instead of spawn, by name or path: runc, crun or another with runc's command line; only in the foreground
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) runtime: Option<PathBuf>,
    /// When to fetch the image
    #[arg(long, value_name = "WHEN", default_value = "missing", value_parser = ["always", "missing", "never"])]
    pub(crate) pull: String,
    /// The image's platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Show no progress on stderr
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// First remove an existing container of this name
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// Kill it after this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Pass N more descriptors after stderr on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Show only these of stdin, stdout and stderr
    #[arg(short = 'a', long, value_name = "STREAM", conflicts_with = "detach")]
    pub(crate) attach: Vec<Stream>,
    /// Pass signals on to the container
    #[arg(
        long,
        value_name = "true|false",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) sig_proxy: bool,
    /// Keys that detach from it and leave it in the background: ctrl-p,ctrl-q
    #[arg(long, value_name = "KEYS")]
    pub(crate) detach_keys: Option<String>,
    #[command(flatten)]
    pub(crate) keep: Keep,
    /// Take IMAGE as the path of a root file system
    #[arg(long)]
    pub(crate) rootfs: bool,
    /// Print the shell pipeline that does the same, and do nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Check the command lines of all stages, print them and the commands that undo them, and do nothing
    #[arg(long, conflicts_with = "print")]
    pub(crate) dry_run: bool,
    /// Use this directory instead of --root, and keep everything in it: image, layers, bundle, the stages' records, the
    /// script that does the same, and a trace
    #[arg(long = "keep", value_name = "DIR", conflicts_with = "root")]
    pub(crate) folder: Option<PathBuf>,
    /// Write a trace of every program to a file for Chrome's and Perfetto's viewers
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Execute a command as root of the namespaces in which an ordinary user's containers are made, for hand-typed stages
    #[arg(long, conflicts_with_all = ["print", "dry_run", "gc"])]
    pub(crate) unshare: bool,
    /// Undo the remains of killed runs, print their containers' ids, and run nothing
    #[arg(long, conflicts_with = "image_and_command")]
    pub(crate) gc: bool,
    #[command(flatten)]
    pub(crate) bundle: BundleOptions,
    #[command(flatten)]
    roots: cli::Roots,
    /// Print help
    #[arg(long, action = ArgAction::HelpShort)]
    help: Option<bool>,
    /// The image, and the command that replaces its own
    #[arg(
        value_name = "IMAGE [COMMAND [ARG…]]",
        required_unless_present = "gc",
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    image_and_command: Vec<OsString>,
}

impl RunArgs {
    /// Takes the sockets that were handed over, if they are to be waited at.
    pub(crate) fn activated(mut self) -> Result<Self, cli::Usage> {
        if self.socket_activate {
            self.sockets = activation::handed_over()?;
        }
        if self.keep.sdnotify.as_deref() == Some("container") {
            self.notify_socket = activation::manager()?;
        }
        Ok(self)
    }

    /// Becomes root of the user's own namespace, if need be; what is only printed does without.
    pub(crate) fn entered(mut self) -> anyhow::Result<Self> {
        self.rootless = if self.print || self.dry_run {
            !rustix::process::geteuid().is_root()
        } else {
            rootless::enter(&self.roots())?
        };
        Ok(self)
    }

    /// Returns the image. What stands there and looks like an option is one that this tool does not have.
    pub(crate) fn image(&self) -> Result<&OsString, cli::Usage> {
        let image = &self.image_and_command[0];
        if image.as_encoded_bytes().starts_with(b"-") {
            return Err(cli::Usage(refused::complaint(&image.to_string_lossy())));
        }
        if self.rm && self.keep.restart.as_deref().is_some_and(|policy| policy != "no") {
            return Err(cli::Usage("--rm and --restart exclude each other".to_owned()));
        }
        Ok(image)
    }

    /// Returns where everything is.
    pub(crate) fn roots(&self) -> cli::Roots {
        self.folder.as_ref().map_or_else(|| self.roots.clone(), |folder| cli::Roots::at(folder))
    }

    /// Tells whether it has a keeper although it is not left running: to be left later, or started again.
    pub(crate) fn is_attached(&self) -> bool {
        !self.detach && (self.detach_keys.is_some() || self.keep.needs_keeper())
    }

    /// Tells whether nothing of the container is to be left.
    pub(crate) fn removes(&self) -> bool {
        self.rm && self.folder.is_none()
    }

    /// Returns an option that is about a bridge, where the container is on none.
    pub(crate) fn option_of_a_bridge(&self) -> Option<&'static str> {
        let bridged = self.network.iter().all(|network| network.is_bridge() && !self.rootless);
        let given = [
            ("--subnet", !self.subnet.is_empty()),
            ("--gateway", !self.gateway.is_empty()),
            ("--ip", self.ip.is_some()),
            ("--ip6", self.ip6.is_some()),
            ("--mac-address", self.mac_address.is_some()),
            ("--network-alias", !self.network_alias.is_empty()),
            ("--forward", self.forward.is_some()),
        ];
        given.into_iter().find(|(_, given)| *given && !bridged).map(|(name, _)| name)
    }

    /// Returns the file that the trace goes to.
    pub(crate) fn trace(&self) -> Option<PathBuf> {
        self.trace.clone().or_else(|| self.folder.as_ref().map(|folder| folder.join(folder::TRACE)))
    }

    /// Tells whether the container gets this standard stream of ours.
    pub(crate) fn shows(&self, stream: Stream) -> bool {
        if stream == Stream::Stdin && (self.interactive || self.bundle.has("tty")) {
            return true;
        }
        if self.attach.is_empty() { stream != Stream::Stdin } else { self.attach.contains(&stream) }
    }

    /// Returns the program and its arguments, where there is no image.
    pub(crate) fn words(&self) -> (&OsString, &[OsString]) {
        (&self.image_and_command[0], &self.image_and_command[1..])
    }

    /// Returns the command that replaces the image's own; it may be empty.
    pub(crate) fn command(&self) -> &[OsString] {
        &self.image_and_command[1..]
    }
}

/// What `keep` has to know of a container.
#[derive(Args, Clone, Debug)]
pub(crate) struct Keep {
    /// Start it again when it ends: no, on-failure[:ATTEMPTS], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart)]
    pub(crate) restart: Option<String>,
    /// Destination of its output: file, json-file, k8s-file, journald or none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// Option of the log: format=plain|cri|json, max-size=SIZE, max-file=NUMBER
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) log_opt: Vec<String>,
    /// Tell the service manager (`$NOTIFY_SOCKET`) that it is ready: conmon (when it has started), healthy, or container
    /// (which gets the socket)
    #[arg(long, value_name = "WHO", value_parser = ["container", "conmon", "healthy", "ignore"])]
    pub(crate) sdnotify: Option<String>,
}

impl Keep {
    /// Tells whether anything is wanted that only a keeper does.
    fn needs_keeper(&self) -> bool {
        let restart = self.restart.as_deref().is_some_and(|policy| policy != "no");
        let log = self.log_driver.as_deref().is_some_and(|driver| driver != "none");
        let notify = self.sdnotify.as_deref().is_some_and(|who| who != "ignore");
        restart || log || notify || !self.log_opt.is_empty()
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

/// One of the container's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stream {
    /// Its input.
    Stdin,
    /// Its output.
    Stdout,
    /// Its messages.
    Stderr,
}

/// What the container is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NetworkOption {
    /// An interface on the default bridge.
    Bridge,
    /// An interface on the bridge of that name, with what `ns add` is asked for there: `NAME[:KEY=VALUE,…]`.
    Named(String),
    /// A namespace with nothing but `lo`.
    None,
    /// The host's.
    Host,
    /// The namespace of another container.
    Container(ContainerId),
}

impl NetworkOption {
    /// Tells whether the container has an interface on a bridge.
    pub(crate) fn is_bridge(&self) -> bool {
        matches!(self, Self::Bridge | Self::Named(_))
    }
}

impl std::str::FromStr for NetworkOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(id) = text.strip_prefix("container:") {
            return id.parse().map(Self::Container).map_err(|error: NameError| error.to_string());
        }
        let named = text.strip_prefix("name=").unwrap_or(text);
        let (name, options) = named.split_once([':', ',']).unwrap_or((named, "="));
        let is_name = |word: &str| word.parse::<NetworkName>().is_ok() && !PODMANS.contains(&word);
        match text {
            "bridge" | "default" => Ok(Self::Bridge),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            // What is asked for there is looked at by `ns add`.
            _ if is_name(name) && options.split(',').all(|word| word.contains('=')) => Ok(Self::Named(text.to_owned())),
            _ => Err("not one of bridge, none, host, container:ID, nor a network's name".to_owned()),
        }
    }
}

/// Networks that only podman has.
const PODMANS: [&str; 3] = ["private", "pasta", "slirp4netns"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_end_at_the_image() {
        let options = RunArgs::parse_from(["run", "-it", "--rm", "-e", "A=-b", "debian", "sh", "-c", "--rm", "-p"]);
        assert_eq!(options.image().unwrap(), "debian");
        assert_eq!(options.command(), ["sh", "-c", "--rm", "-p"]);
        assert!(options.rm && options.interactive && options.publish.is_empty());
        assert_eq!(options.bundle.0, ["--tty", "--env=A=-b"]);
    }

    #[test]
    fn what_docker_has_and_we_have_not_is_refused_by_name() {
        let options = RunArgs::parse_from(["run", "--rm", "--link", "db", "nginx"]);
        assert!(options.image().unwrap_err().0.starts_with("no option --link: containers on one bridge"));
        let options = RunArgs::parse_from(["run", "--lnk=db", "nginx"]);
        assert_eq!(options.image().unwrap_err().0, "no option --lnk: see run --help");
    }

    #[test]
    fn networks_have_docker_s_names() {
        for (text, want) in [
            ("bridge", Ok(NetworkOption::Bridge)),
            ("none", Ok(NetworkOption::None)),
            ("host", Ok(NetworkOption::Host)),
            ("container:web", Ok(NetworkOption::Container("web".parse().unwrap()))),
            ("mynet", Ok(NetworkOption::Named("mynet".to_owned()))),
            ("mynet:ip=10.0.0.2", Ok(NetworkOption::Named("mynet:ip=10.0.0.2".to_owned()))),
            ("container:", Err(())),
            ("pasta", Err(())),
            ("ns:/run/netns/x", Err(())),
            ("a-name-of-sixteen", Ok(NetworkOption::Named("a-name-of-sixteen".to_owned()))),
            ("", Err(())),
            ("-x", Err(())),
        ] {
            assert_eq!(text.parse::<NetworkOption>().map_err(|_| ()), want, "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <RunArgs as clap::CommandFactory>::command().debug_assert();
    }
}
