//! The numbers of the system calls by name: x86-64, i386, x32 (without its bit), and 64-bit and 32-bit ARM; -1: there is none.

/// Sorted by name.
pub(super) static NUMBERS: [(&str, [i32; 5]); 484] = include!("numbers.in");
