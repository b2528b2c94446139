//! The command line: a stage of the pipe, and the verbs for the containers that have a keeper.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use container::ContainerId;
use serde::de::{DeserializeOwned, IntoDeserializer};

use crate::clock;
use crate::filter::ContainerFilter;
use crate::notify::Ready;
use crate::output::{Driver, LogFormat, LogOptions};
use crate::request::{Begin, Join, KeeperOptions, Keys, LogLines, Selection, Start, Stop, Tail};
use crate::restart::Policy;

/// Start a container, stay with it in the background, print the record
#[derive(Parser)]
#[command(name = "keep", version, args_conflicts_with_subcommands = true, after_help = include_str!("examples.txt"))]
#[rustfmt::skip] // An option a line.
pub(crate) struct KeepArgs {
    /// Bundle directory, or file with a record [default: the record on stdin]
    #[arg(value_name = "DIR|FILE")] input: Option<PathBuf>,
    #[command(flatten)] options: KeeperOptions,
    #[command(flatten)] join: Join,
    #[command(flatten)] log: Log,
    /// The caller's claim on the container's name is this descriptor
    #[arg(long, value_name = "N", hide = true)] claim_fd: Option<u32>,
    #[command(subcommand)] pub(crate) verb: Option<KeepVerb>,
    #[command(flatten)] pub(crate) roots: cli::Roots,
}

impl KeepArgs {
    /// Returns what is asked for without a verb.
    pub(crate) fn begin(self) -> Result<Begin, cli::Usage> {
        let Self { input, options, join, log, claim_fd, .. } = self;
        if options.rm && options.restart != Policy::No {
            return Err(cli::Usage("--rm and --restart exclude each other".to_owned()));
        }
        Ok(Begin { input, options, join, log: log.options()?, claim_fd })
    }
}

cli::options! {
    KeeperOptions {
        /// Remove the bundle when the container ends
        #[arg(long)] rm: bool,
        /// Start it again when it ends: no, on-failure[:ATTEMPTS], always or unless-stopped
        #[arg(long, value_name = "POLICY", default_value = "no")] restart: Policy,
        /// Stay attached to it, instead of printing the record, and return its exit code
        #[arg(long)] attach: bool,
        /// Keep its standard input open for clients that attach
        #[arg(long, short)] interactive: bool,
        /// Kill it after this many seconds
        #[arg(long, value_name = "SECONDS")] timeout: Option<u64>,
        /// Tell the service manager (`$NOTIFY_SOCKET`) that it is ready: conmon (when it has started), healthy, or container
        /// (which does so itself)
        #[arg(long, value_name = "WHO", default_value = "ignore", value_parser = word::<Ready>)] sdnotify: Ready,
        /// Pass N more descriptors after stderr on
        #[arg(long, value_name = "N", default_value_t = 0)] preserve_fds: u32,
    }

    Join {
        /// Show only its output
        #[arg(long)] no_stdin: bool,
        /// Pass signals on to the container
        #[arg(long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        sig_proxy: bool,
        /// Keys that detach from it and leave it running
        #[arg(long, value_name = "KEYS", default_value = "ctrl-p,ctrl-q", value_parser = keys)] detach_keys: Keys,
    }

    LogLines {
        /// The container's id
        id: ContainerId,
        /// Follow its output until it ends
        #[arg(long, short)] follow: bool,
        /// Only the last lines: a number, or all
        #[arg(long, short = 'n', value_name = "LINES", default_value = "all", value_parser = tail)] tail: Tail,
        /// Only lines since a time (2026-01-31T10:00:00Z), or of the last span (10m)
        #[arg(long, value_name = "TIME", value_parser = clock::moment)] since: Option<String>,
        /// Only lines before such a time
        #[arg(long, value_name = "TIME", value_parser = clock::moment)] until: Option<String>,
        /// Show the time of each line
        #[arg(long, short)] timestamps: bool,
    }

    Start {
        /// Stay attached to the container, and return its exit code
        #[arg(long, short)] attach: bool,
        #[command(flatten)] join: Join,
        /// Tell the service manager that it is ready, as `keep --sdnotify` does [default: as it was made]
        #[arg(long, value_name = "WHO", value_parser = word::<Ready>)] sdnotify: Option<Ready>,
        /// Start containers with --restart always, and those with unless-stopped that were not stopped, as at a boot
        #[arg(long, conflicts_with_all = ["ids", "attach"])] boot: bool,
        /// Ids
        #[arg(value_name = "ID", required_unless_present = "boot")] ids: Vec<ContainerId>,
    }

    Stop {
        /// Seconds until KILL [default: the container's own, or 10]
        #[arg(long, short = 't', visible_alias = "timeout", value_name = "SECONDS")] time: Option<u64>,
        /// Signal instead of the container's own
        #[arg(long, short, value_name = "SIGNAL")] signal: Option<String>,
        /// Ids
        #[arg(required = true, value_name = "ID")] ids: Vec<ContainerId>,
    }

    Selection {
        #[command(flatten)] form: cli::ListForm,
        /// List only running containers
        #[arg(long)] running: bool,
        /// List only containers with this health, status (exited, running, ...) or label
        #[arg(long, short, value_name = "health|status|name|label=VALUE")] filter: Vec<ContainerFilter>,
        /// List only the newest NUMBER containers, the newest first
        #[arg(long, short = 'n', value_name = "NUMBER")] last: Option<usize>,
        /// Only these containers
        #[arg(value_name = "ID")] ids: Vec<ContainerId>,
    }
}

/// Parses a value that is one of a few words, which are those of `keep.json`.
fn word<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    T::deserialize(text.into_deserializer()).map_err(|error: serde::de::value::Error| error.to_string())
}

/// Where the output goes.
#[derive(Args)]
#[rustfmt::skip] // An option a line.
pub(crate) struct Log {
    /// Destination of its output: file, json-file, k8s-file, journald or none
    #[arg(long = "log-driver", value_name = "DRIVER", default_value = "file")] driver: String,
    /// Form of a file's lines, like the option format= [default: cri, Kubernetes' form with times]
    #[arg(long = "log-format", value_name = "plain|cri|json")] format: Option<String>,
    /// Option of the log: format=plain|cri|json, max-size=SIZE, max-file=NUMBER
    #[arg(long = "log-opt", value_name = "KEY=VALUE")] more: Vec<String>,
}

impl Log {
    /// Returns what the options mean.
    pub(crate) fn options(&self) -> Result<LogOptions, cli::Usage> {
        let (driver, format) = match self.driver.as_str() {
            "file" | "local" | "k8s-file" => (Driver::File, LogFormat::Cri),
            "json-file" => (Driver::File, LogFormat::Json),
            "journald" => (Driver::Journald, LogFormat::Plain),
            "none" => (Driver::None, LogFormat::Plain),
            other => {
                let names = "file, json-file, k8s-file, journald or none";
                return Err(cli::Usage(format!("log driver `{other}` is not one of {names}")));
            }
        };
        let mut options = LogOptions { driver, format, ..LogOptions::default() };
        let format = self.format.as_ref().map(|format| format!("format={format}"));
        for option in self.more.iter().chain(&format) {
            let form = "format=plain|cri|json, max-size=SIZE or max-file=NUMBER";
            let wrong = || cli::Usage(format!("log option `{option}` is not {form}"));
            let (key, value) = option.split_once('=').ok_or_else(wrong)?;
            match (key, value) {
                ("format", format) => options.format = word(format).map_err(|_| wrong())?,
                ("max-size", size) => {
                    let size: cli::Bytes = size.parse().map_err(|_| wrong())?;
                    options.max_size = Some(size.0.unsigned_abs()).filter(|size| *size > 0);
                }
                ("max-file", count) => {
                    options.max_file = Some(count.parse().ok().filter(|count| *count > 0).ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(options)
    }
}

/// What can be done with containers that are there.
#[derive(Subcommand)]
#[rustfmt::skip] // An option a line.
pub(crate) enum KeepVerb {
    /// Print a container's output
    Logs(LogLines),
    /// Join a container's terminal, or its output and input
    Attach {
        /// The container's id
        id: ContainerId,
        #[command(flatten)] join: Join,
    },
    /// Wait until containers end, print their exit codes
    Wait(Containers),
    /// Start ended containers with the same network, ports, log and restart policy
    Start(Start),
    /// Stop containers by their stop signal, then by KILL
    Stop(Stop),
    /// Stop containers if they run, and start them again
    Restart(Stop),
    /// Remove containers
    Rm {
        /// Kill a running one first
        #[arg(long, short)] force: bool,
        /// Has no effect: its anonymous volumes are always removed
        #[arg(long)] volumes: bool,
        #[command(flatten)] these: Containers,
    },
    /// List containers, including ended ones
    List(Selection),
    /// Print everything about containers as JSON: state, health, limits, mounts, log, paths, the record
    Inspect(Containers),
    /// List the processes of a container
    Top {
        /// The container's id
        id: ContainerId,
    },
    /// Print events of containers: creation, start, end, removal and health
    Events {
        /// Print one JSON object a line
        #[arg(long)] json: bool,
        /// Only these containers
        #[arg(value_name = "ID")] ids: Vec<ContainerId>,
    },
    /// Print the resources that containers use, each second anew on a terminal
    Stats {
        #[command(flatten)] form: cli::ListForm,
        /// Print them once, even on a terminal
        #[arg(long)] no_stream: bool,
        /// Only these containers [default: all running ones]
        #[arg(value_name = "ID")] ids: Vec<ContainerId>,
    },
}

/// Containers, by id.
#[derive(Args)]
pub(crate) struct Containers {
    /// Ids
    #[arg(required = true, value_name = "ID")]
    pub(crate) ids: Vec<ContainerId>,
}

fn tail(text: &str) -> Result<Tail, String> {
    if text == "all" {
        return Ok(Tail(None));
    }
    text.parse().map(|count| Tail(Some(count))).map_err(|_| "not a number, nor all".to_owned())
}

/// Parses docker's `ctrl-p,ctrl-q`.
fn keys(text: &str) -> Result<Keys, String> {
    let key = |word: &str| match word.as_bytes() {
        [byte] => Some(*byte),
        _ => match word.strip_prefix("ctrl-").map(str::as_bytes) {
            Some([byte @ b'a'..=b'z']) => Some(byte - b'a' + 1),
            Some([byte @ (b'@' | b'[' | b'\\' | b']' | b'^' | b'_')]) => Some(byte - b'@'),
            _ => None,
        },
    };
    let words = text.split(',').filter(|_| !text.is_empty());
    words.map(key).collect::<Option<_>>().map(Keys).ok_or_else(|| "not keys such as ctrl-p,ctrl-q".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        KeepArgs::command().debug_assert();
    }

    #[test]
    fn keys_are_docker_s() {
        for (text, want) in [
            ("ctrl-p,ctrl-q", Some(vec![16, 17])),
            ("ctrl-@,a", Some(vec![0, b'a'])),
            ("", Some(vec![])),
            ("alt-x", None),
        ] {
            assert_eq!(keys(text).ok().map(|keys| keys.0), want, "{text}");
        }
    }
}
