//! The container's `/etc/passwd` and `/etc/group`. They are the image's: of any size and in any bytes, or a pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use rustix::fs::{OFlags, ResolveFlags};

use crate::config::User;

/// Nobody has more users: a file that grows while it is read is no list.
const LONGEST: u64 = 1 << 26;

/// Returns the fields of each line of an open file; what is no ordinary file has none.
fn entries(file: OwnedFd) -> impl Iterator<Item = Vec<String>> {
    let file = File::from(file);
    let length = if file.metadata().is_ok_and(|file| file.is_file()) { LONGEST } else { 0 };
    let lines = BufReader::new(file.take(length)).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).split(':').map(str::to_owned).collect())
}

/// A user's name and home directory among the fields of an entry: passwd(5).
pub(crate) const NAME: usize = 0;
pub(crate) const HOME: usize = 5;

/// Returns a field of a user's entry. It is the container's inside its root.
pub(crate) fn field(uid: u32, at: usize) -> Option<String> {
    // A pipe would not open otherwise.
    let file = crate::file::open("/etc/passwd", OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    entries(file).find_map(|fields| {
        let field = fields.get(at).filter(|field| !field.is_empty())?;
        (fields.get(2)?.parse() == Ok(uid)).then(|| field.clone())
    })
}

/// Looks up `USER` or `USER:GROUP`, names or numbers, in the container with this root. A name brings its groups along.
pub(crate) fn look_up(root: BorrowedFd<'_>, words: &str, user: &mut User) -> anyhow::Result<()> {
    let read = |file: &str| {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = root::open_with(root, Path::new(file), flags, ResolveFlags::empty());
        opened.into_iter().flat_map(entries)
    };
    let (name, group) = words.split_once(':').map_or((words, None), |(name, group)| (name, Some(group)));
    if let Ok(uid) = name.parse() {
        user.uid = uid;
    } else {
        let found = read("/etc/passwd").find(|fields| fields.first().is_some_and(|known| known == name));
        let missing = || format!("no user {name:?} in the container's /etc/passwd");
        let numbers = found.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
        (user.uid, user.gid) = numbers.with_context(missing)?;
        let member =
            |fields: &Vec<String>| fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name));
        let groups = read("/etc/group").filter(|fields| group.is_none() && member(fields));
        user.additional_gids = groups.filter_map(|fields| fields.get(2)?.parse().ok()).collect();
    }
    let Some(group) = group else { return Ok(()) };
    user.gid = match group.parse() {
        Ok(gid) => gid,
        Err(_) => read("/etc/group")
            .find(|fields| fields.first().is_some_and(|known| known == group))
            .and_then(|fields| fields.get(2)?.parse().ok())
            .with_context(|| format!("no group {group:?} in the container's /etc/group"))?,
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn names_and_numbers_are_users_and_groups() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        let passwd = b"bad\nroot:x:0:0:root:/root:/bin/sh\njos\xe9:x:7:8:Jos\xe9:/h:/bin/sh\nweb:x:33:34::/var/www:\n";
        std::fs::write(root.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(root.path().join("etc/group"), "web:x:34:\nmail:x:5:news,web\nodd:x:y:web\nlast:x:6:web")
            .unwrap();
        let directory = File::open(root.path()).unwrap();
        for (words, want) in [
            ("web", Some((33, 34, vec![5, 6]))),
            ("web:mail", Some((33, 5, vec![]))),
            ("web:0", Some((33, 0, vec![]))),
            ("1000", Some((1000, 1, vec![2]))),
            ("1000:mail", Some((1000, 5, vec![2]))),
            ("5:6", Some((5, 6, vec![2]))),
            ("nobody", None),
            ("web:nobody", None),
            ("web:odd", None),
            ("", None),
            ("-1", None),
        ] {
            let mut user = User { uid: 9, gid: 1, additional_gids: vec![2], ..User::default() };
            let found = look_up(directory.as_fd(), words, &mut user).ok();
            assert_eq!(found.map(|()| (user.uid, user.gid, user.additional_gids)), want, "{words}");
        }
    }
}
