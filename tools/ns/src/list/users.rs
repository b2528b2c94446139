//! Names of users, from /etc/passwd.

use std::collections::HashMap;
use std::path::Path;

use container::accounts;

/// Names by uid; the first line of a uid counts.
#[derive(Debug, Default)]
pub(crate) struct Users(HashMap<u32, String>);

impl Users {
    /// Reads /etc/passwd.
    pub(crate) fn read() -> Self {
        Self::of(accounts::users(Path::new("/")))
    }

    fn of(entries: impl Iterator<Item = Vec<String>>) -> Self {
        let mut users = HashMap::new();
        for fields in entries {
            if let Some(uid) = fields.get(accounts::UID).and_then(|uid| uid.parse().ok()) {
                users.entry(uid).or_insert_with(|| fields[accounts::NAME].clone());
            }
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
        let lines = "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:/bin/sh\nbroken\nodd:x:no:1";
        let users = Users::of(lines.lines().map(|line| line.split(':').map(str::to_owned).collect()));
        assert_eq!((users.name(0), users.name(7)), ("root".to_owned(), "7".to_owned()));
    }
}
