//! Terminals: making the container's from its own devpts, handing its master to whoever asked for it, and joining the
//! user's terminal with it (runtime-spec, config.md, "process.terminal"; runc's docs/terminals.md).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, ensure};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, OutputModes, Winsize};
use sys::mount::{attach, clone_tree};

use crate::config::ConsoleSize;
use crate::sync::{self, Message};

const DEVPTS_MAGIC: i64 = 0x1cd1;

/// Gives this process a terminal of the container whose root is `root`, as its three standard descriptors and, in a new
/// session, as the controlling one. Its master goes to the other end of `console`, or else to the parent.
pub(crate) fn become_own(
    root: BorrowedFd<'_>,
    size: Option<ConsoleSize>,
    console: Option<&OwnedFd>,
    parent: BorrowedFd<'_>,
) -> anyhow::Result<()> {
    let (master, slave) = open(root, size)?;
    if console.is_none() {
        fit(slave.as_fd());
    }
    // Behind `fit`: a program that a hook has started may write as soon as it has the terminal.
    take(slave.as_fd()).context("take the terminal")?;
    match console {
        Some(connection) => hand_over(connection.as_fd(), master.as_fd()),
        None => sync::send(parent, &Message::Console(master)).context("pass the terminal on"),
    }
}

/// Makes a terminal in the devpts of the container. Neither side is ever opened by a name that the container could have
/// changed.
fn open(root: BorrowedFd<'_>, size: Option<ConsoleSize>) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY;
    let master = root::open_with(root, Path::new("/dev/pts/ptmx"), flags, ResolveFlags::NO_SYMLINKS)
        .context("open /dev/pts/ptmx of the container")?;
    // A ptmx of some other file system would be the host's terminals, or a file that the image feeds
    // (CVE-2025-52565).
    ensure!(rustix::fs::fstatfs(&master)?.f_type == DEVPTS_MAGIC, "/dev/pts of the container is not a devpts");
    rustix::pty::unlockpt(&master).context("unlock the terminal")?;
    // TIOCGPTPEER opens the other side by the master itself (ioctl_tty(2)): the name /dev/pts/N could be another
    // mount's.
    let slave = rustix::pty::ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)
        .context("open the terminal")?;
    if let Some(size) = size {
        let size = Winsize { ws_row: size.height, ws_col: size.width, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&slave, size).context("set the terminal's size")?;
    }
    Ok((master, slave))
}

/// Puts the terminal on `/dev/console`.
pub(crate) fn mount_console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> anyhow::Result<()> {
    let dev = root::open_with(root, Path::new("/dev"), OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)
        .context("open /dev of the container")?;
    let place = crate::rootfs::place_for(dev.as_fd(), "console").context("/dev/console")?;
    // A bind mount of the open slave, as runc has it: /dev/console then is that terminal under its own name.
    let tree = clone_tree(slave, false).context("clone the terminal")?;
    attach(tree.as_fd(), place.as_fd()).context("mount /dev/console")
}

fn take(slave: BorrowedFd<'_>) -> io::Result<()> {
    // `child::become_program` has made this process a session's leader without a terminal, or this would be EPERM.
    rustix::process::ioctl_tiocsctty(slave)?;
    rustix::stdio::dup2_stdin(slave)?;
    rustix::stdio::dup2_stdout(slave)?;
    Ok(rustix::stdio::dup2_stderr(slave)?)
}

/// Refuses a terminal that nobody would have, and a socket for none.
///
/// The words are runc's: its conformance tests, and hosts, compare them.
pub(crate) fn check_console(terminal: bool, detached: bool, socket: bool) -> anyhow::Result<()> {
    let nobody = terminal && detached && !socket;
    ensure!(!nobody, "cannot allocate tty if runc will detach without setting console socket");
    let nothing = socket && !(terminal && detached);
    ensure!(!nothing, "cannot use console socket if runc will not detach or allocate tty");
    Ok(())
}

/// Connects to a socket of the caller's, as that of `--console-socket`, through its directory's descriptor: a socket's path may have 107 bytes
/// only.
pub(crate) fn connect(socket: &Path) -> anyhow::Result<OwnedFd> {
    let connect = || -> io::Result<OwnedFd> {
        let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        let parent = socket.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let name = Path::new(socket.file_name().ok_or(Errno::INVAL)?);
        let address = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
        rustix::net::connect(&connection, &SocketAddrUnix::new(address)?)?;
        Ok(connection)
    };
    connect().with_context(|| format!("connect to {}", socket.display()))
}

/// Sends the master to the other end of a console socket.
pub(crate) fn hand_over(connection: BorrowedFd<'_>, master: BorrowedFd<'_>) -> anyhow::Result<()> {
    sys::packet::send(connection, &[b"/dev/ptmx"], Some(master)).context("send the terminal to the console socket")
}

/// Makes a new terminal fit the user's standard descriptors, which are still the caller's: before any program writes to it or
/// asks it. It gets the size of the user's, and where no terminal reads its output, lines end without a carriage return.
fn fit(terminal: BorrowedFd<'_>) {
    copy_size(terminal);
    if rustix::termios::isatty(rustix::stdio::stdout()) {
        return;
    }
    if let Ok(mut modes) = rustix::termios::tcgetattr(terminal) {
        modes.output_modes.remove(OutputModes::ONLCR);
        // As it was, it works as well.
        let _unchanged = rustix::termios::tcsetattr(terminal, OptionalActions::Now, &modes);
    }
}

/// Gives the container's terminal the size of the user's.
pub(crate) fn copy_size(master: BorrowedFd<'_>) {
    if let Ok(size) = rustix::termios::tcgetwinsize(rustix::stdio::stdin()) {
        // A terminal without a size works as well.
        let _unsized = rustix::termios::tcsetwinsize(master, size);
    }
}
