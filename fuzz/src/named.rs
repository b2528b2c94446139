//! Inputs whose first line names the reader that the rest is for: a tool has several, and is compiled once.

/// Returns the first line and the rest; `None` where the line is no text.
pub fn split(input: &[u8]) -> Option<(&str, &[u8])> {
    let end = input.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&input[..end]).ok()?, &input[end + 1..]))
}
