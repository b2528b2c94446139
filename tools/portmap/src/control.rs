//! How other calls of `portmap` find a process that serves a container's ports: by a socket in the run directory, whose
//! name has the network namespace of the host's side, since a container's own is the host of others. Sockets are files
//! and not abstract, because who is only in the same network namespace (a container in the host's) must not reach them.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use container::{ContainerId, Directories};
use record::{Id, Record};
use rustix::fs::{FlockOperation, Mode, OFlags, fchmod, flock};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use sys::namespace::OWN_NETWORK;

const DISMISS: u8 = b'd';
const BACKLOG: i32 = 64;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a server waits for one who came and says nothing.
const SHORT_PATIENCE: Duration = Duration::from_millis(50);

/// The directory of the sockets of those who are beside translated ports.
const BESIDE: &str = "portmap-beside";
/// A name is part of a socket's address, which has 108 bytes.
const LONGEST: usize = 76;

/// Control sockets of one root, in a directory that only its user may look into.
#[derive(Clone, Debug)]
pub(crate) struct Sockets {
    path: PathBuf,
    /// The container whose alone they are, so that nobody else is asked.
    only: Option<String>,
}

impl Sockets {
    /// Returns those of a root's proxies: of one container, or of all.
    pub(crate) fn below(directories: &Directories, id: Option<&str>) -> Self {
        Self { path: directories.sockets(), only: id.map(|id| id.chars().take(LONGEST).collect()) }
    }

    /// Returns those of the processes that are beside translated ports.
    pub(crate) fn beside(directories: &Directories, id: Option<&str>) -> Self {
        let below = Self::below(directories, id);
        Self { path: below.path.with_file_name(BESIDE), ..below }
    }

    /// Makes a server of this process known, with what it serves; what killed ones have left goes.
    pub(crate) fn make(&self, record: &Record) -> anyhow::Result<ServerSocket> {
        sys::file::make_private(&self.path).with_context(|| format!("make {}", self.path.display()))?;
        let directory = self.open()?.with_context(|| format!("open {}", self.path.display()))?;
        let make = || -> anyhow::Result<ServerSocket> {
            // Between binding and listening a socket looks like one that was left.
            flock(&directory, FlockOperation::LockExclusive)?;
            self.sweep_in(&directory);
            let (name, listener) = self.bind_anew(&directory)?;
            Ok(ServerSocket { listener, name: SocketName(self.path.join(name)), record: record.to_line() + "\n" })
        };
        make().with_context(|| format!("make a control socket in {}", self.path.display()))
    }

    /// Removes the sockets that killed servers have left.
    pub(crate) fn sweep(&self) -> anyhow::Result<()> {
        let Some(directory) = self.open()? else { return Ok(()) };
        flock(&directory, FlockOperation::LockExclusive).with_context(|| format!("lock {}", self.path.display()))?;
        self.sweep_in(&directory);
        Ok(())
    }

    /// Returns what all servers serve.
    pub(crate) fn records(&self) -> anyhow::Result<Vec<Record>> {
        Ok(self.servers()?.into_iter().map(|(_, record)| record).collect())
    }

    /// Ends the servers that `leaves` says and waits until they have let go of their ports.
    pub(crate) fn dismiss(&self, leaves: impl Fn(&Record) -> bool) -> anyhow::Result<()> {
        let Some(directory) = self.open()? else { return Ok(()) };
        for (name, record) in self.servers()? {
            let Some(id) = record.find::<Id>()?.filter(|_| leaves(&record)) else { continue };
            say(&directory, &name, DISMISS).with_context(|| format!("end the server of {}", id.0))?;
        }
        Ok(())
    }

    /// Asks each server of this network namespace what it serves; one that has ended meanwhile is none.
    fn servers(&self) -> anyhow::Result<Vec<(String, Record)>> {
        let Some(directory) = self.open()? else { return Ok(Vec::new()) };
        // The directory is the run directory's, which containers' network namespaces share: a port of another
        // namespace is no port of ours.
        let prefix = format!("{}.", own_namespace()?);
        let mut names = self.names()?;
        names.retain(|name| name.starts_with(&prefix));
        names.sort();
        let asked =
            names.into_iter().filter_map(|name| Some(ask(&directory, &name).transpose()?.map(|record| (name, record))));
        asked.collect::<io::Result<_>>().with_context(|| format!("ask the servers in {}", self.path.display()))
    }

    fn sweep_in(&self, directory: &File) {
        for name in self.names().unwrap_or_default() {
            if open_connection(directory, &name).err() == Some(Errno::CONNREFUSED) {
                // Where it cannot be removed it misleads nobody: nobody answers at it.
                let _left = fs::remove_file(self.path.join(&name));
            }
        }
    }

    /// Returns the names of sockets. One that ends with a process's number and has no id is of an older version.
    fn names(&self) -> anyhow::Result<Vec<String>> {
        let (name, is_beside) = (self.name()?, self.path.ends_with(BESIDE));
        if self.only.is_some() && is_beside {
            return Ok(vec![name]);
        }
        let entries = sys::file::entries(&self.path).with_context(|| format!("read {}", self.path.display()))?;
        let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
        let is_own = |other: &str| {
            let (start, number) = other.rsplit_once('.').unwrap_or_default();
            start == name || !start.contains('.') && number.parse::<u32>().is_ok()
        };
        Ok(names.filter(|name| self.only.is_none() || is_own(name)).collect())
    }

    /// Returns how a socket's name begins.
    fn name(&self) -> anyhow::Result<String> {
        let id = self.only.as_ref().map(|id| format!(".{id}")).unwrap_or_default();
        Ok(format!("{}{id}", own_namespace()?))
    }

    /// Binds to a name that is free: in another process namespace another may have this one's number.
    fn bind_anew(&self, directory: &File) -> anyhow::Result<(String, UnixListener)> {
        let number = std::process::id();
        let name = self.name()?;
        let names = [name.clone()].into_iter().filter(|_| self.path.ends_with(BESIDE));
        for name in names.chain((number..).map(|number| format!("{name}.{number}"))) {
            let bound = bind(&path_in(directory, &name)).map_err(io::Error::from);
            if let Some(listener) = sys::unless(&[Errno::ADDRINUSE], bound)? {
                return Ok((name, listener));
            }
        }
        bail!("all names are taken")
    }

    /// Opens the directory; `None` where there is none. One that others could write to would lend them our name.
    fn open(&self) -> anyhow::Result<Option<File>> {
        let flags = i32::try_from((OFlags::DIRECTORY | OFlags::NOFOLLOW).bits()).unwrap_or_default();
        let opened = sys::file::there(File::options().read(true).custom_flags(flags).open(&self.path));
        let opened = opened.with_context(|| format!("open {}", self.path.display()))?;
        let Some(directory) = opened else { return Ok(None) };
        let metadata = directory.metadata().with_context(|| format!("look at {}", self.path.display()))?;
        // On the open directory, not on the path: what is looked at is what is used.
        let is_open = metadata.uid() != rustix::process::geteuid().as_raw() || metadata.mode() & 0o077 != 0;
        let need = "control sockets need a directory of the user's own, mode 0700";
        ensure!(!is_open, "{} is open to others: {need}", self.path.display());
        Ok(Some(directory))
    }
}

/// Returns the container of a record, if it names one.
pub(crate) fn id_of(record: &Record) -> Option<ContainerId> {
    record.find::<Id>().ok().flatten().map(|id| id.0)
}

/// A server's end.
#[derive(Debug)]
pub(crate) struct ServerSocket {
    listener: UnixListener,
    name: SocketName,
    record: String,
}

/// A socket's name in the file system, which goes with this.
#[derive(Debug)]
pub(crate) struct SocketName(pub(crate) PathBuf);

impl Drop for SocketName {
    fn drop(&mut self) {
        // Nobody listens there any more, whoever removes it.
        let _left = fs::remove_file(&self.0);
    }
}

impl ServerSocket {
    /// Returns the socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.name.0
    }

    /// Closes the socket, which a child has from now on, and leaves the name to that.
    pub(crate) fn hand_on(self) {
        // The destructor would remove the name that the child answers at.
        std::mem::forget(self.name);
    }

    pub(crate) fn socket(&self) -> &UnixListener {
        &self.listener
    }

    /// Answers whoever asks; returns whether it was to dismiss the server.
    pub(crate) fn is_dismissed(&self) -> bool {
        let Ok((mut asker, _)) = self.listener.accept() else { return false };
        if !is_one_of_us(&asker) {
            return false;
        }
        let mut word = [0];
        // The server serves connections meanwhile: an asker who says nothing must not hold them up for long.
        let heard = wait_at_most(&asker, SHORT_PATIENCE).and_then(|()| asker.read(&mut word));
        if matches!(heard, Ok(1)) && word == [DISMISS] {
            // The asker waits for the end of this connection, which is the end of the process.
            std::mem::forget(OwnedFd::from(asker));
            return true;
        }
        // One who does not read has gone.
        let _gone = asker.write_all(self.record.as_bytes());
        false
    }
}

/// Tells whether the other side is this user or root: `SO_PEERCRED`, unix(7).
fn is_one_of_us(socket: &UnixStream) -> bool {
    let own = rustix::process::geteuid();
    sockopt::socket_peercred(socket).is_ok_and(|peer| peer.uid == own || peer.uid.is_root())
}

fn bind(path: &str) -> rustix::io::Result<UnixListener> {
    let socket = stream_socket(AddressFamily::UNIX)?;
    // The file gets the socket's own mode.
    // Before bind(2), which makes the file with the socket's mode and the umask: no moment in which others could
    // connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    net::listen(&socket, BACKLOG)?;
    Ok(UnixListener::from(socket))
}

fn ask(directory: &File, name: &str) -> io::Result<Option<Record>> {
    match say(directory, name, b'?') {
        Ok(line) => Ok(Record::parse(&line, name).ok()),
        // One that is stopped does not answer in time.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => sys::file::known(Err(error)),
    }
}

/// Says a word to a server, and returns what that says until the connection ends.
fn say(directory: &File, name: &str, word: u8) -> io::Result<Vec<u8>> {
    let mut server = open_connection(directory, name)?;
    if !is_one_of_us(&server) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    wait_at_most(&server, PATIENCE)?;
    server.write_all(&[word])?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}

fn wait_at_most(socket: &UnixStream, patience: Duration) -> io::Result<()> {
    socket.set_nonblocking(false)?;
    socket.set_read_timeout(Some(patience))?;
    socket.set_write_timeout(Some(patience))
}

/// Connects without waiting: a server that was stopped may have its queue full.
fn open_connection(directory: &File, name: &str) -> rustix::io::Result<UnixStream> {
    let socket = stream_socket(AddressFamily::UNIX)?;
    net::connect(&socket, &SocketAddrUnix::new(path_in(directory, name))?)?;
    Ok(UnixStream::from(socket))
}

/// Makes a socket for a stream; nobody waits at it.
pub(crate) fn stream_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// The address of a socket has 108 bytes; a directory's path may have more.
fn path_in(directory: &File, name: &str) -> String {
    format!("/proc/self/fd/{}/{name}", directory.as_raw_fd())
}

/// Returns the number of the thread's network namespace, which no other has as long as this one is there.
fn own_namespace() -> anyhow::Result<u64> {
    Ok(fs::metadata(OWN_NETWORK).context("look at the network namespace")?.ino())
}
