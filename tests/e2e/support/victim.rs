//! Finds a program of a sandbox in the moment in which it begins, to kill it.

use std::fs;
use std::path::Path;

use rustix::process::Pid;

use super::Sandbox;

impl Sandbox {
    /// Returns a process of this sandbox that is called `name` (the first word of its command line, without a path), of
    /// those that were started after `first`.
    pub(crate) fn process(&self, first: Pid, name: &str) -> Option<Pid> {
        let first = first.as_raw_pid();
        let machine = self.init().and_then(namespace)?;
        (first..=newest()?).find_map(|pid| {
            // A guard has the command line of its `run`.
            let line = match fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end() {
                "run-guard" => "run-guard".to_owned(),
                _ => fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?,
            };
            let called = Path::new(line.split('\0').next()?).file_name()? == name;
            (called && namespace(pid)? == machine).then(|| Pid::from_raw(pid)).flatten()
        })
    }
}

/// Returns the number of the machine's newest process: `proc_loadavg(5)`.
fn newest() -> Option<i32> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().last()?.parse().ok()
}

fn namespace(pid: i32) -> Option<std::path::PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/pid")).ok()
}
