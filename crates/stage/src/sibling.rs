//! Where the other tools are: beside this executable first, so that a build or an installation uses its own, then in
//! PATH.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use anyhow::{Result, anyhow};
use log::LevelFilter;

use crate::{Stage, Tool};

/// Finds a tool's executable.
fn find(tool: Tool) -> Result<PathBuf> {
    // Once: the kernel composes this path anew each time.
    static OWN: LazyLock<io::Result<PathBuf>> = LazyLock::new(env::current_exe);
    let own = OWN.as_ref().map_err(|error| anyhow!("find this executable: {error}"))?;
    let beside = own.parent().map(Path::to_owned);
    let path = env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(env::split_paths(&path))
        .map(|directory| directory.join(tool.name()))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| anyhow!("{} is neither beside {} nor in PATH", tool.name(), own.display()))
}

/// Finds somebody else's program, by its path or by its name in PATH.
pub fn executable(program: &Path) -> Option<PathBuf> {
    let named = !program.as_os_str().as_encoded_bytes().contains(&b'/');
    let path = env::var_os("PATH").filter(|_| named).unwrap_or_default();
    let candidates = if named {
        env::split_paths(&path).map(|directory| directory.join(program)).collect()
    } else {
        vec![program.to_owned()]
    };
    candidates.into_iter().find(|candidate| is_executable(candidate)).and_then(|found| std::path::absolute(found).ok())
}

/// Returns the command of a stage, with this tool's verbosity.
pub(crate) fn command(stage: &Stage) -> Result<Command> {
    let mut command = Command::new(stage.program.clone().map_or_else(|| find(stage.tool), Ok)?);
    // This program's own part may be over, while the variable is there still.
    if let Some((variable, file)) = trace::variable() {
        command.env(variable, file);
    } else if env::var_os(trace::VARIABLE).is_some() {
        // Only then: std would copy the environment, which `sys::clone::vfork` leaves behind at each start.
        command.env_remove(trace::VARIABLE);
    }
    let verbose = verbose(log::max_level(), stage.tool);
    // After the verb, if there is one: `portmap -p …` and `portmap del …` are two command lines, not one with options.
    let verb = stage
        .arguments
        .first()
        .is_some_and(|first| ["add", "del", "delete", "unmount", "rm"].iter().any(|verb| first == verb));
    let (verb, others) = stage.arguments.split_at(usize::from(verb));
    command.args(verb).args(verbose.iter().map(OsStr::new)).args(others);
    Ok(command)
}

/// Returns what makes a tool as talkative as this one. `bundle` has docker's -v; --verbose means the same in all of them,
/// and runc's word for it is --debug. A keeper or guard logs nothing at all.
fn verbose(level: LevelFilter, tool: Tool) -> &'static [&'static str] {
    match (level, tool) {
        (_, Tool::Spawn) => &[],
        (LevelFilter::Debug, _) => &["--verbose"],
        (LevelFilter::Trace, _) => &["--verbose", "--verbose"],
        _ => &[],
    }
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_others_say_as_much_as_this() {
        for (level, want) in
            [(LevelFilter::Off, 0), (LevelFilter::Warn, 0), (LevelFilter::Debug, 1), (LevelFilter::Trace, 2)]
        {
            assert_eq!(verbose(level, Tool::Pull).len(), want, "{level}");
            assert_eq!(verbose(level, Tool::Spawn).len(), 0, "{level}");
        }
    }
}
