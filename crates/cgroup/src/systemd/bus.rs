//! As much of D-Bus as asking systemd takes: calls and signals on a direct connection to a manager, which needs no bus and no
//! name there (D-Bus specification 0.43, "Message Protocol" and "Authentication Protocol").

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// How long a manager may take for one answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The longest message that is read. Bytes; the protocol's own limit is 128 MiB.
const LONGEST: usize = 1 << 20;
const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;

/// A value in a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Flag(bool),
    Text(String),
    Number(u64),
    Pids(Vec<u32>),
    Bytes(Vec<u8>),
}

/// The body of a message, or a part of it.
#[derive(Debug, Default)]
pub(crate) struct BodyWriter(Vec<u8>);

impl BodyWriter {
    /// Begins with strings.
    pub(crate) fn of(texts: &[&str]) -> Self {
        let mut writer = Self::default();
        for text in texts {
            writer.text(text);
        }
        writer
    }

    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    /// Adds a number of 32 bits, or a flag.
    pub(crate) fn u32(&mut self, number: u32) {
        self.align(4);
        self.0.extend(number.to_le_bytes());
    }

    /// Adds a string or an object path.
    pub(crate) fn text(&mut self, text: &str) {
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.0.extend(text.bytes().chain([0]));
    }

    fn signature(&mut self, signature: &str) -> &mut Self {
        self.0.push(u8::try_from(signature.len()).unwrap_or(u8::MAX));
        self.0.extend(signature.bytes().chain([0]));
        self
    }

    fn u64(&mut self, number: u64) {
        self.align(8);
        self.0.extend(number.to_le_bytes());
    }

    /// Adds an array whose elements begin at multiples of `align`.
    pub(crate) fn array<T>(&mut self, align: usize, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        // The length does not count the gap before the first element.
        self.align(align);
        let begin = self.0.len();
        for item in items {
            self.align(align);
            write(self, item);
        }
        let length = u32::try_from(self.0.len() - begin).unwrap_or(u32::MAX);
        if let Some(place) = self.0.get_mut(length_at..length_at + 4) {
            place.copy_from_slice(&length.to_le_bytes());
        }
    }

    fn variant(&mut self, value: &Value) {
        match value {
            Value::Flag(flag) => self.signature("b").u32(u32::from(*flag)),
            Value::Text(text) => self.signature("s").text(text),
            Value::Number(number) => self.signature("t").u64(*number),
            Value::Pids(pids) => self.signature("au").array(4, pids, |w, pid| w.u32(*pid)),
            Value::Bytes(bytes) => self.signature("ay").array(1, bytes, |w, byte| w.0.push(*byte)),
        }
    }

    /// Adds properties: `a(sv)`.
    pub(crate) fn properties(&mut self, properties: &[(&str, Value)]) {
        self.array(8, properties, |w, (name, value)| {
            w.text(name);
            w.variant(value);
        });
    }
}

/// A message, as far as it matters: its kind, what it answers, its member or error's name, and its body.
#[derive(Debug, Default)]
struct Message {
    kind: u8,
    answers: u32,
    name: String,
    body: Vec<u8>,
}

/// Reads values one after the other.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, align: usize, length: usize) -> anyhow::Result<&'a [u8]> {
        let begin = self.at.next_multiple_of(align);
        let taken = begin.checked_add(length).and_then(|end| self.bytes.get(begin..end)).context("a short message")?;
        self.at = begin + length;
        Ok(taken)
    }

    fn u32(&mut self) -> anyhow::Result<u32> {
        Ok(u32::from_le_bytes(self.take(4, 4)?.try_into()?))
    }

    fn text(&mut self) -> anyhow::Result<String> {
        let length = usize::try_from(self.u32()?)?;
        let text = String::from_utf8_lossy(self.take(1, length)?).into_owned();
        self.take(1, 1)?;
        Ok(text)
    }

    fn signature(&mut self) -> anyhow::Result<&'a [u8]> {
        let length = usize::from(self.take(1, 1)?.first().copied().unwrap_or_default());
        let signature = self.take(1, length)?;
        self.take(1, 1)?;
        Ok(signature)
    }
}

/// A connection to a manager.
#[derive(Debug)]
pub(crate) struct Bus {
    stream: UnixStream,
    serial: u32,
}

impl Bus {
    /// Connects to the manager that listens at `path`.
    pub(crate) fn connect(path: &Path) -> anyhow::Result<Self> {
        let mut stream = UnixStream::connect(path)?;
        // systemd may be busy with a reload for seconds; without a limit a hung manager would hang every container.
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        // The kernel tells who we are, and the number has to agree: its digits' codes, in hexadecimal 30 to 39.
        let uid = rustix::process::geteuid().as_raw().to_string();
        let uid = uid.chars().fold(String::new(), |uid, digit| uid + "3" + digit.encode_utf8(&mut [0; 4]));
        // BEGIN goes with it: a short call that came with BEGIN in one read would lie in systemd's buffer until more comes.
        stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n").as_bytes())?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            answer.extend(byte);
            ensure!(answer.len() < 512, "an endless greeting");
        }
        ensure!(answer.starts_with(b"OK "), "not let in: {}", String::from_utf8_lossy(&answer).trim_end());
        Ok(Self { stream, serial: 0 })
    }

    /// Calls a method of systemd's manager and returns the first text of what it returns, if it returns one.
    pub(crate) fn call(&mut self, member: &str, signature: &str, body: &BodyWriter) -> anyhow::Result<Option<String>> {
        self.serial += 1;
        let message = call(self.serial, member, signature, &body.0);
        self.stream.write_all(&message).with_context(|| format!("call {member}"))?;
        loop {
            let message = self.receive().with_context(|| format!("answer to {member}"))?;
            // Signals of other jobs come on a private connection without being asked for.
            if message.answers != self.serial {
                continue;
            }
            let text = Reader { bytes: &message.body, at: 0 }.text().ok();
            match message.kind {
                RETURN => return Ok(text),
                ERROR => bail!("{}", text.unwrap_or(message.name)),
                _ => {}
            }
        }
    }

    /// Waits until a job has ended, and returns how (org.freedesktop.systemd1(5), "`JobRemoved`").
    ///
    /// No signal is lost between the call and this: the manager answers before it begins the job, and both come in
    /// order.
    pub(crate) fn wait_for_job(&mut self, job: &str) -> anyhow::Result<String> {
        loop {
            let message = self.receive().with_context(|| format!("end of {job}"))?;
            if message.kind == SIGNAL && message.name == "JobRemoved" {
                let mut body = Reader { bytes: &message.body, at: 0 };
                let (_, path, _, result) = (body.u32()?, body.text()?, body.text()?, body.text()?);
                if path == job {
                    return Ok(result);
                }
            }
        }
    }

    fn receive(&mut self) -> anyhow::Result<Message> {
        let mut head = [0; 16];
        read(&mut self.stream, &mut head)?;
        ensure!(head[0] == b'l', "a message in the other byte order");
        let mut fixed = Reader { bytes: &head, at: 4 };
        let (body, _, fields) = (fixed.u32()?, fixed.u32()?, fixed.u32()?);
        let (body, fields) = (usize::try_from(body)?, usize::try_from(fields)?);
        ensure!(body <= LONGEST && fields <= LONGEST, "a message of {} bytes", body.saturating_add(fields));
        // The header's fields count from the message's begin, which is a multiple of eight, as their own begin is.
        let mut rest = vec![0; fields.next_multiple_of(8) + body];
        read(&mut self.stream, &mut rest)?;
        let (header, body) = rest.split_at(fields.next_multiple_of(8));
        let mut message = Message { kind: head[1], body: body.to_vec(), ..Message::default() };
        let mut header = Reader { bytes: header.get(..fields).unwrap_or_default(), at: 0 };
        while header.at < header.bytes.len() {
            match (header.take(8, 1)?.first().copied(), header.signature()?) {
                (Some(5), b"u") => message.answers = header.u32()?,
                (Some(3 | 4), b"s") => message.name = header.text()?,
                (_, b"s" | b"o") => drop(header.text()?),
                (_, b"g") => drop(header.signature()?),
                (_, b"u") => drop(header.u32()?),
                _ => bail!("an unknown header field"),
            }
        }
        Ok(message)
    }
}

fn read(stream: &mut UnixStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    match stream.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => bail!("none within {} s", PATIENCE.as_secs()),
        done => Ok(done?),
    }
}

/// Writes a call of a method.
fn call(serial: u32, member: &str, signature: &str, body: &[u8]) -> Vec<u8> {
    let mut message = BodyWriter(vec![b'l', CALL, 0, 1]);
    message.u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    message.u32(serial);
    let fields = [
        (1, "o", "/org/freedesktop/systemd1"),
        (2, "s", "org.freedesktop.systemd1.Manager"),
        (3, "s", member),
        (8, "g", signature),
    ];
    message.array(8, &fields, |w, (code, kind, value)| {
        w.0.push(*code);
        w.signature(kind);
        if *kind == "g" {
            w.signature(value);
        } else {
            w.text(value);
        }
    });
    message.align(8);
    message.0.extend(body);
    message.0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the protocol's rules say, byte by byte.
    #[test]
    fn a_call_is_aligned_as_the_protocol_wants() {
        let mut body = BodyWriter::default();
        body.text("a.scope");
        body.properties(&[("Delegate", Value::Flag(true)), ("PIDs", Value::Pids(vec![7]))]);
        let want: Vec<u8> = [
            &b"\x07\0\0\0a.scope\0\x35\0\0\0"[..],
            b"\x08\0\0\0Delegate\0\x01b\0\x01\0\0\0\0\0\0\0",
            b"\x04\0\0\0PIDs\0\x02au\0\0\0\0\x04\0\0\0\x07\0\0\0",
        ]
        .concat();
        // The array's length is that from its first element to its end.
        let length = u32::from_le_bytes(body.0[12..16].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), body.0.len() - 16);
        assert_eq!(body.0[16..], want[16..]);
        let message = call(1, "StopUnit", "ss", b"body");
        assert_eq!(message[..12], *b"l\x01\0\x01\x04\0\0\0\x01\0\0\0");
        assert!(message.len() % 8 == 4 && message.ends_with(b"body"));
    }

    #[test]
    fn a_short_or_endless_message_is_an_error() {
        for bytes in [&b""[..], b"\xff\xff\xff\xff", b"\x05\0\0\0ab"] {
            assert!(Reader { bytes, at: 0 }.text().is_err());
        }
    }
}
