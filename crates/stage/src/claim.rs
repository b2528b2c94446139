//! Who is responsible for a container: a file with its id's name under a lock (`flock(2)`) that the responsible
//! process and those that it starts hold together. The file says what is to be undone. A lock that is free while the
//! file names a holder means that all of them were killed: whoever finds it undoes what the file says.
//!
//! # Two locks
//!
//! flock(2) belongs to the open file, which `run`, the guard and the keeper share by inheritance: it says *whether*
//! anybody is responsible, and is free when the last of them is dead, however they died. A lock of fcntl(2) belongs
//! to the process: it is held for moments, by the one of them that changes the file ([`Claim::take_over`],
//! [`Claim::end_if_abandoned`]).
//!
//! # Who undoes
//!
//! `run` writes itself down as the holder before the first stage makes anything. A keeper takes over
//! before it starts the container. The guard, woken by the end of its pipe, calls `end_if_abandoned`: of it and a keeper
//! that is just taking over, the one that has the process lock first wins, and the other one does nothing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use container::{Condition, ContainerId, Directories, Known, NotedProcess, state_in};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::Tool;
use crate::undo::{self, Undo};

/// How long a holder may take to be written down.
const BEING_WRITTEN: Duration = Duration::from_secs(2);
/// How long an owner that is ending may take before its name counts as in use.
const PATIENCE: Duration = Duration::from_secs(20);

/// Who holds a claim, and what is to be undone at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The responsible process.
    #[serde(flatten)]
    pub process: NotedProcess,
    /// Whether it is undoing already.
    pub ending: bool,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// What is to be undone, in this order.
    pub undo: Vec<Undo>,
}

impl Holder {
    /// Returns this process as the holder.
    pub fn own(bundle: &Path, undo: &[Undo]) -> Self {
        Self { process: NotedProcess::own(), ending: false, bundle: bundle.to_owned(), undo: undo.to_vec() }
    }

    /// Tells whether nothing of the container is to be left.
    pub fn removes_the_bundle(&self) -> bool {
        let deletes = |undo: &Undo| undo.stage.arguments.first().is_some_and(|verb| verb == "delete");
        self.undo.iter().any(|undo| undo.of == Tool::Bundle && deletes(undo))
    }

    /// Tells whether the responsible process lives.
    pub fn is_alive(&self) -> bool {
        self.process.alive().is_some()
    }

    fn is_own(&self) -> bool {
        u32::try_from(self.process.pid) == Ok(std::process::id())
    }
}

/// What a claim's file says.
enum Content {
    /// Nothing, as the file of a claim that was just taken; or nothing any more.
    Empty,
    /// A holder that is just being written down, if somebody has the lock; else a damaged file.
    Unreadable,
    Holder(Box<Holder>),
}

/// A claim that is held.
#[derive(Debug)]
pub struct Claim {
    /// Whoever has it open holds the claim, too.
    pub file: File,
    path: PathBuf,
}

impl Claim {
    /// Takes the claim on `id`. What a killed owner has left is undone first; one that is just ending is waited for.
    ///
    /// # Errors
    /// Where a living process is responsible, or somebody holds the lock without a readable holder for two seconds.
    pub fn take(directories: &Directories, id: &ContainerId) -> Result<Self> {
        let _span = trace::span("claim", id);
        make_directory(&directories.claims())?;
        let path = directories.claim(id);
        let begun = Instant::now();
        loop {
            let (file, is_new) = open(&path, true).with_context(|| format!("open {}", path.display()))?;
            if lock(&file).with_context(|| format!("lock {}", path.display()))? {
                // Between open and lock the file may have been released, and another made under the name: then the
                // lock is on a file that nobody will ever look at.
                if is_named(&file, &path).with_context(|| format!("look at {}", path.display()))? {
                    let claim = Self { file, path };
                    if !is_new {
                        // Under the lock: two that come at once must not undo, and then make, side by side.
                        claim.do_what_is_left(directories, id)?;
                    }
                    return Ok(claim);
                }
                continue;
            }
            match read(&file) {
                Ok(Content::Holder(holder)) if !holder.ending && holder.is_alive() || begun.elapsed() > PATIENCE => {
                    bail!("container {id} already exists (owned by process {})", holder.process.pid);
                }
                Ok(Content::Empty | Content::Unreadable) | Err(_) if begun.elapsed() > BEING_WRITTEN => {
                    bail!("container {id} already exists: another process holds {}", path.display());
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    /// Goes on with a claim that the caller of this program holds, by the number of its descriptor.
    pub fn inherited(directories: &Directories, id: &ContainerId, descriptor: u32) -> Result<Self> {
        let path = directories.claim(id);
        let file = File::from(sys::child::inherited(descriptor).context("the claim's descriptor")?);
        ensure!(is_named(&file, &path)?, "descriptor {descriptor} is not the claim {}", path.display());
        Ok(Self { file, path })
    }

    /// Returns the command that executes this program again under a name, in the background, to go on with the claim, which
    /// is its standard output; it has `more` descriptors of this program's after the three standard ones.
    pub fn executed_as(&self, name: &str, directories: &Directories, id: &ContainerId, more: u32) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe().context("find this executable")?);
        // The id is for people who list processes, too.
        command.arg0(name).args([directories.data(), directories.run()]).arg(id);
        command.stdout(self.file.try_clone().context("the claim")?);
        if let Some(root) = std::env::var_os("DRAYAGE_ROOT").filter(|root| !root.is_empty()) {
            // Its working directory is another one.
            command.env("DRAYAGE_ROOT", std::path::absolute(root)?);
        }
        sys::child::apart(&mut command, more);
        Ok(command)
    }

    /// Goes on with the claim of the program that has executed this one with [`Claim::executed_as`].
    pub fn from_stdout() -> Result<Self> {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let [data, run, id] = arguments.as_slice() else { bail!("not three arguments") };
        let path = Directories::new(data.into(), run.into()).claim(&ContainerId::of_path(id.as_ref())?);
        let file = File::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3).context("the claim")?);
        ensure!(is_named(&file, &path)?, "standard output is not the claim {}", path.display());
        Ok(Self { file, path })
    }

    /// Writes down what is to be undone.
    pub fn write(&self, holder: &Holder) -> Result<()> {
        let write = || -> io::Result<()> {
            let mut file = &self.file;
            file.rewind()?;
            // Readers take what does not parse for a holder that is being written down. The end comes off last, so that
            // a killed writer leaves no less to undo than was there.
            let text = serde_json::to_vec(holder)?;
            file.write_all(&text)?;
            file.set_len(text.len().try_into().unwrap_or_default())
        };
        write().with_context(|| format!("write {}", self.path.display()))
    }

    /// Returns the holder that the file names.
    pub fn holder(&self) -> Result<Option<Holder>> {
        read(&self.file).map(holder).with_context(|| format!("read {}", self.path.display()))
    }

    /// Tells the others that the end has come, and that the name will be free.
    pub fn is_ending(&self) {
        if let Ok(Some(holder)) = self.holder() {
            // Only the waiting of others depends on it.
            let _told = self.write(&Holder { ending: true, ..holder });
        }
    }

    /// Makes this process the responsible one, in the place of another that has handed it over; false if what that one
    /// has left is being undone already.
    ///
    /// It must be asked before the container is started: a guard that undoes already would take its bundle away.
    pub fn take_over(&self, holder: &Holder) -> Result<bool> {
        let _alone = self.alone()?;
        if self.holder()?.is_some_and(|holder| holder.ending) {
            return Ok(false);
        }
        self.write(holder).map(|()| true)
    }

    /// Returns true if the former holder is dead, and marks the claim as ending. False: a live process holds it.
    pub fn end_if_abandoned(&self) -> Result<bool> {
        let _alone = self.alone()?;
        if self.holder()?.is_some_and(|holder| !holder.is_own() && holder.is_alive()) {
            return Ok(false);
        }
        self.is_ending();
        Ok(true)
    }

    /// Tells whether another process that has taken over still holds it, or has undone all and given the name back.
    pub fn is_in_other_hands(&self) -> bool {
        let others = |holder: Holder| !holder.is_own() && holder.is_alive() && !holder.ending;
        // What cannot be read is left to the next run.
        !is_named(&self.file, &self.path).unwrap_or(false)
            || self.holder().map_or(true, |holder| holder.is_some_and(others))
    }

    /// Keeps the other processes that hold this claim from changing its file: a lock of the process, which flock(2)
    /// does not have, since they share one (`F_SETLKW(2const)`).
    fn alone(&self) -> Result<Alone<'_>> {
        let lock = rustix::io::retry_on_intr(|| fcntl_lock(&self.file, FlockOperation::LockExclusive));
        lock.with_context(|| format!("lock {}", self.path.display()))?;
        Ok(Alone(&self.file))
    }

    /// Gives the name back: everything is undone.
    ///
    /// The file goes while the lock is still held.
    pub fn release(&self) {
        // Whoever finds the file later finds nothing to do in it.
        let _found_later = self.give_back();
    }

    fn give_back(&self) -> io::Result<()> {
        // Another one of that name is another's.
        if is_named(&self.file, &self.path)? { fs::remove_file(&self.path) } else { Ok(()) }
    }

    /// Undoes what a killed holder has left; tells whether there was anything. Where the file does not say it, the bundle does.
    fn do_what_is_left(&self, directories: &Directories, id: &ContainerId) -> Result<bool> {
        let undo = match read(&self.file).with_context(|| format!("read {}", self.path.display()))? {
            Content::Holder(holder) => holder.undo,
            // An empty file is one of a claim that was taken and not written yet, so its owner has made nothing.
            // Without a state of the runtime the bundle is one that was made by hand, and not theirs to undo.
            Content::Empty if !sys::file::may_be_there(&state_in(&directories.states(), &id.into())) => vec![],
            Content::Empty => undo::of_bundle(directories, id)?,
            Content::Unreadable => {
                log::warn!("{} is damaged: undoing what the bundle lists", self.path.display());
                undo::of_bundle(directories, id)?
            }
        };
        if !undo.is_empty() {
            log::debug!("undo the remains of a killed process: {}", self.path.display());
            undo::carry_out(&undo)?;
        }
        self.file.set_len(0).with_context(|| format!("write {}", self.path.display()))?;
        Ok(!undo.is_empty())
    }
}

/// A short time in which nobody else changes the file.
struct Alone<'a>(&'a File);

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        // It goes with the process at the latest.
        let _unlocked = fcntl_lock(self.0, FlockOperation::Unlock);
    }
}

/// What was done in the place of those who were killed.
#[derive(Debug, Default)]
pub struct Swept {
    /// The containers that had something.
    pub ids: Vec<ContainerId>,
    /// Whether something could not be undone, which has been told.
    pub failed: bool,
}

impl Swept {
    /// Takes a claim that nobody holds, and has it done what there is to do.
    ///
    /// Claims that are held are passed over: somebody is responsible.
    fn add(&mut self, directories: &Directories, id: ContainerId, undo: impl Fn(&Claim) -> Result<bool>) {
        let path = directories.claim(&id);
        let sweep = || {
            let (file, _) = open(&path, true).with_context(|| format!("open {}", path.display()))?;
            let ours = lock(&file).and_then(|locked| Ok(locked && is_named(&file, &path)?));
            if !ours.with_context(|| format!("lock {}", path.display()))? {
                return Ok(false);
            }
            let claim = Claim { file, path: path.clone() };
            let left = undo(&claim)?;
            claim.give_back().with_context(|| format!("remove {}", path.display()))?;
            anyhow::Ok(left)
        };
        match sweep() {
            Ok(left) => self.ids.extend(left.then_some(id)),
            Err(error) => {
                log::warn!("{error:#}");
                self.failed = true;
            }
        }
    }
}

/// Does the duties of all who were killed.
pub fn sweep(directories: &Directories) -> Result<Swept> {
    let (claims, mut swept) = (directories.claims(), Swept::default());
    for entry in sys::file::entries(&claims).with_context(|| format!("read {}", claims.display()))? {
        if let Ok(id) = ContainerId::of_path(&entry.path()) {
            swept.add(directories, id.clone(), |claim| claim.do_what_is_left(directories, &id));
        }
    }
    Ok(swept)
}

/// Undoes what containers still have that nobody is responsible for, and that have ended, by themselves or killed: those
/// that stages by hand have made. Their bundles stay.
pub fn sweep_ended(directories: &Directories) -> Result<Swept> {
    let mut swept = Swept::default();
    let all = Known::all(directories).context("look for containers")?;
    for known in all.into_iter().filter(|known| known.condition == Condition::Exited) {
        let Ok(id) = String::from(known.id).parse::<ContainerId>() else { continue };
        if undo::is_left(directories, &id) {
            make_directory(&directories.claims())?;
            swept.add(directories, id.clone(), |_| {
                undo::carry_out(&undo::of_bundle(directories, &id)?)?;
                Ok(!undo::is_left(directories, &id))
            });
        }
    }
    Ok(swept)
}

/// Returns who is responsible for a container that is alive.
///
/// # Errors
/// Where the file cannot be read for want of descriptors, memory or disk: that is no "nobody".
pub fn holder_of(directories: &Directories, id: &ContainerId) -> Result<Option<Holder>> {
    let path = directories.claim(id);
    let content = sys::file::known(open(&path, false)).and_then(|claim| claim.map(|(file, _)| read(&file)).transpose());
    let content = content.with_context(|| format!("read {}", path.display()))?;
    Ok(content.and_then(holder).filter(Holder::is_alive))
}

/// Waits while a claim is held by a process of which `is_awaited` is true, for 20 seconds at most.
pub fn wait_while(directories: &Directories, id: &ContainerId, is_awaited: impl Fn(&Holder) -> bool) -> Result<()> {
    let begun = Instant::now();
    while holder_of(directories, id)?.is_some_and(|holder| is_awaited(&holder)) && begun.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

/// Tells whether somebody holds the claim on a name, whatever it says.
///
/// It takes the shared lock for a moment, and lets go of it with the file. Another one that tries for the claim in
/// that moment sees it taken, and tries again.
pub fn is_held(directories: &Directories, id: &ContainerId) -> Result<bool> {
    let path = directories.claim(id);
    let opened = sys::file::there(open(&path, false)).with_context(|| format!("open {}", path.display()))?;
    let Some((file, _)) = opened else { return Ok(false) };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    sys::file::make_private(directory).with_context(|| format!("make {}", directory.display()))
}

/// Opens a claim's file; tells whether it was made.
fn open(path: &Path, create: bool) -> io::Result<(File, bool)> {
    // A FIFO in its place is not waited for either.
    let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().try_into().unwrap_or_default();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    if create {
        match options.clone().create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            made => return Ok((made?, true)),
        }
    }
    // It may go in between.
    Ok((options.create(create).truncate(false).open(path)?, false))
}

fn lock(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Tells whether the file is still the one of this name: it may have been released between open and lock.
fn is_named(file: &File, path: &Path) -> io::Result<bool> {
    sys::file::is_same(file, path.symlink_metadata())
}

fn read(mut file: &File) -> io::Result<Content> {
    let mut text = Vec::new();
    file.rewind()?;
    Ok(match file.read_to_end(&mut text)? {
        0 => Content::Empty,
        _ => serde_json::from_slice(&text).map_or(Content::Unreadable, Content::Holder),
    })
}

fn holder(content: Content) -> Option<Holder> {
    if let Content::Holder(holder) = content { Some(*holder) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Stage, Tool};

    #[test]
    fn a_claim_has_one_holder_and_ends_with_it() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::below(root.path().to_owned());
        let id: ContainerId = "web".parse().unwrap();
        let claim = Claim::take(&directories, &id).unwrap();
        claim.write(&Holder::own(Path::new("/b"), &[])).unwrap();
        let taken = Claim::take(&directories, &id).unwrap_err().to_string();
        assert_eq!(taken, format!("container web already exists (owned by process {})", std::process::id()));
        assert!(sweep(&directories).unwrap().ids.is_empty());
        // As a kill would: the lock goes, the file stays. One that cannot be undone stays, too.
        let undo = Undo { of: Tool::Ns, stage: Stage::new(Tool::Ns, ["x"]).by(Path::new("/no/such")) };
        claim.write(&Holder::own(Path::new("/b"), &[undo])).unwrap();
        drop(claim);
        assert!(sweep(&directories).unwrap().ids.is_empty() && directories.claim(&id).exists());
        fs::write(directories.claim(&id), "").unwrap();
        assert!(sweep(&directories).unwrap().ids.is_empty());
        assert_eq!(fs::read_dir(directories.claims()).unwrap().count(), 0);
    }

    #[test]
    fn what_nobody_has_started_is_not_undone() {
        let root = tempfile::tempdir().unwrap();
        let directories = Directories::below(root.path().to_owned());
        let id: ContainerId = "web".parse().unwrap();
        fs::create_dir_all(directories.bundle(&id)).unwrap();
        fs::write(directories.bundle(&id).join("record.json"), r#"{"id":"web","owner":"00000001-00000002"}"#).unwrap();
        fs::create_dir_all(directories.claims()).unwrap();
        // What a killed owner of an earlier container has left says nothing of a bundle that was made since.
        fs::write(directories.claim(&id), "").unwrap();
        drop(Claim::take(&directories, &id).unwrap());
        fs::create_dir_all(state_in(&directories.states(), &(&id).into())).unwrap();
        // It would be undone, by tools that are not here.
        assert!(Claim::take(&directories, &id).is_err());
    }

    #[test]
    fn a_damaged_claim_is_no_empty_one() {
        let root = tempfile::tempdir().unwrap();
        for (text, want) in [("", "empty"), ("{", "unreadable"), ("null", "unreadable"), ("{}", "unreadable")] {
            fs::write(root.path().join("claim"), text).unwrap();
            let content = match read(&File::open(root.path().join("claim")).unwrap()).unwrap() {
                Content::Empty => "empty",
                Content::Unreadable => "unreadable",
                Content::Holder(_) => "holder",
            };
            assert_eq!(content, want, "{text:?}");
        }
    }
}
