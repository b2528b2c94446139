//! The shared layers: `layers/sha256/HEX`, each extracted once for all images and named by its diffID. A layer is
//! extracted into `layers/tmp` under a lock and renamed when both its digests match, so that one of two runs works and
//! the other waits, and what a killed run leaves is swept by the next.
//!
//! Nobody waits for the disk: a layer is marked first (`container::Unwritten`), and a process that outlives the program
//! writes it and takes the mark off. After a power cut a layer that is still marked is extracted again.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use ::container::{Directories, Unwritten};
use anyhow::{Context, Result, bail};
use layout::extracted;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use sys::signal::SignalFd;

use crate::extraction::{ExtractManner, extract};
use crate::form::{Form, list_path};
use crate::image::{Image, Layer};
use crate::interrupt::{self, Temporary};
use crate::lock::StoreLock;
use crate::lower::Lower;
use crate::parents::{self, Stack};
use crate::path::Inner;
use crate::stream::Limits;
use crate::xattr;

/// Layers in work at once, at least: more than processors, since most wait for the network while an image arrives.
const WORKERS: usize = 3;

/// How long what is extracted may lie in memory before it is sent to the disk, where somebody waits for that.
const WRITE_AHEAD: Duration = Duration::from_millis(100);

/// The directory of shared layers.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    form: Form,
    /// Whether this process writes its layers to the disk.
    sync: bool,
    /// Whether others' layers have still to be written.
    pub(crate) is_behind: bool,
}

impl Store {
    /// Opens the store below the data directory, and makes what is missing of it. Nobody else may enter: layers have
    /// setuid programs. What killed runs have left is removed, and what the disk may lack of these layers.
    pub(crate) fn open(directories: &Directories, form: Form, layers: &[Layer]) -> Result<Self> {
        let (data, path) = (directories.data(), directories.layers());
        let make = || -> io::Result<()> {
            DirBuilder::new().recursive(true).mode(0o755).create(data)?;
            sys::file::make_private(&path)?;
            // Only if need be: it changes the directory's ctime, by which `run` knows that nobody has been at it.
            if path.metadata()?.permissions().mode() & 0o7777 != 0o700 {
                fs::set_permissions(&path, Permissions::from_mode(0o700))?;
            }
            let names = extracted::KINDS.into_iter().chain(["tmp", Unwritten::DIRECTORY]);
            names.map(|name| path.join(name)).try_for_each(sys::file::make_private)
        };
        make().with_context(|| format!("make directory {}", path.display()))?;
        let marked = Unwritten::of_store(&path)?;
        let is_behind = marked.iter().any(|mark| mark.is_of_this_boot && !mark.has_failed);
        let store = Self { path, form, sync: true, is_behind };
        store.sweep();
        let is_own = |layer: &PathBuf| extracted::of_image(&store.path, &diff_ids(layers)).contains(layer);
        for mark in marked.iter().filter(|mark| !mark.is_of_this_boot && is_own(&mark.layer)) {
            store.distrust(mark).with_context(|| format!("remove layer {}", mark.layer.display()))?;
        }
        Ok(store)
    }

    /// Removes a layer that the disk may lack since the machine stopped.
    fn distrust(&self, Unwritten { layer, mark, .. }: &Unwritten) -> io::Result<()> {
        let _lock = StoreLock::wait(&self.temporary_path(layer).with_extension("lock"))?;
        // Another run may have been first, and have extracted it again.
        if mark.try_exists()? {
            log::debug!("remove layer {}: the machine stopped before it was on the disk", layer.display());
            root::remove_tree(layer)?;
            root::remove_tree(&list_path(layer))?;
            fs::remove_file(mark)?;
        }
        Ok(())
    }

    /// Leaves it to a process that nobody waits for to write the layers to the disk, after the end of this one. Before
    /// this one gives up files, and before its first thread.
    pub(crate) fn written_later(mut self) -> Self {
        let parent = rustix::process::getpid();
        match sys::clone::detach() {
            Ok(Some(_child)) => self.sync = false,
            Ok(None) => sys::clone::exit_now(i32::from(self.write_after(parent).is_err())),
            Err(error) => log::debug!("write the layers without another process: {error}"),
        }
        self
    }

    fn write_after(&self, parent: Pid) -> Result<()> {
        // The end of a session or of a unit may wait for the disk, as everybody else who ends.
        let _blocked = SignalFd::block(&[Signal::TERM, Signal::HUP, Signal::INT])?;
        std::env::set_current_dir("/")?;
        let directory = self.open_directory()?;
        let unpack = pidfd_open(parent, PidfdFlags::empty());
        // Looked at now that the number cannot become another process's.
        if rustix::process::getppid() == Some(parent) {
            poll(&mut [PollFd::new(&unpack?, PollFlags::IN)], None)?;
        }
        self.write(&directory)
    }

    /// Opens the store for `write`. An error of the disk is told to those who had a file open when it happened.
    pub(crate) fn open_directory(&self) -> Result<File> {
        File::open(&self.path).with_context(|| format!("open {}", self.path.display()))
    }

    /// Writes what is marked to the disk: the whole file system, since fsync(2) for each file of a layer would wait as often.
    /// What fails stays marked: the kernel tells an error once, and forgets what it could not write.
    pub(crate) fn write(&self, directory: &File) -> Result<()> {
        let marked = Unwritten::of_store(&self.path)?.into_iter().filter(|mark| mark.is_of_this_boot);
        let (failed, marked): (Vec<_>, Vec<_>) = marked.partition(|mark| mark.has_failed);
        let written = if marked.is_empty() { Ok(()) } else { rustix::fs::syncfs(directory) };
        marked.iter().try_for_each(|mark| mark.end(written.is_err()))?;
        written.with_context(|| format!("write {} to the disk", self.path.display()))?;
        let lost = failed.iter().find(|mark| mark.layer.exists());
        lost.map_or(Ok(()), |lost| bail!("the disk has refused layer {}: pull gc removes it", lost.layer.display()))
    }

    /// Returns the directory that all layers are in.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn layer_path(&self, layer: &Layer) -> PathBuf {
        self.path.join(layer.diff_id.algorithm().as_ref()).join(layer.diff_id.digest())
    }

    /// Returns where what gets a name is made.
    fn temporary_path(&self, path: &Path) -> PathBuf {
        self.path.join("tmp").join(path.file_name().unwrap_or_default())
    }

    /// Extracts the layers of an image that are not there yet, several at once, and returns the directories to stack,
    /// the lowest first.
    pub(crate) fn unpack(self, image: Image, limits: Limits) -> Result<Vec<PathBuf>> {
        let directory = self.sync.then(|| self.open_directory()).transpose()?;
        // Threads that are not joined: after an error the process ends, and they with it, which `interrupt` makes
        // safe.
        let job = Arc::new(Job { store: self, image, limits: Arc::new(limits), next: AtomicUsize::new(0) });
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // Layers of an image go into directories of their own, so their order does not matter until they are stacked.
        let workers = processors.max(WORKERS).min(job.image.layers.len());
        let (done, results) = mpsc::channel();
        for number in 0..workers {
            let (job, done) = (Arc::clone(&job), done.clone());
            let work = move || job.work(&done);
            std::thread::Builder::new().name(format!("layer-{number}")).spawn(work).context("start a thread")?;
        }
        drop(done);
        // The first error ends it all; the others wait at the gate until the program has ended.
        let count = job.store.name(&results).inspect_err(|_| interrupt::abandon())?;
        anyhow::ensure!(count == job.image.layers.len(), "a thread panicked");
        let stack = job.store.stack(&job.image, &job.limits).inspect_err(|_| interrupt::abandon())?;
        if let Some(directory) = directory {
            job.store.write(&directory)?;
        }
        Ok(stack)
    }

    /// Gives layers their names as the workers hand them over. Returns how many came.
    fn name(&self, results: &mpsc::Receiver<Result<Option<Extracted>>>) -> Result<usize> {
        // Not the one that has to hear of errors in the end.
        let ahead = self.sync.then(|| self.open_directory()).transpose()?;
        let mut count = 0;
        loop {
            match results.recv_timeout(WRITE_AHEAD) {
                Ok(extracted) => {
                    count += 1;
                    extracted?.map(|extracted| self.keep(extracted)).transpose()?;
                }
                Err(RecvTimeoutError::Timeout) => {
                    // The disk would be idle while the workers are, and then be waited for.
                    let _told_later = ahead.as_ref().map(rustix::fs::syncfs);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(count),
            }
        }
    }

    /// Returns the directories that overlayfs stacks. Of a layer that comes twice only the upper one counts, as it
    /// hides the lower one entirely, and overlayfs takes no directory twice. What is below an opaque root is hidden
    /// too, which overlayfs does not look for.
    fn stack(&self, image: &Image, limits: &Arc<Limits>) -> Result<Vec<PathBuf>> {
        let _span = trace::span("stack the layers", "");
        let layers = &image.layers;
        let paths = self.resolve(image, limits)?;
        let mut seen = HashSet::new();
        let mut stack = Vec::new();
        for path in paths.iter().rev() {
            // overlayfs refuses a directory that is in the list twice with ELOOP.
            if seen.insert(path) {
                let look = || xattr::is_opaque(File::open(path)?, self.form).map_err(io::Error::from);
                let opaque = look().with_context(|| format!("look into {}", path.display()))?;
                stack.push(path.clone());
                if opaque {
                    break;
                }
            }
        }
        stack.reverse();
        let opened = Stack::open(&stack, self.form)?;
        let wanted = opened.wanted()?;
        // Overlayfs needs a layer, which an image of metadata alone has not.
        if !wanted.is_empty() || stack.is_empty() {
            stack
                .push(self.describe_parents(layers, &opened, &wanted).context("describe directories of lower layers")?);
        }
        self.remember(layers, &stack);
        Ok(stack)
    }

    /// Returns what was stacked for these layers before, if it is all there. That is found in the notes of the top layer,
    /// whether it was needed or not, so that they go when no image needs it any more.
    pub(crate) fn remembered(&self, layers: &[Layer]) -> Option<Vec<PathBuf>> {
        let text = fs::read_to_string(self.stack_path(layers)).ok()?;
        let lines = text.strip_prefix(&self.heading())?.strip_suffix("end\n")?;
        let stack: Vec<PathBuf> = lines.lines().map(|line| self.path.join(line)).collect();
        (!stack.is_empty() && stack.iter().all(|path| path.is_dir())).then_some(stack)
    }

    fn remember(&self, layers: &[Layer], stack: &[PathBuf]) {
        let lines =
            stack.iter().filter_map(|path| Some(format!("{}\n", path.strip_prefix(&self.path).ok()?.display())));
        let text = format!("{}{}end\n", self.heading(), lines.collect::<String>());
        let _pass = interrupt::pass();
        // Without it, or with a part of it, the next run looks again.
        let _unneeded = fs::write(self.stack_path(layers), text);
    }

    fn stack_path(&self, layers: &[Layer]) -> PathBuf {
        list_path(&self.path.join("parents").join(key(layers)))
    }

    /// Returns what a stack depends on beside the layers: these rules and the form.
    fn heading(&self) -> String {
        format!("stack 1 {:?}\n", self.form)
    }

    /// Returns each layer's directory, the lowest first. One that depends on those below is extracted again, for them.
    fn resolve(&self, image: &Image, limits: &Arc<Limits>) -> Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        let mut lower = Lower::open(&paths, self.form)?;
        for (number, layer) in image.layers.iter().enumerate() {
            let mut path = self.layer_path(layer);
            if parents::is_dependent(&path, &lower)? {
                path = self.path.join("chains").join(key(&image.layers[..=number]));
                log::debug!("layer {} depends on those below it", layer.diff_id);
                let source = Source { image, layer, lower: Some(&lower) };
                self.extract_once(&source, &path, limits)?.map(|extracted| self.keep(extracted)).transpose()?;
            }
            lower.push(&path)?;
            paths.push(path);
        }
        Ok(paths)
    }

    /// Makes the layer with the attributes of directories that upper layers need and lower ones describe. It depends
    /// on all the layers, so that is what its name is made of.
    fn describe_parents(&self, layers: &[Layer], stack: &Stack, wanted: &BTreeMap<Inner, usize>) -> Result<PathBuf> {
        let path = self.path.join("parents").join(key(layers));
        let temporary_path = self.temporary_path(&path);
        // The lock's file is beside the temporary directory, which another run would only see half made; the second
        // look below is under the lock.
        let lock = StoreLock::wait(&temporary_path.with_extension("lock"))?;
        if !path.try_exists()? {
            let temporary = Temporary::new(temporary_path);
            let pass = interrupt::pass();
            interrupt::remove_tree(temporary.path());
            DirBuilder::new().mode(0o755).create(temporary.path())?;
            let root = File::open(temporary.path())?;
            stack.make(&root, wanted)?;
            drop(pass);
            self.keep(Extracted { temporary, path: path.clone(), _lock: lock })?;
        }
        Ok(path)
    }

    /// Removes what killed runs have left.
    fn sweep(&self) {
        let _span = trace::span("sweep", "");
        let entries = fs::read_dir(self.path.join("tmp")).into_iter().flatten().flatten();
        let stems: HashSet<PathBuf> = entries.map(|entry| entry.path().with_extension("")).collect();
        for stem in stems {
            // Whoever holds the lock is alive; an error here is met again, and told, by whoever needs the layer.
            if let Ok(Some(_lock)) = StoreLock::try_take(&stem.with_extension("lock")) {
                log::debug!("sweep {}", stem.display());
                interrupt::remove_tree(&stem);
                interrupt::remove_tree(&list_path(&stem));
            }
        }
    }

    /// Extracts a layer unless it is there.
    fn extract_once(&self, source: &Source<'_>, path: &Path, limits: &Arc<Limits>) -> Result<Option<Extracted>> {
        let extracted = self.extract_if_missing(source, path, limits);
        extracted.with_context(|| format!("extract layer {}", source.layer.blob.digest()))
    }

    fn extract_if_missing(&self, source: &Source<'_>, path: &Path, limits: &Arc<Limits>) -> Result<Option<Extracted>> {
        let layer = source.layer;
        let temporary_path = self.temporary_path(path);
        let there = || path.try_exists().with_context(|| format!("look for {}", path.display()));
        if there()? {
            log::debug!("layer {} is there", layer.diff_id);
            return Ok(None);
        }
        let lock_path = temporary_path.with_extension("lock");
        let lock = StoreLock::wait(&lock_path).with_context(|| format!("lock {}", lock_path.display()))?;
        if there()? {
            log::debug!("layer {} has arrived", layer.diff_id);
            return Ok(None);
        }
        log::debug!("extract layer {} to {}", layer.blob.digest(), path.display());
        let _span = trace::span("extract", layer.blob.digest());
        loop {
            let temporary = Temporary::new(temporary_path.clone());
            interrupt::remove_tree(temporary.path());
            match self.extract_to(&temporary, source, limits) {
                // The digest is known only at the blob's end, when the whole layer has been written. `pull` fetches a
                // corrupt blob anew, once.
                Err(error) if was_replaced(&error) => log::debug!("{error:#}: start over"),
                Err(error) => return Err(error),
                Ok(()) => return Ok(Some(Extracted { temporary, path: path.to_owned(), _lock: lock })),
            }
        }
    }

    fn extract_to(&self, temporary: &Temporary, source: &Source<'_>, limits: &Arc<Limits>) -> Result<()> {
        let path = temporary.path();
        let made = || format!("make directory {}", path.display());
        let list = list_path(path);
        let (root, implicit) = {
            let _pass = interrupt::pass();
            DirBuilder::new().mode(0o700).create(path).with_context(made)?;
            let list = File::options().create(true).write(true).truncate(true).mode(0o600).open(&list);
            (File::open(path).with_context(made)?, list.with_context(made)?)
        };
        let stream = source.image.stream(source.layer, limits)?;
        let manner = ExtractManner { form: self.form, implicit: Some(implicit), lower: source.lower };
        let entry = extract(stream, source.layer, &root, manner, limits)?;
        crate::extraction::describe_root(&root, entry.as_ref())
    }

    /// Gives a whole layer its name.
    fn keep(&self, extracted: Extracted) -> Result<()> {
        let Extracted { temporary, path, _lock } = extracted;
        let _pass = interrupt::pass();
        Unwritten::make(&self.path, &path).with_context(|| format!("mark layer {}", path.display()))?;
        let renamed = || format!("rename to {}", path.display());
        // First, since it is the directory that says the layer is there.
        sys::file::there(fs::rename(list_path(temporary.path()), list_path(&path))).with_context(renamed)?;
        fs::rename(temporary.path(), &path).with_context(renamed)?;
        temporary.keep();
        Ok(())
    }
}

/// A layer that is whole and has no name yet.
struct Extracted {
    temporary: Temporary,
    path: PathBuf,
    _lock: StoreLock,
}

/// A layer, and what it is extracted with.
struct Source<'a> {
    image: &'a Image,
    layer: &'a Layer,
    lower: Option<&'a Lower>,
}

fn diff_ids(layers: &[Layer]) -> Vec<&str> {
    layers.iter().map(|layer| layer.diff_id.as_ref()).collect()
}

/// Returns the name of what depends on all of these layers.
fn key(layers: &[Layer]) -> String {
    extracted::key(&diff_ids(layers))
}

struct Job {
    store: Store,
    image: Image,
    limits: Arc<Limits>,
    next: AtomicUsize,
}

impl Job {
    /// Extracts layers until none is left, the lowest first.
    fn work(&self, done: &mpsc::Sender<Result<Option<Extracted>>>) {
        loop {
            let Some(layer) = self.image.layers.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            let source = Source { image: &self.image, layer, lower: None };
            let result = self.store.extract_once(&source, &self.store.layer_path(layer), &self.limits);
            let failed = result.is_err();
            if done.send(result).is_err() || failed {
                return;
            }
        }
    }
}

/// Tells whether the blob that was read while it arrived has turned out to be wrong, and comes again.
pub(crate) fn was_replaced(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| matches!(layout::Error::find(cause), Some(layout::Error::Replaced(_))))
}
