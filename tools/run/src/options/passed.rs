//! The options of docker run that `bundle` alone has to understand: they go to it as they are.

use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::request::BundleOptions;

impl Args for BundleOptions {
    fn augment_args(command: Command) -> Command {
        cli::passed().iter().fold(command, |command, passed| {
            let arg = passed.describe(Arg::new(passed.long));
            command.arg(match passed.value {
                Some(_) => arg.action(ArgAction::Append).value_parser(clap::value_parser!(OsString)),
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
        for passed in cli::passed() {
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
