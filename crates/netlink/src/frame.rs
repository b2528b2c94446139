//! The frame around every message (`struct nlmsghdr`), and the kernel's own messages: errors, acknowledgements, ends.

use rustix::io::Errno;

use crate::{Error, Raw, find};

pub(crate) const HEADER: usize = 16;

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

const NLMSGERR_ATTR_MSG: u16 = 1;

/// One message out of a datagram.
pub(crate) struct Frame {
    pub(crate) sequence: u32,
    pub(crate) body: FrameBody,
    /// The kernel says that what it dumps has changed meanwhile.
    pub(crate) interrupted: bool,
}

/// What a message is to the socket.
pub(crate) enum FrameBody {
    Answer(Raw),
    /// An acknowledgement, or the end of a dump.
    Done,
    Refused(Error),
    Noop,
}

/// Appends a message with its frame.
pub(crate) fn write(buffer: &mut Vec<u8>, message: &Raw, flags: u16, sequence: u32) {
    buffer.extend(u32::try_from(HEADER + message.payload.len()).unwrap_or(u32::MAX).to_ne_bytes());
    buffer.extend(message.kind.to_ne_bytes());
    buffer.extend(flags.to_ne_bytes());
    buffer.extend(sequence.to_ne_bytes());
    buffer.extend(0_u32.to_ne_bytes());
    buffer.extend(&message.payload);
    buffer.resize(buffer.len().next_multiple_of(4), 0);
}

/// Splits the first message off a datagram.
pub(crate) fn read(datagram: &mut &[u8]) -> Result<Option<Frame>, Error> {
    let Some(&[l0, l1, l2, l3, k0, k1, f0, f1, s0, s1, s2, s3, ..]) = datagram.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = u32::from_ne_bytes([l0, l1, l2, l3]) as usize;
    let (kind, flags) = (u16::from_ne_bytes([k0, k1]), u16::from_ne_bytes([f0, f1]));
    let message = datagram.get(HEADER..length).ok_or_else(|| Error::Malformed(format!("length {length}")))?;
    *datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    let body = match kind {
        NLMSG_NOOP => FrameBody::Noop,
        NLMSG_OVERRUN => FrameBody::Refused(Error::Socket(Errno::NOBUFS)),
        NLMSG_ERROR => refusal(flags, message)?,
        NLMSG_DONE => end_of_dump(message),
        _ => FrameBody::Answer(Raw { kind, payload: message.to_vec() }),
    };
    let sequence = u32::from_ne_bytes([s0, s1, s2, s3]);
    Ok(Some(Frame { sequence, body, interrupted: flags & NLM_F_DUMP_INTR != 0 }))
}

/// `struct nlmsgerr`: the number, the refused message (its header only if capped), then attributes.
fn refusal(flags: u16, message: &[u8]) -> Result<FrameBody, Error> {
    let short = || Error::Malformed("a short error message".to_owned());
    let code = code(message).ok_or_else(short)?;
    if code == 0 {
        return Ok(FrameBody::Done);
    }
    let length = message.get(4..8).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes);
    // The refused message is repeated in the answer, unless NETLINK_CAP_ACK is on; the kernel's words stand behind
    // it.
    let echoed = if flags & NLM_F_CAPPED == 0 { length.ok_or_else(short)? as usize } else { HEADER };
    let echoed = echoed.max(HEADER).next_multiple_of(4);
    let attributes = message.get(4 + echoed..).filter(|_| flags & NLM_F_ACK_TLVS != 0).unwrap_or_default();
    Ok(FrameBody::Refused(refused(code, attributes)))
}

/// A dump's end carries a number too: 0, or why the dump broke off.
fn end_of_dump(message: &[u8]) -> FrameBody {
    match code(message) {
        Some(code) if code < 0 => FrameBody::Refused(refused(code, message.get(4..).unwrap_or_default())),
        _ => FrameBody::Done,
    }
}

fn code(message: &[u8]) -> Option<i32> {
    message.get(..4)?.try_into().ok().map(i32::from_ne_bytes)
}

fn refused(code: i32, attributes: &[u8]) -> Error {
    let errno = Errno::from_raw_os_error(code.saturating_neg());
    let message = find(attributes, NLMSGERR_ATTR_MSG).map(|a| a.text());
    Error::Refused { errno, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_message(flags: u16, payload: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        write(&mut buffer, &Raw { kind: NLMSG_ERROR, payload: payload.to_vec() }, flags, 7);
        buffer
    }

    #[test]
    fn the_kernels_words_are_read_after_a_capped_and_after_a_whole_echo() {
        let attribute = [&12_u16.to_ne_bytes()[..], &1_u16.to_ne_bytes(), b"no such\0"].concat();
        for (flags, echo) in [(NLM_F_CAPPED, 16), (0, 24)] {
            let mut payload = (-17_i32).to_ne_bytes().to_vec();
            payload.extend(24_u32.to_ne_bytes());
            payload.resize(4 + echo, 0);
            payload.extend(&attribute);
            let datagram = error_message(flags | NLM_F_ACK_TLVS, &payload);
            let frame = read(&mut &datagram[..]).unwrap().unwrap();
            let FrameBody::Refused(error) = frame.body else { panic!("refused") };
            assert_eq!(error.to_string(), "File exists (no such)");
            assert_eq!(error.errno(), Some(Errno::EXIST));
        }
    }

    #[test]
    fn a_length_beyond_the_datagram_is_malformed() {
        let mut datagram = error_message(0, &[0; 20]);
        datagram[0] = 200;
        assert!(matches!(read(&mut &datagram[..]), Err(Error::Malformed(_))));
        assert!(matches!(read(&mut &datagram[..3]), Ok(None)));
    }
}
