//! criu(8) as a worker: `criu swrk` takes one request over a socket that it inherits, tells how far it is, and answers.
//! The messages are Protocol Buffers, as criu's `images/rpc.proto` describes them.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context, bail, ensure};
use rustix::process::Pid;

use crate::sync;

/// `criu_req_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

const NOTIFY: u64 = 6;

/// A message under construction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number.to_le_bytes()[0] | 0x80);
            number >>= 7;
        }
        self.0.push(number.to_le_bytes()[0]);
    }

    pub(super) fn number(&mut self, field: u64, number: u64) {
        self.varint(field << 3);
        self.varint(number);
    }

    pub(super) fn flag(&mut self, field: u64, flag: bool) {
        if flag {
            self.number(field, 1);
        }
    }

    pub(super) fn fd(&mut self, field: u64, fd: impl AsFd) {
        self.number(field, u64::try_from(fd.as_fd().as_raw_fd()).unwrap_or_default());
    }

    pub(super) fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    pub(super) fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// A field that was read: its value if it is a number, or its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    // At most ten bytes: a longer number than 64 bits would shift out of itself.
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Reads the fields of a message; one that is cut off ends the list.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut found = Vec::new();
    while let Some(key) = varint(&mut bytes) {
        // Wire types 0, a number, and 2, bytes with their length before them. The others (1 and 5, of fixed length)
        // rpc.proto does not use.
        let value = match key & 7 {
            0 => varint(&mut bytes).map(Value::Number),
            2 => varint(&mut bytes).and_then(|length| {
                let (value, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
                bytes = rest;
                Some(Value::Bytes(value))
            }),
            _ => None,
        };
        let Some(value) = value else { break };
        found.push((key >> 3, value));
    }
    found
}

fn number(fields: &[(u64, Value<'_>)], wanted: u64) -> Option<u64> {
    fields.iter().find_map(|(field, value)| match value {
        Value::Number(number) if *field == wanted => Some(*number),
        _ => None,
    })
}

fn bytes<'a>(fields: &[(u64, Value<'a>)], wanted: u64) -> Option<&'a [u8]> {
    fields.iter().find_map(|(field, value)| match value {
        Value::Bytes(bytes) if *field == wanted => Some(*bytes),
        _ => None,
    })
}

/// A worker that waits for its request.
pub(super) struct Criu {
    socket: OwnedFd,
    /// The worker, which becomes the parent of nothing: restored processes are the caller's.
    pub(super) process: Child,
}

/// What criu tells on its way: a point that it has reached, and the process that it has made.
pub(super) struct Notice<'a> {
    pub script: &'a str,
    pub pid: Option<Pid>,
    pub fd: Option<OwnedFd>,
}

impl Criu {
    /// Starts a worker; it has the caller's standard descriptors.
    pub(super) fn start(program: &Path) -> anyhow::Result<Self> {
        // A socket of packets (unix(7), `SOCK_SEQPACKET`): each message is one packet, so that no length stands
        // before it.
        let (ours, theirs) = sync::pair().context("make a socket pair")?;
        // `swrk` takes the number of a descriptor that it inherits: this one must survive execve(2).
        rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty())?;
        let process = Command::new(program)
            .arg("swrk")
            .arg(theirs.as_raw_fd().to_string())
            .spawn()
            .with_context(|| format!("exec {}", program.display()))?;
        Ok(Self { socket: ours, process })
    }

    /// Makes a request, hears what criu tells until it answers, and returns the restored process.
    pub(super) fn call(
        mut self,
        kind: Kind,
        options: &Message,
        mut hear: impl FnMut(Notice<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Option<Pid>> {
        let mut request = Message::default();
        request.number(1, kind as u64);
        request.message(2, options);
        self.send(&request)?;
        let answer = loop {
            let mut buffer = [0; 16_384];
            let (length, fd) = sys::packet::receive(&self.socket, &mut buffer).context("hear from criu")?;
            ensure!(length > 0, "criu ended without an answer");
            let answer = fields(&buffer[..length]);
            if number(&answer, 1) != Some(NOTIFY) {
                break told(&answer);
            }
            let notice = fields(bytes(&answer, 5).unwrap_or_default());
            let script = String::from_utf8_lossy(bytes(&notice, 1).unwrap_or_default()).into_owned();
            log::debug!("criu: {script}");
            let heard = hear(Notice { script: &script, pid: process(&notice, 2), fd });
            let mut reply = Message::default();
            reply.number(1, NOTIFY);
            // notify_success: criu stops there if it is 0, and undoes what it has made.
            reply.number(3, u64::from(heard.is_ok()));
            self.send(&reply)?;
            heard?;
        };
        self.process.wait().context("wait for criu")?;
        answer
    }

    fn send(&self, message: &Message) -> anyhow::Result<()> {
        let sent = rustix::net::send(&self.socket, &message.0, rustix::net::SendFlags::NOSIGNAL);
        // EPIPE: it is gone, which is heard next.
        sys::unless(&[rustix::io::Errno::PIPE], sent).map(drop).context("tell criu")
    }
}

fn process(fields: &[(u64, Value<'_>)], field: u64) -> Option<Pid> {
    number(fields, field).and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw)
}

fn told(answer: &[(u64, Value<'_>)]) -> anyhow::Result<Option<Pid>> {
    if number(answer, 2) == Some(1) {
        return Ok(bytes(answer, 4).and_then(|restored| process(&fields(restored), 1)));
    }
    let cause = bytes(answer, 9).map(|text| String::from_utf8_lossy(text).trim_end().replace('\n', "; "));
    let errno = number(answer, 7).and_then(|errno| i32::try_from(errno).ok());
    match (cause, errno) {
        (Some(cause), _) if !cause.is_empty() => bail!("criu failed: {cause}"),
        (_, Some(errno)) => bail!("criu failed: {}", sync::in_lower_case(&std::io::Error::from_raw_os_error(errno))),
        _ => bail!("criu failed"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protocol_buffers() {
        let mut inner = Message::default();
        inner.text(1, "cpu");
        let mut message = Message::default();
        message.number(1, 300);
        message.flag(3, true);
        message.flag(4, false);
        message.message(25, &inner);
        assert_eq!(message.0, b"\x08\xac\x02\x18\x01\xca\x01\x05\x0a\x03cpu");
        let read = fields(&message.0);
        assert_eq!(read, [(1, Value::Number(300)), (3, Value::Number(1)), (25, Value::Bytes(b"\x0a\x03cpu"))]);
        assert_eq!(fields(b"\x08\xff"), []);
        assert_eq!(fields(b"\x0a\x7fshort"), []);
    }

    #[test]
    fn a_failure_says_why() {
        let failed = |message: &[u8]| told(&fields(message)).map_err(|error| error.to_string());
        assert_eq!(failed(b"\x08\x02\x10\x01\x22\x02\x08\x2a"), Ok(Pid::from_raw(42)));
        assert_eq!(failed(b"\x08\x01\x10\x00\x4a\x02no"), Err("criu failed: no".into()));
        assert_eq!(failed(b"\x08\x01\x10\x00\x38\x01"), Err("criu failed: operation not permitted".into()));
    }
}
