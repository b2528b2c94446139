//! docker run's command line: what is typed, and what it means. Nothing below this module sees an argument vector.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, Parser, ValueEnum};

use crate::{activation, rootless};

const EXAMPLES: &str = "Examples:
  run --rm -p 8080:80 nginx
  run --rm -it debian sh
  run -d --name web --memory 64m -p 127.0.0.1:8080:80 nginx
  run --print --rm -p 8080:80 nginx";

/// Run a container from an image
#[derive(Debug, Parser)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker run")]
#[command(name = "run", version, disable_help_flag = true, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Remove the container when it ends
    #[arg(long)]
    pub(crate) rm: bool,
    /// Leave it running, print its id
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Give it this standard input
    #[arg(short, long)]
    pub(crate) interactive: bool,
    /// The container's id and host name [default: 12 random hexadecimal digits]
    #[arg(long, value_name = "ID")]
    pub(crate) name: Option<String>,
    /// Publish a port on the host
    #[arg(short = 'p', long, value_name = "[IP:][PORT:]PORT[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// Publish every port that the image exposes, on random ports of the host
    #[arg(short = 'P', long)]
    pub(crate) publish_all: bool,
    /// Start it when somebody comes to one of the sockets that systemd hands over: each serves the -p for its port
    #[arg(long, requires = "publish")]
    pub(crate) socket_activate: bool,
    /// Whether an ordinary user runs it.
    #[arg(skip)]
    pub(crate) rootless: bool,
    /// Those sockets.
    #[arg(skip)]
    pub(crate) sockets: Vec<u32>,
    /// Its network: bridge, none, host or container:ID
    #[arg(long, visible_alias = "net", value_name = "NETWORK", default_value = "bridge")]
    pub(crate) network: Network,
    /// The container's address on the bridge
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// The hardware address of its interface
    #[arg(long, value_name = "MAC")]
    pub(crate) mac_address: Option<String>,
    /// One more name by which the other containers on the bridge find it
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub(crate) network_alias: Vec<String>,
    /// When to fetch the image
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: Policy,
    /// The image's platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// No progress on stderr
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Write the container's id to this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub(crate) cidfile: Option<PathBuf>,
    /// Remove the container that has the name, first
    #[arg(long, requires = "name")]
    pub(crate) replace: bool,
    /// Kill it after so many seconds
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
    #[command(flatten)]
    pub(crate) keep: Keep,
    /// IMAGE is the path of a root file system
    #[arg(long)]
    pub(crate) rootfs: bool,
    /// Print the shell pipeline that does the same, and do nothing
    #[arg(long, visible_alias = "dry-run")]
    pub(crate) print: bool,
    /// Undo what killed runs have left, print their containers' ids, and run nothing
    #[arg(long, conflicts_with = "image_and_command")]
    pub(crate) gc: bool,
    #[command(flatten)]
    pub(crate) bundle: BundleOptions,
    #[command(flatten)]
    pub(crate) roots: cli::Roots,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
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

impl Options {
    /// Takes the sockets that were handed over, if they are to be waited at.
    pub(crate) fn activated(mut self) -> Result<Self, cli::Usage> {
        if self.socket_activate {
            self.sockets = activation::handed_over()?;
        }
        Ok(self)
    }

    /// Becomes root of the user's own namespace, if need be; what is only printed does without.
    pub(crate) fn entered(mut self) -> anyhow::Result<Self> {
        self.rootless = if self.print { !rustix::process::geteuid().is_root() } else { rootless::enter(&self.roots)? };
        Ok(self)
    }

    /// Returns the image. What stands there and looks like an option is one that this tool does not have.
    pub(crate) fn image(&self) -> Result<&OsString, cli::Usage> {
        let image = &self.image_and_command[0];
        if image.as_encoded_bytes().starts_with(b"-") {
            return Err(cli::Usage(format!("no option {}: see run --help", image.to_string_lossy())));
        }
        if self.rm && self.keep.restart.as_deref().is_some_and(|policy| policy != "no") {
            return Err(cli::Usage("--rm and --restart exclude each other".to_owned()));
        }
        if let (false, Some(option)) = (self.detach, self.keep.needs_keeper()) {
            return Err(cli::Usage(format!("{option} is for containers in the background: --detach")));
        }
        Ok(image)
    }

    /// Tells whether the container gets this standard stream of ours.
    pub(crate) fn shows(&self, stream: Stream) -> bool {
        if stream == Stream::Stdin && (self.interactive || self.bundle.has("tty")) {
            return true;
        }
        if self.attach.is_empty() { stream != Stream::Stdin } else { self.attach.contains(&stream) }
    }

    /// Returns the command that replaces the image's own; it may be empty.
    pub(crate) fn command(&self) -> &[OsString] {
        &self.image_and_command[1..]
    }
}

/// What `keep` has to know of a container that is left running.
#[derive(Args, Clone, Debug)]
pub(crate) struct Keep {
    /// Start it again when it ends: no, on-failure[:ATTEMPTS], always or unless-stopped
    #[arg(long, value_name = "POLICY", value_parser = restart)]
    pub(crate) restart: Option<String>,
    /// Where its output goes: file, json-file, k8s-file, journald or none
    #[arg(long, value_name = "DRIVER")]
    pub(crate) log_driver: Option<String>,
    /// format=plain|cri|json, max-size=SIZE, max-file=NUMBER
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) log_opt: Vec<String>,
}

impl Keep {
    /// Returns the option that only a container in the background can have.
    pub(crate) fn needs_keeper(&self) -> Option<&'static str> {
        let restart = self.restart.as_deref().is_some_and(|policy| policy != "no");
        let log = self.log_driver.as_deref().is_some_and(|driver| driver != "none");
        restart
            .then_some("--restart")
            .or(log.then_some("--log-driver"))
            .or((!self.log_opt.is_empty()).then_some("--log-opt"))
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

/// When `pull` asks the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Policy {
    /// Ask the registry every time.
    Always,
    /// Ask only where the layout does not have the image.
    Missing,
    /// Never ask.
    Never,
}

/// What the container is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// An interface on the bridge.
    Bridge,
    /// A namespace with nothing but `lo`.
    None,
    /// The host's.
    Host,
    /// The namespace of another container.
    Container(String),
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "bridge" | "default" => Ok(Self::Bridge),
            "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            _ => match text.strip_prefix("container:") {
                Some(id) if !id.is_empty() => Ok(Self::Container(id.to_owned())),
                _ => Err("not one of bridge, none, host, container:ID".to_owned()),
            },
        }
    }
}

/// One of docker's options that `bundle` alone has to understand.
#[derive(Clone, Copy)]
struct Passed {
    long: &'static str,
    short: Option<char>,
    /// The value's name; none for a flag.
    value: Option<&'static str>,
    help: &'static str,
}

const fn flag(long: &'static str, short: Option<char>, help: &'static str) -> Passed {
    Passed { long, short, value: None, help }
}

const fn value(long: &'static str, value: &'static str, help: &'static str) -> Passed {
    Passed { long, short: None, value: Some(value), help }
}

const fn short(short: char, passed: Passed) -> Passed {
    Passed { short: Some(short), ..passed }
}

const PASSED: &[Passed] = &[
    flag("tty", Some('t'), "Give it a terminal"),
    short('e', value("env", "NAME[=VALUE]", "Set a variable, or pass this environment's on")),
    value("env-file", "FILE", "Set the variables that a file lists"),
    short('v', value("volume", "SOURCE:TARGET[:OPTIONS]", "Mount a directory, a file or a named volume")),
    value("mount", "KEY=VALUE,…", "Mount, in docker's long form"),
    value("volumes-from", "CONTAINER[:ro]", "Mount the volumes of another container"),
    value("tmpfs", "TARGET[:OPTIONS]", "Mount an empty tmpfs"),
    short('u', value("user", "USER[:GROUP]", "Run as this user")),
    short('w', value("workdir", "DIR", "Start in this directory")),
    value("entrypoint", "PROGRAM", "Replace the image's entry point"),
    short('h', value("hostname", "NAME", "Set the host name")),
    value("domainname", "NAME", "Set the NIS domain name"),
    flag("read-only", None, "Mount the root file system read-only"),
    short('m', value("memory", "BYTES", "Limit memory")),
    value("memory-swap", "BYTES", "Limit memory and swap together"),
    value("memory-reservation", "BYTES", "Keep memory below this when the host is short of it"),
    value("memory-swappiness", "NUMBER", "How readily its memory is swapped out"),
    flag("oom-kill-disable", None, "Let processes wait for memory"),
    value("blkio-weight", "NUMBER", "Weigh its use of block devices"),
    value("blkio-weight-device", "DEVICE:NUMBER", "Weigh its use of one block device"),
    value("device-read-bps", "DEVICE:BYTES", "Limit what it reads from a device in a second"),
    value("device-write-bps", "DEVICE:BYTES", "Limit what it writes to a device in a second"),
    value("device-read-iops", "DEVICE:NUMBER", "Limit reads from a device in a second"),
    value("device-write-iops", "DEVICE:NUMBER", "Limit writes to a device in a second"),
    value("cpus", "NUMBER", "Limit processor time"),
    value("cpu-shares", "NUMBER", "Weigh processor time"),
    value("cpu-quota", "MICROSECONDS", "Limit processor time in each period"),
    value("cpu-period", "MICROSECONDS", "The period of --cpu-quota"),
    value("cpu-rt-runtime", "MICROSECONDS", "Limit real-time processor time in each period"),
    value("cpu-rt-period", "MICROSECONDS", "The period of --cpu-rt-runtime"),
    value("cpuset-cpus", "LIST", "Run on these processors"),
    value("cpuset-mems", "LIST", "Use these memory nodes"),
    value("pids-limit", "NUMBER", "Limit the number of processes"),
    value("cap-add", "CAPABILITY", "Add a capability"),
    value("cap-drop", "CAPABILITY", "Drop a capability"),
    flag("privileged", None, "Give it all capabilities and devices"),
    value("security-opt", "OPTION", "seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE"),
    value("device", "PATH[:PATH[:rwm]]", "Give it a device of the host"),
    value("device-cgroup-rule", "RULE", "Allow access to devices by number"),
    value("group-add", "GROUP", "Add a supplementary group"),
    value("ulimit", "TYPE=SOFT[:HARD]", "Set a resource limit"),
    value("sysctl", "NAME=VALUE", "Set a kernel parameter of its namespaces"),
    value("shm-size", "BYTES", "Size of /dev/shm"),
    value("add-host", "NAME:ADDRESS", "Add a line to /etc/hosts"),
    value("dns", "ADDRESS", "Use this name server"),
    value("dns-search", "DOMAIN", "Search this domain"),
    value("dns-option", "OPTION", "Set an option of the resolver"),
    value("pid", "NAMESPACE", "host or container:ID"),
    value("ipc", "NAMESPACE", "host, private or container:ID"),
    value("uts", "NAMESPACE", "host"),
    value("cgroupns", "NAMESPACE", "host or private"),
    value("userns", "NAMESPACE", "host"),
    flag("init", None, "Run a small init that reaps and forwards signals"),
    short('l', value("label", "NAME=VALUE", "Add a label")),
    value("label-file", "FILE", "Add the labels of a file"),
    value("annotation", "NAME=VALUE", "Add an annotation"),
    value("oom-score-adj", "NUMBER", "Prefer it, or spare it, when memory runs out"),
    value("stop-signal", "SIGNAL", "The signal that asks it to end"),
    value("stop-timeout", "SECONDS", "How long it may take to end"),
    value("health-cmd", "COMMAND", "Look at its health with this command, in the background"),
    value("health-interval", "DURATION", "Time between two looks"),
    value("health-timeout", "DURATION", "Time that a look may take"),
    value("health-start-period", "DURATION", "Time to start, in which failures do not count"),
    value("health-start-interval", "DURATION", "Time between two looks while it starts"),
    value("health-retries", "NUMBER", "Failures in a row that make it unhealthy"),
    flag("no-healthcheck", None, "No check, whatever the image says"),
    value("gpus", "DEVICES", "Give it GPUs"),
    value("patch", "FILE", "Merge this JSON into config.json"),
];

/// The options that go to `bundle` as they are, as `--long` and `--long=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BundleOptions(pub(crate) Vec<OsString>);

impl BundleOptions {
    /// Tells whether a flag was given.
    pub(crate) fn has(&self, long: &str) -> bool {
        self.0.iter().any(|option| option.to_str().and_then(|text| text.strip_prefix("--")) == Some(long))
    }
}

impl Args for BundleOptions {
    fn augment_args(command: Command) -> Command {
        PASSED.iter().fold(command, |command, passed| {
            let arg = Arg::new(passed.long).long(passed.long).help(passed.help);
            let arg = passed.short.map_or(arg.clone(), |short| arg.short(short));
            command.arg(match passed.value {
                Some(name) => arg
                    .value_name(name)
                    .action(ArgAction::Append)
                    .value_parser(clap::value_parser!(OsString))
                    .allow_hyphen_values(true),
                None => arg.action(ArgAction::SetTrue),
            })
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for BundleOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut options = Vec::new();
        for passed in PASSED {
            let long = format!("--{}", passed.long);
            if passed.value.is_none() {
                options.extend(matches.get_flag(passed.long).then(|| long.into()));
                continue;
            }
            for value in matches.get_many::<OsString>(passed.long).into_iter().flatten() {
                let mut option = OsString::from(format!("{long}="));
                option.push(value);
                options.push(option);
            }
        }
        Ok(Self(options))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_end_at_the_image() {
        let options = Options::parse_from(["run", "-it", "--rm", "-e", "A=-b", "debian", "sh", "-c", "--rm", "-p"]);
        assert_eq!(options.image().unwrap(), "debian");
        assert_eq!(options.command(), ["sh", "-c", "--rm", "-p"]);
        assert!(options.rm && options.interactive && options.publish.is_empty());
        assert_eq!(options.bundle.0, ["--tty", "--env=A=-b"]);
    }

    #[test]
    fn what_docker_has_and_we_have_not_is_refused_by_name() {
        let options = Options::parse_from(["run", "--rm", "--link", "db", "nginx"]);
        assert_eq!(options.image().unwrap_err().0, "no option --link: see run --help");
    }

    #[test]
    fn networks_have_docker_s_names() {
        for (text, want) in [
            ("bridge", Ok(Network::Bridge)),
            ("none", Ok(Network::None)),
            ("host", Ok(Network::Host)),
            ("container:web", Ok(Network::Container("web".to_owned()))),
            ("container:", Err(())),
            ("mynet", Err(())),
        ] {
            assert_eq!(text.parse::<Network>().map_err(|_| ()), want, "{text}");
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        <Options as clap::CommandFactory>::command().debug_assert();
    }
}
