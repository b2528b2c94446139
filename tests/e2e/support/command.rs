//! Commands: run, watched, and judged by exit code, stdout and stderr.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::wait;

/// How long a command may take, unless the test says otherwise.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A command to run in a sandbox. Output goes to files, so a container that outlives the command cannot keep a pipe
/// open; stdin is empty unless given.
pub(crate) struct Cmd {
    command: Command,
    shown: String,
    stdin: Stdin,
    limit: Duration,
    wrapped: bool,
}

enum Stdin {
    Text(Vec<u8>),
    Pipe,
}

impl Cmd {
    pub(super) fn new(command: Command, shown: String, wrapped: bool) -> Self {
        Self { command, shown, stdin: Stdin::Text(Vec::new()), limit: COMMAND_LIMIT, wrapped }
    }

    /// Gives the command this on stdin, then end of file.
    pub(crate) fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = Stdin::Text(text.into());
        self
    }

    /// Keeps stdin open as a pipe until the [`Running`] is dropped or [`Running::close_stdin`] is called.
    pub(crate) fn open_stdin(mut self) -> Self {
        self.stdin = Stdin::Pipe;
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Removes a variable of the environment.
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Gives it more time than a minute.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the command to its end.
    pub(crate) fn run(self) -> Outcome {
        let limit = self.limit;
        self.start().wait_within(limit)
    }

    /// Starts the command and leaves it running.
    pub(crate) fn start(mut self) -> Running {
        let (stdout, stderr) = (scratch_file(), scratch_file());
        let stdin = match &self.stdin {
            Stdin::Pipe => Stdio::piped(),
            Stdin::Text(text) if text.is_empty() => Stdio::null(),
            Stdin::Text(text) => {
                let mut file = scratch_file();
                file.write_all(text).and_then(|()| file.seek(SeekFrom::Start(0))).expect("a file for stdin");
                file.into()
            }
        };
        self.command
            .stdin(stdin)
            .stdout(stdout.try_clone().expect("a second descriptor"))
            .stderr(stderr.try_clone().expect("a second descriptor"))
            .process_group(0);
        let child = self.command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.shown));
        Running { child, stdout, stderr, shown: self.shown, wrapped: self.wrapped, over: false }
    }
}

fn scratch_file() -> File {
    tempfile::tempfile().expect("a temporary file")
}

/// A command that is running. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    stdout: File,
    stderr: File,
    shown: String,
    wrapped: bool,
    over: bool,
}

impl Running {
    /// Returns the command's own process id, as the machine's first pid namespace numbers it.
    pub(crate) fn pid(&self) -> Pid {
        let outer = i32::try_from(self.child.id()).expect("a pid");
        let pid = if self.wrapped { wait::wait_for("the command's process", || child_of(outer)) } else { outer };
        Pid::from_raw(pid).expect("a pid is not 0")
    }

    /// Returns the command's own process id unless it is over already.
    pub(crate) fn pid_if_running(&mut self) -> Option<Pid> {
        let outer = i32::try_from(self.child.id()).expect("a pid");
        loop {
            let pid = if self.wrapped { child_of(outer) } else { Some(outer) };
            if pid.is_some() || !self.is_running() {
                return pid.and_then(Pid::from_raw);
            }
            std::thread::yield_now();
        }
    }

    /// Sends a signal to the command itself.
    pub(crate) fn signal(&self, signal: Signal) {
        // It may just have ended: then there is nobody to tell.
        let _ = rustix::process::kill_process(self.pid(), signal);
    }

    /// Sends a signal to every process of the command line, as a terminal's Ctrl-C does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        let outer = i32::try_from(self.child.id()).expect("a pid");
        for pid in processes_of_group(outer).into_iter().filter(|pid| !self.wrapped || *pid != outer) {
            let _ = Pid::from_raw(pid).map(|pid| rustix::process::kill_process(pid, signal));
        }
    }

    /// Returns what it has written to stdout so far.
    pub(crate) fn stdout(&self) -> String {
        contents(&self.stdout)
    }

    /// Returns what it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        contents(&self.stderr)
    }

    /// Waits until stdout contains `text`.
    pub(crate) fn wait_stdout(&self, text: &str) -> String {
        wait::wait_for(&format!("{text:?} on stdout of {}\nstderr: {}", self.shown, self.stderr()), || {
            Some(self.stdout()).filter(|stdout| stdout.contains(text))
        })
    }

    /// Waits until stderr contains `text`.
    pub(crate) fn wait_stderr(&self, text: &str) -> String {
        wait::wait_for(&format!("{text:?} on stderr of {}", self.shown), || {
            Some(self.stderr()).filter(|stderr| stderr.contains(text))
        })
    }

    /// Writes to a stdin that [`Cmd::open_stdin`] keeps open.
    pub(crate) fn write_stdin(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("open_stdin() was called");
        stdin.write_all(text.as_bytes()).expect("the command reads its stdin");
    }

    /// Ends the command's stdin.
    pub(crate) fn close_stdin(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Tells whether it is still running.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_none()
    }

    /// Waits for the command's end.
    pub(crate) fn wait(self) -> Outcome {
        self.wait_within(COMMAND_LIMIT)
    }

    fn wait_within(mut self, limit: Duration) -> Outcome {
        let deadline = wait::deadline(limit);
        let status = wait::poll_until(deadline, &mut || self.child.try_wait().expect("a child can be waited for"));
        let Some(status) = status else {
            let seen = format!("stdout: {}\nstderr: {}", self.stdout(), self.stderr());
            panic!("{} did not end within its time\n{seen}", self.shown);
        };
        self.over = true;
        Outcome { status, stdout: self.stdout(), stderr: self.stderr(), shown: self.shown.clone() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.signal_group(Signal::KILL);
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn contents(file: &File) -> String {
    // A file position of its own: the command writes through a descriptor that shares the other one.
    let mut text = Vec::new();
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file));
    File::open(path).and_then(|mut file| file.read_to_end(&mut text)).expect("the output is readable");
    String::from_utf8_lossy(&text).into_owned()
}

/// Lists (pid, parent, process group) of every process.
fn processes() -> Vec<(i32, i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| {
            let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // proc_pid_stat(5): the command's name may hold spaces and parentheses, so count from the last one.
            let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(1);
            Some((pid, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        })
        .collect()
}

/// Returns the first child of a process.
pub(super) fn child_of(parent: i32) -> Option<i32> {
    processes().into_iter().find(|process| process.1 == parent).map(|process| process.0)
}

fn processes_of_group(group: i32) -> Vec<i32> {
    processes().into_iter().filter(|process| process.2 == group).map(|process| process.0).collect()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// As the parent sees it.
    pub(crate) status: ExitStatus,
    /// All of stdout.
    pub(crate) stdout: String,
    /// All of stderr.
    pub(crate) stderr: String,
    shown: String,
}

impl Outcome {
    /// Asserts exit code 0.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        self.fails(0)
    }

    /// Asserts the exit code; a signal counts as 128 + its number, as in a shell.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code(), code, "exit code of {self}");
        self
    }

    /// Returns the exit code as a shell would show it.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Asserts that stdout is exactly this.
    #[track_caller]
    pub(crate) fn stdout_is(self, want: &str) -> Self {
        assert_eq!(self.stdout, want, "stdout of {self}");
        self
    }

    /// Asserts that stdout contains this.
    #[track_caller]
    pub(crate) fn stdout_has(self, want: &str) -> Self {
        assert!(self.stdout.contains(want), "no {want:?} on stdout of {self}");
        self
    }

    /// Asserts that stderr contains this.
    #[track_caller]
    pub(crate) fn stderr_has(self, want: &str) -> Self {
        assert!(self.stderr.contains(want), "no {want:?} on stderr of {self}");
        self
    }

    /// Asserts that stderr is exactly this.
    #[track_caller]
    pub(crate) fn stderr_is(self, want: &str) -> Self {
        assert_eq!(self.stderr, want, "stderr of {self}");
        self
    }

    /// Asserts that stderr is one line, `tool: …`, that contains every one of `parts`, and that stdout is empty.
    #[track_caller]
    pub(crate) fn one_error_line(self, tool: &str, parts: &[&str]) -> Self {
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && lines[0].starts_with(&format!("{tool}: ")), "not one error line: {self}");
        for part in parts {
            assert!(lines[0].contains(part), "no {part:?} in the error line: {self}");
        }
        self.stdout_is("")
    }

    /// Parses stdout as one JSON value: a record, a State, a listing.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("stdout is not JSON ({error}): {self}"))
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n--- stdout\n{}\n--- stderr\n{}", self.shown, self.status, self.stdout, self.stderr)
    }
}
