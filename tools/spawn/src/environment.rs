//! The environment of the container's program.

use container::accounts;
use indexmap::IndexMap;

use crate::config::Process;

/// Returns the variables: the last of several with one name counts, and `HOME` is the user's if nobody has set it.
/// Called inside the container's root.
pub(crate) fn complete(process: &Process) -> Vec<String> {
    // execve(2) takes the same name twice, and libc's getenv(3) would find the first: but the last is what a caller of
    // `--env` has added. It keeps the first one's place.
    let name = |variable: &str| variable.split_once('=').map_or(variable, |(name, _)| name).to_owned();
    let mut complete: IndexMap<String, String> =
        process.env.iter().map(|variable| (name(variable), variable.clone())).collect();
    // An empty one is none.
    complete.retain(|_, variable| !matches!(variable.as_str(), "HOME" | "HOME="));
    complete.entry("HOME".to_owned()).or_insert_with(|| {
        format!("HOME={}", accounts::field(process.user.uid, accounts::HOME).as_deref().unwrap_or("/"))
    });
    complete.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::User;

    #[test]
    fn the_last_of_several_counts() {
        let process = Process { env: ["A=1", "HOME=/h", "A=2"].map(String::from).to_vec(), ..Process::default() };
        assert_eq!(complete(&process), ["A=2", "HOME=/h"]);
        let user = User { uid: 2_000_000_000, ..User::default() };
        for env in [&["HOME="][..], &["HOME=/h", "HOME="], &["HOME=", "HOME=/h", "HOME"]] {
            let env = env.iter().copied().map(String::from).collect();
            assert_eq!(complete(&Process { env, user: user.clone(), ..Process::default() }), ["HOME=/"]);
        }
        let many = (0..40_000).map(|number| format!("SERVICE_{}={number}", number / 2)).collect();
        let complete = complete(&Process { env: many, ..Process::default() });
        assert_eq!((complete.len(), complete[19_999].as_str()), (20_001, "SERVICE_19999=39999"));
    }
}
