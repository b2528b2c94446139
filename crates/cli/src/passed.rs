//! The options of docker run that `bundle` has to understand. `bundle` reads this table for its own options, and `run` for
//! those that it passes on, so that they have one name and one help.

use std::sync::LazyLock;

use clap::Arg;

static PASSED: LazyLock<Vec<Passed>> = LazyLock::new(|| read(include_str!("passed.txt")));

/// One of the options.
///
/// It is a line of `passed.txt`, whose head describes the form.
#[derive(Debug)]
pub struct Passed {
    heading: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Its name, without hyphens.
    pub long: &'static str,
    alias: Option<&'static str>,
    /// The value's name; none for a flag.
    pub value: Option<&'static str>,
    help: &'static str,
}

impl Passed {
    /// Gives an option its names and its help. A value may begin with a hyphen, as for getopt(3).
    pub fn describe(&self, arg: Arg) -> Arg {
        let names = arg.long(self.long).short(self.short).visible_alias(self.alias).value_name(self.value);
        names.allow_hyphen_values(self.value.is_some()).help(self.help).help_heading(self.heading)
    }
}

/// Returns the options, in the order of their help.
///
/// They are read once a process, at the first call.
pub fn passed() -> &'static [Passed] {
    &PASSED
}

fn read(table: &'static str) -> Vec<Passed> {
    let mut heading = "";
    let row = |line: &'static str| {
        heading = line.strip_prefix('[').map_or(heading, |name| name.trim_end_matches(']'));
        let (option, help) = line.split_once(": ").filter(|(option, _)| option.starts_with('-'))?;
        let (short, rest) = option.split_once("--")?;
        let (names, value) = rest.split_once(' ').map_or((rest, None), |(names, value)| (names, Some(value)));
        let (long, alias) = names.split_once('|').map_or((names, None), |(long, alias)| (long, Some(alias)));
        Some(Passed { heading, short: short.chars().nth(1), long, alias, value, help })
    };
    table.lines().filter_map(row).collect()
}
