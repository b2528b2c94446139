//! The options of docker run that `bundle` alone has to understand: they go to it as they are.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

/// One of docker's options that `bundle` alone has to understand.
#[derive(Clone, Copy)]
struct Passed {
    heading: &'static str,
    short: Option<char>,
    long: &'static str,
    alias: Option<&'static str>,
    /// The value's name; none for a flag.
    value: Option<&'static str>,
    help: &'static str,
}

/// Reads the table of them.
fn passed() -> impl Iterator<Item = Passed> {
    let mut heading = "";
    include_str!("passed.txt").lines().filter_map(move |line| {
        heading = line.strip_prefix('[').map_or(heading, |name| name.trim_end_matches(']'));
        let (option, help) = line.split_once(": ").filter(|(option, _)| option.starts_with('-'))?;
        let (short, rest) = option.split_once("--")?;
        let (names, value) = rest.split_once(' ').map_or((rest, None), |(names, value)| (names, Some(value)));
        let (long, alias) = names.split_once('|').map_or((names, None), |(long, alias)| (long, Some(alias)));
        Some(Passed { heading, short: short.chars().nth(1), long, alias, value, help })
    })
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

impl Args for BundleOptions {
    fn augment_args(command: Command) -> Command {
        passed().fold(command, |command, passed| {
            let arg = Arg::new(passed.long).long(passed.long).help(passed.help).help_heading(passed.heading);
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
        for passed in passed() {
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
