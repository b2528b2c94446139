//! A stage of the pipeline as a command: which tool with which arguments, how it is written in a shell, where its
//! executable is, what undoes it, and who is responsible for a container at a time. For the tools that execute others.

#![forbid(unsafe_code)]

pub mod claim;
mod process;
mod sibling;
pub mod undo;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use claim::Claim;
pub use process::{Process, ProcessEnd};
pub use sibling::executable;
pub use undo::Undo;

/// The tools that others execute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tool {
    /// From a reference to a layout.
    Pull,
    /// From a layout to layers.
    Unpack,
    /// From layers and a config to a bundle.
    Bundle,
    /// From a bundle to a network.
    Ns,
    /// From a network to published ports.
    Portmap,
    /// From a bundle to a process.
    Spawn,
    /// From a bundle to a process that goes on without its caller.
    Keep,
    /// From a reference to a process: all of them.
    Run,
}

impl Tool {
    /// Returns the executable's name.
    pub fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// A tool and its arguments. It displays as a command line for a POSIX shell.
///
/// ```
/// use stage::{Stage, Tool};
///
/// let mut stage = Stage::new(Tool::Portmap, ["--publish", "8080:80"]);
/// stage.option("--comment", ["two words"]);
/// assert_eq!(stage.to_string(), "portmap --publish 8080:80 --comment 'two words'");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// The tool's name.
    pub tool: Tool,
    /// Its arguments, the verb among them.
    pub arguments: Vec<OsString>,
    /// What is executed in the tool's place: another runtime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
}

impl Stage {
    /// Begins a command line.
    pub fn new<A: Into<OsString>>(tool: Tool, arguments: impl IntoIterator<Item = A>) -> Self {
        Self { tool, arguments: arguments.into_iter().map(Into::into).collect(), program: None }
    }

    /// Executes `program` in the tool's place.
    #[must_use]
    pub fn by(self, program: &Path) -> Self {
        Self { program: Some(program.to_owned()), ..self }
    }

    /// Adds arguments.
    pub fn push<A: Into<OsString>>(&mut self, arguments: impl IntoIterator<Item = A>) {
        self.arguments.extend(arguments.into_iter().map(Into::into));
    }

    /// Adds an option with each of its values.
    pub fn option<A: AsRef<OsStr>>(&mut self, option: &str, values: impl IntoIterator<Item = A>) {
        values.into_iter().for_each(|value| self.push([option.as_ref(), value.as_ref()]));
    }

    /// Returns the command, with this tool's verbosity.
    pub fn command(&self) -> anyhow::Result<std::process::Command> {
        sibling::command(self)
    }

    /// Executes it without a word, unless it fails: then the error has its words.
    ///
    /// # Errors
    /// Where it cannot be executed, ends with another code than 0, or takes longer than two minutes: then it is
    /// killed.
    pub fn execute(&self) -> anyhow::Result<()> {
        undo::Begun::start(self, false)?.end()
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.program {
            Some(program) => f.write_str(&word(program.as_os_str()))?,
            None => f.write_str(&self.tool.name())?,
        }
        self.arguments.iter().try_for_each(|argument| write!(f, " {}", word(argument)))
    }
}

/// Quotes a word where the shell would read it as more than a word: POSIX, Shell Command Language, 2.2.
pub fn word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_the_shell() {
        for (text, want) in [("nginx", "nginx"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'")] {
            assert_eq!(word(text.as_ref()), want);
        }
    }
}
