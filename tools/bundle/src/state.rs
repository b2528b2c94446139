//! Whether a container runs from a bundle: `spawn` and runc say so in `<root>/<id>/state.json`, crun in `status`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What tells one process from all others.
#[derive(Debug, Deserialize)]
struct State {
    #[serde(alias = "pid")]
    init_process_pid: i32,
    #[serde(default, alias = "process-start-time")]
    init_process_start: u64,
}

/// Returns the pid of a container's first process while it lives. `root` is the runtime's root directory.
pub(crate) fn live_pid(root: &Path, id: &str) -> Option<i32> {
    let directory = root.join(id);
    let text = fs::read(directory.join("state.json")).or_else(|_| fs::read(directory.join("status"))).ok()?;
    let state: State = serde_json::from_slice(&text).ok()?;
    let text = fs::read_to_string(format!("/proc/{}/stat", state.init_process_pid)).ok()?;
    let (status, start) = parse_stat(&text)?;
    // A zombie has ended; another start means another process with an old number.
    let alive = status != "Z" && status != "X" && (state.init_process_start == 0 || state.init_process_start == start);
    (state.init_process_pid > 0 && alive).then_some(state.init_process_pid)
}

/// Returns where the runtimes keep their states: our own first.
pub(crate) fn roots(run: &Path) -> [PathBuf; 3] {
    [run.join("spawn"), "/run/runc".into(), "/run/crun".into()]
}

/// Returns the pid of another container, which a namespace is to be shared with.
pub(crate) fn require_pid(run: &Path, id: &str) -> Result<i32> {
    if id.contains('/') {
        bail!(cli::Usage(format!("`{id}` is not the id of a container")));
    }
    roots(run).iter().find_map(|root| live_pid(root, id)).with_context(|| format!("container `{id}` does not run"))
}

/// Returns a process's status and start from `/proc/PID/stat` (`proc_pid_stat(5)`); the name in it may hold anything.
fn parse_stat(stat: &str) -> Option<(&str, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let status = fields.next()?;
    Some((status, fields.nth(18)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_does_not_confuse() {
        let stat = "7 (a) Z (b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1\n";
        assert_eq!(parse_stat(stat), Some(("S", 4711)));
        assert_eq!(parse_stat("7 (a"), None);
    }

    #[test]
    fn a_state_counts_while_its_process_lives() {
        let directory = std::env::temp_dir().join(format!("bundle-state-{}", std::process::id()));
        let text = fs::read_to_string("/proc/self/stat").unwrap();
        let (_, start) = parse_stat(&text).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        for (start, want) in [(start, Some(pid)), (start + 1, None), (0, Some(pid))] {
            fs::create_dir_all(directory.join("x")).unwrap();
            let text = format!(r#"{{"init_process_pid":{pid},"init_process_start":{start}}}"#);
            fs::write(directory.join("x/state.json"), text).unwrap();
            assert_eq!(live_pid(&directory, "x"), want);
        }
        fs::remove_dir_all(&directory).unwrap();
        assert_eq!(live_pid(&directory, "x"), None);
    }
}
