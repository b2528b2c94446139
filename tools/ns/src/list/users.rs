//! Names of users, from /etc/passwd: a static program cannot ask the name service.

use std::collections::HashMap;
use std::fs;

/// Names by uid; the first line of a uid counts.
#[derive(Debug, Default)]
pub(crate) struct Users(HashMap<u32, String>);

impl Users {
    /// Reads /etc/passwd.
    pub(crate) fn read() -> Self {
        Self::parse(&String::from_utf8_lossy(&fs::read("/etc/passwd").unwrap_or_default()))
    }

    fn parse(passwd: &str) -> Self {
        let mut users = HashMap::new();
        for line in passwd.lines() {
            let mut fields = line.split(':');
            let (Some(name), Some(uid)) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok())) else {
                continue;
            };
            users.entry(uid).or_insert_with(|| name.to_owned());
        }
        Self(users)
    }

    /// Returns the user's name, or the number where it has none.
    pub(crate) fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_without_a_name_is_a_number() {
        let users = Users::parse("root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nodd:x:no:1\n");
        assert_eq!((users.name(0), users.name(7)), ("root".to_owned(), "7".to_owned()));
    }
}
