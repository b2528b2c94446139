//! The kernel's machine for filters, as far as they are made here.

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const GO: u16 = 0x05;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const GREATER_OR_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;

/// Returns what a filter answers: it is executed as the kernel would. None if it is no filter that is made here.
pub(crate) fn answer(program: &[u8], architecture: u32, number: u32, arguments: [u64; 6]) -> Option<u32> {
    let mut data = Vec::new();
    data.extend_from_slice(&number.to_ne_bytes());
    data.extend_from_slice(&architecture.to_ne_bytes());
    data.extend_from_slice(&[0; 8]);
    for argument in arguments {
        data.extend_from_slice(&argument.to_ne_bytes());
    }
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let (mut at, mut a) = (0, 0);
    loop {
        let &[low, high, yes, no, ..] = program.get(at * 8..at * 8 + 8)? else { return None };
        let k = word(program, at * 8 + 4)?;
        at += 1;
        let mut jump = |holds: bool| at += usize::from(if holds { yes } else { no });
        match u16::from_ne_bytes([low, high]) {
            LOAD => a = word(&data, k as usize)?,
            AND => a &= k,
            GO => at += k as usize,
            EQUAL => jump(a == k),
            GREATER => jump(a > k),
            GREATER_OR_EQUAL => jump(a >= k),
            RETURN => return Some(k),
            _ => return None,
        }
    }
}
