//! What a process that stays for long gives back.

use std::io;

use crate::raw::done;

/// Forgets the pages of this program's code that were used so far: those that are used again come back from the page
/// cache. After a start that is most of what a small process has resident (`madvise(2)`, `MADV_DONTNEED`).
///
/// # Errors
/// Failure only costs memory, so callers ignore it.
pub fn forget_code() -> io::Result<()> {
    for (start, length) in std::fs::read_to_string("/proc/self/maps")?.lines().filter_map(code) {
        // SAFETY: the mapping is of a file, private, and not writable, and relocations are never in code: what is
        // dropped is read again from the file, unchanged.
        done(unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) })?;
    }
    Ok(())
}

/// Gives memory back that was freed, for a process that has much behind it and waits from now on: `malloc_trim(3)`.
pub fn trim() {
    // SAFETY: it changes nothing but what the allocator keeps for itself.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// Returns where a line of `proc_pid_maps(5)` has code of a file, and how much.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, mode) = (fields.next()?, fields.next()?);
    fields.nth(3).filter(|path| path.starts_with('/') && mode == "r-xp")?;
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_file_s_code_is_forgotten() {
        for (line, want) in [
            ("1000-3000 r-xp 00002000 fe:00 247030    /usr/bin/cat", Some((0x1000, 0x2000))),
            ("1000-3000 r--p 00002000 fe:00 247030    /usr/bin/cat", None),
            ("1000-3000 rw-p 00000000 00:00 0", None),
            ("1000-3000 r-xp 00000000 00:00 0         [vdso]", None),
        ] {
            assert_eq!(code(line), want, "{line}");
        }
        forget_code().unwrap();
    }
}
