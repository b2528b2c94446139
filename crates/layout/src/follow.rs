//! Reading a blob that may still be arriving: the whole blob, or the growing partial one of the process that fetches it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::time::Duration;

use oci_spec::image::{Descriptor, Digest};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::inotify;

use crate::{Digester, Error, Layout, removed_if_wrong};

/// Longest sleep between two looks, for file systems whose changes inotify does not see.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A reader of a blob that may still be arriving. As with [`crate::Verified`], the read that reaches the end fails if
/// the digest is wrong. Its errors are found by [`Error::find`]; after [`Error::Replaced`], start over with a new one.
#[derive(Debug)]
pub struct Follow<'a> {
    digest: Digest,
    size: u64,
    blob: PathBuf,
    partial: PathBuf,
    source: Option<BorrowedFd<'a>>,
    watch: Option<OwnedFd>,
    file: Option<File>,
    /// The file is the blob in its place, not the partial one.
    whole: bool,
    /// `None` where the fetching process is trusted to put it in its place only if it is right.
    digester: Option<Digester>,
    trusting: bool,
    checked: bool,
    delivered: u64,
    replay: Option<Replay>,
}

/// A new file took the place of the one that was read: is what was delivered its beginning?
#[derive(Debug)]
struct Replay {
    digester: Digester,
    position: u64,
}

impl Layout {
    /// Reads a blob that is there or will be. `source` is a pipe whose far end the fetching process holds open: its
    /// end of file with the blob still missing is [`Error::NeverArrived`]. Without a source the blob must be there.
    pub fn follow<'a>(&self, descriptor: &Descriptor, source: Option<BorrowedFd<'a>>) -> Result<Follow<'a>, Error> {
        let digest = descriptor.digest().clone();
        Ok(Follow {
            digester: Some(Digester::like(&digest)?),
            trusting: false,
            checked: false,
            size: descriptor.size(),
            blob: self.blob_path(&digest),
            partial: self.partial_path(&digest),
            digest,
            source,
            watch: None,
            file: None,
            whole: false,
            delivered: 0,
            replay: None,
        })
    }
}

impl Read for Follow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.delivered == self.size {
            self.verify()?;
            return Ok(0);
        }
        if buffer.is_empty() {
            return Ok(0);
        }
        let mut source_ended = false;
        loop {
            let mut count = self.read_some(buffer)?;
            if count == 0 && self.open()? {
                count = self.read_some(buffer)?;
            }
            if count > 0 {
                self.deliver(&buffer[..count])?;
                return Ok(count);
            }
            if source_ended {
                return Err(Error::NeverArrived(self.digest.clone()).into());
            }
            source_ended = self.wait()?;
        }
    }
}

impl Follow<'_> {
    /// Does not hash what arrives meanwhile, but ends when it is in its place: for what somebody else will hash, too.
    #[must_use]
    pub fn trusting(self) -> Self {
        Self { trusting: true, ..self }
    }

    fn deliver(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(digester) = &mut self.digester {
            digester.update(bytes);
        }
        self.delivered += bytes.len() as u64;
        if self.delivered == self.size { self.verify() } else { Ok(()) }
    }

    fn verify(&mut self) -> io::Result<()> {
        let checked = self.digester.take().map(|digester| digester.verify(&self.digest));
        if std::mem::replace(&mut self.checked, true) || matches!(checked, Some(Ok(()))) {
            return Ok(());
        }
        let wrong = checked.and_then(Result::err);
        let mut source_ended = self.source.is_none();
        // Who fetches the blob finds the same. If it is wrong, it may come anew.
        while !self.open()? {
            if self.whole || source_ended {
                return match wrong {
                    None if self.whole => Ok(()),
                    None => Err(Error::NeverArrived(self.digest.clone()).into()),
                    Some(wrong) if self.whole => Err(removed_if_wrong(wrong, &self.blob, &self.partial).into()),
                    Some(wrong) => Err(wrong.into()),
                };
            }
            source_ended = self.wait()?;
        }
        Err(Error::Replaced(self.digest.clone()).into())
    }

    /// Opens the file, or another one that has taken its place; tells whether there is something new.
    fn open(&mut self) -> io::Result<bool> {
        // The partial file becomes the blob by a rename: look at the blob last, and nothing slips through.
        for (path, whole) in [(&self.blob, true), (&self.partial, false), (&self.blob, true)] {
            let Some(there) = sys::file::there(fs::metadata(path))? else { continue };
            if whole && there.len() != self.size {
                return Err(Error::Size { digest: self.digest.clone(), want: self.size, got: there.len() }.into());
            }
            if self.file.as_ref().map_or(Ok(false), |ours| sys::file::is_same(ours, Ok(there)))? {
                self.whole = whole;
                return Ok(false);
            }
            let Some(file) = sys::file::there(sys::file::open_regular(path))? else { continue };
            let digester = Digester::like(&self.digest)?;
            (self.file, self.whole, self.watch) = (Some(file), whole, None);
            if self.delivered > 0 {
                self.replay = Some(Replay { digester, position: 0 });
            } else {
                self.digester = (whole || !self.trusting).then_some(digester);
            }
            return Ok(true);
        }
        Ok(false)
    }

    fn read_some(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = &self.file else { return Ok(0) };
        while let Some(replay) = &mut self.replay {
            let left = self.delivered - replay.position;
            let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let count = file.read_at(&mut buffer[..room], replay.position)?;
            if count == 0 {
                return Ok(0);
            }
            replay.digester.update(&buffer[..count]);
            replay.position += count as u64;
            if replay.position == self.delivered {
                let same = self.digester.clone().map(Digester::finish) == Some(replay.digester.clone().finish());
                self.replay = None;
                if !same {
                    return Err(Error::Replaced(self.digest.clone()).into());
                }
            }
        }
        let room = buffer.len().min(usize::try_from(self.size - self.delivered).unwrap_or(usize::MAX));
        file.read_at(&mut buffer[..room], self.delivered)
    }

    /// Waits until something may have come; returns true when the source has ended, so that one last look is due.
    fn wait(&mut self) -> io::Result<bool> {
        let Some(source) = self.source else {
            return Err(Error::Missing(self.digest.clone()).into());
        };
        let Some(watch) = &self.watch else {
            // Look once more before the first sleep: what came before the watch has no event.
            self.watch = Some(self.watch()?);
            return Ok(false);
        };
        let mut fds = [PollFd::from_borrowed_fd(source, PollFlags::IN), PollFd::new(watch, PollFlags::IN)];
        let timeout = Timespec::try_from(LOOK_AGAIN).map_err(io::Error::other)?;
        sys::unless(&[rustix::io::Errno::INTR], rustix::event::poll(&mut fds, Some(&timeout)))?;
        let (source_events, watch_events) = (fds[0].revents(), fds[1].revents());
        if watch_events.contains(PollFlags::IN) {
            drain(watch);
        } else if source_events == PollFlags::IN && !is_at_end(source) {
            // Something else is waiting in the pipe: do not spin over it.
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(source_events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
            || (source_events.contains(PollFlags::IN) && is_at_end(source)))
    }

    /// Watches the growing file, or the directories in which the file will appear.
    fn watch(&self) -> io::Result<OwnedFd> {
        let Ok(watch) = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC) else {
            // The user's inotify instances are used up: looking now and then does as well.
            return Ok(rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)?);
        };
        let appears = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO;
        let grows = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVE_SELF | inotify::WatchFlags::ATTRIB;
        for path in [&self.blob, &self.partial] {
            // A directory that is not there yet: looking now and then finds it.
            let _missing = path.parent().map(|parent| inotify::add_watch(&watch, parent, appears));
        }
        if self.file.is_some() {
            let _replaced = inotify::add_watch(&watch, &self.partial, grows);
        }
        Ok(watch)
    }
}

fn drain(watch: &OwnedFd) {
    let mut events = [0; 4096];
    while rustix::io::read(watch, &mut events).is_ok_and(|count| count > 0) {}
}

fn is_at_end(source: BorrowedFd<'_>) -> bool {
    let regular = rustix::fs::fstat(source)
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile);
    // A file holds no process at its other end: what it says of the future is nothing.
    regular || rustix::io::ioctl_fionread(source.as_fd()).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use oci_spec::image::MediaType;

    use super::*;

    fn setup() -> (tempfile::TempDir, Layout, Descriptor) {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::create(directory.path()).unwrap();
        (directory, layout, Descriptor::new(MediaType::ImageLayer, 6, crate::sha256(b"abcdef")))
    }

    fn read_to_end(layout: &Layout, blob: &Descriptor, source: BorrowedFd<'_>) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let mut follow = layout.follow(blob, Some(source)).unwrap();
        follow.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    #[test]
    fn a_blob_is_read_while_it_arrives_even_when_it_is_started_over() {
        let (_directory, layout, blob) = setup();
        let (source, far_end) = rustix::pipe::pipe().unwrap();
        let (done, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (layout, blob, source) = (&layout, &blob, &source);
            let reader = scope.spawn(move || {
                let mut follow = layout.follow(blob, Some(source.as_fd())).unwrap();
                let mut first = [0; 3];
                follow.read_exact(&mut first).unwrap();
                done.send(()).unwrap();
                let mut rest = Vec::new();
                follow.read_to_end(&mut rest).unwrap();
                [&first[..], &rest].concat()
            });
            let mut ingest = layout.ingest(blob).unwrap().unwrap();
            ingest.write(b"abc").unwrap();
            told.recv().unwrap();
            ingest.restart().unwrap();
            ingest.write(b"abcd").unwrap();
            ingest.write(b"ef").unwrap();
            ingest.commit().unwrap();
            assert_eq!(reader.join().unwrap(), b"abcdef");
        });
        drop(far_end);
    }

    #[test]
    fn the_end_of_the_source_ends_the_wait() {
        let (_directory, layout, blob) = setup();
        let (source, far_end) = rustix::pipe::pipe().unwrap();
        rustix::io::write(&far_end, b"left over").unwrap();
        drop(far_end);
        let never = Err(format!("blob {} never arrived", blob.digest()));
        assert_eq!(read_to_end(&layout, &blob, source.as_fd()), never);
        layout.ingest(&blob).unwrap().unwrap().write(b"abc").unwrap();
        assert_eq!(read_to_end(&layout, &blob, source.as_fd()), never);
        layout.write(b"abcdef", MediaType::ImageLayer).unwrap();
        assert_eq!(read_to_end(&layout, &blob, source.as_fd()), Ok(b"abcdef".to_vec()));
    }

    #[test]
    fn other_content_in_its_place_is_noticed() {
        let (_directory, layout, blob) = setup();
        let (source, _far_end) = rustix::pipe::pipe().unwrap();
        let mut ingest = layout.ingest(&blob).unwrap().unwrap();
        ingest.write(b"xyz").unwrap();
        let mut follow = layout.follow(&blob, Some(source.as_fd())).unwrap();
        follow.read_exact(&mut [0; 3]).unwrap();
        ingest.restart().unwrap();
        ingest.write(b"abcdef").unwrap();
        let error = follow.read(&mut [0; 8]).unwrap_err();
        assert!(matches!(Error::find(&error), Some(Error::Replaced(_))), "{error}");
    }

    #[test]
    fn a_wrong_blob_that_is_fetched_again_is_read_again() {
        read_again(false);
        read_again(true);
    }

    fn read_again(trusting: bool) {
        let (_directory, layout, blob) = setup();
        let (source, _far_end) = rustix::pipe::pipe().unwrap();
        let mut ingest = layout.ingest(&blob).unwrap().unwrap();
        ingest.write(b"abcdeX").unwrap();
        let (done, told) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut follow = Follow { trusting, ..layout.follow(&blob, Some(source.as_fd())).unwrap() };
                follow.read_exact(&mut [0; 5]).unwrap();
                done.send(()).unwrap();
                let error = follow.read(&mut [0; 5]).unwrap_err().to_string();
                (error, read_to_end(&layout, &blob, source.as_fd()))
            });
            told.recv().unwrap();
            ingest.restart().unwrap();
            ingest.write(b"abcdef").unwrap();
            ingest.commit().unwrap();
            let (error, read) = reader.join().unwrap();
            assert!(error.contains("was replaced"), "{error}");
            assert_eq!(read, Ok(b"abcdef".to_vec()));
        });
    }

    #[test]
    fn only_what_arrives_is_trusted_and_ends_in_its_place() {
        let (_directory, layout, blob) = setup();
        let (source, far_end) = rustix::pipe::pipe().unwrap();
        let trusting = || layout.follow(&blob, Some(source.as_fd())).unwrap().trusting();
        let read = |mut follow: Follow| {
            let mut bytes = Vec::new();
            follow.read_to_end(&mut bytes).map(|_| bytes).map_err(|error| error.to_string())
        };
        layout.ingest(&blob).unwrap().unwrap().write(b"abcdeX").unwrap();
        let mut arriving = trusting();
        arriving.read_exact(&mut [0; 3]).unwrap();
        // What a fetcher does that has found it right.
        fs::rename(layout.partial_path(blob.digest()), layout.blob_path(blob.digest())).unwrap();
        assert_eq!(read(arriving), Ok(b"deX".to_vec()));
        assert_eq!(read(trusting()).map_err(|error| error.contains("content has digest")), Err(true));
        layout.ingest(&blob).unwrap().unwrap().write(b"abcdef").unwrap();
        drop(far_end);
        assert_eq!(read(trusting()), Err(format!("blob {} never arrived", blob.digest())));
    }

    #[test]
    fn without_a_source_the_blob_must_be_there() {
        let (_directory, layout, blob) = setup();
        let error = layout.follow(&blob, None).unwrap().read(&mut [0; 8]).unwrap_err();
        assert!(matches!(Error::find(&error), Some(Error::Missing(_))), "{error}");
    }
}
