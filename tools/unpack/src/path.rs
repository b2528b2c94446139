//! Names out of a layer, made paths below its root: taken apart once, checked once.

use std::ffi::{CStr, CString};

use anyhow::{Context, bail, ensure};

/// A path's and a name's longest length in bytes: `PATH_MAX` less its NUL, and `NAME_MAX`.
pub(crate) const PATH_LIMIT: usize = 4095;
const NAME_LIMIT: usize = 255;

/// A path below a root: components joined by single slashes, none of them `.` or `..`; empty for the root itself.
pub(crate) type Inner = Vec<u8>;

/// Normalises a path of a layer. `.` and `..` are resolved by name alone, as all of Docker's family does; a path that
/// leads out of the root is refused.
///
/// A text like `a/../b` means `b` here even where `a` is a symbolic link. The way through links that are in the tree
/// is `Tree::find`'s.
pub(crate) fn inner(path: &[u8]) -> anyhow::Result<Inner> {
    let mut components: Vec<&[u8]> = Vec::new();
    for component in path.split(|&byte| byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => ensure!(components.pop().is_some(), "path leads out of the root"),
            name if name.contains(&0) => bail!("name with a NUL byte"),
            name => {
                ensure!(name.len() <= NAME_LIMIT, "name is longer than {NAME_LIMIT} bytes");
                components.push(name);
            }
        }
    }
    let joined = components.join(&b'/');
    ensure!(joined.len() <= PATH_LIMIT, "path is longer than {PATH_LIMIT} bytes");
    Ok(joined)
}

/// Splits a path into its directory and its last name; `None` for the root.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    })
}

/// Joins a directory and a name.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Inner {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// A single name for system calls. On the stack, since there is one for each entry.
///
/// It has no NUL, no slash, and is neither `.` nor `..`: given to a `*at` call it stays in the directory, unless it
/// is a link that the call follows.
pub(crate) struct Component([u8; NAME_LIMIT + 1]);

impl Component {
    pub(crate) fn new(name: &[u8]) -> anyhow::Result<Self> {
        ensure!(!name.is_empty() && name.len() <= NAME_LIMIT, "name is empty or longer than {NAME_LIMIT} bytes");
        ensure!(!name.contains(&0) && !name.contains(&b'/') && name != b"." && name != b"..", "not a name");
        let mut bytes = [0; NAME_LIMIT + 1];
        bytes[..name.len()].copy_from_slice(name);
        Ok(Self(bytes))
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// Bytes as an argument of a system call.
pub(crate) fn c_string(bytes: &[u8]) -> anyhow::Result<CString> {
    CString::new(bytes).ok().context("NUL byte in it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_or_refused() {
        let long = "n".repeat(256);
        let deep = "d/".repeat(2049);
        for (path, want) in [
            ("", Ok("")),
            (".", Ok("")),
            ("./", Ok("")),
            ("/", Ok("")),
            ("a", Ok("a")),
            ("./a/b/", Ok("a/b")),
            ("/a//b", Ok("a/b")),
            ("a/../b", Ok("b")),
            ("a/./..", Ok("")),
            ("..dots/...", Ok("..dots/...")),
            ("..", Err("path leads out of the root")),
            ("a/../../b", Err("path leads out of the root")),
            ("/../etc", Err("path leads out of the root")),
            (&long, Err("name is longer than 255 bytes")),
            (&deep, Err("path is longer than 4095 bytes")),
        ] {
            let got = inner(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
            assert_eq!(
                got.map_err(|error| error.to_string()),
                want.map(str::to_owned).map_err(str::to_owned),
                "{path}"
            );
        }
    }

    #[test]
    fn a_path_splits_at_its_last_slash() {
        assert_eq!(split(b""), None);
        assert_eq!(split(b"a"), Some((&b""[..], &b"a"[..])));
        assert_eq!(split(b"a/b/c"), Some((&b"a/b"[..], &b"c"[..])));
    }
}
