//! The environment of the container's program.

use std::fs;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;

use crate::config::Process;

/// Returns the variables: the last of several with one name counts, and `HOME` is the user's if nobody has set it.
/// Called inside the container's root.
pub(crate) fn complete(process: &Process) -> Vec<String> {
    let mut complete: Vec<String> = Vec::with_capacity(process.env.len() + 1);
    let name = |variable: &str| variable.split('=').next().unwrap_or(variable).to_owned();
    for variable in &process.env {
        match complete.iter_mut().find(|other| name(other) == name(variable)) {
            Some(other) => other.clone_from(variable),
            None => complete.push(variable.clone()),
        }
    }
    if !complete.iter().any(|variable| variable.starts_with("HOME=") && variable.len() > 5) {
        complete.retain(|variable| !variable.starts_with("HOME="));
        complete.push(format!("HOME={}", home(process.user.uid)));
    }
    complete
}

fn home(uid: u32) -> String {
    // The file is the image's: it may be a pipe, or endless.
    let open = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd");
    let mut text = String::new();
    if let Ok(file) = open {
        let _unreadable = file.take(1 << 20).read_to_string(&mut text);
    }
    find_home(&text, uid).unwrap_or("/").to_owned()
}

fn find_home(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.nth(2)?.parse() == Ok(uid)).then(|| fields.nth(2)).flatten().filter(|home| !home.is_empty())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn home_is_the_user_s() {
        let passwd = "bad\nroot:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\nnone:x:34:34:::\n";
        for (uid, want) in [(0, Some("/root")), (33, Some("/var/www")), (34, None), (1, None)] {
            assert_eq!(find_home(passwd, uid), want);
        }
    }

    #[test]
    fn the_last_of_several_counts() {
        let process = Process { env: ["A=1", "HOME=/h", "A=2"].map(String::from).to_vec(), ..Process::default() };
        assert_eq!(complete(&process), ["A=2", "HOME=/h"]);
    }
}
