//! Who has an account, in a container or on the host: passwd(5) and group(5), read by hand, as a static program cannot ask
//! the name service. A container's files are its image's: of any size and in any bytes, or a pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// Nobody has more users: a file that grows while it is read is no list.
const LONGEST: u64 = 1 << 26;

/// How such a file is opened: a pipe would not open otherwise.
pub const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC);

/// The field of a user's entry with the name.
pub const NAME: usize = 0;
/// With the number.
pub const UID: usize = 2;
/// With the home directory.
pub const HOME: usize = 5;
/// With the program at login.
pub const SHELL: usize = 6;

/// Returns the fields of each line of an open file; what is no ordinary file has none.
pub fn entries(file: OwnedFd) -> impl Iterator<Item = Vec<String>> {
    let file = File::from(file);
    let length = if file.metadata().is_ok_and(|file| file.is_file()) { LONGEST } else { 0 };
    let lines = BufReader::new(file.take(length)).split(b'\n').map_while(Result::ok);
    lines.map(|line| String::from_utf8_lossy(&line).split(':').map(str::to_owned).collect())
}

/// Returns the entries of all users below a root that is trusted.
pub fn users(root: &Path) -> impl Iterator<Item = Vec<String>> {
    rustix::fs::open(root.join("etc/passwd"), FLAGS, Mode::empty()).into_iter().flat_map(entries)
}

/// Returns a field of a user's entry, if that has one, as this process sees it.
pub fn field(uid: u32, at: usize) -> Option<String> {
    users(Path::new("/")).find_map(|fields| {
        let field = fields.get(at).filter(|field| !field.is_empty())?;
        (fields.get(UID)?.parse() == Ok(uid)).then(|| field.clone())
    })
}
