//! Who is responsible for a container: a file `<run>/claims/<id>` under a lock (`flock(2)`) that the responsible
//! process and those that it starts hold together. The file says what is to be undone. A lock that is free while the
//! file has a duty means that all of them were killed: whoever finds it, does the duty.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Tool;
use crate::undo::{self, Undo};

/// How long an owner that is ending may take before its name counts as in use.
const PATIENCE: Duration = Duration::from_secs(20);

/// What whoever holds a claim has to do at the end, and who that is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Duty {
    /// The responsible process.
    pub pid: u32,
    /// When that was started, in clock ticks since boot: tells it from a later one with its number.
    pub start: u64,
    /// Whether it is undoing already.
    pub ending: bool,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// What is to be undone, in this order.
    pub undo: Vec<Undo>,
}

impl Duty {
    /// Returns the duty of this process.
    pub fn own(bundle: &Path, undo: &[Undo]) -> Self {
        let pid = std::process::id();
        let start = start_time(pid).unwrap_or_default();
        Self { pid, start, ending: false, bundle: bundle.to_owned(), undo: undo.to_vec() }
    }

    /// Tells whether nothing of the container is to be left.
    pub fn removes_the_bundle(&self) -> bool {
        let deletes = |undo: &Undo| undo.stage.arguments.first().is_some_and(|verb| verb == "delete");
        self.undo.iter().any(|undo| undo.of == Tool::Bundle && deletes(undo))
    }

    /// Tells whether the responsible process lives.
    pub fn is_alive(&self) -> bool {
        start_time(self.pid) == Some(self.start)
    }
}

/// A claim that is held.
#[derive(Debug)]
pub struct Claim {
    file: File,
    path: PathBuf,
}

impl Claim {
    /// Takes the claim on `id`. What a killed owner has left is undone first; one that is just ending is waited for.
    pub fn take(directory: &Path, id: &str) -> Result<Self> {
        let _span = trace::span("claim", id);
        make_directory(directory)?;
        let path = directory.join(id);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let file = open(&path, true).with_context(|| format!("open {}", path.display()))?;
            if lock(&file).with_context(|| format!("lock {}", path.display()))? {
                if is_named(&file, &path) {
                    let claim = Self { file, path };
                    claim.do_what_is_left()?;
                    return Ok(claim);
                }
                continue;
            }
            // What does not parse is just being written.
            let duty = read(&file);
            let lasting = duty.as_ref().is_some_and(|duty| !duty.ending && duty.is_alive());
            if lasting || Instant::now() > deadline {
                bail!("container {id} is there already (process {})", duty.unwrap_or_default().pid);
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Goes on with a claim that the caller of this program holds, by the number of its descriptor.
    pub fn inherited(directory: &Path, id: &str, descriptor: u32) -> Result<Self> {
        let path = directory.join(id);
        let file = File::from(sys::child::inherited(descriptor).context("the claim's descriptor")?);
        if !is_named(&file, &path) {
            bail!("descriptor {descriptor} is not the claim {}", path.display());
        }
        Ok(Self { file, path })
    }

    /// Goes on with the claim that is this program's standard output.
    pub fn from_stdout(path: &Path) -> Result<Self> {
        let file = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).context("the claim")?);
        if !is_named(&file, path) {
            bail!("standard output is not the claim {}", path.display());
        }
        Ok(Self { file, path: path.to_owned() })
    }

    /// Writes down what is to be undone.
    pub fn write(&self, duty: &Duty) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = &self.file;
            file.rewind()?;
            // Readers take what does not parse for a duty that is being written. The end comes off last, so that a
            // killed writer leaves no shorter duty than was there.
            let text = serde_json::to_vec(duty)?;
            file.write_all(&text)?;
            file.set_len(text.len().try_into().unwrap_or_default())
        };
        write().with_context(|| format!("write {}", self.path.display()))
    }

    /// Returns the duty that the claim has.
    pub fn duty(&self) -> Option<Duty> {
        read(&self.file)
    }

    /// Tells the others that the end has come, and that the name will be free.
    pub fn is_ending(&self) {
        if let Some(duty) = self.duty() {
            // Only the waiting of others depends on it.
            let _told = self.write(&Duty { ending: true, ..duty });
        }
    }

    /// Makes this process the responsible one, in the place of another that has handed it over; false if what that one
    /// has left is being undone already.
    pub fn take_over(&self, duty: &Duty) -> Result<bool> {
        let _alone = self.alone()?;
        if self.duty().is_some_and(|duty| duty.ending) {
            return Ok(false);
        }
        self.write(duty).map(|()| true)
    }

    /// Tells whether the duty falls to this process, because who had it is gone; the end has come then. Otherwise
    /// somebody else took it over, and lives.
    pub fn falls_to_us(&self) -> Result<bool> {
        let _alone = self.alone()?;
        if self.duty().is_some_and(|duty| duty.pid != std::process::id() && duty.is_alive()) {
            return Ok(false);
        }
        self.is_ending();
        Ok(true)
    }

    /// Tells whether somebody who has taken the duty over still has it, or has done it and given the name back.
    pub fn is_in_other_hands(&self) -> bool {
        let others = |duty: Duty| duty.pid != std::process::id() && duty.is_alive() && !duty.ending;
        !is_named(&self.file, &self.path) || self.duty().is_some_and(others)
    }

    /// Keeps the other processes that hold this claim from changing its duty: a lock of the process, which flock(2)
    /// does not have, since they share one (`F_SETLKW(2const)`).
    fn alone(&self) -> Result<Alone<'_>> {
        let lock = rustix::io::retry_on_intr(|| fcntl_lock(&self.file, FlockOperation::LockExclusive));
        lock.with_context(|| format!("lock {}", self.path.display()))?;
        Ok(Alone(&self.file))
    }

    /// Gives the name back: everything is undone.
    pub fn release(self) {
        // Whoever finds the file later finds nothing to do in it.
        let _gone = fs::remove_file(&self.path);
    }

    /// Gives the file, for a program that this one starts.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn do_what_is_left(&self) -> Result<()> {
        if let Some(duty) = self.duty() {
            log::debug!("undo what a killed process has left: {}", self.path.display());
            undo::carry_out(&duty.undo)?;
        }
        self.file.set_len(0).with_context(|| format!("write {}", self.path.display()))
    }
}

/// A short time in which nobody else changes the duty.
struct Alone<'a>(&'a File);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // It goes with the process at the latest.
        let _unlocked = fcntl_lock(self.0, FlockOperation::Unlock);
    }
}

/// Does the duties of all who were killed, and returns the ids of their containers.
pub fn sweep(directory: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", directory.display()))?,
    };
    let mut swept = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(file) = open(&path, false) else { continue };
        if !lock(&file).unwrap_or(false) || !is_named(&file, &path) {
            continue;
        }
        let claim = Claim { file, path };
        let left = claim.duty().is_some();
        match claim.do_what_is_left() {
            Ok(()) => {
                claim.release();
                swept.extend(left.then(|| entry.file_name().to_string_lossy().into_owned()));
            }
            Err(error) => log::warn!("{error:#}"),
        }
    }
    Ok(swept)
}

/// Returns who is responsible for a container that is alive.
pub fn holder_of(directory: &Path, id: &str) -> Option<Duty> {
    let file = open(&directory.join(id), false).ok()?;
    read(&file).filter(Duty::is_alive)
}

/// Tells whether somebody holds the claim on a name, whatever it says.
pub fn is_held(directory: &Path, id: &str) -> Result<bool> {
    let path = directory.join(id);
    let file = match open(&path, false) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.with_context(|| format!("open {}", path.display()))?,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .with_context(|| format!("make {}", directory.display()))
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().try_into().unwrap_or_default();
    OpenOptions::new().read(true).write(true).create(create).mode(0o600).custom_flags(flags).open(path)
}

fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether the file is still the one of this name: it may have been released between open and lock.
fn is_named(file: &File, path: &Path) -> bool {
    let (Ok(held), Ok(now)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (held.dev(), held.ino()) == (now.dev(), now.ino())
}

fn read(mut file: &File) -> Option<Duty> {
    let mut text = Vec::new();
    file.rewind().ok()?;
    file.read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Returns when a process was started; `None` if it is gone or a zombie.
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, so the fields are counted from its closing parenthesis: proc_pid_stat(5).
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let text = std::str::from_utf8(&stat[end + 1..]).ok()?;
    let mut fields = text.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_one_holder_and_ends_with_it() {
        let directory = tempfile::tempdir().unwrap();
        let claim = Claim::take(directory.path(), "web").unwrap();
        claim.write(&Duty::own(Path::new("/b"), &[])).unwrap();
        let taken = Claim::take(directory.path(), "web").unwrap_err().to_string();
        assert_eq!(taken, format!("container web is there already (process {})", std::process::id()));
        assert_eq!(sweep(directory.path()).unwrap(), Vec::<String>::new());
        // As a kill would: the lock goes, the file stays.
        drop(claim);
        assert_eq!(sweep(directory.path()).unwrap(), ["web"]);
        Claim::take(directory.path(), "web").unwrap().release();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
