//! Whom a name means in a container.

use std::os::fd::BorrowedFd;
use std::path::Path;

use anyhow::Context;
use container::accounts::{FLAGS, entries};
use rustix::fs::ResolveFlags;

use crate::config::User;

/// Looks up `USER` or `USER:GROUP`, names or numbers, in the container with this root. A name brings its groups along.
pub(crate) fn look_up(root: BorrowedFd<'_>, words: &str, user: &mut User) -> anyhow::Result<()> {
    let read =
        |file: &str| root::open_with(root, Path::new(file), FLAGS, ResolveFlags::empty()).into_iter().flat_map(entries);
    let find = |file: &str, name: &str| read(file).find(|fields| fields.first().is_some_and(|known| known == name));
    let (name, group) = words.split_once(':').map_or((words, None), |(name, group)| (name, Some(group)));
    // A number needs no entry in /etc/passwd, as with docker's `--user`: an image without that file has no other
    // users.
    if let Ok(uid) = name.parse() {
        user.uid = uid;
    } else {
        let found = find("/etc/passwd", name);
        let missing = || format!("no user {name:?} in the container's /etc/passwd");
        let numbers = found.and_then(|fields| Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?)));
        (user.uid, user.gid) = numbers.with_context(missing)?;
        let member =
            |fields: &Vec<String>| fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name));
        // A group that is named stands alone: initgroups(3) belongs to a user's name without one.
        let groups = read("/etc/group").filter(|fields| group.is_none() && member(fields));
        user.additional_gids = groups.filter_map(|fields| fields.get(2)?.parse().ok()).collect();
    }
    let Some(group) = group else { return Ok(()) };
    let named = || find("/etc/group", group)?.get(2)?.parse().ok();
    let missing = || format!("no group {group:?} in the container's /etc/group");
    user.gid = group.parse().ok().or_else(named).with_context(missing)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
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
