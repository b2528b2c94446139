//! The numbers of the system calls by name: x86-64, i386, x32 (without its bit), and 64-bit ARM; -1: there is none.

/// Sorted by name.
pub(super) const NUMBERS: [(&str, [i16; 4]); 470] = include!("numbers.in");
