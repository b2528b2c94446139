//! Who the container's process is: the user of the image's config (image-spec, conversion.md, "Config.User"), looked up
//! in the image's own /etc/passwd and /etc/group. Nothing of the host's name service takes part.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow, bail};

/// The kernel keeps ids above this for itself, and programs have read them as negative numbers (CVE-2024-40635).
///
/// -1 means "leave it as it is" to setresuid(2).
const LARGEST_ID: u32 = i32::MAX as u32;

/// A user as the runtime wants it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The primary group, so that leaving it is no way around its permissions (CVE-2022-36109), then the others.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// The image's accounts: passwd(5) and group(5), whose lines have the same three fields first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    users: String,
    groups: String,
}

const NAME: usize = 0;
const ID: usize = 2;
const GROUP: usize = 3;
const MEMBERS: usize = 3;
const HOME: usize = 5;

impl Accounts {
    /// Reads passwd(5) and group(5). As docker does, what a line has no field for is empty, and a group that is no number is
    /// 0. A user that is none is passed over: it would be root.
    pub(crate) fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self { users: text(passwd), groups: text(group) }
    }

    /// Resolves `USER[:GROUP]`, each a name or a number, and the groups given beside it. Without a user it is root.
    pub(crate) fn resolve(&self, spec: &str, further: &[String]) -> Result<User> {
        let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
        let with_id = |uid| lines(&self.users).find(|line| number(line, ID) == Some(uid));
        let (uid, account) = match Name::of(user).with_context(|| format!("user `{spec}`"))? {
            Name::None => (0, with_id(0)),
            Name::Number(uid) => (uid, with_id(uid)),
            Name::Text(name) => {
                let (uid, account) = named(&self.users, name, "user", "passwd")?;
                (uid, Some(account))
            }
        };
        let mut groups = Vec::new();
        let gid = if group.is_empty() {
            // Of a number, too, if a name has it: so docker, umoci, and the image specification's config.md ("user",
            // "uid"). Its conversion.md would have none.
            let name = account.and_then(|account| field(account, NAME)).filter(|name| !name.is_empty());
            let has_it =
                |line: &&str| field(line, MEMBERS).is_some_and(|all| all.split(',').any(|one| Some(one) == name));
            groups.extend(lines(&self.groups).filter(has_it).filter_map(|line| number(line, ID)));
            let gid = account.and_then(|account| number(account, GROUP));
            check(gid.unwrap_or_default()).with_context(|| format!("group of user `{spec}`"))?
        } else {
            self.group(group)?
        };
        for group in further {
            groups.push(self.group(group)?);
        }
        groups.insert(0, gid);
        let mut seen = BTreeSet::new();
        groups.retain(|gid| seen.insert(*gid));
        let home = account.and_then(|account| field(account, HOME)).filter(|home| home.starts_with('/'));
        Ok(User { uid, gid, groups, home: home.unwrap_or("/").to_owned() })
    }

    fn group(&self, group: &str) -> Result<u32> {
        match Name::of(group).with_context(|| format!("group `{group}`"))? {
            Name::Number(gid) => Ok(gid),
            Name::Text(name) => named(&self.groups, name, "group", "group").map(|(gid, _)| gid),
            Name::None => bail!("empty name of a group"),
        }
    }
}

/// Finds the line of a name, and its id.
fn named<'a>(text: &'a str, name: &str, kind: &str, file: &str) -> Result<(u32, &'a str)> {
    let line = lines(text).find(|line| field(line, NAME) == Some(name));
    let line = line.with_context(|| format!("{kind} `{name}` is not in the image's /etc/{file}"))?;
    let id = number(line, ID).ok_or_else(out_of_range).and_then(check);
    Ok((id.with_context(|| format!("{kind} `{name}`"))?, line))
}

/// Tells whether the image's account files are needed to resolve `USER[:GROUP]` at all.
pub(crate) fn is_numeric(spec: &str) -> bool {
    let number = |text: &str| text.is_empty() || matches!(Name::of(text), Ok(Name::Number(_)));
    let (user, group) = spec.split_once(':').unwrap_or((spec, ""));
    number(user) && number(group)
}

enum Name<'a> {
    None,
    Number(u32),
    Text(&'a str),
}

impl<'a> Name<'a> {
    fn of(text: &'a str) -> Result<Self> {
        if text.is_empty() {
            return Ok(Self::None);
        }
        let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Self::Text(text));
        }
        let number = text.parse().ok().filter(|_| !text.starts_with('+'));
        number.ok_or_else(out_of_range).and_then(check).map(Self::Number)
    }
}

fn check(id: u32) -> Result<u32> {
    if id <= LARGEST_ID { Ok(id) } else { Err(out_of_range()) }
}

fn out_of_range() -> anyhow::Error {
    anyhow!("the number is not between 0 and {LARGEST_ID}")
}

/// Returns the lines that have an id and are no comments.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').map(str::trim_ascii).filter(|line| !line.starts_with('#') && number(line, ID).is_some())
}

fn field(line: &str, at: usize) -> Option<&str> {
    line.split(':').nth(at)
}

fn number(line: &str, at: usize) -> Option<u32> {
    field(line, at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"# comment\nroot:x:0:0:root:/root:/bin/sh\n\nbroken\n\xff:x:1:1::/:\n\
        short:x:61:62\nempty:x:63::J\xf6rg:/e:\nnobody:x:::/:\n\
        alice:x:1000:1000:,,,:/home/alice:/bin/sh\nbig:x:4294967295:0::/:\nlow:x:7:7::relative:\n123:x:9:9::/n:\n";
    const GROUP: &[u8] =
        b"root:x:0:root\nwheel:x:10:root,alice\nalice:x:1000:\nstaff:x:50:alice\ncaf\xe9:x:77:short\nvoid\nhuge:x:2147483648:\n";

    #[test]
    fn users_are_resolved_by_the_rules_of_the_image_specification() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        for (spec, uid, gid, groups, home) in [
            ("", 0, 0, &[0, 10][..], "/root"),
            ("root", 0, 0, &[0, 10], "/root"),
            ("alice", 1000, 1000, &[1000, 10, 50], "/home/alice"),
            ("alice:", 1000, 1000, &[1000, 10, 50], "/home/alice"),
            ("alice:staff", 1000, 50, &[50], "/home/alice"),
            ("alice:0", 1000, 0, &[0], "/home/alice"),
            ("1000", 1000, 1000, &[1000, 10, 50], "/home/alice"),
            ("short", 61, 62, &[62, 77], "/"),
            ("empty", 63, 0, &[0], "/e"),
            ("1000:wheel", 1000, 10, &[10], "/home/alice"),
            ("4711", 4711, 0, &[0], "/"),
            ("4711:4712", 4711, 4712, &[4712], "/"),
            ("123", 123, 0, &[0], "/"),
            (":wheel", 0, 10, &[10], "/root"),
            ("low", 7, 7, &[7], "/"),
            ("2147483647", 2_147_483_647, 0, &[0], "/"),
        ] {
            let want = User { uid, gid, groups: groups.to_vec(), home: home.to_owned() };
            assert_eq!(accounts.resolve(spec, &[]).unwrap(), want, "{spec}");
        }
    }

    #[test]
    fn what_is_unknown_or_out_of_range_is_refused() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        for (spec, want) in [
            ("bob", "user `bob` is not in the image's /etc/passwd"),
            ("alice:nogroup", "group `nogroup` is not in the image's /etc/group"),
            ("-1", "user `-1`: the number is not between 0 and 2147483647"),
            ("+1", "user `+1`: the number is not between 0 and 2147483647"),
            ("2147483648", "user `2147483648`: the number is not between 0 and 2147483647"),
            ("4294967296", "user `4294967296`: the number is not between 0 and 2147483647"),
            ("99999999999999999999", "user `99999999999999999999`: the number is not between 0 and 2147483647"),
            ("big", "user `big`: the number is not between 0 and 2147483647"),
            ("0:-5", "group `-5`: the number is not between 0 and 2147483647"),
            ("0:huge", "group `huge`: the number is not between 0 and 2147483647"),
            ("a:b:c", "user `a` is not in the image's /etc/passwd"),
        ] {
            assert_eq!(format!("{:#}", accounts.resolve(spec, &[]).unwrap_err()), want);
        }
    }

    #[test]
    fn further_groups_are_added_once() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        let user = accounts.resolve("alice", &["staff".to_owned(), "99".to_owned()]).unwrap();
        assert_eq!(user.groups, [1000, 10, 50, 99]);
    }

    #[test]
    fn numbers_need_no_account_files() {
        for (spec, want) in [("", true), ("0", true), ("1:2", true), ("x", false), ("1:x", false), (":x", false)] {
            assert_eq!(is_numeric(spec), want, "{spec}");
        }
    }
}
