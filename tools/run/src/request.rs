//! What is asked of `run`, whatever the words for it are. The options' help describes the members.

mod refused;

use std::ffi::OsString;
use std::path::PathBuf;

use container::{ContainerId, NameError, NetworkName};

use crate::activation;
use crate::folder;

/// A container that is to run.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker run")]
pub(crate) struct RunRequest {
    pub(crate) rm: bool,
    pub(crate) detach: bool,
    pub(crate) interactive: bool,
    pub(crate) name: Option<ContainerId>,
    pub(crate) publish: Vec<String>,
    pub(crate) publish_all: bool,
    pub(crate) socket_activate: bool,
    pub(crate) rootless: bool,
    pub(crate) sockets: Vec<u32>,
    pub(crate) notify_socket: Option<OsString>,
    pub(crate) network: Vec<NetworkOption>,
    pub(crate) subnet: Vec<String>,
    pub(crate) gateway: Vec<String>,
    pub(crate) ip: Option<String>,
    pub(crate) ip6: Option<String>,
    pub(crate) mac_address: Option<String>,
    pub(crate) network_alias: Vec<String>,
    pub(crate) forward: Option<String>,
    pub(crate) runtime: Option<PathBuf>,
    pub(crate) pull: String,
    pub(crate) platform: Option<String>,
    pub(crate) quiet: bool,
    pub(crate) cidfile: Option<PathBuf>,
    pub(crate) replace: bool,
    pub(crate) timeout: Option<u64>,
    pub(crate) preserve_fds: u32,
    pub(crate) attach: Vec<StandardStream>,
    pub(crate) sig_proxy: bool,
    pub(crate) detach_keys: Option<String>,
    pub(crate) keep: KeepOptions,
    pub(crate) rootfs: bool,
    pub(crate) print: bool,
    pub(crate) dry_run: bool,
    pub(crate) folder: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
    pub(crate) unshare: bool,
    pub(crate) gc: bool,
    pub(crate) bundle: BundleOptions,
    pub(crate) roots: cli::Roots,
    pub(crate) image_and_command: Vec<OsString>,
}

impl RunRequest {
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
    pub(crate) fn shows(&self, stream: StandardStream) -> bool {
        if stream == StandardStream::Stdin && (self.interactive || self.bundle.has("tty")) {
            return true;
        }
        if self.attach.is_empty() { stream != StandardStream::Stdin } else { self.attach.contains(&stream) }
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
pub(crate) struct KeepOptions {
    pub(crate) restart: Option<String>,
    pub(crate) log_driver: Option<String>,
    pub(crate) log_opt: Vec<String>,
    pub(crate) sdnotify: Option<String>,
}

impl KeepOptions {
    /// Tells whether anything is wanted that only a keeper does.
    fn needs_keeper(&self) -> bool {
        let restart = self.restart.as_deref().is_some_and(|policy| policy != "no");
        let log = self.log_driver.as_deref().is_some_and(|driver| driver != "none");
        let notify = self.sdnotify.as_deref().is_some_and(|who| who != "ignore");
        restart || log || notify || !self.log_opt.is_empty()
    }
}

/// The options that go to `bundle` as they are, as `--long` and `--long=value`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BundleOptions(pub(crate) Vec<OsString>);

impl BundleOptions {
    /// Tells whether a flag was given.
    pub(crate) fn has(&self, long: &str) -> bool {
        self.0.iter().any(|option| option.to_str().and_then(|text| text.strip_prefix("--")) == Some(long))
    }
}

/// One of the container's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StandardStream {
    Stdin,
    Stdout,
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
}
