//! The options of docker run that `bundle` alone has to understand: they go to it as they are.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// One of docker's options that `bundle` alone has to understand.
#[derive(Clone, Copy)]
struct Passed {
    long: &'static str,
    short: Option<char>,
    alias: Option<&'static str>,
    /// The value's name; none for a flag.
    value: Option<&'static str>,
    help: &'static str,
}

const fn flag(long: &'static str, short: Option<char>, help: &'static str) -> Passed {
    Passed { long, short, alias: None, value: None, help }
}

const fn value(long: &'static str, value: &'static str, help: &'static str) -> Passed {
    Passed { long, short: None, alias: None, value: Some(value), help }
}

const fn short(short: char, passed: Passed) -> Passed {
    Passed { short: Some(short), ..passed }
}

const fn alias(alias: &'static str, passed: Passed) -> Passed {
    Passed { alias: Some(alias), ..passed }
}

/// The headings of `bundle --help`, each with the first of its options.
const HEADINGS: [(&str, &str); 7] = [
    ("tty", "Process"),
    ("volume", "Files"),
    ("memory", "Limits"),
    ("cap-add", "Privileges"),
    ("pid", "Namespaces"),
    ("hostname", "Names"),
    ("health-cmd", "Health"),
];

const PASSED: &[Passed] = &[
    flag("tty", Some('t'), "Give it a terminal"),
    short('e', value("env", "NAME[=VALUE]", "Set a variable, or pass this environment's on")),
    value("env-file", "FILE", "Set the variables that a file lists"),
    short('u', value("user", "USER[:GROUP]", "Run as this user")),
    short('w', value("workdir", "DIR", "Start in this directory")),
    value("umask", "MASK", "Begin with this mask of modes"),
    value("entrypoint", "PROGRAM", "Replace the image's entry point"),
    value("group-add", "GROUP", "Add a supplementary group"),
    flag("init", None, "Run a small init that reaps and forwards signals"),
    value("stop-signal", "SIGNAL", "The signal that asks it to end"),
    value("stop-timeout", "SECONDS", "How long it may take to end"),
    short('v', value("volume", "SOURCE:TARGET[:OPTIONS]", "Mount a directory, a file or a named volume")),
    value("mount", "KEY=VALUE,…", "Mount, in docker's long form"),
    value("volumes-from", "CONTAINER[:ro]", "Mount the volumes of another container"),
    value("tmpfs", "TARGET[:OPTIONS]", "Mount an empty tmpfs"),
    flag("read-only", None, "Mount the root file system read-only"),
    value("device", "PATH[:PATH[:rwm]]", "Give it a device of the host"),
    value("device-cgroup-rule", "RULE", "Allow access to devices by number"),
    value("shm-size", "BYTES", "Size of /dev/shm"),
    value("gpus", "DEVICES", "Give it GPUs"),
    value("patch", "FILE", "Merge this JSON into config.json"),
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
    short('c', value("cpu-shares", "NUMBER", "Weigh processor time")),
    value("cpu-quota", "MICROSECONDS", "Limit processor time in each period"),
    value("cpu-period", "MICROSECONDS", "The period of --cpu-quota"),
    value("cpu-rt-runtime", "MICROSECONDS", "Limit real-time processor time in each period"),
    value("cpu-rt-period", "MICROSECONDS", "The period of --cpu-rt-runtime"),
    value("cpuset-cpus", "LIST", "Run on these processors"),
    value("cpuset-mems", "LIST", "Use these memory nodes"),
    value("cgroup-parent", "PATH", "Put its control group below this one"),
    value("pids-limit", "NUMBER", "Limit the number of processes"),
    value("ulimit", "TYPE=SOFT[:HARD]", "Set a resource limit"),
    value("oom-score-adj", "NUMBER", "Prefer it, or spare it, when memory runs out"),
    value("cap-add", "CAPABILITY", "Add a capability"),
    value("cap-drop", "CAPABILITY", "Drop a capability"),
    flag("privileged", None, "Give it all capabilities and devices"),
    value("security-opt", "OPTION", "seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE"),
    value("sysctl", "NAME=VALUE", "Set a kernel parameter of its namespaces"),
    value("pid", "NAMESPACE", "host or container:ID"),
    value("ipc", "NAMESPACE", "host, private or container:ID"),
    value("uts", "NAMESPACE", "host"),
    value("cgroupns", "NAMESPACE", "host or private"),
    value("userns", "NAMESPACE", "host"),
    short('h', value("hostname", "NAME", "Set the host name")),
    value("domainname", "NAME", "Set the NIS domain name"),
    value("add-host", "NAME:ADDRESS", "Add a line to /etc/hosts"),
    value("dns", "ADDRESS", "Use this name server"),
    value("dns-search", "DOMAIN", "Search this domain"),
    alias("dns-opt", value("dns-option", "OPTION", "Set an option of the resolver")),
    short('l', value("label", "NAME=VALUE", "Add a label")),
    value("label-file", "FILE", "Add the labels of a file"),
    value("expose", "PORT[/PROTOCOL]", "One more port for -P"),
    value("annotation", "NAME=VALUE", "Add an annotation"),
    value("health-cmd", "COMMAND", "Look at its health with this command, in the background"),
    value("health-interval", "DURATION", "Time between two looks"),
    value("health-timeout", "DURATION", "Time that a look may take"),
    value("health-start-period", "DURATION", "Time to start, in which failures do not count"),
    value("health-start-interval", "DURATION", "Time between two looks while it starts"),
    value("health-retries", "NUMBER", "Failures in a row that make it unhealthy"),
    flag("no-healthcheck", None, "No check, whatever the image says"),
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
        let mut heading = "";
        PASSED.iter().fold(command, |command, passed| {
            heading = HEADINGS.iter().find(|(first, _)| *first == passed.long).map_or(heading, |(_, heading)| heading);
            let arg = Arg::new(passed.long).long(passed.long).help(passed.help).help_heading(heading);
            let arg = passed.short.map_or(arg.clone(), |short| arg.short(short));
            let arg = passed.alias.map_or(arg.clone(), |alias| arg.visible_alias(alias));
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
