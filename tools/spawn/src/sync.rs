//! What the parent and the child say to each other: packets over a socket pair. The child's last words may come from
//! the launching program of `sys::launch`, which writes the same form.
//!
//! The sockets are SEQPACKET: packets keep their bounds, so the launching program can send one by a single write(2),
//! and unlike datagrams they have an end, which is how a dead child or a running program is noticed.
//!
//! A packet is a tag and a value, four bytes each in the machine's byte order, and then text; a descriptor comes with
//! it as `SCM_RIGHTS`. Parent and child are one executable, but for `start`: the child that it hears from may be an
//! older one's, which says `CALL_FAILED` and nothing else.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};

use crate::state;

/// The first word of a message of the child's that says which call failed; the second one is the error number.
pub(crate) const CALL_FAILED: u32 = 3;

/// For how many seconds in a row the child may be found stopped.
const PATIENCE: u32 = 10;

/// That of a message that says that all is done but `start`: nothing that could fail is left but the program.
pub(crate) const READY: u32 = 1;

/// From the child.
#[derive(Debug)]
pub(crate) enum Message {
    /// All is done but `start`.
    Ready,
    /// The namespaces exist and are filled: the parent's hooks may run, and then answers.
    Hooks,
    /// The master side of the container's terminal.
    Console(OwnedFd),
    /// The number that the seccomp listener has among the child's descriptors.
    Listener(i32),
    /// The process that was asked for, made by an intermediate one.
    Born(Pid, OwnedFd),
    /// The detached tree of the mount with that number in the configuration: the parent maps its ids, and then answers.
    Map(usize, OwnedFd),
    /// It failed, and this is what the parent is to say; with the exit code.
    Failed(u8, anyhow::Error),
    /// The socket was closed: the container's program runs, or the child died.
    End,
}

/// Makes the pair: the parent's end, the child's end.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message without descriptor.
pub(crate) fn send(socket: BorrowedFd<'_>, message: &Message) -> io::Result<()> {
    let (tag, value, text) = match message {
        Message::Ready => (READY, 0, String::new()),
        Message::Hooks => (2, 0, String::new()),
        Message::Console(fd) => return send_fd(socket, 4, 0, fd.as_fd()),
        Message::Born(pid, fd) => return send_fd(socket, 7, pid.as_raw_pid().unsigned_abs(), fd.as_fd()),
        Message::Failed(code, error) => (6, u32::from(*code), format!("{error:#}")),
        // The first is written by the launching program, the second by `ask`, and the third is the socket's end.
        Message::Listener(_) | Message::Map(..) | Message::End => return Ok(()),
    };
    let packet = [&tag.to_ne_bytes()[..], &value.to_ne_bytes(), text.as_bytes()].concat();
    Ok(rustix::net::send(socket, &packet, SendFlags::NOSIGNAL).map(drop)?)
}

/// Sends the detached tree of a mount, and waits until the parent has mapped its ids.
pub(crate) fn ask(parent: BorrowedFd<'_>, mount: usize, tree: BorrowedFd<'_>) -> anyhow::Result<()> {
    send_fd(parent, 8, u32::try_from(mount)?, tree)?;
    crate::child::wait_for_parent(parent)
}

fn send_fd(socket: BorrowedFd<'_>, tag: u32, value: u32, fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(sys::packet::send(socket, &[&tag.to_ne_bytes(), &value.to_ne_bytes()], Some(fd))?)
}

/// Has [`hear`] look at the child each second: in a pid namespace that others have, too, they can stop it.
///
/// runc waits for ever there.
pub(crate) fn be_patient(socket: BorrowedFd<'_>) -> io::Result<()> {
    Ok(set_socket_timeout(socket, Timeout::Recv, Some(Duration::from_secs(1)))?)
}

/// Waits for the child's next message, but not for one that is kept stopped.
pub(crate) fn hear(socket: BorrowedFd<'_>, (pid, pidfd): (Pid, &OwnedFd)) -> anyhow::Result<Message> {
    let mut stopped = 0;
    loop {
        match receive(socket) {
            Err(error) if error.downcast_ref() == Some(&Errno::AGAIN) => {}
            received => return received,
        }
        if !state::is_stopped(pid) {
            stopped = 0;
            continue;
        }
        stopped += 1;
        ensure!(stopped < PATIENCE, "the container's process is kept stopped by another one in its pid namespace");
        // It may have ended in this moment.
        // A stop by accident (a ^Z that reached the group) is over with this; one by a neighbour comes again, and
        // runs into PATIENCE.
        let _ended = rustix::process::pidfd_send_signal(pidfd, Signal::CONT);
    }
}

/// Waits for the child's next message.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> anyhow::Result<Message> {
    // Enough for the longest cause: a path or two.
    let mut buffer = [0; 16_384];
    let (length, fd) = sys::packet::receive(socket, &mut buffer).context("hear from the container's process")?;
    parse(buffer.get(..length).unwrap_or_default(), fd)
}

fn parse(packet: &[u8], fd: Option<OwnedFd>) -> anyhow::Result<Message> {
    let word = |at: usize| packet.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    let Some(tag) = word(0) else { return Ok(Message::End) };
    let value = word(4).unwrap_or(0);
    let text = String::from_utf8_lossy(packet.get(8..).unwrap_or_default()).into_owned();
    let number = i32::try_from(value).unwrap_or(-1);
    Ok(match (tag, fd) {
        (READY, _) => Message::Ready,
        (2, _) => Message::Hooks,
        (CALL_FAILED, _) => call_failed(number, &text),
        (4, Some(fd)) => Message::Console(fd),
        (5, _) => Message::Listener(number),
        (6, _) => Message::Failed(u8::try_from(value).unwrap_or(125), anyhow!(text)),
        (7, Some(fd)) => Message::Born(Pid::from_raw(number).context("a process without number")?, fd),
        (8, Some(fd)) => Message::Map(usize::try_from(value)?, fd),
        (other, _) => return Err(anyhow!("unknown message {other} from the container's process")),
    })
}

/// A failed `execve` is the container's fault, told in the words that hosts look for; the rest is ours.
fn call_failed(errno: i32, call: &str) -> Message {
    let error = io::Error::from_raw_os_error(errno);
    let Some(program) = call.strip_prefix("exec ") else {
        return Message::Failed(125, anyhow!(error).context(call.to_owned()));
    };
    Message::Failed(code_of(errno), anyhow!("exec {program}: {}", in_lower_case(&error)))
}

/// Exit codes for a program that cannot be executed: those of shells, docker and podman.
pub(crate) const NOT_EXECUTABLE: u8 = 126;
pub(crate) const NOT_FOUND: u8 = 127;

/// Returns the exit code that an error means in the search for a program.
pub(crate) fn code_of(errno: i32) -> u8 {
    if matches!(errno, libc::ENOENT | libc::ENOTDIR) { NOT_FOUND } else { NOT_EXECUTABLE }
}

/// Hosts compare these words with Go's, which begin with a small letter.
pub(crate) fn in_lower_case(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or("").to_owned();
    let mut letters = text.chars();
    letters.next().map(|first| first.to_ascii_lowercase().to_string() + letters.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_descriptors_arrive() {
        let (ours, theirs) = pair().unwrap();
        let (master, _other) = pair().unwrap();
        for message in
            [Message::Ready, Message::Hooks, Message::Console(master), Message::Failed(127, anyhow!("exec: x"))]
        {
            send(theirs.as_fd(), &message).unwrap();
            let got = receive(ours.as_fd()).unwrap();
            assert_eq!(std::mem::discriminant(&got), std::mem::discriminant(&message));
            if let (Message::Failed(code, error), Message::Failed(..)) = (got, message) {
                assert_eq!((code, error.to_string().as_str()), (127, "exec: x"));
            }
        }
        drop(theirs);
        assert!(matches!(receive(ours.as_fd()).unwrap(), Message::End));
    }

    #[test]
    fn what_is_said_before_an_unread_answer_is_heard() {
        let (ours, theirs) = pair().unwrap();
        send(theirs.as_fd(), &Message::Failed(125, anyhow!("mount"))).unwrap();
        rustix::net::send(&ours, b"!", SendFlags::NOSIGNAL).unwrap();
        drop(theirs);
        assert!(matches!(receive(ours.as_fd()).unwrap(), Message::Failed(125, _)));
        assert!(matches!(receive(ours.as_fd()).unwrap(), Message::End));
    }

    #[test]
    fn failed_programs_are_told_in_the_words_that_hosts_know() {
        for (errno, want, code) in [
            (libc::ENOENT, "exec /x: no such file or directory", 127),
            (libc::EACCES, "exec /x: permission denied", 126),
            (libc::ENOEXEC, "exec /x: exec format error", 126),
        ] {
            let Message::Failed(got, error) = call_failed(errno, "exec /x") else { panic!() };
            assert_eq!((got, error.to_string().as_str()), (code, want));
        }
    }
}
