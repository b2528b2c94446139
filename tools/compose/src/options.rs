//! The command line of `compose`.

use std::io::{IsTerminal, stdin, stdout};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::request::ScriptRequest;

/// Run the services of a compose file
#[derive(Parser)]
#[command(name = "compose", version, about, arg_required_else_help = true)]
#[command(after_help = include_str!("examples.txt"))]
pub(crate) struct ComposeArgs {
    #[command(subcommand)]
    pub(crate) command: ComposeVerb,
    #[command(flatten)]
    pub(crate) file: File,
}

/// Which project is meant.
#[derive(Args)]
#[rustfmt::skip] // An option a line.
pub(crate) struct File {
    /// The file; later files override earlier ones [default: compose.yaml here or above]
    #[arg(short = 'f', long = "file", value_name = "FILE")] pub(crate) files: Vec<PathBuf>,
    /// The project's name [default: the file's, or the directory's]
    #[arg(short, long, value_name = "NAME", global = true)] pub(crate) project_name: Option<String>,
    /// Variables for the file [default: .env beside it]
    #[arg(long = "env-file", value_name = "FILE", global = true)] pub(crate) env_files: Vec<PathBuf>,
    /// Also run the services of this profile
    #[arg(long = "profile", value_name = "NAME", global = true)] pub(crate) profiles: Vec<String>,
    #[command(flatten)] pub(crate) roots: cli::Roots,
}

#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum ComposeVerb {
    /// Start services, and follow their output until they end
    Up {
        /// Return when all have started
        #[arg(short, long)] detach: bool,
        /// Remove the containers of services that are no longer in the file
        #[arg(long)] remove_orphans: bool,
        /// Has no effect.
        #[arg(long = "quiet-pull", alias = "no-color", hide = true)] as_it_is: bool,
        #[command(flatten)] request: ScriptRequest,
    },
    /// Stop services and remove their containers
    Down {
        /// Remove the project's volumes too
        #[arg(short, long)] volumes: bool,
        /// Remove the containers of services that are no longer in the file, too
        #[arg(long)] remove_orphans: bool,
        /// Seconds until KILL [default: each container's own, or 10]
        #[arg(short, long, value_name = "SECONDS")] timeout: Option<u32>,
        #[command(flatten)] these: Services,
    },
    /// List the services' containers
    Ps {
        /// Print one JSON array
        #[arg(long)] json: bool,
        /// Print ids only
        #[arg(short, long)] quiet: bool,
        /// Has no effect.
        #[arg(short, long, hide = true)] all: bool,
        #[command(flatten)] these: Services,
    },
    /// Print services' output
    Logs {
        /// Follow their output until they end
        #[arg(short, long)] follow: bool,
        /// Only the last lines of each service: a number, or all
        #[arg(short = 'n', long, value_name = "LINES", default_value = "all")] tail: String,
        /// Only lines since a time (2026-01-31T10:00:00Z), or of the last span (10m)
        #[arg(long, value_name = "TIME")] since: Option<String>,
        /// Only lines before such a time
        #[arg(long, value_name = "TIME")] until: Option<String>,
        /// Show the time of each line
        #[arg(short, long)] timestamps: bool,
        /// Print lines without the service's name
        #[arg(long)] no_log_prefix: bool,
        #[command(flatten)] these: Services,
    },
    /// Print the shell script that `up --detach` executes
    Print(ScriptRequest),
    /// Print the merged files as compose understands them, in JSON
    Config {
        /// Has no effect.
        #[arg(long, value_parser = ["json"], hide = true)] format: Option<String>,
        /// Only check the files, and print nothing
        #[arg(short, long)] quiet: bool,
        /// Print the names of services, a line each, in the order of their start
        #[arg(long = "services")] names: bool,
        /// Print the images of services
        #[arg(long)] images: bool,
        #[command(flatten)] these: Services,
    },
    /// Execute a command in a service's container, as `spawn exec` does
    Exec(Exec),
    /// Build the images of services with `build`, by $`DRAYAGE_BUILD` [default: buildah build]
    Build(Services),
    /// Fetch the services' images, even if they exist
    Pull(Services),
    /// Start ended containers of services and of the services that they need
    Start(Services),
    /// Stop services' containers and keep them
    Stop(Stop),
    /// Stop services' containers and start them again
    Restart(Stop),
    /// Remove services' ended containers
    Rm {
        /// Stop running containers first
        #[arg(short, long)] stop: bool,
        /// Has no effect: `rm` never asks, and always removes anonymous volumes.
        #[arg(short, long, short_alias = 'v', hide = true)] force: bool,
        /// Services [default: all]
        #[arg(value_name = "SERVICE")] services: Vec<String>,
    },
}

cli::options! {
    ScriptRequest {
        /// Build the images of services with `build`, even if they exist or have a name
        #[arg(long)] build: bool,
        /// Build no images, not even missing ones
        #[arg(long, conflicts_with = "build")] no_build: bool,
        /// Recreate running containers too, because the file may have changed
        #[arg(long)] force_recreate: bool,
        /// Start only the named services, not those that they need
        #[arg(long)] no_deps: bool,
        /// When to fetch images, whatever the file says
        #[arg(long, value_name = "WHEN", value_parser = ["always", "missing", "never"])] pull: Option<String>,
        /// Services, and those that they need [default: all]
        #[arg(value_name = "SERVICE")] services: Vec<String>,
    }
}

/// What is executed in a service's container.
#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of docker compose exec")]
#[rustfmt::skip] // An option a line.
pub(crate) struct Exec {
    /// Give it no terminal, although this is one
    #[arg(short = 'T', long, alias = "no-TTY")] no_tty: bool,
    /// Has no effect: the command has this terminal and standard input
    #[arg(short, long, visible_alias = "tty", short_alias = 't')] interactive: bool,
    /// Do not wait for it
    #[arg(short, long)] detach: bool,
    /// Give it all capabilities
    #[arg(long)] privileged: bool,
    /// Set a variable
    #[arg(short, long, value_name = "NAME[=VALUE]")] env: Vec<String>,
    /// Execute it as this user
    #[arg(short, long, value_name = "USER[:GROUP]")] user: Option<String>,
    /// Execute it in this directory
    #[arg(short, long, value_name = "DIR")] workdir: Option<String>,
    /// The service, the program and its arguments
    #[arg(value_name = "SERVICE COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<String>,
}

impl Exec {
    /// Returns the same as options of `spawn exec`.
    pub(crate) fn options(&self) -> Vec<String> {
        let is_terminal = stdin().is_terminal() && stdout().is_terminal() && !self.detach && !self.no_tty;
        let flags = [(is_terminal, "--tty"), (self.detach, "--detach"), (self.privileged, "--privileged")];
        let flags = flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag.to_owned());
        let variables = self.env.iter().map(|pair| format!("--env={pair}"));
        let user = self.user.iter().map(|user| format!("--user={user}"));
        let directory = self.workdir.iter().map(|directory| format!("--cwd={directory}"));
        flags.chain(variables).chain(user).chain(directory).collect()
    }
}

/// `stop` and `restart`.
#[derive(Args)]
pub(crate) struct Stop {
    /// Seconds until KILL [default: each container's own, or 10]
    #[arg(short, long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u32>,
    /// Services [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}

/// Services by name.
#[derive(Args)]
pub(crate) struct Services {
    /// Services, and those that they need [default: all]
    #[arg(value_name = "SERVICE")]
    pub(crate) services: Vec<String>,
}
