//! The way outwards for one who has no privilege over the host's network: a program of the user's, pasta or slirp4netns,
//! that speaks for the namespace through ordinary sockets. Without one there is none, and ports are reached all the same.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use container::{ContainerId, Directories, NetworkNote};
use rustix::process::{Pid, Signal, kill_process};

/// Where the process of each namespace is noted.
const NOTE: NetworkNote = NetworkNote::Outward;

/// Starts the first of the programs that is there; that none is, or none can, is only said.
pub(super) fn start(directories: &Directories, id: &ContainerId, netns: &Path) -> Result<()> {
    let (notes, note) = (directories.network_notes(NOTE), directories.network_note(NOTE, id));
    sys::file::make_private(&notes).with_context(|| format!("make {}", notes.display()))?;
    for start in [pasta, slirp4netns] {
        match start(&note, netns) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => log::warn!("{error:#}"),
        }
    }
    log::warn!("{id} cannot reach outside: neither pasta (package passt) nor slirp4netns serves it");
    Ok(())
}

/// Ends the process, if there is one.
pub(super) fn stop(directories: &Directories, id: &ContainerId) {
    let note = directories.network_note(NOTE, id);
    let pid = fs::read_to_string(&note).ok().and_then(|text| text.trim().parse::<i32>().ok());
    // The number may be another process's by now: only one that was started for this namespace has its path.
    let is_ours = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let netns = container::namespace(id);
        line.split(|byte| *byte == 0).any(|word| word == netns.as_os_str().as_encoded_bytes())
    };
    if let Some(pid) = pid.filter(|pid| *pid > 0).filter(is_ours).and_then(Pid::from_raw) {
        // It may end by itself in this moment. A pidfd would not help: the number was noted by pasta itself, and is
        // looked at here.
        let _ended = kill_process(pid, Signal::TERM);
    }
    let _gone = fs::remove_file(note);
}

/// It goes into the background once the namespace is configured.
fn pasta(note: &Path, netns: &Path) -> Result<bool> {
    let mut command = Command::new("pasta");
    // No ports by pasta: `portmap` has them. Without --no-map-gw the gateway's address would lead to the host's
    // loopback.
    command.args("--config-net --no-map-gw --quiet -t none -u none -T none -U none --pid".split(' '));
    command.arg(note).arg("--netns").arg(netns).stdin(Stdio::null());
    let done = sys::file::there(sys::child::apart(&mut command, 0).output()).context("execute pasta")?;
    let Some(done) = done else { return Ok(false) };
    ensure!(done.status.success(), "pasta: {}", last_line(&done.stderr));
    Ok(true)
}

/// It stays in the foreground, and says when the namespace is configured.
fn slirp4netns(note: &Path, netns: &Path) -> Result<bool> {
    let mut command = Command::new("slirp4netns");
    command.args(["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=1", "--netns-type=path"]);
    command.arg(netns).arg("tap0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let child = sys::file::there(sys::child::apart(&mut command, 0).spawn()).context("execute slirp4netns")?;
    let Some(mut child) = child else { return Ok(false) };
    fs::write(note, child.id().to_string()).context("note slirp4netns")?;
    let mut ready = [0];
    let told = child.stdout.take().map(|mut stdout| stdout.read(&mut ready));
    if matches!(told, Some(Ok(1))) {
        return Ok(true);
    }
    let _gone = fs::remove_file(note);
    bail!("slirp4netns: {}", child.wait().context("wait for slirp4netns")?)
}

fn last_line(words: &[u8]) -> String {
    String::from_utf8_lossy(words).trim().lines().next_back().unwrap_or("it says nothing").to_owned()
}
