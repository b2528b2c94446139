//! What a verb was called with, for who will call it so again.

use std::ffi::OsString;
use std::sync::OnceLock;

use anyhow::anyhow;
use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use crate::plain::is_flag;

/// Options' long names, and the words that give them.
type Given = Vec<(String, OsString)>;

/// This program's options, and which of them its command line has.
static LINE: OnceLock<(Command, ArgMatches)> = OnceLock::new();

/// Returns the options that this program's verb was given, a word each, but for those that all tools have and `others`.
///
/// Options that had their default or came from the environment are left out: a later call has its own.
///
/// # Errors
///
/// A value that is no UTF-8: it is to be written to a record, which is JSON.
pub fn given(others: &[&str]) -> anyhow::Result<Vec<String>> {
    let all = LINE.get().into_iter().flat_map(|(command, matches)| options(command, matches));
    let own = all.filter(|(name, _)| name != "root" && !others.contains(&name.as_str()));
    own.map(|(name, word)| word.into_string().map_err(|_| anyhow!("--{name}: no text"))).collect()
}

/// Keeps what was parsed, and returns the options.
pub(crate) fn keep(command: Command, matches: ArgMatches) -> &'static Command {
    &LINE.get_or_init(|| (command, matches)).0
}

fn options(command: &Command, matches: &ArgMatches) -> Given {
    let verb = matches.subcommand().and_then(|(verb, below)| Some((command.find_subcommand(verb)?, below)));
    if let Some((command, matches)) = verb {
        return options(command, matches);
    }
    let mut given = Given::new();
    for arg in command.get_arguments().filter(|arg| !arg.is_global_set()) {
        let id = arg.get_id().as_str();
        // Operands have no long name, and what was not given has another source.
        let (Some(name), Some(ValueSource::CommandLine)) = (arg.get_long(), matches.value_source(id)) else { continue };
        for value in matches.get_raw(id).into_iter().flatten() {
            let mut word = OsString::from(format!("--{name}"));
            if !is_flag(arg) {
                word.push("=");
                word.push(value);
            }
            given.push((name.to_owned(), word));
        }
    }
    given
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction};

    use super::*;

    #[test]
    fn options_are_what_the_line_says_and_no_defaults() {
        let option = |name: &'static str| Arg::new(name).long(name).action(ArgAction::Append);
        let add = Command::new("add").args([
            option("ip"),
            option("bridge").default_value("b0"),
            Arg::new("none").long("none").short('n').action(ArgAction::SetTrue),
            Arg::new("id"),
        ]);
        let mut command = Command::new("ns").subcommand(add);
        for (line, want) in [
            ("ns add", &[][..]),
            ("ns add web", &[]),
            ("ns add --ip 10.0.0.2 --ip=fd00::2 -n web", &["--ip=10.0.0.2", "--ip=fd00::2", "--none"]),
            ("ns add --bridge b0", &["--bridge=b0"]),
        ] {
            let matches = command.try_get_matches_from_mut(line.split(' ')).unwrap();
            let words: Vec<OsString> = options(&command, &matches).into_iter().map(|(_, word)| word).collect();
            assert_eq!(words, want, "{line}");
        }
    }
}
