//! Where state lives: images, layers and containers under the data directory, what ends with a boot under the run
//! directory.

use std::env;
use std::path::{Path, PathBuf};

use clap::Args;
use container::{Directories, accounts};

/// The two directories, as an option block of a tool: `#[command(flatten)] roots: cli::Roots`.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    /// Directory of all state [default: $`DRAYAGE_ROOT`, /var/lib/drayage, or ~/.local/share/drayage for a user]
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
}

impl Roots {
    /// Returns the directories as `--root DIR` has them.
    ///
    /// Relative paths are made absolute where they are used, not here.
    pub fn at(directory: &Path) -> Self {
        Self { root: Some(directory.to_owned()) }
    }

    /// Returns where everything is, absolute.
    ///
    /// The order: `--root`, then `DRAYAGE_ROOT`, then the usual places, which are root's or the user's. With one of
    /// the first two everything is below that directory, also what ends with a boot.
    pub fn directories(&self) -> Directories {
        self.chosen().map_or_else(
            || {
                let data = user_directory("XDG_DATA_HOME", ".local/share", "/var/lib");
                Directories::new(data, user_directory("XDG_RUNTIME_DIR", ".local/run", "/run"))
            },
            Directories::below,
        )
    }

    /// Returns the directory that `--root` names, so that it can be passed on to another tool.
    ///
    /// `None` also where `DRAYAGE_ROOT` chose: the other tool inherits the environment.
    pub fn argument(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    fn chosen(&self) -> Option<PathBuf> {
        let root =
            self.root.clone().or_else(|| env::var_os("DRAYAGE_ROOT").filter(|v| !v.is_empty()).map(PathBuf::from))?;
        // The path goes into records, which other tools read from other directories.
        Some(std::path::absolute(&root).unwrap_or(root))
    }
}

/// The variable that says to whoever is root that it is an ordinary user's doing: root of a user namespace, whose state is
/// the user's.
pub const ROOTLESS: &str = "DRAYAGE_ROOTLESS";

/// Tells whether this is root of an ordinary user's namespace.
pub fn is_rootless() -> bool {
    env::var_os(ROOTLESS).is_some_and(|value| !value.is_empty())
}

/// Returns the user's home directory: `HOME`, or else what /etc/passwd says. The standard library would bring the whole name
/// service along, an eighth of a static program.
pub fn home() -> Option<PathBuf> {
    let noted = || accounts::field(rustix::process::getuid().as_raw(), accounts::HOME).map(Into::into);
    env::var_os("HOME").filter(|home| !home.is_empty()).or_else(noted).map(PathBuf::from)
}

/// Returns the directory of the user's configuration files.
///
/// XDG Base Directory Specification: `XDG_CONFIG_HOME`, or `~/.config`; empty is as good as unset.
pub fn config_home() -> PathBuf {
    let from_home = || home().unwrap_or_default().join(".config");
    env::var_os("XDG_CONFIG_HOME").filter(|v| !v.is_empty()).map_or_else(from_home, PathBuf::from)
}

fn user_directory(variable: &str, below_home: &str, system: &str) -> PathBuf {
    // Root of a user namespace has id 0, too: but /var/lib is not its to write.
    if rustix::process::geteuid().is_root() && !is_rootless() {
        return Path::new(system).join("drayage");
    }
    let from_home = || home().unwrap_or_else(|| "/".into()).join(below_home);
    env::var_os(variable).filter(|v| !v.is_empty()).map_or_else(from_home, PathBuf::from).join("drayage")
}
