//! The one `main()` of all the tools: parse the command line, do the deed, print one error line, choose the exit code.
//! What every tool must do alike stands here, and nothing else.

#![forbid(unsafe_code)]

mod duration;
mod given;
mod list;
mod log;
mod options;
mod passed;
mod plain;
mod roots;
mod size;
mod words;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, Id, Parser};
use rustix::process::Signal;

pub use duration::duration;
pub use given::given;
pub use list::{ListForm, table};
pub use log::log_to;
pub use passed::{Passed, passed};
pub use plain::boolean;
pub use roots::{ROOTLESS, Roots, config_home, home, is_rootless};
pub use size::{Bytes, Cpus, Limit};
pub use sys::program;

/// How a tool answers for its own failures: `spawn` and `run` leave 0–124 to the container.
///
/// The two are constants of a tool, never chosen at run time: scripts tell by them whether a container has run at
/// all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Codes {
    /// The operation failed.
    pub failed: u8,
    /// Wrong usage, or a wrong record.
    pub usage: u8,
}

impl Codes {
    /// 1 and 2: tools that run nobody else's program.
    pub const OWN: Self = Self { failed: 1, usage: 2 };
    /// 125 for both, as `docker run` and `podman run` have it.
    pub const CONTAINER: Self = Self { failed: 125, usage: 125 };
}

/// Wrong usage that the parser of the command line cannot see: exit code 2 (125 for `spawn` and `run`).
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub String);

/// An error with an exit code of its own: `cli::ExitError::new(127, error).into()`.
#[derive(Debug, thiserror::Error)]
#[error("{error:#}")]
pub struct ExitError {
    code: u8,
    error: anyhow::Error,
}

impl ExitError {
    /// Gives `error` the exit code `code`. The code is not part of the message.
    pub fn new(code: u8, error: anyhow::Error) -> Self {
        Self { code, error }
    }

    /// Returns the exit code.
    pub fn code(&self) -> u8 {
        self.code
    }
}

/// Runs a tool: `cli::program!(main); fn main() -> ExitCode { cli::main(cli::Codes::OWN, run) }`.
///
/// Adds `-v` (steps) and `-vv` (all) to the tool's options; `--verbose` alone where the tool has a `-v` of its own. `run` gets the parsed arguments and returns the exit code;
/// an error is printed once, as `tool: operation object: cause`. A closed pipe ends the tool quietly, with code 0.
///
/// The logger is there before `run` is called; before the command line is parsed nothing may be logged, since `-v` is
/// not known.
pub fn main<A: Parser>(codes: Codes, run: fn(A) -> anyhow::Result<ExitCode>) -> ExitCode {
    // Whose caller ignores it would never hear how a child has ended.
    sys::signal::restore(Signal::CHILD);
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let command = with_common_options(A::command());
    let tool = command.get_name().to_owned();
    let traced = trace::begin(&tool);
    let parsing = trace::span("arguments", "");
    // To give options their other names takes longer than the rest, and few command lines have one.
    let is_other = arguments.iter().any(|word| is_other_name(&command, word));
    let mut line = read(if is_other { with_other_names(command) } else { command }, &arguments);
    if matches!(&line, Ok((.., Err(error))) if error.kind() == ErrorKind::UnknownArgument) {
        line = read(with_other_names(with_common_options(A::command())), &arguments);
    }
    let (command, word, matches) = match line {
        Ok(line) => line,
        Err(error) => return end(&tool, codes, Err(error)),
    };
    let parsed = matches.and_then(|matches| A::from_arg_matches(&matches).map(|args| (args, matches)));
    let (args, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            let almost = word.and_then(|word| words::almost(&command, &word));
            return usage_exit(&tool, &error, codes, &almost.unwrap_or_default());
        }
    };
    drop(parsing);
    log::init(&tool, matches.get_count("verbose"));
    let command = given::keep(command, matches);
    if let Err(error) = traced {
        ::log::warn!("no trace: {error}");
    }
    let done = run(args);
    let almost = word.filter(|_| done.is_err()).and_then(|word| words::almost(command, &word));
    ended(&tool, codes, done, almost.as_deref().unwrap_or_default())
}

/// Reads a command line. Returns its first word, too.
fn read(
    mut command: Command,
    arguments: &[OsString],
) -> anyhow::Result<(Command, Option<OsString>, Result<ArgMatches, clap::Error>)> {
    // `-h` is the short help and `--help` the long one: clap decides so by the option's spelling alone, after the
    // parsing, when nothing can be hidden any more.
    if arguments.iter().any(|word| word == "-h") {
        command = command.mut_args(only_the_usual);
    }
    // Spelling first, so that the word in front is a verb wherever one was meant.
    let mut arguments = plain::plain(&command, arguments.to_vec());
    words::own(&command, &mut arguments)?;
    let word = arguments.get(1).cloned();
    let matches = command.try_get_matches_from_mut(arguments);
    Ok((command, word, matches))
}

/// Ends a tool as `main` ends it: for a command line that is so plain that a tool has read it without a parser.
///
/// It writes the end of the trace, too, and so is called once, last.
pub fn end(tool: &str, codes: Codes, done: anyhow::Result<ExitCode>) -> ExitCode {
    ended(tool, codes, done, "")
}

/// Ends a tool; a tip stands behind its error.
fn ended(tool: &str, codes: Codes, done: anyhow::Result<ExitCode>, tip: &str) -> ExitCode {
    let code = match done {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprint_line(&format!("{}{tip}", line(tool, &error)));
            ExitCode::from(exit_code(&error, codes))
        }
    };
    trace::end();
    code
}

/// Prints an error as its one line on stderr: `tool: operation object: cause`.
pub fn complain(tool: &str, error: &anyhow::Error) {
    eprint_line(&line(tool, error));
}

/// Mentions what went wrong where something else counts more.
pub fn warn<T>(result: Result<T, impl std::fmt::Display>) {
    if let Err(error) = result {
        ::log::warn!("{error:#}");
    }
}

/// One line, whatever an input smuggled into a message.
fn line(tool: &str, error: &anyhow::Error) -> String {
    format!("{tool}: {}", printable(&without_numbers(&format!("{error:#}"))))
}

/// Does something to each. All are tried; of several failures the last is returned, and the others are told.
///
/// One verb with several operands goes on as docker's verbs do: `rm a b c` removes c where b is not there.
pub fn each<T>(
    tool: &str,
    things: impl IntoIterator<Item = T>,
    one: impl FnMut(T) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut failure = None;
    for error in things.into_iter().map(one).filter_map(Result::err) {
        failure.replace(error).iter().for_each(|earlier| complain(tool, earlier));
    }
    failure.map_or(Ok(()), Err)
}

/// Writes one line to stderr, in one write so that lines of stages in a pipe do not mix.
pub fn eprint_line(line: &str) {
    // Nobody is left to be told where stderr is closed.
    let _closed = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

/// Takes std's ` (os error 13)` away: the words before it say the same.
fn without_numbers(text: &str) -> String {
    let mut parts = text.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |line, part| match part.split_once(')') {
        Some((number, rest)) if number.bytes().all(|byte| byte.is_ascii_digit()) => line + rest,
        _ => line + " (os error " + part,
    })
}

/// Returns text for one line of a list: what strangers have named neither moves the cursor nor makes lines of its own.
///
/// The same text for programs goes into JSON, which has its own escapes: it must not pass through here.
pub fn printable(text: &str) -> String {
    // Unicode's control characters (C0, DEL, C1) and no more: a terminal acts on these; what only looks strange is
    // shown.
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

fn exit_code(error: &anyhow::Error, codes: Codes) -> u8 {
    if let Some(exit) = error.downcast_ref::<ExitError>() {
        return exit.code;
    }
    let usage = error.downcast_ref::<Usage>().is_some()
        || error.downcast_ref::<record::Error>().is_some_and(record::Error::is_usage);
    if usage { codes.usage } else { codes.failed }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn with_common_options(command: Command) -> Command {
    let verbose = Arg::new("verbose")
        .long("verbose")
        .action(ArgAction::Count)
        .global(true)
        .display_order(1000)
        .help("Say each step on stderr; twice: everything");
    // In `run` and `bundle` -v is docker's --volume, in `compose down` --volumes.
    let has = |command: &Command| command.get_arguments().any(|argument| argument.get_short() == Some('v'));
    let taken = has(&command) || command.get_subcommands().any(has);
    alike(command.arg(if taken { verbose } else { verbose.short('v') }))
}

/// What help begins with: what the command is for, its usage, examples. Then come the options, a line each.
const HELP: &str = "{about}\n\n{usage-heading} {usage}{after-help}\n\n{all-args}";

/// Options of one meaning, which are called otherwise by docker, podman, runc or nsenter.
const SAME: [&[&str]; 6] = [
    &["name", "id"],
    &["workdir", "cwd", "wd"],
    &["pull", "policy"],
    &["network-alias", "alias", "net-alias"],
    &["mac-address", "mac"],
    &["timeout", "time"],
];

/// Takes an option that is given twice by its last value, as getopt(3) and docker's command line do.
fn alike(command: Command) -> Command {
    command
        .disable_help_subcommand(true)
        .args_override_self(true)
        .help_template(HELP)
        .term_width(0)
        .mut_subcommands(alike)
}

/// Takes options by their other names, too.
fn with_other_names(command: Command) -> Command {
    let others: Vec<_> = SAME.iter().filter_map(|same| others(&command, same)).collect();
    let add = |arg: Arg| match others.iter().find(|(id, _)| id == arg.get_id()) {
        Some((_, names)) => arg.aliases(names),
        None => arg,
    };
    command.mut_args(add).mut_subcommands(with_other_names)
}

/// Tells whether a word is the other name of an option, as far as the command itself tells: its verbs may have more.
fn is_other_name(command: &Command, word: &OsString) -> bool {
    let name = word.to_str().and_then(|word| word.strip_prefix("--")?.split('=').next());
    let is_same = |name: &&str| SAME.iter().any(|same| same.contains(name));
    name.filter(is_same).is_some_and(|name| !command.get_arguments().any(|arg| arg.get_long() == Some(name)))
}

/// Returns the option of a command that has one of these names, with the names that are free for it.
fn others(command: &Command, same: &[&'static str]) -> Option<(Id, Vec<&'static str>)> {
    let is = |arg: &Arg, name| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    };
    let arg = command.get_arguments().find(|arg| arg.get_long().is_some_and(|name| same.contains(&name)))?;
    let mut free = same.to_vec();
    free.retain(|name| !command.get_arguments().any(|arg| is(arg, name)));
    Some((arg.get_id().clone(), free))
}

/// Keeps what few people need out of the help that fits a screen.
fn only_the_usual(arg: Arg) -> Arg {
    let is_rare = matches!(arg.get_help_heading(), Some("Limits" | "Privileges" | "Namespaces" | "Names" | "Health"));
    arg.hide_short_help(is_rare)
}

fn usage_exit(tool: &str, error: &clap::Error, codes: Codes, tip: &str) -> ExitCode {
    if error.use_stderr() {
        let line = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "nothing to do (see --help)".to_owned(),
            _ => usage_line(&error.to_string()),
        };
        eprint_line(&format!("{tool}: {line}{tip}"));
        return ExitCode::from(if is_nobody(error) { Codes::OWN.failed } else { codes.usage });
    }
    // Help and version go to stdout and are no failure; a closed pipe is nobody's.
    let _closed = error.print();
    ExitCode::SUCCESS
}

/// Tells whether a verb's operand is a name that no container can have, which is as good as an unknown one (docker and runc: 1).
fn is_nobody(error: &clap::Error) -> bool {
    let of = error.get(ContextKind::InvalidArg).map(ToString::to_string);
    let is_name = std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<container::NameError>);
    is_name && of.is_some_and(|of| !of.starts_with('-'))
}

/// Makes one line of the parser's several: what is wrong and its tip, without the usage that `--help` shows.
fn usage_line(text: &str) -> String {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let said = text.split("\n\nUsage:").next().unwrap_or(text).split("\n\nFor more").next().unwrap_or(text);
    let words: Vec<&str> = said.split_whitespace().collect();
    format!("{} (see --help)", words.join(" "))
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn the_exit_code_follows_the_error() {
        let missing = record::Error::Missing { member: "bundle", stage: "bundle" };
        for (error, want) in [
            (anyhow!("x"), 1),
            (Err::<(), _>(Usage("x".into())).context("y").unwrap_err(), 2),
            (Err::<(), _>(missing).context("y").unwrap_err(), 2),
            (record::Error::Empty.into(), 1),
            (anyhow::Error::from(ExitError::new(127, anyhow!("x"))).context("y"), 127),
        ] {
            assert_eq!(exit_code(&error, Codes::OWN), want, "{error:?}");
        }
    }

    #[test]
    fn errors_are_words_without_numbers() {
        for (text, want) in [
            ("open /x: No such file or directory (os error 2)", "open /x: No such file or directory"),
            ("a (os error 2): b (os error 13)", "a: b"),
            ("a (os error ", "a (os error "),
        ] {
            assert_eq!(without_numbers(text), want);
        }
    }

    #[test]
    fn wrong_usage_is_one_line() {
        let long = "error: unexpected argument '--lnk' found\n\n  tip: a similar argument exists: '--link'\n\nUsage: x [OPTIONS]\n\n\
                    For more information, try '--help'.\n";
        for (text, want) in [
            (long, "unexpected argument '--lnk' found tip: a similar argument exists: '--link' (see --help)"),
            (
                "error: invalid value 'x' for '--n'\n\nFor more information, try '--help'.\n",
                "invalid value 'x' for '--n' (see --help)",
            ),
        ] {
            assert_eq!(usage_line(text), want);
        }
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let error = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe)).context("print the record");
        assert!(is_closed_pipe(&error));
    }
}
