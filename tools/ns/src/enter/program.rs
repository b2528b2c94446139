//! The program that runs in the namespaces: in our place, or, where a pid namespace is entered, as a child, whose end and
//! stops become ours.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, anyhow};
use container::accounts;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, getpid, kill_process, setrlimit, waitpid};

/// What is run; nothing means the user's shell, as a login shell.
#[derive(Debug)]
pub(crate) struct EnterProgram {
    /// The words.
    pub(crate) words: Vec<OsString>,
    /// The environment; `None` is our own.
    pub(crate) environment: Option<Vec<(OsString, OsString)>>,
}

impl EnterProgram {
    /// Becomes the program.
    pub(crate) fn replace(&self) -> Result<ExitCode> {
        let (mut command, name) = self.command();
        Err(cannot_execute(&name, command.exec()))
    }

    /// Runs the program as a child and ends as it ends.
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let (mut command, name) = self.command();
        let child = command.spawn().map_err(|error| cannot_execute(&name, error))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| anyhow!("no pid"))?;
        loop {
            let waited = rustix::io::retry_on_intr(|| waitpid(Some(pid), WaitOptions::UNTRACED)).context("wait")?;
            let Some((_, status)) = waited else { continue };
            // Ctrl-Z reaches the child; the shell watches this process, and would wait on if it did not stop, too.
            if status.stopped() {
                // Whoever watches us sees us stop, and wakes the child by waking us.
                kill_process(getpid(), Signal::STOP)?;
                // It may be gone by then.
                let _gone = kill_process(pid, Signal::CONT);
            } else if let Some(code) = status.exit_status() {
                return Ok(ExitCode::from(u8::try_from(code & 0xff).unwrap_or(u8::MAX)));
            } else if let Some(signal) = status.terminating_signal() {
                return die_of(signal);
            }
        }
    }

    fn command(&self) -> (Command, OsString) {
        let (mut command, name) = if let Some((name, arguments)) = self.words.split_first() {
            let mut command = Command::new(name);
            command.args(arguments);
            (command, name.clone())
        } else {
            let shell = shell();
            // A hyphen before its name makes a shell a login shell: login(1) has it so.
            let mut login = OsString::from("-");
            login.push(Path::new(&shell).file_name().unwrap_or(OsStr::new("sh")));
            let mut command = Command::new(&shell);
            command.arg0(login);
            (command, shell)
        };
        if let Some(environment) = &self.environment {
            command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        (command, name)
    }
}

/// Ends as a process that the signal has killed, without a second core file.
fn die_of(signal: i32) -> Result<ExitCode> {
    // The child has written one if it was to: a second, of this program, would overwrite it.
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).context("limit core files")?;
    if let Some(signal) = Signal::from_named_raw(signal) {
        // Rust's start has SIGPIPE ignored: without this a death by it could not be imitated.
        sys::signal::restore(Signal::PIPE);
        kill_process(getpid(), signal)?;
    }
    // Whoever started us may have it ignored.
    Ok(ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX)))
}

fn shell() -> OsString {
    if let Some(shell) = std::env::var_os("SHELL").filter(|shell| !shell.is_empty()) {
        return shell;
    }
    let uid = rustix::process::getuid().as_raw();
    accounts::field(uid, accounts::SHELL).unwrap_or_else(|| "/bin/sh".to_owned()).into()
}

/// 127 where the program is not there, 126 where it cannot be executed.
fn cannot_execute(name: &OsStr, error: std::io::Error) -> anyhow::Error {
    let code = if error.kind() == ErrorKind::NotFound { 127 } else { 126 };
    let error = anyhow::Error::from(error).context(format!("execute {}", name.to_string_lossy()));
    cli::ExitError::new(code, error).into()
}
