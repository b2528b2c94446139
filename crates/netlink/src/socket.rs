//! The socket: one request at a time, answers matched by sequence number.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::slice;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};
use sys::netlink::{NetlinkOption, enable};

use crate::frame::{self, Frame, FrameBody, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use crate::{Attributes, Error, Raw, transaction, unless};

/// The kernel never makes a dump's datagram longer than 32 KiB; one answer can be longer, on cards with many functions.
const DATAGRAM_LIMIT: usize = 1 << 16;

/// The receive buffer takes the answers to so many requests.
const AT_ONCE: usize = 16;

/// A dump that changes came between is begun again so many times.
const DUMP_TRIES: usize = 16;

/// What the kernel offers by netlink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetlinkFamily {
    /// Links, addresses, routes (rtnetlink(7)).
    Route,
    /// nftables and connection tracking (nfnetlink).
    Netfilter,
}

/// A netlink socket in the network namespace in which it was opened.
///
/// Requests are sent one after the other and answered before `send` returns or soon after, so there is no event loop.
/// Notifications are not subscribed to.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    /// For answers; kept from one request to the next.
    buffer: Vec<u8>,
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub fn open(family: NetlinkFamily) -> Result<Self, Error> {
        // NETLINK_ROUTE is 0, which is what no protocol means.
        let protocol = (family == NetlinkFamily::Netfilter).then_some(NETFILTER);
        let fd = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
        net::bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        // All three only make answers better; kernels without them (before 4.12, 4.20) still answer.
        let _older = enable(fd.as_fd(), NetlinkOption::ExtendedAck);
        let _older = enable(fd.as_fd(), NetlinkOption::CapAck);
        if family == NetlinkFamily::Route {
            let _older = enable(fd.as_fd(), NetlinkOption::StrictCheck);
        }
        Ok(Self { fd, sequence: 0, buffer: vec![0; DATAGRAM_LIMIT] })
    }

    /// Returns the number that the kernel has given the socket, which no other of its family has in this namespace
    /// (`nl_pid`).
    pub fn number(&self) -> Result<u32, Error> {
        Ok(SocketAddrNetlink::try_from(net::getsockname(&self.fd)?)?.pid())
    }

    /// Sends a request and waits for its acknowledgement. `flags`: see [`crate::flag`].
    pub fn request(&mut self, message: &Raw, flags: u16) -> Result<(), Error> {
        let _span = transaction::span(message);
        let sequence = self.send(slice::from_ref(message), NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(sequence, usize::MAX).map(drop)
    }

    /// Sends a request for one object and returns it.
    pub fn fetch(&mut self, message: &Raw) -> Result<Raw, Error> {
        let _span = transaction::span(message);
        let sequence = self.send(slice::from_ref(message), NLM_F_REQUEST)?;
        self.answer(sequence)
    }

    /// Sends requests for one object each, and returns those that are there.
    pub fn fetch_each(&mut self, messages: &[Raw]) -> Result<Vec<Option<Raw>>, Error> {
        let mut answers = Vec::with_capacity(messages.len());
        for some in messages.chunks(AT_ONCE) {
            let first = self.send(some, NLM_F_REQUEST)?;
            for sequence in (first..).take(some.len()) {
                answers.push(unless(Errno::NOENT, self.answer(sequence))?);
            }
        }
        Ok(answers)
    }

    /// Sends a request for all objects and returns them. A dump that a change came between is begun again, so what is
    /// returned is one consistent picture.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after sixteen attempts: on a host where links come and go all the time.
    pub fn dump(&mut self, message: &Raw) -> Result<Vec<Raw>, Error> {
        let _span = transaction::span(message);
        for _ in 0..DUMP_TRIES {
            let sequence = self.send(slice::from_ref(message), NLM_F_REQUEST | NLM_F_DUMP)?;
            if let (answers, true) = self.receive(sequence, usize::MAX)? {
                return Ok(answers);
            }
        }
        Err(Error::Interrupted)
    }

    /// Asks for a list and returns its beginning, as much as the kernel has put into one datagram.
    pub fn begin_dump(&mut self, message: &Raw) -> Result<Vec<Raw>, Error> {
        self.send(slice::from_ref(message), NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut datagram = datagram(&self.fd, &mut self.buffer, RecvFlags::empty())?;
        let mut answers = Vec::new();
        while let Some(Frame { body: FrameBody::Answer(answer), .. }) = frame::read(&mut datagram)? {
            answers.push(answer);
        }
        Ok(answers)
    }

    /// Sends all messages of a batch in one datagram. The kernel works on it before it returns from sending, so that its
    /// answers are all there then: none is waited for. If one message is refused, nothing is done.
    ///
    /// # Errors
    /// The first refusal in the order of the messages, with the kernel's words. `EEXIST` and `ENOENT` are decided on
    /// by callers; `ERESTART` asks for the whole to be read and computed again.
    pub fn batch(&mut self, batch: &Batch) -> Result<(), Error> {
        let Some(count) = u32::try_from(batch.ends.len()).ok().filter(|count| *count > 0) else {
            return Ok(());
        };
        let _span = trace::span("netlink", format_args!("batch of {count} messages"));
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        let mut bytes = batch.bytes.clone();
        let mut start = 0;
        for (end, sequence) in batch.ends.iter().zip(first..) {
            if let Some(field) = bytes.get_mut(start + 8..start + 12) {
                field.copy_from_slice(&sequence.to_ne_bytes());
            }
            start = *end;
        }
        self.make_room(bytes.len());
        self.send_bytes(&bytes)?;
        self.take_answers(first, count)
    }

    /// Reads what the kernel said to messages `first..first + count`, and returns the first refusal.
    fn take_answers(&mut self, first: u32, count: u32) -> Result<(), Error> {
        let mut refused: Option<(u32, Error)> = None;
        let mut acknowledged = false;
        let mut lost = false;
        loop {
            let mut datagram = match datagram(&self.fd, &mut self.buffer, RecvFlags::DONTWAIT) {
                Ok(datagram) => datagram,
                Err(Error::Socket(Errno::AGAIN)) => break,
                // The receive buffer overflowed: answers were lost, but the transaction was done or refused as a
                // whole, and what was kept tells which.
                Err(Error::Socket(Errno::NOBUFS)) => {
                    lost = true;
                    continue;
                }
                Err(error) => return Err(error),
            };
            while let Some(frame) = frame::read(&mut datagram)? {
                let index = frame.sequence.wrapping_sub(first);
                if index >= count {
                    continue;
                }
                match frame.body {
                    FrameBody::Refused(error) if refused.as_ref().is_none_or(|(known, _)| index < *known) => {
                        refused = Some((index, error));
                    }
                    FrameBody::Done => acknowledged = true,
                    _ => {}
                }
            }
        }
        match (refused, acknowledged, lost) {
            (None, false, true) => Err(Error::Socket(Errno::NOBUFS)),
            (None, false, false) => Err(Error::NoAnswer),
            (None, true, _) => Ok(()),
            (Some((_, error)), ..) => Err(error),
        }
    }

    /// A datagram longer than the socket's send buffer is refused; only a privileged caller may go beyond the limit.
    fn make_room(&self, length: usize) {
        // Whether it was enough is for the send to say.
        if sockopt::set_socket_send_buffer_size_force(&self.fd, length + 4096).is_err() {
            let _enough = sockopt::set_socket_send_buffer_size(&self.fd, length + 4096);
        }
    }

    /// Sends messages in one datagram. Returns the first one's number.
    fn send(&mut self, messages: &[Raw], flags: u16) -> Result<u32, Error> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for message in messages {
            self.sequence = self.sequence.wrapping_add(1);
            frame::write(&mut bytes, message, flags, self.sequence);
        }
        self.send_bytes(&bytes)?;
        Ok(first)
    }

    fn send_bytes(&self, bytes: &[u8]) -> Result<(), Error> {
        let kernel = SocketAddrNetlink::new(0, 0);
        rustix::io::retry_on_intr(|| net::sendto(&self.fd, bytes, SendFlags::empty(), &kernel))?;
        Ok(())
    }

    /// Reads the one answer to a request for one object.
    fn answer(&mut self, sequence: u32) -> Result<Raw, Error> {
        self.receive(sequence, 1)?.0.pop().ok_or(Error::NoAnswer)
    }

    /// Reads the answers to one request up to their end, or so many. Returns them, and whether the picture they give is
    /// consistent.
    fn receive(&mut self, sequence: u32, most: usize) -> Result<(Vec<Raw>, bool), Error> {
        let (mut answers, mut consistent) = (Vec::new(), true);
        loop {
            let mut datagram = datagram(&self.fd, &mut self.buffer, RecvFlags::empty())?;
            while let Some(frame) = frame::read(&mut datagram)? {
                // An answer to an earlier request that was given up, or the rest of a dump that was begun: sequence
                // numbers tell them apart.
                if frame.sequence != sequence {
                    continue;
                }
                consistent &= !frame.interrupted;
                match frame.body {
                    FrameBody::Answer(answer) => answers.push(answer),
                    FrameBody::Done => return Ok((answers, consistent)),
                    FrameBody::Refused(Error::Refused { errno: Errno::INTR, .. }) => return Ok((answers, false)),
                    FrameBody::Refused(error) => return Err(error),
                    FrameBody::Noop => {}
                }
                if answers.len() == most {
                    return Ok((answers, consistent));
                }
            }
        }
    }
}

/// Reads one datagram of the kernel's; what other processes send to our port is passed over.
fn datagram<'a>(fd: &OwnedFd, buffer: &'a mut [u8], flags: RecvFlags) -> Result<&'a [u8], Error> {
    loop {
        let (_, length, from) =
            rustix::io::retry_on_intr(|| net::recvfrom(fd, &mut *buffer, flags | RecvFlags::TRUNC))?;
        let from = from.and_then(|address| SocketAddrNetlink::try_from(address).ok());
        if from.is_none_or(|address| address.pid() != 0) {
            continue;
        }
        // With MSG_TRUNC the length is the datagram's own, even where the buffer had no room for it (recv(2)).
        return buffer.get(..length).ok_or_else(|| Error::Malformed(format!("{length} bytes in one datagram")));
    }
}

/// Messages that the kernel takes all or none (nfnetlink's transactions).
#[derive(Clone, Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` (include/uapi/linux/netfilter/nfnetlink.h).
const BEGIN: u16 = 16;
const END: u16 = 17;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_BATCH_GENID: u16 = 1;

impl Batch {
    /// Begins a transaction of nftables. With a generation, the kernel refuses it (ERESTART) if the rule set is no
    /// longer of that generation.
    pub fn nftables(generation: Option<u32>) -> Self {
        let mut batch = Self::default();
        let attributes = generation.iter().fold(Attributes::new(), |a, number| a.be32(NFNL_BATCH_GENID, *number));
        batch.push(&bracket(BEGIN, &attributes.into_bytes()), 0);
        batch
    }

    /// Adds a message. `flags`: see [`crate::flag`].
    pub fn push(&mut self, message: &Raw, flags: u16) {
        frame::write(&mut self.bytes, message, NLM_F_REQUEST | flags, 0);
        self.ends.push(self.bytes.len());
    }

    /// Tells whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.ends.len() < 2
    }

    /// Ends the transaction. Only its last message asks for an acknowledgement: one for each would overflow the socket's
    /// receive buffer after some hundreds, and refusals come without being asked for.
    #[must_use]
    pub fn end(mut self) -> Self {
        let last = self.ends.len().checked_sub(2).and_then(|before| self.ends.get(before)).copied().unwrap_or(0);
        if let Some(flags) = self.bytes.get_mut(last + 6..last + 8).filter(|_| self.ends.len() > 1) {
            flags[0] |= NLM_F_ACK.to_ne_bytes()[0];
            flags[1] |= NLM_F_ACK.to_ne_bytes()[1];
        }
        self.push(&bracket(END, &[]), 0);
        self
    }
}

/// `struct nfgenmsg` with the subsystem as `res_id`.
fn bracket(kind: u16, attributes: &[u8]) -> Raw {
    let [high, low] = NFNL_SUBSYS_NFTABLES.to_be_bytes();
    Raw { kind, payload: [&[0, 0, high, low], attributes].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flag, parse};

    const RTM_GETLINK: u16 = 18;
    const IFLA_IFNAME: u16 = 3;
    const IFINFOMSG: usize = 16;

    fn link(name: Option<&str>) -> Raw {
        let attributes = name.map(|name| Attributes::new().text(IFLA_IFNAME, name)).unwrap_or_default();
        Raw { kind: RTM_GETLINK, payload: [&[0; IFINFOMSG][..], &attributes.into_bytes()].concat() }
    }

    fn name(link: &Raw) -> String {
        parse(&link.payload[IFINFOMSG..]).find(|a| a.kind == IFLA_IFNAME).unwrap().text()
    }

    #[test]
    fn a_dump_a_fetch_and_a_refusal_share_one_socket() {
        let mut socket = Socket::open(NetlinkFamily::Route).unwrap();
        assert!(socket.dump(&link(None)).unwrap().iter().any(|link| name(link) == "lo"));
        assert_eq!(name(&socket.fetch(&link(Some("lo"))).unwrap()), "lo");
        let refused = socket.fetch(&link(Some("nosuchlink"))).unwrap_err();
        assert_eq!((refused.errno(), refused.to_string().as_str()), (Some(Errno::NODEV), "No such device"));
        assert_eq!(name(&socket.fetch(&link(Some("lo"))).unwrap()), "lo");
    }

    /// `NFT_MSG_NEWTABLE` for an ip table of this name.
    fn table(name: &str) -> Raw {
        Raw { kind: 10 << 8, payload: [&[2, 0, 0, 0][..], &Attributes::new().text(1, name).into_bytes()].concat() }
    }

    #[test]
    fn a_batch_says_why_it_was_refused() {
        std::thread::spawn(|| {
            if sys::namespace::unshare(sys::namespace::Kind::Network).is_err() {
                return; // Not root: the end-to-end tests say so where they need it.
            }
            let mut socket = Socket::open(NetlinkFamily::Netfilter).unwrap();
            let mut batch = Batch::nftables(None);
            for index in 0..3000 {
                batch.push(&table(&format!("t{index}")), flag::CREATE);
            }
            socket.batch(&batch.end()).unwrap();
            let mut batch = Batch::nftables(None);
            for name in ["a", "b", "t7", "t8"] {
                batch.push(&table(name), flag::CREATE | flag::EXCL);
            }
            let refused = socket.batch(&batch.end()).unwrap_err();
            assert_eq!(refused.errno(), Some(Errno::EXIST));
            let mut stale = Batch::nftables(Some(12345));
            stale.push(&table("c"), flag::CREATE);
            let refused = socket.batch(&stale.end()).unwrap_err();
            assert_eq!(refused.errno(), Some(Errno::RESTART));
        })
        .join()
        .unwrap();
    }
}
