//! How a name out of an archive is shown to people: its bytes may be anything, and a million of them.

use std::fmt;

/// The most characters of a name that a message holds.
const SHOWN: usize = 200;

/// Bytes as text; what is not UTF-8 is replaced, what is too long is cut in the middle.
#[derive(Debug)]
pub struct Name<'a>(pub &'a [u8]);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() <= SHOWN {
            return write!(f, "{}", String::from_utf8_lossy(self.0));
        }
        let (head, tail) = (&self.0[..SHOWN / 2], &self.0[self.0.len() - SHOWN / 4..]);
        write!(f, "{}...{}", String::from_utf8_lossy(head), String::from_utf8_lossy(tail))
    }
}
