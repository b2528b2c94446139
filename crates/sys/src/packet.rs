//! Packets on a pair of Unix sockets whose other end may be closed at any time, and what comes with them.

use std::ffi::OsStr;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::{Errno, Result};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// Receives a packet. Who ends without having read what was sent to it resets the connection: that is reported once, before
/// what it has said (`unix_release_sock` of the kernel), and is no error, as no signal is. The end is what `receive` returns
/// then.
pub fn hear<T>(mut receive: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match receive() {
            Err(Errno::INTR | Errno::CONNRESET) => {}
            received => return received,
        }
    }
}

/// Waits for a packet, and the descriptor that may come with it: `SCM_RIGHTS`. Nothing is the end.
///
/// The descriptor is close-on-exec. If more than one came, the kernel closes those that have no room (`MSG_CTRUNC`).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = hear(|| rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut control, flags))?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    Ok((received.bytes, fd))
}

/// Sends a packet that consists of `parts`, and a descriptor with it: `SCM_RIGHTS`.
///
/// No SIGPIPE is sent: a receiver that is gone is the error `EPIPE`.
pub fn send(socket: impl AsFd, parts: &[&[u8]], fd: Option<BorrowedFd<'_>>) -> Result<()> {
    let parts: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if let Some(fd) = &fd {
        control.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(fd)));
    }
    rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &parts, &mut control, SendFlags::NOSIGNAL)).map(drop)
}

/// Returns the address that `NOTIFY_SOCKET` names: `sd_notify(3)`.
///
/// A name that begins with `@` is an abstract one: the rest of it, behind a NUL (unix(7)).
pub fn manager(text: &OsStr) -> Result<SocketAddrUnix> {
    match text.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(text),
    }
}

/// Tells a service manager something.
pub fn tell(manager: &SocketAddrUnix, words: &[u8], flags: SendFlags) -> Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    rustix::net::sendto(&socket, words, flags | SendFlags::NOSIGNAL, manager).map(drop)
}
